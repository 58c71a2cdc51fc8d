"""What a verdict can be checked against: the good patch that a place is nearest to, and what good pictures have more.

Both look at what a backbone says of patches and not at what a method made of it, so that they are there for every one.
"""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32
BESIDE = [(down, across) for down in (-1, 0, 1) for across in (-1, 0, 1) if down or across]
ROUNDING = 1 + 1e-5  # more than float32 makes of a distance


class Place(NamedTuple):
    """A patch of one of several pictures on the same grid, and how far it is from what it was compared with."""

    picture: int
    row: int
    column: int
    distance: float


class References:
    """The patches of several pictures on the same grid, prepared once for many searches.

    Args:
        patches: (k, h, w, D).
    """

    def __init__(self, patches: NDArray[np.float32]) -> None:
        self.patches = patches
        self._rows = Rows(patches.reshape(-1, patches.shape[3]))
        self._beside = list(_apart(patches))

    def nearest_places(self, query: NDArray[np.float32], at: Sequence[tuple[int, int]]) -> list[Place]:
        """The patch of any reference that each of some patches of a picture is nearest to.

        Args:
            query: (h, w, D) of the picture.
            at: row and column of each patch.
        """
        if not at:
            return []
        rows, columns = np.array(at).T
        distances, found = self._rows.nearest(query[rows, columns])
        return [self._place(int(n), float(d)) for n, d in zip(found, distances, strict=True)]

    def least_found(self, query: NDArray[np.float32]) -> Place:
        """The patch of the most alike reference that is farthest from everything in a picture: it may be missing there.

        The most alike reference is the one whose patches are nearest to the picture's on the mean, by every fourth row
        and column of it and every second one of the picture. Of its own patches those of every second row and column
        are looked up first. Any other is at most as far as one of these beside it and the two are apart, so that few
        of them are looked up too.

        Args:
            query: (h, w, D) of the picture.
        """
        count, height, width, depth = self.patches.shape
        sparse, dense = (some.reshape(-1, depth) for some in (self.patches[:, ::4, ::4], query[::2, ::2]))
        alike = int(Rows(dense).nearest(sparse)[0].reshape(count, -1).mean(1).argmin())
        rows, patches = Rows(query.reshape(-1, depth)), self.patches[alike].reshape(-1, depth)
        second = np.arange(height * width).reshape(height, width)[::2, ::2].ravel()
        distances, bounds = np.zeros(len(patches), np.float32), np.full(len(patches), np.inf)
        distances[second], _ = rows.nearest(patches[second])
        for places, beside, apart in self._beside:
            bounds[places] = np.minimum(bounds[places], distances[beside] + apart[alike])
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


def _apart(patches: NDArray[np.float32]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32]]]:
    """How far patches are from those beside them that lie in every second row and column.

    Args:
        patches: (k, h, w, D).

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
    """Rows to search among, prepared once for many searches.

    Args:
        rows: (M, D).
    """

    def __init__(self, rows: NDArray[np.float32]) -> None:
        self._rows, self._middle = rows, rows.mean(0)  # distances stay, and squares of what lies around 0 cancel least
        centred = rows - self._middle
        half_squares = np.square(centred).sum(1) / 2
        self._bank = np.column_stack([centred, -half_squares]).T  # (D + 1, M): one product gives all

    def nearest(self, queries: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
        """The nearest row of each query by Euclidean distance, the lowest of those equally near.

        Found by q·m - |m|²/2, which orders rows as the distance does; the distance itself is computed from the
        difference, so that it carries no cancellation error and a query that is among the rows is exactly 0 away.

        Args:
            queries: (N, D).

        Returns:
            Distances (N,) and row numbers (N,).
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
