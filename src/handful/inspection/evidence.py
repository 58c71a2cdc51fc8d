"""The regions of a defect, the good patch that each is nearest to, and a place of good pictures that is missing.

The evidence rests on the features of the backbone and not on the method, so that it is there for every method.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful.ops.components import components
from handful.ops.frames import Placement
from handful.types import NearestReference, Region

NEIGHBOURHOOD = 3  # patches a side that a place is seen with
CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32
BESIDE = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]
ROUNDING = 1 + 1e-5  # more than float32 makes of a distance


def regions(heatmap: NDArray[np.float32], size: tuple[int, int]) -> tuple[Region, ...]:
    """The connected regions (8 neighbours) of a defective picture's map, strongest first.

    Args:
        heatmap: (H, W) calibrated; a region is where it exceeds 1. Where it exceeds 1 nowhere (a picture may be
            rejected for many slightly strange patches), the region is the highest 1 % of its pixels.
        size: width, height of the original picture, in whose pixels the regions are given.
    """
    inside_any = heatmap > 1 if heatmap.max() > 1 else heatmap >= np.quantile(heatmap, 0.99)
    height, width = heatmap.shape
    across, down = size[0] / width, size[1] / height
    found = []
    for rows, columns, belonging in components(inside_any):
        inside = np.where(belonging, heatmap[rows, columns], -np.inf)
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        left, top = math.floor(columns.start * across), math.floor(rows.start * down)
        right, bottom = math.ceil(columns.stop * across), math.ceil(rows.stop * down)
        peak_at = (int((columns.start + x + 0.5) * across), int((rows.start + y + 0.5) * down))
        area = max(1, round(int(np.isfinite(inside).sum()) * across * down))
        found.append(Region((left, top, right - left, bottom - top), area, float(inside.max()), peak_at))
    return tuple(sorted(found, key=lambda region: -region.peak))


class Place(NamedTuple):
    """A patch of one of several pictures on the same grid, and how far it is from what it was compared with."""

    picture: int
    row: int
    column: int
    distance: float


class ReferencePatches:
    """The patches (k, h, w, D) of several pictures on the same grid, prepared once for many searches."""

    def __init__(self, patches: NDArray[np.float32]) -> None:
        self.patches = patches
        self._rows = Rows(patches.reshape(-1, patches.shape[3]))
        self._beside = list(_distances_beside(patches))

    def nearest_places(self, query: NDArray[np.float32], at: Sequence[tuple[int, int]]) -> list[Place]:
        """The patch of any reference that each patch of a picture (h, w, D) at these rows and columns is nearest to."""
        if not at:
            return []
        rows, columns = np.array(at).T
        distances, found = self._rows.nearest(query[rows, columns])
        return [self._place(int(n), float(d)) for n, d in zip(found, distances, strict=True)]

    def least_found(self, query: NDArray[np.float32]) -> Place:
        """The patch of the most alike reference farthest from all in a picture (h, w, D): it may be missing there.

        The most alike reference is the one whose patches are nearest to the picture's on the mean, by every fourth row
        and column of it and every second one of the picture. Of its own patches those of every second row and column
        are looked up first. Any other is at most as far as one of these beside it and the two are apart, so that few
        of them are looked up too.
        """
        count, height, width, depth = self.patches.shape
        sparse, dense = (some.reshape(-1, depth) for some in (self.patches[:, ::4, ::4], query[::2, ::2]))
        alike = int(Rows(dense).nearest(sparse)[0].reshape(count, -1).mean(1).argmin())
        rows, patches = Rows(query.reshape(-1, depth)), self.patches[alike].reshape(-1, depth)
        second = np.arange(height * width).reshape(height, width)[::2, ::2].ravel()
        distances, bounds = np.zeros(len(patches), np.float32), np.full(len(patches), np.inf)
        distances[second], _ = rows.nearest(patches[second])
        for places, beside, between in self._beside:
            bounds[places] = np.minimum(bounds[places], distances[beside] + between[alike])
        bounds[second] = -np.inf
        left = np.flatnonzero(bounds * ROUNDING >= distances.max())
        distances[left], _ = rows.nearest(patches[left])
        number = int(distances.argmax())
        return self._place(alike * len(distances) + number, float(distances[number]))

    def _place(self, number: int, distance: float) -> Place:
        """The patch of this number, counted through all references."""
        _, height, width, _ = self.patches.shape
        picture, inside = divmod(number, height * width)
        row, column = divmod(inside, width)
        return Place(picture, row, column, distance)


def _distances_beside(
    patches: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]]:
    """Distances of patches (k, h, w, D) from the adjacent patches that lie in every second row and column.

    Yields:
        For each of the eight sides the numbers of the patches (m,) that have such a one there, that one's (m,), and how
        far the two are apart in each picture (k, m).
    """
    count, height, width, depth = patches.shape
    flat, numbers = patches.reshape(count, -1, depth), np.arange(height * width).reshape(height, width)
    for down, across in BESIDE:
        rows = [row for row in range(0, height, 2) if 0 <= row - down < height]
        columns = [column for column in range(0, width, 2) if 0 <= column - across < width]
        there = numbers[rows][:, columns].ravel()
        here = there - (down * width + across)
        yield here, there, np.linalg.norm(flat[:, here] - flat[:, there], axis=2)


class Rows:
    """Rows (M, D) to search among, prepared once for many searches."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows, self._middle = rows, rows.mean(0)  # distances stay, and squares of what lies around 0 cancel least
        centred = rows - self._middle
        half_squares = np.square(centred).sum(1) / 2
        self._bank = np.column_stack([centred, -half_squares]).T  # (D + 1, M): one product gives all

    def nearest(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest row of each query by Euclidean distance, the lowest of those equally near: (N, D) → (N,), (N,).

        Found by q·m - |m|²/2, which orders rows as the distance does; the distance itself is computed from the
        difference, so that it carries no cancellation error and a query that is among the rows is exactly 0 away.
        """
        asked = np.column_stack([queries - self._middle, np.ones(len(queries), np.float32)])
        block, count = max(1, CHUNK_ELEMENTS // len(self._rows)), len(queries)
        buffer = np.empty((min(block, count), len(self._rows)), np.float32)  # one for all: new memory takes time
        found = np.empty(count, np.int64)
        for start in range(0, count, block):
            some = asked[start : start + block]
            found[start : start + block] = np.matmul(some, self._bank, out=buffer[: len(some)]).argmax(1)
        distances: NDArray[np.float32] = np.linalg.norm(queries - self._rows[found], axis=1)
        return distances, found


class Evidence:
    """Searches the good pictures of an inspector by the backbone's features; every level has the same weight.

    The search is prepared for the first defect. Any number of threads may use it.

    Args:
        learnt: the levels of one good picture each, (h, w, D), finest grid first.
        placements: of each good picture in its frame.
    """

    def __init__(
        self, learnt: Sequence[Sequence[NDArray[np.float32]]], names: Sequence[str], placements: Sequence[Placement]
    ) -> None:
        self._names, self._placements, self._learnt = tuple(names), tuple(placements), learnt
        self._prepared: tuple[list[float], ReferencePatches] | None = None

    def explain(
        self,
        regions: Sequence[Region],
        levels: Sequence[NDArray[np.float32]],
        size: tuple[int, int],
        placement: Placement,
    ) -> tuple[tuple[Region, ...], NearestReference]:
        """Add to each region the good patch nearest to its peak; beside them, what may be missing.

        Args:
            levels: of the picture, as those learnt.
            size: width, height of the original picture, in whose pixels the regions are given.
            placement: of the picture in its frame.
        """
        scales, references = self._search
        query = _vectors(levels, scales)
        height, width, _ = query.shape
        at = [placement.cell_of(region.peak_at, size, (height, width)) for region in regions]
        nearest = [self._likeness(place) for place in references.nearest_places(query, at)]
        explained = tuple(replace(region, nearest=one) for region, one in zip(regions, nearest, strict=True))
        return explained, self._likeness(references.least_found(query))

    @property
    def _search(self) -> tuple[list[float], ReferencePatches]:
        """The length of each level's patches, and the good pictures' patches.

        Two threads may prepare it at the same time, to the same values; a lock could stay locked after a fork.
        """
        if self._prepared is None:
            scales = [_length(np.stack(level)) for level in zip(*self._learnt, strict=True)]
            self._prepared = scales, ReferencePatches(np.stack([_vectors(levels, scales) for levels in self._learnt]))
        return self._prepared

    def _likeness(self, place: Place) -> NearestReference:
        height, width, _ = self._learnt[0][0].shape
        at = self._placements[place.picture].in_picture(((place.column + 0.5) / width, (place.row + 0.5) / height))
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
