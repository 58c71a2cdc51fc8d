"""Small 8-bit copies of pictures, to look at and to keep."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.depths import bright_value
from handful.data.images import Picture, read_picture

THUMBNAIL_SIDE = 420  # a report shows parts of it beside those of pictures of this size


def thumbnail(picture: Picture, *, longest: int) -> NDArray[np.uint8]:
    """An 8-bit copy to look at, its longer side at most `longest`; most of 16-bit pixels' range is stretched to it."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8:
        low, high = int(pixels.min()), bright_value(picture)
        pixels = ((np.clip(pixels, low, high).astype(np.float32) - low) * (255 / max(1, high - low))).astype(np.uint8)
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
