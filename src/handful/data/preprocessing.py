"""Pixels → the model-input frame, and the way back to the original's pixels."""

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.images import Picture, read_picture
from handful.data.resizing import resize

THUMBNAIL_SIDE = 420  # a report shows parts of it beside those of pictures of this size
DEPTHS = (10, 12, 14, 16)  # bits that cameras use inside 16-bit files


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model input.

    The whole picture is resized to `size`, its aspect not kept (bicubic, anti-aliased, first across and then down):
    references and pictures of any size land in one frame, and nothing is cropped away.

    Attributes:
        size: (H, W) of the model input.
        bits: the depth that 16-bit pixels are scaled by, see `bits_of`; 8-bit pixels always by 255.
    """

    size: tuple[int, int]
    bits: int = 16

    def __call__(self, picture: Picture, *, halves: bool = False) -> NDArray[np.float32]:
        """Bring a picture into the model-input frame: (3, H, W) in [0, 1], contiguous.

        Args:
            picture: of 8 or 16 bits.
            halves: whether 8-bit pixels are resized in two threads: to the same values, in less time where a core is
                idle.
        """
        if picture.pixels.dtype == np.uint8:
            return resize(picture.pixels, self.size, halves=halves)
        deep = np.clip(_resize_deep(picture.pixels, self.size) / (2**self.bits - 1), 0, 1)
        return np.ascontiguousarray(deep.transpose(2, 0, 1))


def _resize_deep(pixels: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize 16-bit channels one by one in floating point: (h, w, 3) → (H, W, 3)."""
    channels = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        for channel in pixels.transpose(2, 0, 1)
    ]
    return np.stack(channels, axis=2)


def bits_of(pictures: list[Picture]) -> int:
    """The fewest bits of `DEPTHS` that hold every 16-bit pixel of the references; 16 where none has 16-bit pixels.

    A 12-bit camera writes 0 to 4095 into a 16-bit file; scaled by 65535 its pictures would be almost black.
    """
    deep = [int(picture.pixels.max()) for picture in pictures if picture.pixels.dtype == np.uint16]
    return next(bits for bits in DEPTHS if max(deep, default=65535) < 2**bits)


def thumbnail(picture: Picture, *, longest: int) -> NDArray[np.uint8]:
    """An 8-bit copy to look at, its longer side at most `longest`; 16-bit pixels are stretched to their range."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8:
        low, high = int(pixels.min()), int(pixels.max())
        pixels = ((pixels.astype(np.float32) - low) * (255 / max(1, high - low))).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def thumbnail_jpeg(picture: Picture) -> bytes:
    """A small copy to keep."""
    buffer = io.BytesIO()
    Image.fromarray(thumbnail(picture, longest=THUMBNAIL_SIDE)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def thumbnail_picture(jpeg: bytes, *, name: str) -> Picture:
    """A kept copy as a picture again."""
    return read_picture(Image.open(io.BytesIO(jpeg), formats=("JPEG",)), name=name)
