"""Ignored regions of the frame in NumPy, for one picture; `handful.ops.ignoring` is the torch version."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def touched(region: NDArray[np.bool_], grid: tuple[int, int]) -> NDArray[np.bool_]:
    """Whether each cell of a grid touches a region: (H, W) → grid."""
    for cells in grid:  # cells as in torch's adaptive pooling: cell i of c over n covers ⌊i·n/c⌋ to ⌈(i + 1)·n/c⌉
        edges = [(cell * len(region) // cells, -(-(cell + 1) * len(region) // cells)) for cell in range(cells)]
        region = np.ascontiguousarray(np.stack([region[first:end].any(0) for first, end in edges]).T)
    return region


def hidden_levels(
    levels: Sequence[NDArray[np.float32]], ignored: NDArray[np.bool_], good_levels: Sequence[NDArray[np.float32]]
) -> tuple[NDArray[np.float32], ...]:
    """The levels (h, w, D) of a picture, with a learnt picture's patches wherever a patch touches the ignored region.

    `handful.ops.ignoring.hidden` is the torch version.
    """
    return tuple(
        np.where(touched(ignored, (level.shape[0], level.shape[1]))[:, :, None], of_good, level)
        for level, of_good in zip(levels, good_levels, strict=True)
    )
