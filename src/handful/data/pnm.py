"""The decoding of PBM, PGM and PPM files, of 1 to 16 bits, as text or as bytes (netpbm's manual, 2013 and later)."""

import re

import numpy as np
from numpy.typing import NDArray

from handful.data.formats import RefusedError
from handful.data.wholeness import check_rows

_SPACE = rb"(?:\s|#[^\n]*\n)+"
_NUMBER = _SPACE + rb"(\d{1,9})"


def read_header(data: bytes) -> tuple[int, tuple[int, int], int, int]:
    """The kind 1 to 6, width and height, the value of white, and the offset of the pixels.

    Raises:
        RefusedError: if the header cannot be read.
    """
    kind = data[1] - ord("0")
    numbers = 2 if kind in (1, 4) else 3
    found = re.compile(rb"P[1-6]" + _NUMBER * numbers + rb"(?:#[^\n]*)?\s").match(data)
    if found is None:
        raise RefusedError("must be a readable picture, got a PNM header that is incomplete; save it again.")
    width, height, *white = (int(number) for number in found.groups())
    white = white or [1]
    if not 0 < white[0] < 65536:
        raise RefusedError(f"must have a largest value from 1 to 65535, got {white[0]} in a PNM header; save it again.")
    return kind, (width, height), white[0], found.end()


def decode(data: bytes) -> tuple[NDArray[np.uint8] | NDArray[np.uint16], int]:
    """Pixels (h, w, 1 or 3) and their depth in bits: 8, or 9 to 16 in uint16.

    Values with a white of 2^n - 1, n above 8, are unchanged and have n bits; other values are stretched to 8 or 16
    bits.

    Raises:
        RefusedError: if the file is incomplete, or holds several pictures.
    """
    kind, (width, height), white, start = read_header(data)
    channels = 3 if kind in (3, 6) else 1
    count = width * height * channels
    text, packed, shape = kind < 4, kind == 4, (height, width, channels)
    values = _text(data[start:], count, digits=kind == 1) if text else _bytes(data, start, shape, white, packed=packed)
    values = values.reshape(shape)
    if values.size and values.max() > white:
        raise RefusedError(f"must hold values up to its white, {white}, got {values.max()}; save it again.")
    if kind in (1, 4):  # PBM: 1 is black
        return np.where(values, 0, 255).astype(np.uint8), 8
    bits = white.bit_length()
    if bits > 8:
        even = white == 2**bits - 1
        stretched = values if even else np.rint(values * (65535 / white))
        return stretched.astype(np.uint16), bits if even else 16
    return (values if white == 255 else np.rint(values * (255 / white))).astype(np.uint8), 8


def _text(data: bytes, count: int, *, digits: bool) -> NDArray[np.integer]:
    """The values of pixels as text; for PBM (`digits`) single digits, with or without blanks between them."""
    bare = re.sub(rb"#[^\n]*", b"", data)
    found = re.findall(rb"[01]" if digits else rb"\d{1,5}", bare)
    if len(found) < count:
        raise RefusedError(
            f"must be a readable picture, got {len(found)} of {count} values, as of a half-copied file; copy it again."
        )
    if len(found) > count:
        raise _several()
    return np.array(found, dtype=np.int64).clip(0, 65535).astype(np.uint16)


def _bytes(data: bytes, start: int, shape: tuple[int, int, int], white: int, *, packed: bool) -> NDArray[np.integer]:
    """The values of pixels as bytes: packed bits, single bytes, or pairs with the higher byte first."""
    height, width, channels = shape
    row = (width + 7) // 8 if packed else width * channels * (1 if white < 256 else 2)
    stored = data[start : start + row * height]
    check_rows(stored, row, height)
    if re.match(rb"\s*P[1-7]\s", data[start + row * height : start + row * height + 64]):
        raise _several()
    if packed:
        rows = np.frombuffer(stored, np.uint8).reshape(height, row)
        return np.unpackbits(rows, axis=1, count=width)
    return np.frombuffer(stored, np.uint8) if white < 256 else np.frombuffer(stored, ">u2").astype(np.uint16)


def _several() -> RefusedError:
    return RefusedError("must hold one picture, got a PNM file of several; save each as its own file.")
