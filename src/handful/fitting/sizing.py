"""The size of an inspector's input for `auto`: as many pixels as the references show, within limits.

Time per picture grows with the pixels of the input, in one input even faster: these limits are the budget of time.
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

# Of one input, the side of a square of as many pixels. Four times the pixels of the usual 320² take four times the
# backbone's time and, as the bank grows with them, more of the search's.
MOST_FOR_ONE = 640
# From three times as many pixels on pictures are looked at in tiles, of so many pixels in all at most. Below that, one
# input reduces their sides by a factor of 1.7 at most, and what shows in the picture as a whole alone counts too.
TILED_FROM, MOST_IN_TILES = 3 * MOST_FOR_ONE**2, 16_000_000
LONGEST_IN_TILES = 5  # times as long as wide, or more: tiles have the pictures' shape, and narrow ones mostly overlap


@dataclass(frozen=True)
class Sizing:
    """The choice of `auto`.

    Attributes:
        side: of a square with as many pixels as the input.
        fine: side of a square with as many pixels as all tiles together cover; 0 for no tiles.
        why: in words, for people.
    """

    side: int
    fine: int
    why: str


def choose(references: Iterable[Picture], *, least: int, tiled: bool = False) -> Sizing:
    """Choose the size of the input by the detail of the references, read with all their pixels, one at a time.

    The median of their areas, less for enlarged or soft pictures, which have less detail than pixels. Never less than
    the backbone's usual side `least`, nor more than `MOST_FOR_ONE`; or, with `tiled`, from `TILED_FROM` pixels on,
    tiles of `least` that cover as many, up to `MOST_IN_TILES`, but not for long pictures.
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
