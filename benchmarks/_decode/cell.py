"""Picture files of every make-up beside the pixels that were written: what reads them must give these or refuse.

The writers are independent of what reads a cell: tifffile, imagecodecs, OpenCV, or bytes set by hand from the format's
standard; Pillow writes where no other writer can. Also the judge of one cell.
"""

import io
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Literal

import imagecodecs
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.images import read_picture
from handful.errors import ImageError

HEIGHT, WIDTH = 29, 37  # odd, and different, so that a wrong row length or a turn shows
DEPTHS = {"8": (8, 8), "10 in 16": (10, 16), "12 in 16": (12, 16), "16": (16, 16)}  # bits used, bits stored
LOSSY = 12  # levels of 255 by which JPEG and lossy WebP may move these smooth pictures; half of these are typical
PROFILED = 2  # levels by which two runs of a colour conversion may differ: each rounds for itself
Outcome = Literal["right", "refused", "wrong"]
Array = NDArray[Any]


@dataclass(frozen=True, eq=False)
class Cell:
    """One file.

    Attributes:
        format: as people call it.
        make: its mode, depth and layout, in words.
        data: the file.
        pixels: (h, w, 3) that its format says, uint8 or uint16, upright.
        tolerance: by which each value may differ.
    """

    format: str
    make: str
    data: bytes
    pixels: Array
    tolerance: float = 0


def judge(cell: Cell) -> tuple[Outcome, str]:
    """Read a cell as `inspect` does, and the sentence of a refusal, or how far off the pixels are."""
    try:
        picture = read_picture(cell.data, name=cell.make)
    except ImageError as error:
        return "refused", str(error)
    if picture.pixels.shape != cell.pixels.shape or picture.pixels.dtype != cell.pixels.dtype:
        return "wrong", f"{picture.pixels.shape} {picture.pixels.dtype}, not {cell.pixels.shape} {cell.pixels.dtype}"
    off = float(abs(picture.pixels.astype(float) - cell.pixels).max())
    return ("right" if off <= cell.tolerance else "wrong"), f"off by {off:g}"


def random_values(channels: int, bits: int, *, seed: int = 0) -> Array:
    """Random values of a depth: (h, w, channels), with both ends of the range among them."""
    made = np.random.default_rng(seed).integers(0, 2**bits, (HEIGHT, WIDTH, channels))
    made[0, 0], made[-1, -1] = 0, 2**bits - 1
    return made.astype(np.uint8 if bits <= 8 else np.uint16)


def slopes(channels: int) -> Array:
    """Slopes that lossy formats keep well: (h, w, channels) uint8, each channel another."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    slopes = (x / WIDTH, y / HEIGHT, (x + y) / (WIDTH + HEIGHT), 1 - x / WIDTH)
    return np.stack([20 + 200 * slope for slope in slopes[:channels]], axis=2).astype(np.uint8)


def as_rgb(values: Array, bits: int = 8) -> Array:
    """(h, w, 1 or 3) as RGB; below 8 bits stretched to 0 to 255."""
    full = np.rint(values * (255 / (2**bits - 1))).astype(np.uint8) if bits < 8 else values
    return np.repeat(full, 3, axis=2) if full.shape[2] == 1 else full


def over_black(colour: Array, opacity: Array) -> Array:
    most = np.iinfo(colour.dtype).max
    return np.rint(as_rgb(colour).astype(float) * opacity / most).astype(colour.dtype)


def ink_to_rgb(values: Array) -> Array:
    """Ink as light, without a profile: each ink takes its share, and black takes its share of the rest."""
    ink = values.astype(float) / 255
    return np.rint(255 * (1 - ink[:, :, :3]) * (1 - ink[:, :, 3:])).astype(np.uint8)


_TO_STORED: dict[int, Callable[[Array], Array]] = {  # how an upright picture lies in a file, by EXIF orientation
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.swapaxes(0, 1),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: np.rot90(upright.swapaxes(0, 1), 2),
    8: lambda upright: np.rot90(upright, -1),
}


def as_stored(upright: Array, orientation: int) -> Array:
    return np.ascontiguousarray(_TO_STORED[orientation](upright))


def exif_of(orientation: int) -> bytes:
    entry = struct.pack(">HHIHH", 0x0112, 3, 1, orientation, 0)
    return b"MM\0*\0\0\0\x08\0\x01" + entry + b"\0\0\0\0"


PROFILES = {
    "Adobe RGB": imagecodecs.cms_profile("adobergb"),
    "gamma 1.8, primaries of ProPhoto": imagecodecs.cms_profile(
        "rgb", whitepoint=[0.3457, 0.3585, 1.0], primaries=[0.7347, 0.2653, 0.1596, 0.8404, 0.0366, 0.0001], gamma=1.8
    ),
}
SRGB = imagecodecs.cms_profile("srgb")


def to_srgb(values: Array, profile: bytes) -> Array:
    converted: Array = imagecodecs.cms_transform(values, profile, SRGB, colorspace="rgb", outcolorspace="rgb")
    return converted


def packed_rows(values: Array, bits: int) -> list[bytes]:
    """Rows of values (h, w, channels), each packed into bytes, higher bits and bytes first."""
    spread = (values.reshape(len(values), -1)[:, :, None] >> np.arange(bits - 1, -1, -1)) & 1
    return [np.packbits(row).tobytes() for row in spread.reshape(len(values), -1).astype(np.uint8)]


def pillow_file(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()
