"""Which good patch each region of a defect was compared with, and what good pictures show that a picture lacks."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from handful.ops.evidence import Place, References
from handful.ops.frames import Part
from handful.types import NearestReference, Region

NEIGHBOURHOOD = 3  # patches a side that a place is seen with


class Evidence:
    """Searches the good pictures of an inspector by the backbone's features; every level has the same weight.

    The search is prepared for the first defect. Any number of threads may use it.

    Args:
        learnt: the levels of one good picture each, (h, w, D), finest grid first.
        names: of the good pictures.
        parts: of the frame that each good picture fills.
    """

    def __init__(
        self, learnt: Sequence[Sequence[NDArray[np.float32]]], names: Sequence[str], parts: Sequence[Part]
    ) -> None:
        self._names, self._parts, self._learnt = tuple(names), tuple(parts), learnt
        self._prepared: tuple[list[float], References] | None = None

    def explain(
        self, regions: Sequence[Region], levels: Sequence[NDArray[np.float32]], size: tuple[int, int], part: Part
    ) -> tuple[tuple[Region, ...], NearestReference]:
        """Add to each region the good patch nearest to its peak; beside them, what may be missing.

        Args:
            regions: of the picture.
            levels: of the picture, as those learnt.
            size: width, height of the original picture, in whose pixels the regions are given.
            part: of the frame that the picture fills.
        """
        scales, references = self._search
        query = _vectors(levels, scales)
        height, width, _ = query.shape
        at = [part.cell_of(region.peak_at, size, (height, width)) for region in regions]
        nearest = [self._likeness(place) for place in references.nearest_places(query, at)]
        explained = tuple(replace(region, nearest=one) for region, one in zip(regions, nearest, strict=True))
        return explained, self._likeness(references.least_found(query))

    @property
    def _search(self) -> tuple[list[float], References]:
        """The length of each level's patches, and the good pictures' patches.

        Two threads may prepare it at the same time, to the same values; a lock could stay locked after a fork.
        """
        if self._prepared is None:
            scales = [_length(np.stack(level)) for level in zip(*self._learnt, strict=True)]
            self._prepared = scales, References(np.stack([_vectors(levels, scales) for levels in self._learnt]))
        return self._prepared

    def _likeness(self, place: Place) -> NearestReference:
        height, width, _ = self._learnt[0][0].shape
        at = self._parts[place.picture].in_picture(((place.column + 0.5) / width, (place.row + 0.5) / height))
        return NearestReference(self._names[place.picture], at, place.distance)


def _length(level: NDArray[np.float32]) -> float:
    """The root mean square length of patches (k, h, w, D), above 0."""
    return max(float(np.sqrt(np.square(level).sum(3).mean())), float(np.finfo(np.float32).tiny))


def _vectors(levels: Sequence[NDArray[np.float32]], scales: Sequence[float]) -> NDArray[np.float32]:
    """One vector for each patch of the finest grid: its neighbourhood's mean in every level: → (h, w, sum of D)."""
    height, width, _ = levels[0].shape
    joined = np.empty((height, width, sum(level.shape[2] for level in levels)), np.float32)
    first = 0
    for level, scale in zip(levels, scales, strict=True):
        rows, columns, depth = level.shape
        down = (_spread(rows, height) @ level.reshape(rows, -1)).reshape(height, columns, depth)
        np.matmul(_spread(columns, width) / np.float32(scale), down, out=joined[:, :, first : first + depth])
        first += depth
    return joined


@lru_cache(maxsize=32)
def _spread(given: int, length: int) -> NDArray[np.float32]:
    """What each of the patches in a row, or a column, gives to each of the finest level's: (length, given).

    First comes the mean of `NEIGHBOURHOOD` patches, what lies beyond the grid being 0, then linear interpolation, patch
    centres half a step in, as torch does (`align_corners` false).
    """
    places = np.arange(given)
    pooled = (np.abs(places[:, None] - places) <= NEIGHBOURHOOD // 2) / NEIGHBOURHOOD
    at = np.clip((np.arange(length) + 0.5) * (given / length) - 0.5, 0, given - 1)
    low = at.astype(np.int64)
    share = (at - low)[:, None]
    spread: NDArray[np.float64] = pooled[low] * (1 - share) + pooled[np.minimum(low + 1, given - 1)] * share
    return spread.astype(np.float32)
