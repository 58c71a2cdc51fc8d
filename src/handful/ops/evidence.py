"""What a verdict can be checked against: the good patch that a place is nearest to, and what good pictures have more.

Both look at what a backbone says of patches and not at what a method made of it, so that they are there for every one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32


class Place(NamedTuple):
    """A patch of one of several pictures on the same grid, and how far it is from what it was compared with."""

    picture: int
    row: int
    column: int
    distance: float


def nearest_places(
    query: NDArray[np.float32], references: NDArray[np.float32], at: Sequence[tuple[int, int]]
) -> list[Place]:
    """The patch of any reference that each of some patches of a picture is nearest to.

    Args:
        query: (h, w, D) of the picture.
        references: (k, h, w, D).
        at: row and column of each patch.
    """
    if not at:
        return []
    rows, columns = np.array(at).T
    distances, found = nearest(query[rows, columns], references.reshape(-1, references.shape[3]))
    return [_place(references, int(n), float(d)) for n, d in zip(found, distances, strict=True)]


def least_found(query: NDArray[np.float32], references: NDArray[np.float32]) -> Place:
    """The patch of the most alike reference that is farthest from everything in a picture: what may be missing there.

    The most alike reference is the one whose patches are nearest to the picture's on the mean, by every fourth patch of
    every fourth row.

    Args:
        query: (h, w, D) of the picture.
        references: (k, h, w, D).
    """
    depth = query.shape[2]
    bank, sparse = query.reshape(-1, depth), references[:, ::4, ::4]
    alike = int(nearest(sparse.reshape(-1, depth), bank)[0].reshape(len(references), -1).mean(1).argmin())
    distances, _ = nearest(references[alike].reshape(-1, depth), bank)
    number = int(distances.argmax())
    return _place(references, alike * len(distances) + number, float(distances[number]))


def nearest(queries: NDArray[np.float32], rows: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The nearest row of each query by Euclidean distance, the lowest of those equally near.

    Found by q·m - |m|²/2, which orders rows as the distance does; the distance itself is computed from the difference,
    so that it carries no cancellation error and a query that is among the rows is exactly 0 away.

    Args:
        queries: (N, D).
        rows: (M, D).

    Returns:
        Distances (N,) and row numbers (N,).
    """
    middle = rows.mean(0)  # distances stay, and the squares of what lies around 0 cancel least
    centred = rows - middle
    half_squares = np.square(centred).sum(1) / 2
    bank = np.column_stack([centred, -half_squares]).T  # (D + 1, M): one product gives all
    asked = np.column_stack([queries - middle, np.ones(len(queries), np.float32)])
    block = max(1, CHUNK_ELEMENTS // len(rows))
    room = np.empty((min(block, len(queries)), len(rows)), np.float32)  # one for all: new memory takes time of its own
    found = np.empty(len(queries), np.int64)
    for start in range(0, len(queries), block):
        some = asked[start : start + block]
        found[start : start + block] = np.matmul(some, bank, out=room[: len(some)]).argmax(1)
    distances: NDArray[np.float32] = np.linalg.norm(queries - rows[found], axis=1)
    return distances, found


def _place(references: NDArray[np.float32], number: int, distance: float) -> Place:
    """The patch of this number, counted through all references."""
    _, height, width, _ = references.shape
    picture, inside = divmod(number, height * width)
    row, column = divmod(inside, width)
    return Place(picture, row, column, distance)
