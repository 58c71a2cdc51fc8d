"""What a verdict can be checked against: the good patch that a place is nearest to, and what good pictures have more.

Both look at what a backbone says of patches and not at what a method made of it, so that they are there for every one.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from handful.ops.neighbors import Bank


class Place(NamedTuple):
    """A patch of one of several pictures on the same grid, and how far it is from what it was compared with."""

    picture: int
    row: int
    column: int
    distance: float


def nearest_places(query: Tensor, references: Tensor, at: Sequence[tuple[int, int]]) -> list[Place]:
    """The patch of any reference that each of some patches of a picture is nearest to.

    Args:
        query: (h, w, D) of the picture.
        references: (k, h, w, D).
        at: row and column of each patch.
    """
    rows, columns = torch.tensor(at, dtype=torch.long).reshape(-1, 2).unbind(1)
    distances, found = Bank(references.flatten(0, 2), once=True).nearest(query[rows, columns])
    return [_place(references, int(n), float(d)) for n, d in zip(found[:, 0], distances[:, 0], strict=True)]


def least_found(query: Tensor, references: Tensor) -> Place:
    """The patch of the most alike reference that is farthest from everything in a picture: what may be missing there.

    The most alike reference is the one whose patches are nearest to the picture's on the mean, by every second patch of
    every second row.

    Args:
        query: (h, w, D) of the picture.
        references: (k, h, w, D).
    """
    bank = Bank(query.flatten(0, 1), once=True)
    sparse = references[:, ::2, ::2]
    alike = int(bank.nearest(sparse.flatten(0, 2))[0].reshape(len(references), -1).mean(1).argmin())
    distance, number = bank.nearest(references[alike].flatten(0, 1))[0][:, 0].max(0)
    return _place(references, alike * references[0, ..., 0].numel() + int(number), float(distance))


def _place(references: Tensor, number: int, distance: float) -> Place:
    """The patch of this number, counted through all references."""
    _, height, width, _ = references.shape
    picture, inside = divmod(number, height * width)
    return Place(picture, *divmod(inside, width), distance)
