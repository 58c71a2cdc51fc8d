"""The orientation of a picture by EXIF or XMP (EXIF 2.32, tag 0x0112), and the turn that makes the picture upright."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.data import tiff
from handful.data.formats import RefusedError

ON_ITS_SIDE = (5, 6, 7, 8)
_ORIENTATION = 0x0112
_TURNED: dict[int, Callable[[NDArray[Any]], NDArray[Any]]] = {
    2: lambda pixels: pixels[:, ::-1],
    3: lambda pixels: pixels[::-1, ::-1],
    4: lambda pixels: pixels[::-1],
    5: lambda pixels: pixels.swapaxes(0, 1),
    6: lambda pixels: np.rot90(pixels, -1),
    7: lambda pixels: np.rot90(pixels.swapaxes(0, 1), 2),
    8: lambda pixels: np.rot90(pixels),
}


def upright(pixels: NDArray[Any], orientation: int) -> NDArray[Any]:
    """Turn (h, w, …) upright; an orientation outside 2 to 8 changes nothing."""
    turn = _TURNED.get(orientation)
    return pixels if turn is None else np.ascontiguousarray(turn(pixels))


def orientation_of(info: Mapping[Any, Any]) -> int:
    """The orientation in an image's `info` of Pillow; 1 if there is none, or if it cannot be read.

    Pillow's own reader is not used, as it warns of broken EXIF, and a program may turn warnings into errors.
    """
    exif = info.get("exif")
    if exif is None and isinstance(text := info.get("Raw profile type exif"), str):  # ImageMagick's EXIF in PNG text
        exif = _from_hex(text)
    if isinstance(exif, bytes) and (found := _in_exif(exif)):
        return found
    xmp = info.get("xmp") or info.get("XML:com.adobe.xmp") or b""
    told = re.search(rb'tiff:Orientation(?:="|>)([0-9])', xmp.encode() if isinstance(xmp, str) else xmp)
    return int(told[1]) if told else 1


def _in_exif(exif: bytes) -> int:
    """The orientation in the first directory of EXIF; 0 for none."""
    try:
        return tiff.read_first(exif.removeprefix(b"Exif\0\0")).one(_ORIENTATION, 0)
    except RefusedError:
        return 0


def _from_hex(text: str) -> bytes:
    try:
        return bytes.fromhex("".join(text.split("\n")[3:]))
    except ValueError:
        return b""
