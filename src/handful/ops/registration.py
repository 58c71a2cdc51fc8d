"""The correlation of two arrays, in place and displaced against each other."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

EVEN = 1e-6  # the least denominator of a correlation coefficient, so that a constant array gets 0


def correlation(one: NDArray[np.float32], two: NDArray[np.float32]) -> float:
    """The correlation coefficient of two arrays of the same shape; 0 if either is constant."""
    one, two = one - one.mean(), two - two.mean()
    return float(np.vdot(one, two) / max(float(np.linalg.norm(one) * np.linalg.norm(two)), EVEN))


def correlations(reference: NDArray[np.float32], moved: NDArray[np.float32], *, furthest: int) -> NDArray[np.float32]:
    """The correlation coefficient of two arrays (n, n) over their overlap, for displacements of up to `furthest` cells.

    Padfield, Masked Object Registration in the Fourier Domain, IEEE TIP 21(5), 2012, section II-B, with masks of ones.

    Returns:
        (2 furthest + 1, 2 furthest + 1): at [furthest + y, furthest + x] the coefficient with `moved` lying y cells
        further down and x further right.
    """
    size = [2 * length for length in reference.shape]
    one, two = (values - values.mean() for values in (reference, moved))
    a, b, aa, bb, whole = (
        np.fft.rfft2(values, s=size) for values in (one, two, np.square(one), np.square(two), np.ones_like(one))
    )

    def overlap(first: NDArray[Any], second: NDArray[Any]) -> NDArray[Any]:
        """The sum of products over the overlap at every displacement."""
        sums = np.fft.irfft2(first.conj() * second, s=size)
        return np.roll(sums, (furthest, furthest), (0, 1))[: 2 * furthest + 1, : 2 * furthest + 1]

    count = overlap(whole, whole)
    of_one, of_two = overlap(a, whole), overlap(whole, b)
    shared = overlap(a, b) - of_one * of_two / count
    spread_one = np.maximum(overlap(aa, whole) - np.square(of_one) / count, 1e-6)
    spread_two = np.maximum(overlap(whole, bb) - np.square(of_two) / count, 1e-6)
    found: NDArray[np.float32] = shared / np.sqrt(spread_one * spread_two)
    return found
