"""Small 8-bit copies of pictures, for reports and saved inspectors."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.depths import bright_value
from handful.data.images import Picture, read_picture

THUMBNAIL_SIDE = 420  # pixels of the longer side; reports show parts of thumbnails beside parts of such pictures


def thumbnail(picture: Picture, *, longest: int) -> NDArray[np.uint8]:
    """An 8-bit copy for people, its longer side at most `longest`; 16-bit pixels are stretched to 8 bits."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8:
        low, high = int(pixels.min()), bright_value(picture)
        pixels = ((np.clip(pixels, low, high).astype(np.float32) - low) * (255 / max(1, high - low))).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def thumbnail_jpeg(picture: Picture) -> bytes:
    """A thumbnail of a picture as a JPEG file."""
    buffer = io.BytesIO()
    Image.fromarray(thumbnail(picture, longest=THUMBNAIL_SIDE)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def thumbnail_picture(jpeg: bytes, *, name: str) -> Picture:
    """The picture in a thumbnail's JPEG file."""
    return read_picture(Image.open(io.BytesIO(jpeg), formats=("JPEG",)), name=name)
