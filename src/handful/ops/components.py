"""Connected components of a mask without SciPy, which a base installation does not have."""

import numpy as np
from numpy.typing import NDArray


def components(mask: NDArray[np.bool_]) -> list[tuple[slice, slice, NDArray[np.bool_]]]:
    """The connected components (8 neighbours) of a mask (H, W), in the order of their first pixels, row by row.

    The mask is cut into runs, which are the stretches of a row. Runs of adjacent rows that touch take the smaller of
    their two numbers until no number changes.

    Returns:
        Of each component the rows and columns of its bounding box, and which pixels inside belong to it.
    """
    width = mask.shape[1] + 2  # of a row with an empty column on both sides, so that no run leaves its row
    flat = np.pad(mask, ((0, 0), (1, 1))).ravel().astype(np.int8)
    changes = np.flatnonzero(np.diff(flat)) + 1
    starts, ends = changes[::2], changes[1::2]
    if not len(starts):
        return []
    first = np.searchsorted(ends, starts + width)  # of the runs of the next row that touch: those ending at the start …
    last = np.searchsorted(starts, ends + width, side="right")  # … or later, and starting at the end or before
    touching = last - first
    above = np.repeat(np.arange(len(starts)), touching)
    below = np.arange(touching.sum()) - np.repeat(touching.cumsum() - touching, touching) + np.repeat(first, touching)
    numbers = np.arange(len(starts))
    while (numbers[above] != numbers[below]).any():
        least = np.minimum(numbers[above], numbers[below])
        for run in (above, below):
            np.minimum.at(numbers, numbers[run], least)  # of the run that a run is numbered after, too
        while (shorter := numbers[numbers] != numbers).any():
            numbers[shorter] = numbers[numbers[shorter]]
    _, numbers = np.unique(numbers, return_inverse=True)
    rows, left, right = starts // width, starts % width - 1, (ends - 1) % width
    found = []
    for runs in np.split(np.argsort(numbers, kind="stable"), np.cumsum(np.bincount(numbers))[:-1]):
        top, start = int(rows[runs[0]]), int(left[runs].min())
        box = slice(top, int(rows[runs[-1]]) + 1), slice(start, int(right[runs].max()))
        inside = np.zeros((box[0].stop - top, box[1].stop - start), np.bool_)
        for row, begin, end in zip(rows[runs] - top, left[runs] - start, right[runs] - start, strict=True):
            inside[row, begin:end] = True
        found.append((*box, inside))
    return found
