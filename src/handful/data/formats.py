"""The picture formats that can be read, recognised by a file's first bytes, and the error of a refused picture."""

import re

# Suffixes of files that count as pictures whatever their content, so that a damaged picture raises an error when read.
SUFFIXES = (
    *(".bmp", ".dib", ".gif", ".j2c", ".j2k", ".jfif", ".jp2", ".jpe", ".jpeg", ".jpf", ".jpg", ".jpx"),
    *(".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tif", ".tiff", ".webp"),
)
HEAD = 32  # bytes of a file that tell its format
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)  # lengths of the header that follows a BMP file's first 14 bytes
_STARTS = {
    b"\xff\xd8\xff": "JPEG",
    b"\x89PNG\r\n\x1a\n": "PNG",
    b"GIF87a": "GIF",
    b"GIF89a": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"II+\0": "TIFF",  # BigTIFF
    b"MM\0+": "TIFF",
    b"\0\0\0\x0cjP  \r\n\x87\n": "JPEG2000",
    b"\xff\x4f\xff\x51": "JPEG2000",  # a bare codestream
}


_PHONES = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1", b"msf1", b"avif")
SAVE_AS_JPEG = "save it as JPEG (an iPhone does so with Settings, Camera, Formats, Most Compatible)"


class RefusedError(Exception):
    """A picture cannot be read as its format says; the text ends a sentence that begins with the picture's name."""


def is_heic(head: bytes) -> bool:
    """Whether a file that begins with `head` is a HEIC or AVIF picture, as phones make them: these are not read."""
    return head[4:8] == b"ftyp" and head[8:12] in _PHONES


def format_of(head: bytes) -> str | None:
    """The format of a file from its first `HEAD` bytes, or all bytes of a shorter file; None for no picture."""
    for start, kind in _STARTS.items():
        if head.startswith(start):
            return kind
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[:2] == b"BM" and int.from_bytes(head[14:18], "little") in _BMP_HEADERS:
        return "BMP"
    return "PNM" if re.match(rb"P[1-6][\s#]", head) else None
