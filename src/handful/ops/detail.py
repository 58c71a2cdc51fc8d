"""The detail of a picture: the factor by which the picture can be reduced with next to no loss.

Pictures of scenes hold energy in every octave of frequencies, more or less steeply falling. A picture that was enlarged
or is out of focus holds next to no energy above some frequency, so it can be reduced to that frequency and enlarged
again without visible change. Energies are measured on grey values from 0 to 255 in windowed crops.
"""

from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
from numpy.typing import NDArray

CROP, CROPS = 256, 4  # pixels a side of a crop, and number of crops a side of the picture
BANDS = 64  # of frequencies, from 0 to the highest frequency that pixels can show
STEP = 2**-0.25  # ratio of each tried factor to the next larger factor
# A factor loses next to nothing if the energy above its frequency is less than this share of the energy in the octave
# below. The least such factor is a step too small, so the next larger factor counts: on twelve kinds of real pictures,
# unchanged and enlarged 1.5, 2 and 3 times, that factor gives 0.75 to 1.1 times the original side, up to 1.5 times for
# small pictures of grain, and half the side for blurred pictures. A share of 1/32 takes traces of enlarging for detail,
# a share of 1/8 loses fine textures.
NEXT_TO_NOTHING = 1 / 12
ROUNDING = 1.5 / 12  # 1.5 times the energy of rounding to whole levels, which is even over all frequencies


def energies(pixels: NDArray[np.integer[Any]], *, most: float = 255.0) -> NDArray[np.float64]:
    """The energy of a picture in each of `BANDS` bands of frequencies, the finest last: (h, w, 3) → (BANDS,).

    The frequency of a wave is the larger of its vertical and horizontal frequency, as a picture is reduced along both
    axes. `most` is the value of white.
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
        spectra: the energies of each picture, see `energies`; their mean counts.
        least: the smallest factor tried.
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
