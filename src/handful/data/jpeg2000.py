"""The headers of a JPEG 2000 file, read without decoding a pixel (ISO 15444-1, annexes A and I)."""

import struct
from collections.abc import Iterator
from dataclasses import dataclass

from handful.data.formats import RefusedError

_SPACES = (b"\0\0\0\x10", b"\0\0\0\x11")  # sRGB, grey with sRGB's curve


@dataclass(frozen=True)
class Header:
    """The codestream, and the contents of the boxes around it.

    Attributes:
        codestream: the compressed picture.
        size: width and height.
        depths: bits of each component.
        profile: an embedded ICC profile, or None.
        palette: whether the components are indices into a palette.
    """

    codestream: bytes
    size: tuple[int, int]
    depths: tuple[int, ...]
    profile: bytes | None
    palette: bool


def read_header(data: bytes) -> Header:
    """Read the boxes of a JP2 file, or a bare codestream.

    Raises:
        RefusedError: if there is no codestream, more than one, or a codestream of a kind that is not supported.
    """
    boxes = [] if data[:4] == b"\xff\x4f\xff\x51" else list(_boxes(data, 0, len(data)))
    streams = [data[start:end] for kind, start, end in boxes if kind == b"jp2c"] if boxes else [data]
    if len(streams) != 1:
        came = f"{len(streams)} codestreams" if streams else "no codestream, as in a half-copied file"
        raise RefusedError(f"must hold one picture, got {came} in a JPEG 2000 file; save each as its own file.")
    (size, depths), profile, palette = _siz(streams[0]), None, False
    for outer, start, end in boxes:
        for kind, inner, stop in _boxes(data, start, end) if outer == b"jp2h" else ():
            if kind == b"ihdr":
                _check_size(data[inner:stop], size)
            palette = palette or kind == b"pclr"
            if kind == b"colr" and data[inner] == 2 and profile is None:
                profile = data[inner + 3 : stop]
            if kind == b"colr" and data[inner] == 1 and data[inner + 3 : inner + 7] not in _SPACES:
                raise RefusedError(
                    "must be grey or sRGB, got a JPEG 2000 file of another colour space; save it as PNG."
                )
    return Header(streams[0], size, depths, profile, palette)


def _check_size(header: bytes, size: tuple[int, int]) -> None:
    """Raise RefusedError for an image header box of another size than the codestream's, as Pillow trusts the box."""
    height, width = struct.unpack(">2I", header[:8].ljust(8, b"\0"))
    if (width, height) != size:
        raise RefusedError(
            f"must say its size once, got {width} x {height} and {size[0]} x {size[1]} pixels in a JPEG 2000 file; "
            "copy it again."
        )


def _boxes(data: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    """The kind of each box, and the start and end of its content."""
    while start + 8 <= end:
        length, kind = struct.unpack_from(">I4s", data, start)
        head = 8
        if length == 1 and start + 16 <= end:
            length, head = struct.unpack_from(">Q", data, start + 8)[0], 16
        stop = end if length == 0 else min(end, start + length)
        if length and length < head:
            return
        yield kind, start + head, stop
        start = stop


def _siz(stream: bytes) -> tuple[tuple[int, int], tuple[int, ...]]:
    """The size and the components' depths, from the first marker segment of a codestream."""
    try:
        right, bottom, left, top = struct.unpack_from(">4I", stream, 8)
        count = struct.unpack_from(">H", stream, 40)[0]
        components = [struct.unpack_from(">3B", stream, 42 + 3 * number) for number in range(count)]
    except struct.error as error:
        raise RefusedError("must be a readable picture, got a JPEG 2000 header cut short; copy it again.") from error
    if any(depth & 0x80 for depth, _, _ in components):
        raise RefusedError("must hold whole numbers from 0, got signed numbers in a JPEG 2000 file; save it again.")
    if len({(across, down) for _, across, down in components}) > 1:
        raise RefusedError(
            "must have as many pixels in each channel, got a JPEG 2000 file with fewer of colour; save it again."
        )
    return (right - left, bottom - top), tuple((depth & 0x7F) + 1 for depth, _, _ in components)
