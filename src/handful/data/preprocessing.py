"""Pixels → the model-input frame, and the way back to the original's pixels."""

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.images import Picture, read_picture

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
            return _in_halves(picture.pixels, self.size) if halves else _resize(picture.pixels, self.size)
        deep = np.clip(_resize_deep(picture.pixels, self.size) / (2**self.bits - 1), 0, 1)
        return np.ascontiguousarray(deep.transpose(2, 0, 1))


def _resize(pixels: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize 8-bit pixels: (h, w, 3) → (3, H, W) in [0, 1].

    Across and then down: Pillow, asked for both at once, rounds another order's values from version 13 on where a
    picture is tall, and the same inspector would score them differently.
    """
    image = np.empty((3, *size), np.float32)
    _down(_across(pixels, size[1]), image)
    return image


def _in_halves(pixels: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.float32]:
    """As `_resize`: rows do not depend on each other across, nor columns down, so that two threads share them."""
    (height, width), rows = size, len(pixels)
    narrow, image = Image.new("RGB", (width, rows)), np.empty((3, height, width), np.float32)

    def across(start: int, end: int) -> None:
        narrow.paste(_across(pixels[start:end], width), (0, start))

    def down(start: int, end: int) -> None:
        _down(narrow.crop((start, 0, end, rows)), image[:, :, start:end])

    for work, count in ((across, rows), (down, width)):
        other = _second_thread().submit(work, count // 2, count)
        if count > 1:
            work(0, count // 2)
        other.result()
    return image


def _across(pixels: NDArray[np.integer], width: int) -> Image.Image:
    return Image.fromarray(pixels).resize((width, len(pixels)), Image.Resampling.BICUBIC)


def _down(narrow: Image.Image, image: NDArray[np.float32]) -> None:
    """Resize a picture to the height of an image (3, H, W), its own in all but height, and write it there."""
    resized = narrow.resize((narrow.width, image.shape[1]), Image.Resampling.BICUBIC)
    np.divide(np.asarray(resized).transpose(2, 0, 1), np.float32(255), out=image)  # bytes are fewer to move


@cache
def _second_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="handful-resize")


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
