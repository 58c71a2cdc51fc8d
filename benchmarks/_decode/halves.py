"""Half-copied files whose length the copier had reserved, and pictures that truly end in black."""

import io
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import tifffile
from PIL import Image

from _decode.cell import Array, pillow_file
from handful.data.images import read_picture
from handful.errors import ImageError

CUTS = 13  # of each file: after a quarter, half and nine tenths, and at random places, half of them whole blocks
BLOCK = 4096  # bytes that copiers write at a time, or a multiple


def encoded(pixels: Array) -> dict[str, bytes]:
    """One picture (h, w, 3) as a file of each format and compression."""
    image = Image.fromarray(pixels)
    grey = np.asarray(image.convert("L"))
    return {
        "JPEG": pillow_file(image, "JPEG", quality=90),
        "JPEG, progressive": pillow_file(image, "JPEG", quality=90, progressive=True),
        "PNG": pillow_file(image, "PNG", compress_level=1),
        "PNG, stored": pillow_file(image, "PNG", compress_level=0),
        "BMP": pillow_file(image, "BMP"),
        "BMP, grey": pillow_file(Image.fromarray(grey), "BMP"),
        "GIF": pillow_file(image, "GIF"),
        "WebP": pillow_file(image, "WEBP", quality=80),
        "WebP, lossless": pillow_file(image, "WEBP", lossless=True, method=0),
        "JPEG 2000": bytes(imagecodecs.jpeg2k_encode(pixels, level=40)),
        "PNM": pillow_file(image, "PPM"),
        "TIFF": _tiff(pixels, photometric="rgb"),
        "TIFF, grey of 16 bits": _tiff(grey.astype(np.uint16) * 4, photometric="minisblack"),
        "TIFF, strips": _tiff(pixels, photometric="rgb", rowsperstrip=16),
        "TIFF, tiles": _tiff(pixels, photometric="rgb", tile=(64, 64)),
        "TIFF, LZW": _tiff(pixels, photometric="rgb", compression="lzw", rowsperstrip=16),
        "TIFF, Deflate": _tiff(pixels, photometric="rgb", compression="deflate"),
        "TIFF, PackBits": _tiff(pixels, photometric="rgb", compression="packbits"),
        "TIFF, by Pillow": pillow_file(image, "TIFF", compression="tiff_lzw"),
    }


def _tiff(values: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def refused(data: bytes) -> bool:
    """Whether a file is refused."""
    try:
        read_picture(data)
    except ImageError:
        return True
    return False


def half_copies(data: bytes, random: np.random.Generator) -> Iterator[bytes]:
    """A file cut in places, zeros in the rest."""
    size = len(data)
    places = [size // 4, size // 2, size * 9 // 10, *random.integers(200, size - 600, CUTS - 3).tolist()]
    for number, place in enumerate(places):
        cut = place // BLOCK * BLOCK if number % 2 and place > BLOCK else place
        yield data[:cut] + bytes(size - cut)


def found(paths: list[Path]) -> dict[str, tuple[int, int]]:
    """How many half-copied files of real pictures are refused, of how many, by format; whole ones must be read."""
    random, counts = np.random.default_rng(0), dict[str, tuple[int, int]]()
    for path in paths:
        image = Image.open(path).convert("RGB")
        image.thumbnail((512, 512))
        for kind, data in encoded(np.asarray(image)).items():
            outcomes = [refused(half) for half in half_copies(data, random)]
            before = counts.get(kind, (0, 0))
            counts[kind] = before[0] + sum(outcomes), before[1] + len(outcomes)
    return counts


def alarms() -> tuple[int, int]:
    """How many whole files of pictures that end in black, or are even, are refused, of how many."""
    outcomes = [refused(data) for pixels in _dark() for data in encoded(pixels).values()]
    return sum(outcomes), len(outcomes)


def _dark() -> Iterator[Array]:
    random = np.random.default_rng(0)
    y, x = np.mgrid[:300, :400]
    for level in (0, 7, 255):
        yield np.full((300, 400, 3), level, np.uint8)
    yield random.poisson(0.3, (300, 400, 3)).astype(np.uint8)
    noise = random.integers(80, 200, (300, 400, 3))
    yield np.where(np.hypot(y - 150, x - 200)[:, :, None] < 100, noise, 0).astype(np.uint8)
    yield np.where(y[:, :, None] < 140, noise, 0).astype(np.uint8)
    for angle in (1, 5, 30, 45, 80):
        frame = Image.new("RGB", (400, 300))
        frame.paste(Image.fromarray(noise[:150, :200].astype(np.uint8)).rotate(angle, expand=True), (60, 20))
        yield np.asarray(frame)
    mark = np.zeros((2000, 2000, 3), np.uint8)
    mark[300:320, 400:600] = 255
    yield mark
