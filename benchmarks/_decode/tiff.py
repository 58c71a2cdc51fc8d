"""TIFF files by tifffile, by OpenCV and by hand."""

import io
import struct
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tifffile

from _decode.cell import (
    DEPTHS,
    HEIGHT,
    LOSSY,
    PROFILED,
    PROFILES,
    WIDTH,
    Array,
    Cell,
    as_rgb,
    as_stored,
    ink_to_rgb,
    over_black,
    packed_rows,
    random_values,
    slopes,
    to_srgb,
)


def _tiff_file(values: Array, **options: Any) -> bytes:
    buffer = io.BytesIO()
    tifffile.imwrite(buffer, values, **options)
    return buffer.getvalue()


def tiff_cells() -> Iterator[Cell]:
    for order in "<>":
        for compression, predictor in (
            (None, 0),
            ("lzw", 0),
            ("lzw", 2),
            ("deflate", 0),
            ("deflate", 2),
            ("packbits", 0),
        ):
            squeezed = f"{compression or 'raw'}{' predictor' if predictor else ''}, {order}"
            options = {"byteorder": order, "compression": compression, "predictor": predictor or None}
            for name, (used, stored) in DEPTHS.items():
                yield from _tiff_depth(name, used, stored, squeezed, options)
        yield from _tiff_small(order)
    yield from _tiff_extras()


def _tiff_depth(name: str, used: int, stored: int, squeezed: str, options: dict[str, Any]) -> Iterator[Cell]:
    """Grey and colour of one depth, byte order and compression, in each layout."""
    grey, rgb, rgba = (random_values(channels, used) for channels in (1, 3, 4))
    for layout, more in (("strips", {"rowsperstrip": 7}), ("tiles", {"tile": (16, 16)}), ("one strip", {})):
        made = {**options, **more}
        place = f"{squeezed}, {layout}"
        black = _tiff_file(grey[:, :, 0], photometric="minisblack", **made)
        yield Cell("TIFF", f"grey {name}, {place}", black, as_rgb(grey))
        white = _tiff_file(grey[:, :, 0], photometric="miniswhite", **made)
        most = grey.dtype.type(2**stored - 1)
        yield Cell("TIFF", f"grey {name}, white is 0, {place}", white, as_rgb(most - grey))
        yield Cell("TIFF", f"RGB {name}, {place}", _tiff_file(rgb, photometric="rgb", **made), rgb)
        planes = np.ascontiguousarray(np.moveaxis(rgb, 2, 0))
        apart = _tiff_file(planes, photometric="rgb", planarconfig="separate", **made)
        yield Cell("TIFF", f"RGB {name}, in planes, {place}", apart, rgb)
    colour, opacity = rgba[:, :, :3], rgba[:, :, 3:]
    multiplied = np.minimum(colour, opacity)
    kinds = (
        ("unassalpha", rgba, over_black(colour, opacity), 1),
        ("assocalpha", np.dstack([multiplied, opacity]), multiplied, 0),
        ("unspecified", rgba, colour, 0),
    )
    for kind, values, shown, tolerance in kinds:
        data = _tiff_file(values, photometric="rgb", extrasamples=[kind], **options)
        yield Cell("TIFF", f"RGB+{kind} {name}, {squeezed}", data, shown, tolerance)
        data = _tiff_file(
            np.moveaxis(values, 2, 0), photometric="rgb", extrasamples=[kind], planarconfig="separate", **options
        )
        yield Cell("TIFF", f"RGB+{kind} {name}, in planes, {squeezed}", data, shown, tolerance)
    both = random_values(2, used)
    data = _tiff_file(both, photometric="minisblack", extrasamples=["unassalpha"], planarconfig="contig", **options)
    yield Cell("TIFF", f"grey+alpha {name}, {squeezed}", data, over_black(both[:, :, :1], both[:, :, 1:]), 1)
    if used == 8:
        inks = random_values(4, 8)
        yield Cell(
            "TIFF", f"CMYK 8, {squeezed}", _tiff_file(inks, photometric="separated", **options), ink_to_rgb(inks), 1
        )
        index, palette = random_values(1, 8), random_values(3, 8, seed=1).reshape(-1, 3)[:256]
        table = np.ascontiguousarray(palette.T.astype(np.uint16) * 257)
        data = _tiff_file(index[:, :, 0], photometric="palette", colormap=table, **options)
        yield Cell("TIFF", f"palette 8, {squeezed}", data, palette[index[:, :, 0]])


def _tiff_small(order: str) -> Iterator[Cell]:
    """Less than 8 bits, packed 10 and 12 bits, and numbers that are not whole."""
    for bits in (1, 2, 4, 10, 12, 14):
        values = random_values(1, bits)
        for photometric in ("minisblack", "miniswhite"):
            if bits == 1:
                data = _tiff_file(values[:, :, 0].astype(bool), photometric=photometric, byteorder=order)
            else:
                data = _tiff_hand(values, bits, photometric == "minisblack", order)
            shown = values if photometric == "minisblack" else values.dtype.type(2**bits - 1) - values
            yield Cell("TIFF", f"grey {bits} packed, {photometric}, {order}", data, as_rgb(shown, bits))
    for kind in (np.float32, np.float16, np.int16, np.uint32):
        values = np.linspace(0, 1 if issubclass(kind, np.floating) else 255, HEIGHT * WIDTH).reshape(HEIGHT, WIDTH, 1)
        shown = as_rgb(np.rint(values * (255 / values.max())).astype(np.uint8))
        data = _tiff_file(values[:, :, 0].astype(kind), photometric="minisblack", byteorder=order)
        yield Cell("TIFF", f"grey {kind.__name__}, {order}", data, shown)


def _tiff_hand(
    values: Array, bits: int, black_is_zero: bool, order: str, *, fill: int = 1, extra: bytes = b""
) -> bytes:
    """A TIFF of packed grey by hand: one strip after the directory."""
    rows = b"".join(packed_rows(values, bits))
    if fill == 2:
        rows = bytes(int(f"{byte:08b}"[::-1], 2) for byte in rows)
    tags = [
        (256, 3, WIDTH),
        (257, 3, HEIGHT),
        (258, 3, bits),
        (259, 3, 1),
        (262, 3, int(black_is_zero)),
        (266, 3, fill),
    ]
    tags += [(273, 4, 8 + 2 + 12 * 9 + 4), (277, 3, 1), (279, 4, len(rows))]
    directory = struct.pack(f"{order}H", len(tags)) + b"".join(_entry(order, *tag) for tag in tags) + b"\0\0\0\0"
    return (b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8) + directory + rows


def _entry(order: str, tag: int, kind: int, value: int) -> bytes:
    """One tag with one value, of 2 bytes (kind 3) or 4."""
    body = struct.pack(f"{order}HH", value, 0) if kind == 3 else struct.pack(f"{order}I", value)
    return struct.pack(f"{order}HHI", tag, kind, 1) + body


def _tiff_extras() -> Iterator[Cell]:
    """Lower bit first, JPEG inside, BigTIFF, orientation, profiles, other writers."""
    for bits in (1, 4, 8):
        values = random_values(1, bits)
        yield Cell(
            "TIFF", f"grey {bits}, lower bit first", _tiff_hand(values, bits, True, "<", fill=2), as_rgb(values, bits)
        )
    for channels, photometric in ((1, "minisblack"), (3, "rgb"), (3, "ycbcr")):
        values = slopes(channels)
        # tifffile takes YCbCr as it would be stored
        given = (
            cv2.cvtColor(values, cv2.COLOR_RGB2YCrCb)[:, :, [0, 2, 1]] if photometric == "ycbcr" else values.squeeze()
        )
        data = _tiff_file(given, photometric=photometric, compression="jpeg", compressionargs={"level": 95})
        yield Cell("TIFF", f"{photometric} 8, JPEG", data, as_rgb(values), LOSSY)
    for compression in ("zstd", "lzma", "webp", "jpeg2000"):
        values = random_values(3, 8)
        args = {"lossless": True} if compression == "webp" else None
        data = _tiff_file(values, photometric="rgb", compression=compression, compressionargs=args)
        yield Cell("TIFF", f"RGB 8, {compression}", data, values)
    for bits in (8, 16):
        values = random_values(3, bits)
        yield Cell("TIFF", f"RGB {bits}, BigTIFF", _tiff_file(values, photometric="rgb", bigtiff=True), values)
        written = cv2.imencode(".tiff", values[:, :, ::-1])[1].tobytes()
        yield Cell("TIFF", f"RGB {bits}, by OpenCV", written, values)
        for squeezed in (None, "lzw"):
            for orientation in range(1, 9):
                for channels, photometric in ((1, "minisblack"), (1, "miniswhite"), (3, "rgb")):
                    values = random_values(channels, bits)
                    shown = values if photometric != "miniswhite" else values.dtype.type(2**bits - 1) - values
                    data = _tiff_file(
                        as_stored(values, orientation).squeeze(),
                        photometric=photometric,
                        compression=squeezed,
                        extratags=[(274, 3, 1, orientation, True)],
                    )
                    make = f"{photometric} {bits}, orientation {orientation}, {squeezed or 'raw'}"
                    yield Cell("TIFF", make, data, as_rgb(shown))
        for name, profile in PROFILES.items():
            values = random_values(3, bits)
            data = _tiff_file(values, photometric="rgb", iccprofile=profile)
            tolerance = PROFILED * (257 if bits == 16 else 1)
            yield Cell("TIFF", f"RGB {bits}, {name}", data, to_srgb(values, profile), tolerance)
