"""How a picture was taken: how sharp it is, how bright, where its part lies; of whole pictures, not of patches.

Everything is measured on a picture's `blocks`, (h, w) in [0, 1]: the mean of its channels at half the model-input's
size. What is finer is noise, and interpolation where a small picture was enlarged.
"""

import math
from functools import reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.ops.cells import cell_means

BLOCK = 2  # pixels a side of a block
COARSE = 4  # blocks a side of the places whose detail the fine detail is compared with
CELLS = 5  # sharpness is measured in this many cells a side
FLAT = 1e-5  # mean square of the coarse Laplacian below which a cell shows nothing to be sharp or blurred
ROUNDING = 20 / (12 * 255**2 * BLOCK**2)  # mean square of the fine Laplacian of 8-bit rounding alone
NO_DETAIL = 1e-9
EVEN = 1e-6  # the least product of lengths that two layouts' differences from their means are divided by
SHARPEST = 0.25  # the share of what shows that must be sharp
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAYOUT = 32  # cells a side of a layout
FURTHEST = 12  # cells that a displacement is looked for either way


def blocks_of(image: NDArray[np.float32] | NDArray[np.uint8]) -> NDArray[np.float32]:
    """A picture's blocks: (3, H, W), in [0, 1] or of 8 bits → (H / 2, W / 2), rounded down."""
    if image.dtype == np.uint8:  # summed as whole numbers, which take less memory
        return _averaged(image[0] + image[1].astype(np.uint16) + image[2], BLOCK) / np.float32(3 * 255)
    return _averaged(image[0] + image[1] + image[2], BLOCK) / np.float32(3)  # a third of the time of their mean


def _averaged(values: NDArray[Any], side: int) -> NDArray[np.float32]:
    """The mean of each square of so many a side; what is left over at the end is dropped: (h, w) → (h / side, …)."""
    height, width = (length - length % side for length in values.shape)
    rows: NDArray[Any] = reduce(np.add, [values[start:height:side] for start in range(side)])
    squares: NDArray[Any] = reduce(np.add, [rows[:, start:width:side] for start in range(side)])
    averaged: NDArray[np.float32] = np.divide(squares, np.float32(side**2), dtype=np.float32)
    return averaged


def sharpness(blocks: NDArray[np.float32]) -> float:
    """How much fine detail comes with the coarse, as a natural logarithm; higher is sharper, NaN where nothing shows.

    In each cell the energy of the Laplacian of the blocks over that at `COARSE` blocks, which light and contrast leave
    as it is. Of the cells that are not flat, the value that the sharpest quarter reaches: a quarter by number (a soft
    stain may outweigh all else) or by coarse energy (what is left of a small part counts), whichever is higher. A stain
    or a smear leaves the places beside it sharp; a blurred picture has no sharp place.
    """
    fine, coarse = _detail(blocks), _detail(_averaged(blocks, COARSE))
    shown = coarse > FLAT
    if not shown.any():
        return math.nan
    ratios = np.log(np.maximum(fine[shown] - ROUNDING, NO_DETAIL) / coarse[shown])
    order = np.argsort(-ratios)
    energy = coarse[shown][order].cumsum()
    by_number, by_energy = int(SHARPEST * (len(ratios) - 1)), int((energy < SHARPEST * energy[-1]).sum())
    return float(ratios[order[min(by_number, by_energy)]])


def finest(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """How much fine detail each cell shows, as natural logarithms, the most first: (h, w) → (CELLS²,).

    More light or contrast raises the detail; new edges, as a broken, covered or wet place has, raise it too.
    """
    fine = np.sort(_detail(blocks))[::-1]
    values: NDArray[np.float32] = np.log(np.maximum(fine - ROUNDING, NO_DETAIL)).astype(np.float32)
    return values


def _detail(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The mean square of the Laplacian in each cell: (h, w) → (CELLS²,)."""
    around = blocks[:-2, 1:-1] + blocks[2:, 1:-1] + blocks[1:-1, :-2] + blocks[1:-1, 2:]
    return cell_means(np.square(4 * blocks[1:-1, 1:-1] - around), (CELLS, CELLS)).ravel()


def brightness(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """The `QUANTILES` of the brightness of places of two blocks a side, so that specks are none: (h, w) → (5,)."""
    values = np.sort(_averaged(blocks, 2), axis=None)  # np.quantile takes four times as long
    return np.interp(np.multiply(QUANTILES, len(values) - 1), np.arange(len(values)), values).astype(np.float32)


def layout(blocks: NDArray[np.float32]) -> NDArray[np.float32]:
    """Where what lies, coarsely: (h, w) → (LAYOUT, LAYOUT)."""
    return cell_means(blocks, (LAYOUT, LAYOUT))


def correlation(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """The correlation coefficient of two arrays of one shape; 0 where either is even."""
    one, two = one - one.mean(), two - two.mean()
    return float(np.vdot(one, two) / max(float(np.linalg.norm(one) * np.linalg.norm(two)), EVEN))


def correlations(reference: NDArray[np.float32], moved: NDArray[np.float32]) -> NDArray[np.float32]:
    """The correlation coefficient of two layouts where they overlap, for every displacement of the second.

    Padfield, Masked Object Registration in the Fourier Domain, IEEE TIP 21(5), 2012, section II-B, with masks of ones.

    Args:
        reference, moved: (LAYOUT, LAYOUT).

    Returns:
        (2 FURTHEST + 1, 2 FURTHEST + 1): at [FURTHEST + y, FURTHEST + x] that of `moved` lying y cells further down and
        x further right.
    """
    size = [2 * LAYOUT, 2 * LAYOUT]
    one, two = (layout - layout.mean() for layout in (reference, moved))
    a, b, aa, bb, whole = (
        np.fft.rfft2(values, s=size) for values in (one, two, np.square(one), np.square(two), np.ones_like(one))
    )

    def overlap(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """The sum of products over the overlap at every displacement."""
        sums = np.fft.irfft2(first.conj() * second, s=size)
        return np.roll(sums, (FURTHEST, FURTHEST), (0, 1))[: 2 * FURTHEST + 1, : 2 * FURTHEST + 1]

    count = overlap(whole, whole)
    of_one, of_two = overlap(a, whole), overlap(whole, b)
    shared = overlap(a, b) - of_one * of_two / count
    spread_one = np.maximum(overlap(aa, whole) - np.square(of_one) / count, 1e-6)
    spread_two = np.maximum(overlap(whole, bb) - np.square(of_two) / count, 1e-6)
    found: NDArray[np.float32] = shared / np.sqrt(spread_one * spread_two)
    return found
