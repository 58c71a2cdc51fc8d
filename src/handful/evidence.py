"""Which good patch each region of a defect was compared with, and what good pictures show that a picture lacks."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from handful.ops.evidence import Place, References
from handful.types import Likeness, Region

NEIGHBOURHOOD = 3  # patches a side that a place is seen with


class Evidence:
    """Finds it among the pictures that an inspector has learnt, by the backbone's features, each level with one say.

    Args:
        learnt: the levels of one picture each, (h, w, D), finest grid first.
        names: of these.
    """

    def __init__(self, learnt: Sequence[Sequence[NDArray[np.float32]]], names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._scales = [_length(np.stack(level)) for level in zip(*learnt, strict=True)]
        self._references = References(np.stack([_vectors(levels, self._scales) for levels in learnt]))

    def explain(
        self, regions: Sequence[Region], levels: Sequence[NDArray[np.float32]], size: tuple[int, int]
    ) -> tuple[tuple[Region, ...], Likeness]:
        """Add to each region the good patch nearest to its peak; beside them, what may be missing.

        Args:
            regions: of the picture.
            levels: of the picture, as those learnt.
            size: width, height of the original picture, in whose pixels the regions are given.
        """
        query = _vectors(levels, self._scales)
        height, width, _ = query.shape
        at = [(y * height // size[1], x * width // size[0]) for x, y in (region.peak_at for region in regions)]
        nearest = [self._likeness(place) for place in self._references.nearest_places(query, at)]
        explained = tuple(replace(region, nearest=one) for region, one in zip(regions, nearest, strict=True))
        return explained, self._likeness(self._references.least_found(query))

    def _likeness(self, place: Place) -> Likeness:
        _, height, width, _ = self._references.patches.shape
        at = ((place.column + 0.5) / width, (place.row + 0.5) / height)
        return Likeness(self._names[place.picture], at, place.distance)


def _length(level: NDArray[np.float32]) -> float:
    """The root mean square length of patches (k, h, w, D), above 0."""
    return max(float(np.sqrt(np.square(level).sum(3).mean())), float(np.finfo(np.float32).tiny))


def _vectors(levels: Sequence[NDArray[np.float32]], scales: Sequence[float]) -> NDArray[np.float32]:
    """One vector for each patch of the finest grid: its neighbourhood's mean in every level: → (h, w, sum of D)."""
    height, width, _ = levels[0].shape
    joined = np.empty((height, width, sum(level.shape[2] for level in levels)), np.float32)
    first = 0
    for level, scale in zip(levels, scales, strict=True):
        pooled = _pooled(_pooled(level, 0), 1) / np.float32(scale)
        depth = level.shape[2]
        joined[:, :, first : first + depth] = _enlarged(_enlarged(pooled, height, 0), width, 1)
        first += depth
    return joined


def _pooled(level: NDArray[np.float32], axis: int) -> NDArray[np.float32]:
    """Along one axis the mean of `NEIGHBOURHOOD` patches, what lies beyond the grid being 0."""
    reach = NEIGHBOURHOOD // 2
    margins = [(reach, reach) if one == axis else (0, 0) for one in range(3)]
    padded, length = np.pad(level, margins), level.shape[axis]
    pooled = padded.take(np.arange(length), axis)
    for start in range(1, NEIGHBOURHOOD):
        pooled += padded.take(np.arange(start, start + length), axis)
    pooled /= NEIGHBOURHOOD
    return pooled


def _enlarged(level: NDArray[np.float32], length: int, axis: int) -> NDArray[np.float32]:
    """Linearly interpolated along one axis, patch centres half a step in, as torch does (`align_corners` false)."""
    given = level.shape[axis]
    if given == length:
        return level
    at = np.clip((np.arange(length) + 0.5) * (given / length) - 0.5, 0, given - 1)
    low = at.astype(np.int64)
    share = (at - low).astype(np.float32).reshape([-1 if one == axis else 1 for one in range(3)])
    high = np.minimum(low + 1, given - 1)
    enlarged: NDArray[np.float32] = level.take(low, axis) * (1 - share) + level.take(high, axis) * share
    return enlarged
