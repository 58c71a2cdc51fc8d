"""The regions of a defect, the good patch nearest to each region, and the good place that may be missing.

The evidence rests on the backbone's features and not on the method, so every method has evidence.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import lru_cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful.ops.frames import Placement
from handful.types import NearestReference, Region

NEIGHBOURHOOD = 3  # patches a side that are averaged around each patch
CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32
BESIDE = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]
ROUNDING = 1 + 1e-5  # exceeds the relative rounding error of a float32 distance
TIED = 1e-5  # exceeds the rounding error of a float32 product, as a share of the squared lengths of both vectors


def regions(heatmap: NDArray[np.float32], size: tuple[int, int]) -> tuple[Region, ...]:
    """The connected regions (8 neighbours) of a defective picture's map, strongest first.

    Args:
        heatmap: (H, W) calibrated; regions are where the heatmap exceeds 1. If the heatmap exceeds 1 nowhere (a picture
            may be rejected for many slightly unusual patches), regions are the highest 1 % of its pixels.
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
    """A patch of one of several pictures on the same grid, and its distance from the patch compared with it."""

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
        """The nearest reference patch of each patch of a picture (h, w, D) at the given rows and columns."""
        if not at:
            return []
        rows, columns = np.array(at).T
        distances, found = self._rows.exactly(query[rows, columns])
        return [self._place(int(n), float(d)) for n, d in zip(found, distances, strict=True)]

    def least_found(self, query: NDArray[np.float32]) -> Place:
        """The patch of the most similar reference that is farthest from all patches of a picture (h, w, D).

        The content of that patch may be missing in the picture. The most similar reference has the smallest mean
        distance from its patches to the picture's nearest patches, over every fourth row and column of the reference
        and every second row and column of the picture.

        The farthest patch is searched exactly: the distances of every second row and column of the reference are
        computed first. By the triangle inequality they bound the distances of the patches between, and only patches
        whose bound exceeds the farthest distance found so far are computed too.
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
        farthest = np.flatnonzero(distances * ROUNDING >= distances.max())
        exact, _ = rows.exactly(patches[farthest])
        number = int(farthest[exact.argmax()])
        return self._place(alike * len(distances) + number, float(exact.max()))

    def _place(self, number: int, distance: float) -> Place:
        """The place of a patch from its number, counted through all references row by row."""
        _, height, width, _ = self.patches.shape
        picture, inside = divmod(number, height * width)
        row, column = divmod(inside, width)
        return Place(picture, row, column, distance)


def _distances_beside(
    patches: NDArray[np.float32],
) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]]:
    """Distances of patches (k, h, w, D) from the adjacent patches that lie in every second row and column.

    Yields:
        For each of the eight directions: the numbers of the patches whose neighbour in that direction lies in an even
        row and column (m,), the neighbours' numbers (m,), and the distance of each pair in each picture (k, m).
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
    """Rows (M, D) prepared for many nearest-neighbour searches."""

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows, self._middle = rows, rows.mean(0)  # centring keeps distances and lessens cancellation in squares
        centred = rows - self._middle
        half_squares = np.square(centred).sum(1) / 2
        self._bank = np.column_stack([centred, -half_squares]).T  # (D + 1, M), so that a single matrix product suffices

    def nearest(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Euclidean distance and number of each query's nearest row, the lowest number on ties: (N, D) → (N,), (N,).

        The nearest row has the largest q·m - |m|²/2. Its distance is then computed from the difference, without
        cancellation error, so that a query equal to a row is at distance 0 exactly. Between rows at almost the same
        distance, rounding decides, which differs with the number of NumPy's threads.
        """
        found = np.concatenate([np.empty(0, np.int64), *(some.argmax(1) for some in self._products(queries))])
        distances: NDArray[np.float32] = np.linalg.norm(queries - self._rows[found], axis=1)
        return distances, found

    def exactly(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """Distance and number of each query's nearest row, the same with any number of NumPy's threads: → (N,), (N,).

        All rows that rounding may have put behind another are compared by their differences.
        """
        lengths = np.square(queries - self._middle).sum(1) - 2 * self._bank[-1].min()
        distances, found = np.empty(len(queries), np.float32), np.empty(len(queries), np.int64)
        products = (one for some in self._products(queries) for one in some)
        for number, (query, length, product) in enumerate(zip(queries, lengths, products, strict=True)):
            near = np.flatnonzero(product >= product.max() - TIED * length)
            away = np.linalg.norm(query - self._rows[near], axis=1)
            distances[number], found[number] = away.min(), near[away.argmin()]
        return distances, found

    def _products(self, queries: NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """q·m - |m|²/2 of queries (N, D) and all rows, block by block: (n, M), valid until the next."""
        asked = np.column_stack([queries - self._middle, np.ones(len(queries), np.float32)])
        block = max(1, CHUNK_ELEMENTS // len(self._rows))
        buffer = np.empty((min(block, len(asked)), len(self._rows)), np.float32)  # reused: allocating again takes time
        for start in range(0, len(asked), block):
            some = asked[start : start + block]
            yield np.matmul(some, self._bank, out=buffer[: len(some)])


class Evidence:
    """Nearest-place search in an inspector's good pictures by the backbone's features; levels have equal weight.

    The search is prepared at the first defect. Any number of threads may use an `Evidence` at once.

    Args:
        learnt: for each good picture its levels, (h, w, D), finest grid first.
        names: of the good pictures.
        placements: the place of each good picture in its frame.
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
        """The regions, each with the good place nearest to its peak, and the good place that may be missing.

        Args:
            regions: of the picture.
            levels: the picture's features, (h, w, D) each, finest grid first.
            size: width, height of the original picture, in whose pixels the regions are given.
            placement: the place of the picture in its frame.
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
        """The root mean square length of each level's patches, and the good pictures' patches.

        Two threads may prepare the search at the same time and get equal values; a lock could stay locked after a fork.
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
    """A vector for each patch of the finest grid, the neighbourhood's mean in every level: → (h, w, sum of D).

    Without a matrix product, whose rounding differs with the number of NumPy's threads.
    """
    height, width, _ = levels[0].shape
    joined = np.empty((height, width, sum(level.shape[2] for level in levels)), np.float32)
    first = 0
    for level, scale in zip(levels, scales, strict=True):
        rows, columns, depth = level.shape
        down = _mixed(level, *_spread(rows, height)).transpose(1, 0, 2)
        across = _mixed(down, *_spread(columns, width)).transpose(1, 0, 2)
        np.divide(across, np.float32(scale), out=joined[:, :, first : first + depth])
        first += depth
    return joined


def _mixed(values: NDArray[np.float32], places: NDArray[np.intp], shares: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted sums of some of the values (given, c, D), whose places and weights are (T, length): → (length, c, D)."""
    mixed: NDArray[np.float32] = values[places[0]] * shares[0, :, None, None]
    for some, weights in zip(places[1:], shares[1:], strict=True):
        mixed += values[some] * weights[:, None, None]
    return mixed


@lru_cache(maxsize=32)
def _spread(given: int, length: int) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """The places of a level's `given` rows, or columns, in each of the finest level's `length`, and their weights.

    The weights combine the mean of `NEIGHBOURHOOD` patches, zero beyond the grid, with the linear interpolation of
    torch (`align_corners` false).

    Returns:
        (T, length) each: all places with a weight, and others with a weight of 0.
    """
    numbers = np.arange(given)
    pooled = (np.abs(numbers[:, None] - numbers) <= NEIGHBOURHOOD // 2) / NEIGHBOURHOOD
    at = np.clip((np.arange(length) + 0.5) * (given / length) - 0.5, 0, given - 1)
    low = at.astype(np.int64)
    share = (at - low)[:, None]
    spread = pooled[low] * (1 - share) + pooled[np.minimum(low + 1, given - 1)] * share  # (length, given)
    most = int((spread > 0).sum(1).max())
    places = np.argsort(spread <= 0, axis=1, kind="stable")[:, :most]  # the places with a weight first, in their order
    return places.T, np.take_along_axis(spread, places, 1).T.astype(np.float32)


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
