"""The detail of a picture: the factor by which it can be reduced with next to no loss.

Pictures of scenes hold about as much energy in each octave of frequencies, more or less steeply falling. One that was
enlarged, or is out of focus, holds next to none above some frequency: reducing it to that and enlarging it again gives
the same picture. Energies are of grey values, as levels of 255, on windowed crops.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

CROP, CROPS = 256, 4  # pixels a side of a crop, and how many crops a side of the picture
BANDS = 64  # of frequencies, from none to the finest that pixels can show
STEP = 2**-0.25  # from one factor to the next smaller one
# A factor loses next to nothing where the energy above it is less than this share of that in the octave below it. So
# told, the least such factor is a step too small: on twelve kinds of real pictures, as they are and enlarged 1.5, 2 and
# 3 times, the step before it is 0.75 to 1.1 times the side as taken, up to 1.5 times for small pictures of grain, and
# half of it for blurred ones. 1/32 takes the traces of enlarging for detail, 1/8 reduces fine textures.
NEXT_TO_NOTHING = 1 / 12
ROUNDING = 1.5 / 12  # energy that rounding to whole levels leaves, evenly over all frequencies; and half as much again


def energies(pixels: NDArray[np.integer[Any]], *, most: float = 255.0) -> NDArray[np.float64]:
    """The energy of a picture in each of `BANDS` bands of frequencies, the finest last: (h, w, 3) → (BANDS,).

    The frequency of a wave is the larger of its vertical and horizontal frequency, as a picture is reduced along both.
    `most` is the value of white.
    """
    height, width, _ = pixels.shape
    side = min(CROP, height, width)
    window = np.outer(*(np.hanning(side + 2)[1:-1],) * 2)
    window /= np.sqrt(np.square(window).mean())
    frequencies = np.abs(np.fft.fftfreq(side))
    bands = (np.maximum(frequencies[:, None], frequencies) * 2 * BANDS).astype(int).clip(max=BANDS - 1).ravel()
    starts = [np.unique(np.linspace(0, length - side, CROPS).astype(int)) for length in (height, width)]
    found = np.zeros(BANDS)
    for top, left in product(*starts):
        crop = pixels[top : top + side, left : left + side].mean(2) * (255 / most)
        power = np.square(np.abs(np.fft.fft2((crop - crop.mean()) * window))) / side**4
        found += np.bincount(bands, power.ravel(), BANDS)
    return found / (len(starts[0]) * len(starts[1]))


def needed_share(spectra: Sequence[NDArray[np.float64]], *, least: float) -> float:
    """The factor, a whole power of `STEP` up to 1, by which pictures can be reduced with next to no loss of detail.

    Args:
        spectra: of each picture, see `energies`; their mean counts.
        least: the smallest factor that is tried.
    """
    above = np.append(np.cumsum(np.mean(spectra, 0)[::-1])[::-1], 0.0)  # (BANDS + 1,) from each band's start on

    def energy_above(share: float) -> float:
        energy = float(np.interp(share * BANDS, np.arange(BANDS + 1), above))
        return max(0.0, energy - ROUNDING * (1 - share**2))

    share = 1.0
    while (smaller := share * STEP) >= least:
        lost = energy_above(smaller)
        if lost > NEXT_TO_NOTHING * (energy_above(smaller / 2) - lost):
            break
        share = smaller
    return min(1.0, share / STEP)
