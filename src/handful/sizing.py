"""How many pixels an inspector looks at where `auto` is to say: as many as the references show, within limits.

Time per picture is about in proportion to the pixels that are looked at, or more: so these limits are the budget.
"""

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from handful.data.images import Picture
from handful.data.preprocessing import MOST
from handful.ops.detail import energies, needed_share
from handful.ops.frames import STEP

# Of one input, the side of a square of as many pixels. Four times the pixels of the usual 320² take four times the
# backbone's time and, as the bank grows with them, more of the search's.
MOST_FOR_ONE = 640


@dataclass(frozen=True)
class Sizing:
    """What `auto` has chosen.

    Attributes:
        side: of a square input of as many pixels.
        why: in words, for people.
    """

    side: int
    why: str


def choose(references: Iterable[Picture], *, least: int) -> Sizing:
    """Choose the size of the input by what the references show.

    The median of their areas, less where they hold no detail that fine: a picture that was enlarged or is soft needs no
    more pixels than it has detail. Never less than `least`, nor more than `MOST_FOR_ONE`.

    Args:
        references: read with all their pixels; held one at a time.
        least: the backbone's usual side.
    """
    sizes, spectra = [], []
    for picture in references:
        sizes.append(picture.size)
        most = 255 if picture.pixels.dtype == np.uint8 else max(1, int(np.quantile(picture.pixels, MOST)))
        spectra.append(energies(picture.pixels, most=most))
    full = math.sqrt(statistics.median(width * height for width, height in sizes))
    needed = needed_share(spectra, least=min(1.0, least / full)) * full
    side = max(least, min(MOST_FOR_ONE, round(needed / STEP) * STEP))
    return Sizing(side, _why(side, full, needed, least=least))


def _why(side: int, full: float, needed: float, *, least: int) -> str:
    shown = f"the references have {full:.0f}² pixels"
    if needed < full:
        shown += f" and detail for {needed:.0f}²"
    if side == least:
        limit = ", the least"
    elif side == MOST_FOR_ONE:
        limit = ", the most for one input"
    else:
        limit = ""
    return f"auto: {side}² pixels{limit}, as {shown}"
