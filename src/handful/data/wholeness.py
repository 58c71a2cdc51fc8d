"""Recognises half-copied files, also files whose length was reserved before the copy and whose rest is zeros.

In a format with an end marker, the file is followed to that marker. Uncompressed pixels have no end marker: such a file
counts as half-copied if a row of pixels breaks off into zeros up to the end of the file, although the row is as full as
the row above before the break, and the row above continues after the break. A break between two rows, within the first
row, or in a mostly black part of the picture is not recognised; a black area that begins within a row and reaches the
end of the picture would be mistaken for a break.
"""

import struct
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.data.formats import RefusedError

_ZEROS = bytes(512)  # the least run of zeros that may be a hole, as copiers write blocks of at least this length
_MARGIN = 4  # bytes of a row on either side of a break, to compare with the row above
_PNG_START = b"\x89PNG\r\n\x1a\n"


def check_jpeg(data: bytes) -> range | None:
    """Raise RefusedError for a JPEG without its end marker, or followed by another JPEG of the same size.

    Returns:
        The range of the EXIF segment in the file; None without EXIF.
    """
    size, scan, exif = _jpeg_header(data, 0)
    end = data.find(b"\xff\xd9", scan)
    if end < 0:
        raise _cut_short("no end marker")
    other = data.find(b"\xff\xd8\xff", end)
    while other >= 0:
        found, scan, _ = _jpeg_header(data, other)
        if found is not None and found in (size, size and size[::-1]):
            raise RefusedError("must hold one picture, got a JPEG file of several (MPO); save each as its own file.")
        other = data.find(b"\xff\xd8\xff", max(other + 3, scan))
    return exif


def _jpeg_header(data: bytes, start: int) -> tuple[tuple[int, int] | None, int, range | None]:
    """Width and height of the JPEG that begins at `start`, the offset of its pixels, and the range of its EXIF."""
    place, size, exif = start + 2, None, None
    while place + 4 <= len(data) and data[place] == 0xFF:
        marker, length = data[place + 1], int.from_bytes(data[place + 2 : place + 4])
        if marker == 0xFF:  # fill
            place += 1
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC) and place + 9 <= len(data):
            height, width = struct.unpack_from(">HH", data, place + 5)
            size = width, height
        if marker == 0xE1 and exif is None and data[place + 4 : place + 10] == b"Exif\0\0":
            exif = range(place, place + 2 + length)
        place += 2 + length
        if marker == 0xDA:
            break
    return size, min(place, len(data)), exif


def check_png(data: bytes) -> dict[bytes, bytes]:
    """Raise RefusedError for a PNG without its last chunk, with zeros and a wrong checksum, or followed by another PNG.

    Returns:
        The short chunks, by name.
    """
    place, kind, chunks = len(_PNG_START), b"", []
    while kind != b"IEND" and place + 12 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, place)
        chunks.append((place, length))
        place += 12 + length
    if kind != b"IEND" or place > len(data):
        raise _cut_short("no last chunk")
    if _ZEROS in data:
        for start, length in chunks:
            stored = int.from_bytes(data[start + 8 + length : start + 12 + length])
            if zlib.crc32(data[start + 4 : start + 8 + length]) != stored:
                raise _cut_short("a chunk whose checksum differs")
    if data.find(_PNG_START, place) >= 0:
        raise RefusedError("must hold one picture, got several PNG files in one; save each as its own file.")
    return {data[at + 4 : at + 8]: data[at + 8 : at + 8 + length] for at, length in chunks if length < 64}


def check_gif(data: bytes) -> None:
    """Raise RefusedError for a GIF without its last byte."""
    if not data.rstrip(b"\0").endswith(b";"):
        raise _cut_short("no trailer")


def check_webp(data: bytes) -> bool:
    """Raise RefusedError for a WebP file shorter than its header says.

    Returns:
        Whether the pixels' data end in zeros, which are either an even area at the bottom or a part not copied.
    """
    end = 8 + int.from_bytes(data[4:8], "little")
    if end > len(data) + 1:  # some writers leave out the last padding byte
        raise _cut_short(f"{len(data)} of {end} bytes")
    place, zeros = 12, False
    while place + 8 <= min(end, len(data)):
        kind, length = struct.unpack_from("<4sI", data, place)
        if not kind.strip(b"\0"):
            raise _cut_short("zeros where a chunk should begin")
        if kind == b"VP8 " and length >= 64:
            modes = place + 18 + (int.from_bytes(data[place + 8 : place + 11], "little") >> 5)  # where the modes end
            if not any(data[modes - 16 : modes]):
                raise _cut_short("prediction modes that end in zeros")
        place += 8 + length + length % 2
        pixels = kind in (b"VP8 ", b"VP8L", b"ANMF")
        zeros = zeros or (pixels and length >= 64 and not any(data[place - 26 : place - 2]))
    return zeros


def check_bottom(pixels: NDArray[Any]) -> None:
    """Raise RefusedError unless the lowest rows have a single colour, for a picture whose data end in zeros."""
    if np.ptp(pixels[-16:].reshape(-1, pixels.shape[2]), axis=0).max() > 2:
        raise _cut_short("pixels that end in zeros")


def check_jpeg2000(codestream: bytes) -> None:
    """Raise RefusedError for a codestream without its end marker."""
    if not codestream.endswith(b"\xff\xd9"):
        raise _cut_short("no end marker")


def check_bmp(data: bytes) -> None:
    """Raise RefusedError for a BMP file that is shorter than its rows, or breaks off into zeros."""
    start, header = struct.unpack_from("<II", data, 10)
    if header == 12:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        compression = 0
    else:
        width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    if compression in (0, 3, 6):  # not run lengths
        row = (width * bits + 31) // 32 * 4
        check_rows(data[start : start + row * abs(height)], row, abs(height))


def check_strips(data: bytes, strips: list[tuple[int, int]], *, row: int | None) -> None:
    """Raise RefusedError for a TIFF page whose strips or tiles lie outside the file or break off into zeros.

    Args:
        data: the file.
        strips: offset and length of each.
        row: bytes of a row of uncompressed pixels; None for compressed pixels.
    """
    if not strips:
        raise _cut_short("no strips")
    for start, length in strips:
        if not length or start + length > len(data):
            raise _cut_short("a strip that lies outside the file")
        if row is None and not any(data[start + max(0, length - 32) : start + length]) and length >= 8:
            raise _cut_short("compressed pixels that end in zeros")
    last = strips[-1]
    if row is not None and not any(data[max(last[0], sum(last) - row) : sum(last)]):
        pixels = b"".join(data[start : start + length] for start, length in strips)
        check_rows(pixels, row, 1)


def check_rows(pixels: bytes, row: int, rows: int) -> None:
    """Raise RefusedError for uncompressed pixels that are too few, or break off into zeros within a row.

    Args:
        pixels: the stored bytes.
        row: bytes of a row.
        rows: the expected number of rows.
    """
    if len(pixels) < row * rows:
        raise _cut_short(f"{len(pixels)} of {row * rows} bytes of pixels")
    used = len(pixels.rstrip(b"\0"))
    begin, column = used - used % row if row else 0, used % row if row else 0
    if not column or not begin or len(pixels) - used < max(row, len(_ZEROS)):
        return
    above, broken = pixels[begin - row : begin], pixels[begin:used]
    full = _fullness(above)
    as_full = (
        _MARGIN <= column <= row - _MARGIN
        and full >= 0.25
        and _fullness(above[column:]) >= full / 2
        and _fullness(broken) >= _fullness(above[:column]) / 2
    )
    if as_full or (0 not in above and 0 not in broken):
        raise _cut_short("pixels that break off into zeros within a row")


def _fullness(values: bytes) -> float:
    """The share of bytes that are not zero."""
    return 1 - values.count(0) / len(values)


def _cut_short(what: str) -> RefusedError:
    return RefusedError(f"must be a readable picture, got a half-copied or damaged file ({what}); copy it again.")
