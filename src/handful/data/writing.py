"""Write a folder of pictures: all of it or nothing, 8-bit PNG whatever the source was."""

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.depths import bits_of
from handful.data.images import read_picture
from handful.errors import HandfulError, OutputError
from handful.files import aside, output_error, sweep


@dataclass(frozen=True)
class Planned:
    """A good picture and where it goes.

    Attributes:
        source: where it lies.
        category: "" where the folder written is itself the category.
        split: train or test.
        name: the file's name there, without suffix.
    """

    source: Path
    category: str
    split: str
    name: str


def plan(sources: Sequence[Path], *, category: str, split: str) -> list[Planned]:
    """Give every picture of one split its name: its own, or with its number before it where two names are equal."""
    stems = [path.stem for path in sources]
    if len({stem.casefold() for stem in stems}) < len(stems):
        stems = [f"{number:03d}_{stem}" for number, stem in enumerate(stems)]
    return [Planned(path, category, split, stem) for path, stem in zip(sources, stems, strict=True)]


def seed_of(*parts: object) -> int:
    """A seed of 63 bits for one picture, drawn from what names it, so that no other picture changes it."""
    named = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(named).digest()[:8]) >> 1


def depth_of(planned: Sequence[Planned]) -> int:
    """The bits of the 16-bit pictures among some of those planned, which all are then scaled by; 8 where none has 16.

    Raises:
        ImageError: if one cannot be read.
    """
    some = planned[:: max(1, len(planned) // 8)][:8]
    return bits_of([read_picture(picture.source) for picture in some])


def read_eight_bits(path: Path, bits: int) -> NDArray[np.uint8]:
    """One picture as upright RGB: (H, W, 3); 16-bit pixels are scaled by the most that `bits` holds, 16 for 8.

    Raises:
        ImageError: if it cannot be read.
    """
    pixels = read_picture(path).pixels
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    most = 2 ** (bits if bits > 8 else 16) - 1
    scaled: NDArray[np.uint8] = np.rint(np.minimum(pixels, most) * (255 / most)).astype(np.uint8)
    return scaled


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) or (H, W) as PNG, making its folder where that is missing."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG", compress_level=3)  # a third of the usual level's time, a tenth larger


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path` to write to, which takes that name at the end, or vanishes when the block raises.

    Raises:
        OutputError: if something other than an empty folder is at `path`, or it cannot be written.
    """
    try:
        sweep(path.parent)
        if path.exists() and not (path.is_dir() and not any(path.iterdir())):
            came = "a folder that is not empty" if path.is_dir() else "a file"
            raise OutputError(f"{path} must be new, or an empty folder, got {came}; choose another place.")
        with aside(path, folder=True) as temporary:
            yield temporary
            if path.is_dir():
                path.rmdir()
            temporary.rename(path)
    except HandfulError:
        raise
    except OSError as error:
        raise output_error(path, error) from error
