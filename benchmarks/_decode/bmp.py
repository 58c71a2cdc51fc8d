"""BMP files by hand, by imagecodecs and by OpenCV."""

import struct
from collections.abc import Iterator

import cv2
import imagecodecs
import numpy as np

from _decode.cell import (
    HEIGHT,
    PROFILED,
    PROFILES,
    WIDTH,
    Array,
    Cell,
    as_rgb,
    over_black,
    packed_rows,
    random_values,
    to_srgb,
)


def _bmp_file(
    rows: list[bytes], bits: int, *, compression: int = 0, palette: bytes = b"", masks: bytes = b"", down: bool = False
) -> bytes:
    """A BMP by hand, rows from the top; `down` stores the first row first."""
    padded = [row + bytes(-len(row) % 4) for row in rows]
    pixels = b"".join(padded if down else padded[::-1])
    header = 108 if masks else 40
    info = struct.pack(
        "<IiiHHIIiiII", header, WIDTH, -HEIGHT if down else HEIGHT, 1, bits, compression, len(pixels), 0, 0, 0, 0
    )
    body = info + masks.ljust(68 if masks else 0, b"\0") + palette
    return b"BM" + struct.pack("<IHHI", 14 + len(body) + len(pixels), 0, 0, 14 + len(body)) + body + pixels


def bmp_cells() -> Iterator[Cell]:
    for down in (False, True):
        layout = ", first row first" if down else ""
        for bits in (1, 4, 8):
            index, palette = random_values(1, bits), random_values(3, 8, seed=1).reshape(-1, 3)[: 2**bits]
            table = b"".join(bytes([b, g, r, 0]) for r, g, b in palette.tolist())
            data = _bmp_file(packed_rows(index, bits), bits, palette=table, down=down)
            yield Cell("BMP", f"palette {bits}{layout}", data, palette[index[:, :, 0]])
            ramp = np.rint(np.linspace(0, 255, 2**bits)).astype(np.uint8)
            table = b"".join(bytes([v, v, v, 0]) for v in ramp.tolist())
            data = _bmp_file(packed_rows(index, bits), bits, palette=table, down=down)
            yield Cell("BMP", f"grey {bits}{layout}", data, as_rgb(ramp[index]))
        rgb = random_values(3, 8)
        yield Cell("BMP", f"RGB 24{layout}", _bmp_file([row[:, ::-1].tobytes() for row in rgb], 24, down=down), rgb)
        four = np.dstack([rgb[:, :, ::-1], random_values(1, 8, seed=2)])
        yield Cell("BMP", f"RGB 32{layout}", _bmp_file([row.tobytes() for row in four], 32, down=down), rgb)
        masks = struct.pack("<4I4s", 0xFF0000, 0xFF00, 0xFF, 0xFF000000, b"BGRs")
        data = _bmp_file([row.tobytes() for row in four], 32, compression=3, masks=masks, down=down)
        yield Cell("BMP", f"RGBA 32{layout}", data, over_black(rgb, four[:, :, 3:]), 1)
        five = random_values(3, 5)
        packed = (five[:, :, 0].astype(np.uint16) << 10) | (five[:, :, 1].astype(np.uint16) << 5) | five[:, :, 2]
        data = _bmp_file([row.astype("<u2").tobytes() for row in packed], 16, down=down)
        yield Cell("BMP", f"RGB 5-5-5{layout}", data, as_rgb(five, 5), 1)  # the standard leaves the stretch open
    index, palette = random_values(1, 8), random_values(3, 8, seed=1).reshape(-1, 3)[:256]
    runs = [b"".join(bytes([1, value]) for value in row.ravel().tolist()) + b"\0\0" for row in index[::-1]]
    table = b"".join(bytes([b, g, r, 0]) for r, g, b in palette.tolist())
    body = struct.pack("<IiiHHIIiiII", 40, WIDTH, HEIGHT, 1, 8, 1, 0, 0, 0, 0, 0) + table
    pixels = b"".join(runs) + b"\0\1"
    data = b"BM" + struct.pack("<IHHI", 14 + len(body) + len(pixels), 0, 0, 14 + len(body)) + body + pixels
    yield Cell("BMP", "palette 8, run lengths", data, palette[index[:, :, 0]])
    rgb = random_values(3, 8)
    yield Cell("BMP", "RGB 24, by imagecodecs", bytes(imagecodecs.bmp_encode(rgb)), rgb)
    yield Cell("BMP", "RGB 24, by OpenCV", cv2.imencode(".bmp", rgb[:, :, ::-1])[1].tobytes(), rgb)
    for name, profile in PROFILES.items():
        yield Cell("BMP", f"RGB 24, {name}", _bmp_profiled(rgb, profile), to_srgb(rgb, profile), PROFILED)


def _bmp_profiled(rgb: Array, profile: bytes) -> bytes:
    """A BMP of version 5 with its profile behind the pixels."""
    rows = [row[:, ::-1].tobytes() for row in rgb]
    pixels = b"".join((row + bytes(-len(row) % 4)) for row in rows[::-1])
    info = struct.pack("<IiiHHIIiiII", 124, WIDTH, HEIGHT, 1, 24, 0, len(pixels), 0, 0, 0, 0) + bytes(16) + b"DEBM"
    info += bytes(48) + struct.pack("<IIII", 4, 124 + len(pixels), len(profile), 0)
    return b"BM" + struct.pack("<IHHI", 138 + len(pixels) + len(profile), 0, 0, 138) + info + pixels + profile
