"""PNG files by hand, by imagecodecs and by OpenCV."""

import struct
import zlib
from collections.abc import Iterator

import cv2
import imagecodecs
import numpy as np

from _decode.cell import (
    DEPTHS,
    PROFILED,
    PROFILES,
    SRGB,
    Array,
    Cell,
    as_rgb,
    as_stored,
    exif_of,
    over_black,
    packed_rows,
    random_values,
    to_srgb,
)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


_ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def _png_file(values: Array, bits: int, colour: int, *, extra: bytes = b"", interlaced: bool = False) -> bytes:
    """A PNG by hand; `extra` are the chunks between header and pixels."""
    passes = [values[y::down, x::across] for y, x, down, across in _ADAM7] if interlaced else [values]
    raw = b"".join(b"\0" + row for part in passes if part.size for row in packed_rows(part, bits))
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], bits, colour, 0, 0, interlaced)
    body = _chunk(b"IDAT", zlib.compress(raw)) + _chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + extra + body


def png_cells() -> Iterator[Cell]:
    for interlaced in (False, True):
        layout = ", interlaced" if interlaced else ""
        for bits in (1, 2, 4):
            grey = random_values(1, bits)
            yield Cell(
                "PNG", f"grey {bits}{layout}", _png_file(grey, bits, 0, interlaced=interlaced), as_rgb(grey, bits)
            )
        for name, (used, stored) in DEPTHS.items():
            for mode, colour, channels in (("grey", 0, 1), ("RGB", 2, 3), ("grey+alpha", 4, 2), ("RGBA", 6, 4)):
                values = random_values(channels, used)
                shown = over_black(values[:, :, :-1], values[:, :, -1:]) if channels in (2, 4) else as_rgb(values)
                data = _png_file(values, stored, colour, interlaced=interlaced)
                yield Cell("PNG", f"{mode} {name}{layout}", data, shown, 1 if channels in (2, 4) else 0)
        for bits in (1, 2, 4, 8):
            palette = random_values(3, 8, seed=1).reshape(-1, 3)[: 2**bits]
            index = random_values(1, bits)
            chunk, faint = _chunk(b"PLTE", palette.tobytes()), np.linspace(0, 255, len(palette)).astype(np.uint8)
            shown = palette[index[:, :, 0]]
            see = over_black(shown, faint[index[:, :, 0]][:, :, None])
            data = _png_file(index, bits, 3, extra=chunk, interlaced=interlaced)
            yield Cell("PNG", f"palette {bits}{layout}", data, shown)
            data = _png_file(index, bits, 3, extra=chunk + _chunk(b"tRNS", faint.tobytes()), interlaced=interlaced)
            yield Cell("PNG", f"palette+alpha {bits}{layout}", data, see, 1)
    yield from _png_keys()
    yield from _png_extras()


def _png_keys() -> Iterator[Cell]:
    """One transparent colour."""
    for bits in (1, 2, 4, 8, 16):
        for mode, colour, channels in (("grey", 0, 1), ("RGB", 2, 3)):
            if bits < 8 and colour:
                continue
            values = random_values(channels, bits)
            values[3:9, 5:11] = key = values[4, 6].copy()
            seen = (values != key).any(axis=2, keepdims=True)
            shown = as_rgb(np.where(seen, values, 0).astype(values.dtype), bits)
            extra = _chunk(b"tRNS", key.astype(">u2").tobytes())
            yield Cell("PNG", f"{mode} {bits}, transparent colour", _png_file(values, bits, colour, extra=extra), shown)


def _png_extras() -> Iterator[Cell]:
    """Other writers, orientation, profiles, gamma."""
    for name, (used, _) in DEPTHS.items():
        values = random_values(3, used)
        yield Cell("PNG", f"RGB {name}, by imagecodecs", bytes(imagecodecs.png_encode(values)), values)
        written = cv2.imencode(".png", values[:, :, ::-1])[1].tobytes()
        yield Cell("PNG", f"RGB {name}, by OpenCV", written, values)
    for orientation in range(1, 9):
        extra = _chunk(b"eXIf", exif_of(orientation))
        for mode, colour, channels, bits in (("RGB", 2, 3, 8), ("grey", 0, 1, 16), ("RGB", 2, 3, 16)):
            values = random_values(channels, bits)
            data = _png_file(as_stored(values, orientation), bits, colour, extra=extra)
            yield Cell("PNG", f"{mode} {bits}, orientation {orientation}", data, as_rgb(values))
    for name, profile in PROFILES.items():
        extra = _chunk(b"iCCP", b"x\0\0" + zlib.compress(profile))
        for bits in (8, 16):
            values = random_values(3, bits)
            data = _png_file(values, bits, 2, extra=extra)
            tolerance = PROFILED * (257 if bits == 16 else 1)
            yield Cell("PNG", f"RGB {bits}, {name}", data, to_srgb(values, profile), tolerance)
        grey = np.repeat(random_values(1, 8), 3, axis=2)
        data = _png_file(grey[:, :, :1], 8, 0, extra=extra)
        yield Cell("PNG", f"grey 8, {name}", data, to_srgb(grey, profile), PROFILED)
    for bits in (8, 16):
        values = random_values(3, bits)
        extra = _chunk(b"iCCP", b"x\0\0" + zlib.compress(SRGB))
        yield Cell("PNG", f"RGB {bits}, sRGB profile", _png_file(values, bits, 2, extra=extra), values)
        for gamma in (0.45455, 1.0, 0.55):
            most = 2**bits - 1
            shown = np.rint((values / most) ** (0.45455 / gamma) * most).astype(values.dtype)
            data = _png_file(values, bits, 2, extra=_chunk(b"gAMA", struct.pack(">I", round(gamma * 100000))))
            yield Cell("PNG", f"RGB {bits}, gamma {gamma}", data, shown, 1)
