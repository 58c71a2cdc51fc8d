"""The input size for `auto`: as many pixels as the references show detail for, within limits.

The time per picture grows with the number of pixels, for a single input faster than in proportion: the limits bound the
time.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from handful.data.depths import MOST
from handful.data.images import Picture
from handful.ops.detail import energies, needed_share
from handful.ops.frames import STEP

# The largest single input, as the side of a square of as many pixels. Four times the pixels of the usual 320² take four
# times the backbone's time and more than four times the search's, as the bank grows too.
MOST_FOR_ONE = 640
# Pictures of at least three times as many pixels are divided into tiles, up to a total number of pixels. Smaller
# pictures lose at most a factor of 1.7 of their sides in a single input, and keep the defects that show only in the
# picture as a whole.
TILED_FROM, MOST_IN_TILES = 3 * MOST_FOR_ONE**2, 16_000_000
LONGEST_IN_TILES = 5  # aspect ratio beyond which there are no tiles: narrow tiles, of the pictures' shape, overlap much


@dataclass(frozen=True)
class Sizing:
    """The input size that `auto` chose.

    Attributes:
        side: side of a square with as many pixels as the input, or with tiles as a tile.
        fine: side of a square with as many pixels as all tiles together cover; 0 for no tiles.
        why: the reason in words, for people.
    """

    side: int
    fine: int
    why: str


def choose(references: Iterable[Picture], *, least: int, tiled: bool = False) -> Sizing:
    """Choose the size of the input by the detail of the references, which are read at full size, one at a time.

    The size follows from the median area of the references, reduced for enlarged or soft pictures, which have less
    detail than pixels. A single input has at least the backbone's usual side and at most `MOST_FOR_ONE`.

    Args:
        references: the pictures.
        least: the backbone's usual side, also the side of a tile.
        tiled: whether tiles are allowed: from `TILED_FROM` pixels on, tiles cover up to `MOST_IN_TILES` pixels, except
            for pictures longer than `LONGEST_IN_TILES`.
    """
    sizes, spectra = [], []
    for picture in references:
        sizes.append(picture.size)
        most = 255 if picture.pixels.dtype == np.uint8 else max(1, int(np.quantile(picture.pixels, MOST)))
        spectra.append(energies(picture.pixels, most=most))
    full = math.sqrt(statistics.median(width * height for width, height in sizes))
    needed = needed_share(spectra, least=min(1.0, least / full)) * full
    shown = f"the references have {full:.0f}² pixels" + (f" and detail for {needed:.0f}²" if needed < full else "")
    long = any(max(size) > LONGEST_IN_TILES * min(size) for size in sizes)
    if tiled and not long and needed**2 >= TILED_FROM:
        fine = round(min(needed, math.sqrt(MOST_IN_TILES)))
        limit = ", the most" if needed**2 > MOST_IN_TILES else ""
        return Sizing(least, fine, f"auto: {fine}² pixels in tiles of about {least}²{limit}, as {shown}")
    side = max(least, min(MOST_FOR_ONE, round(needed / STEP) * STEP))
    limit = ", the least" if side == least else ", the most for one input" if side == MOST_FOR_ONE else ""
    return Sizing(side, 0, f"auto: {side}² pixels{limit}, as {shown}")
