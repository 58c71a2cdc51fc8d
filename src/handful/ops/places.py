"""The mean patches of a picture's places, and their distances from the places of other pictures."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def place_means(levels: Sequence[NDArray[np.float32]], side: int) -> NDArray[np.float32]:
    """The mean patch of each of `side` x `side` places, or of fewer if a level has fewer patches a side.

    Args:
        levels: of a picture, (h, w, D) each.
        side: the number of places a side.

    Returns:
        (places, sum of D), all levels in a row.
    """
    grid = [min(side, *(level.shape[axis] for level in levels)) for axis in (0, 1)]
    return np.concatenate([_pooled(level, grid) for level in levels], 1)


def _pooled(level: NDArray[np.float32], grid: Sequence[int]) -> NDArray[np.float32]:
    """The mean patch of each cell: (h, w, D) → (cells, D)."""
    starts = [np.arange(cells) * length // cells for cells, length in zip(grid, level.shape, strict=False)]
    rows, columns = (np.diff(first, append=length) for first, length in zip(starts, level.shape, strict=False))
    sums = np.add.reduceat(np.add.reduceat(level, starts[0], axis=0), starts[1], axis=1)
    means: NDArray[np.float32] = (sums / np.outer(rows, columns)[..., None]).astype(np.float32)
    return means.reshape(-1, level.shape[2])


def _pairwise(one: NDArray[np.float32], two: NDArray[np.float32]) -> NDArray[np.float32]:
    """The Euclidean distances of the rows of two arrays: (n, D), (m, D) → (n, m)."""
    squares = np.square(one).sum(1)[:, None] + np.square(two).sum(1) - 2 * one @ two.T
    distances: NDArray[np.float32] = np.sqrt(np.maximum(squares, 0))
    return distances


def nearest_distances(
    places: NDArray[np.float32],
    others: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]],
    depths: NDArray[np.int64],
) -> NDArray[np.float32]:
    """The distance of each place from the nearest place of any other picture, the mean over levels: (places,).

    Args:
        places: (places, sum of D).
        others: for each other picture its places, and its unit of length at each level (levels,).
        depths: D of each level.
    """
    ends = np.cumsum(depths)[:-1]
    found = []
    for other, lengths in others:
        pairs = zip(np.split(places, ends, 1), np.split(other, ends, 1), np.maximum(lengths, 1e-6), strict=True)
        found.append(np.mean([_pairwise(one, two) / length for one, two, length in pairs], 0).min(1))
    nearest: NDArray[np.float32] = np.min(found, 0)
    return nearest
