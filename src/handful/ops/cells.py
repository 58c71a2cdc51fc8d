"""Cells laid over a picture as torch's adaptive pooling lays them: cell i of c over n covers ⌊i·n/c⌋ to ⌈(i + 1)·n/c⌉.

Where c does not divide n, neighbours share a row; where it is greater, cells repeat.
"""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray


def cell_means(values: NDArray[np.float32], grid: tuple[int, int]) -> NDArray[np.float32]:
    """The mean in each cell: (h, w) → grid."""
    for cells in grid:  # rows first, then columns
        rows, shares = _rows(len(values), cells)
        values = np.ascontiguousarray((shares[:, None] @ values[rows])[:, 0].T)
    return values


def touched(region: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether each cell holds any of a region: (H, W) → grid."""
    for cells in grid:
        rows, _ = _rows(len(region), cells)
        region = np.ascontiguousarray(region[rows].any(1).T)
    return region


def hidden_levels(
    levels: Sequence[NDArray[np.float32]], ignored: NDArray[np.bool_], good_levels: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], ...]:
    """What `handful.ops.ignoring.hidden` does, of one picture's levels (h, w, D) as arrays."""
    return tuple(
        np.where(touched(ignored, (level.shape[0], level.shape[1]))[:, :, None], of_good, level)
        for level, of_good in zip(levels, good_levels, strict=True)
    )


@lru_cache(maxsize=64)
def _rows(length: int, cells: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The rows of each cell, the last repeated where another has one more; and their shares: (cells, most) each."""
    numbers = np.arange(cells)
    first, end = numbers * length // cells, -(-(numbers + 1) * length // cells)
    rows = first[:, None] + np.arange(np.max(end - first))
    inside = rows < end[:, None]
    return np.minimum(rows, end[:, None] - 1), inside / inside.sum(1, dtype=np.float32, keepdims=True)
