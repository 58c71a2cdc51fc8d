"""The writing of a folder of pictures as 8-bit PNG, completely or not at all."""

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
    """A good picture and its place in the written folder.

    Attributes:
        source: the path of the picture.
        category: the category; "" if the written folder is itself the category.
        split: train or test.
        name: the name of the written file, without suffix.
    """

    source: Path
    category: str
    split: str
    name: str


def plan(sources: Sequence[Path], *, category: str, split: str) -> list[Planned]:
    """Plan the pictures of a split under their own names, or with numbers before them if two names are equal."""
    stems = [path.stem for path in sources]
    if len({stem.casefold() for stem in stems}) < len(stems):
        stems = [f"{number:03d}_{stem}" for number, stem in enumerate(stems)]
    return [Planned(path, category, split, stem) for path, stem in zip(sources, stems, strict=True)]


def seed_of(*parts: object) -> int:
    """A seed of 63 bits from the names of a picture, so that the seed does not depend on other pictures."""
    named = "\0".join(map(str, parts)).encode("utf-8", "surrogateescape")
    return int.from_bytes(hashlib.sha256(named).digest()[:8]) >> 1


def depth_of(planned: Sequence[Planned]) -> int:
    """The depth that 16-bit pictures are scaled by, from a sample of the planned pictures; 8 without 16-bit pictures.

    Raises:
        ImageError: for an unreadable picture.
    """
    some = planned[:: max(1, len(planned) // 8)][:8]
    return bits_of([read_picture(picture.source) for picture in some])


def read_eight_bits(path: Path, bits: int) -> NDArray[np.uint8]:
    """A picture as upright RGB (H, W, 3); 16-bit pixels are scaled by the highest value of `bits`, of 16 bits for 8.

    Raises:
        ImageError: if the picture cannot be read.
    """
    pixels = read_picture(path).pixels
    if pixels.dtype == np.uint8:
        return pixels.astype(np.uint8, copy=False)
    most = 2 ** (bits if bits > 8 else 16) - 1
    scaled: NDArray[np.uint8] = np.rint(np.minimum(pixels, most) * (255 / most)).astype(np.uint8)
    return scaled


def write_png(path: Path, pixels: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) or (H, W) as PNG, and make a missing folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path, "PNG", compress_level=3)  # a third of the default level's time, a tenth larger


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """A hidden folder beside `path`, which is renamed to `path` at the end, or removed if the block raises an error.

    Raises:
        OutputError: if there is a file or a folder with files at `path`, or if the folder cannot be written.
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
