"""The directories of a TIFF file, read without decoding a pixel (TIFF 6.0, 1992, section 2; BigTIFF)."""

import re
import struct
from dataclasses import dataclass, field

from handful.data.formats import RefusedError

WIDTH, HEIGHT, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
FILL_ORDER, OFFSETS, SAMPLES, ROWS_PER_STRIP, BYTE_COUNTS, PLANES = 266, 273, 277, 278, 279, 284
TILE_WIDTH, TILE_OFFSETS, TILE_BYTE_COUNTS, EXTRA_SAMPLES, SAMPLE_FORMAT = 322, 324, 325, 338, 339
SUBFILE_TYPE, OLD_SUBFILE_TYPE, INKS, SUB_DIRECTORIES, DNG_VERSION = 254, 255, 332, 330, 50706
DESCRIPTION, DEPTH = 270, 32997
WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE, CMYK, YCBCR = 0, 1, 2, 3, 5, 6

_TYPES = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 13: "I", 16: "Q", 17: "q", 18: "Q"}  # whole numbers
MULTIPLIED, SEPARATE = 1, 2  # opacity whose colours are multiplied by it, or not
_COMPRESSIONS = (1, 2, 3, 4, 5, 7, 8, 32773, 32946)  # none, CCITT's three, LZW, JPEG, Deflate, PackBits, old Deflate
_NAMES = {WHITE_IS_ZERO: "grey", BLACK_IS_ZERO: "grey", RGB: "RGB", PALETTE: "a palette", CMYK: "CMYK", YCBCR: "YCbCr"}
_GREY = {(1, 1), (1, 2), (1, 4), (1, 8), (1, 16)}
_KNOWN = {  # channels and bits that are decoded exactly, by photometric interpretation
    WHITE_IS_ZERO: _GREY,
    BLACK_IS_ZERO: _GREY | {(2, 8)},
    RGB: {(3, 8), (4, 8), (3, 16), (4, 16)},
    PALETTE: {(1, 1), (1, 2), (1, 4), (1, 8)},
    CMYK: {(4, 8)},
    YCBCR: {(3, 8)},
}
_MOSAICS = (32803, 34892)  # colour filter array, linear raw
_LONGEST_TEXT = 65536  # bytes of a description that are searched
_MOST_PAGES = 4096  # a file of more pages counts as an attack
_MOST_TAGS = 1024  # of one page
_MOST_VALUES = 1_000_000  # of one tag: a picture of 100 million pixels has fewer strips


@dataclass(frozen=True, eq=False)
class Page:
    """A directory of a TIFF file.

    Attributes:
        number: the number of the directory among the file's main directories, from 0.
        little_endian: whether the lower byte comes first.
        data: the bytes of the file.
        entries: for each tag the type and the number of its values, and the bytes that hold the values or their offset.
    """

    number: int
    little_endian: bool
    data: bytes = field(repr=False)
    entries: dict[int, tuple[int, int, bytes]] = field(repr=False)

    def values(self, tag: int) -> tuple[int, ...]:
        """The whole numbers of a tag; empty if the tag is absent or holds values of another type.

        Raises:
            RefusedError: if the values lie outside the file.
        """
        kind, count, inline = self.entries.get(tag, (0, 0, b""))
        if kind not in _TYPES or not 0 < count <= _MOST_VALUES:
            return ()
        form = struct.Struct(f"{'<' if self.little_endian else '>'}{count}{_TYPES[kind]}")
        if form.size <= len(inline):
            return form.unpack_from(inline)
        offset = int.from_bytes(inline, "little" if self.little_endian else "big")
        if offset + form.size > len(self.data):
            raise _outside()
        return form.unpack_from(self.data, offset)

    def one(self, tag: int, default: int) -> int:
        """The first value of a tag, or the default without values."""
        values = self.values(tag)
        return values[0] if values else default

    @property
    def size(self) -> tuple[int, int]:
        """Width and height as stored."""
        return self.one(WIDTH, 0), self.one(HEIGHT, 0)

    @property
    def is_picture(self) -> bool:
        """Whether the page is neither a smaller copy nor a mask of another."""
        return not self.one(SUBFILE_TYPE, 0) & 5 and self.one(OLD_SUBFILE_TYPE, 1) != 2

    @property
    def holds_stack(self) -> bool:
        """Whether the page states that further pictures, without their own pages, follow its pixels."""
        _, count, inline = self.entries.get(DESCRIPTION, (0, 0, b""))
        start = int.from_bytes(inline, "little" if self.little_endian else "big")
        text = self.data[start : start + min(count, _LONGEST_TEXT)]
        images = re.match(rb"ImageJ=.*?^images=(\d+)", text, re.DOTALL | re.MULTILINE)
        truncated = re.match(rb'\{.*"truncated": true', text, re.DOTALL)  # tifffile's
        return self.one(DEPTH, 1) > 1 or bool(truncated) or (images is not None and int(images[1]) > 1)

    @property
    def bits(self) -> int:
        """Bits of each sample."""
        return self.one(BITS, 1)

    @property
    def samples(self) -> int:
        """Channels, opacity included."""
        return self.one(SAMPLES, 1)

    @property
    def opacity(self) -> int:
        """The kind of opacity: 0 for none or an unknown kind, `MULTIPLIED` or `SEPARATE`."""
        extra = self.values(EXTRA_SAMPLES)
        colours = 1 if self.one(PHOTOMETRIC, 0) in (WHITE_IS_ZERO, BLACK_IS_ZERO, PALETTE) else 3
        return extra[0] if extra and self.samples > colours else 0

    def strips(self) -> list[tuple[int, int]]:
        """Offset and length of each strip or tile."""
        tiled = TILE_OFFSETS in self.entries
        offsets = self.values(TILE_OFFSETS if tiled else OFFSETS)
        lengths = self.values(TILE_BYTE_COUNTS if tiled else BYTE_COUNTS)
        if not lengths and len(offsets) == 1:  # old writers left the length of an uncompressed page out
            lengths = (len(self.data) - offsets[0],)
        return list(zip(offsets, lengths, strict=False))

    def row_bytes(self) -> int | None:
        """Bytes of a row of pixels of a strip or tile; None for compressed pixels."""
        if self.one(COMPRESSION, 1) != 1:
            return None
        together = self.samples if self.one(PLANES, 1) == 1 else 1
        return (self.one(TILE_WIDTH, self.size[0]) * self.bits * together + 7) // 8

    def refuse_unknown(self) -> None:
        """Raise RefusedError, with the cause, for a page that would not be decoded exactly."""
        bits, samples, kind = self.values(BITS) or (1,), self.samples, self.one(PHOTOMETRIC, 0)
        apart = self.one(PLANES, 1) == 2 and samples > 1
        if self.one(COMPRESSION, 1) not in _COMPRESSIONS:
            raise _unknown("be compressed in a known way", f"compression {self.one(COMPRESSION, 1)}")
        if set(self.values(SAMPLE_FORMAT)) - {1}:
            came = "floating point" if 3 in self.values(SAMPLE_FORMAT) else "signed or complex numbers"
            raise _unknown("hold whole numbers from 0", came)
        if len(set(bits)) > 1:
            raise _unknown("have one depth in all channels", f"{bits} bits")
        known = _KNOWN.get(kind)
        if known is None:
            raise _unknown("be grey, RGB, CMYK or of a palette", f"photometric interpretation {kind}")
        if (samples, bits[0]) not in known:
            raise _unknown("be of a known make-up", f"{_NAMES[kind]} of {samples} x {bits[0]} bits")
        if kind == YCBCR and self.one(COMPRESSION, 1) != 7:
            raise _unknown("be RGB where it is not compressed as JPEG", "YCbCr")
        if kind == RGB and samples == 4 and not self.values(EXTRA_SAMPLES):
            raise _unknown("say what its fourth channel is", "none that does (ExtraSamples)")
        if apart and bits[0] != 8:
            raise _unknown("hold its channels pixel by pixel", f"channels of {bits[0]} bits in separate planes")
        if apart and self.values(EXTRA_SAMPLES)[:1] in ((0,), (MULTIPLIED,)):
            raise _unknown(
                "hold its channels pixel by pixel", "planes of colour multiplied by opacity, or of no meaning"
            )
        if bits[0] == 16 and kind == WHITE_IS_ZERO and not self.little_endian:
            raise _unknown("have black as 0", "white as 0 in 16 bits, higher byte first")
        if self.one(FILL_ORDER, 1) == 2 and (bits[0] == 16 or (bits[0] == 8 and kind == WHITE_IS_ZERO)):
            raise _unknown("hold the higher bit first", f"the lower bit first in {bits[0]} bits")
        if kind == CMYK and self.one(INKS, 1) != 1:
            raise _unknown("have the inks cyan, magenta, yellow and black", "other inks")


def read_pages(data: bytes) -> list[Page]:
    """The pages that are pictures, not previews or masks, in order.

    Raises:
        RefusedError: if the file is a raw camera file, holds no picture, or its directories cannot be read.
    """
    if data[8:10] == b"CR":
        raise _raw("Canon's CR2")
    little, big = data[:2] == b"II", data[2:4] in (b"+\0", b"\0+")
    offset = int.from_bytes(data[8:16] if big else data[4:8], "little" if little else "big")
    found: list[Page] = []
    visited: set[int] = set()
    while offset:
        if offset in visited or len(found) == _MOST_PAGES:
            raise RefusedError("must be a readable picture, got TIFF directories without an end; save it again.")
        visited.add(offset)
        page, offset = _read_page(len(found), data, offset, little=little, big=big)
        if not page.entries:
            raise _outside()
        found.append(page)
    for page in found:
        _refuse_raw(page, big=big)
    pictures = [page for page in found if page.is_picture]
    if not pictures:
        raise RefusedError("must hold a picture, got a TIFF file of previews or masks alone; save it again.")
    if len(found) == 1 and pictures[0].holds_stack:
        raise RefusedError("must hold one picture, got a TIFF file with a stack of them; save each as its own file.")
    return pictures


def read_first(data: bytes) -> Page:
    """The first directory of a TIFF file, or of EXIF, which has TIFF's form; RefusedError for a damaged file."""
    little = data[:2] == b"II"
    if data[:2] not in (b"II", b"MM"):
        raise _outside()
    offset = int.from_bytes(data[4:8], "little" if little else "big")
    return _read_page(0, data, offset, little=little, big=False)[0]


def _read_page(number: int, data: bytes, offset: int, *, little: bool, big: bool) -> tuple[Page, int]:
    """The directory at an offset, and the offset of the next directory or 0."""
    order = "<" if little else ">"
    try:
        count = struct.unpack_from(f"{order}Q" if big else f"{order}H", data, offset)[0]
        entry = struct.Struct(f"{order}HHQ8s" if big else f"{order}HHI4s")
        place = offset + (8 if big else 2)
        following = struct.unpack_from(f"{order}Q" if big else f"{order}I", data, place + count * entry.size)[0]
        rows = (entry.unpack_from(data, place + number * entry.size) for number in range(min(count, _MOST_TAGS)))
        entries = {tag: (kind, length, inline) for tag, kind, length, inline in rows}
    except (struct.error, OverflowError) as error:
        raise _outside() from error
    return Page(number, little, data, entries), following


def _refuse_raw(page: Page, *, big: bool) -> None:
    """Raise RefusedError for a camera's raw file, whose first page is only a preview."""
    if DNG_VERSION in page.entries:
        raise _raw("DNG")
    if page.one(PHOTOMETRIC, 1) in _MOSAICS:
        raise _raw("a sensor's colour mosaic")
    for offset in page.values(SUB_DIRECTORIES)[:_MOST_TAGS]:
        below, _ = _read_page(page.number, page.data, offset, little=page.little_endian, big=big)
        if below.one(PHOTOMETRIC, 1) in _MOSAICS or (below.is_picture and below.size > page.size):
            raise _raw("a preview before the picture itself")


def _raw(what: str) -> RefusedError:
    return RefusedError(f"must be developed, got a raw camera file ({what}); export it as PNG, TIFF or JPEG first.")


def _outside() -> RefusedError:
    return RefusedError(
        "must be a readable picture, got a TIFF directory that is empty or lies outside the file, as in a half-copied "
        "file; copy it again."
    )


def _unknown(must: str, came: str) -> RefusedError:
    return RefusedError(f"must {must}, got {came} in a TIFF file; save it as RGB or grey of 8 or 16 bits.")
