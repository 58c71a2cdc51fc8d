"""Residuals: the difference of each patch from the most similar reference patch."""

from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from handful.ops.neighbors import Bank

Match = Literal["euclidean", "cosine"]
Residual = Literal["signed", "squared", "none"]


class ResidualBank:
    """The references' patches of every level, from which residuals are taken.

    Args:
        levels: of the references, each (B, h, w, D).
        match: the distance by which the most similar patch is found.
    """

    def __init__(self, levels: tuple[Tensor, ...], *, match: Match) -> None:
        self.rows = tuple(level.flatten(0, 2).contiguous() for level in levels)  # (B·h·w, D) each
        self._match = match
        self._banks = [Bank(self._directions(rows)) for rows in self.rows]

    def residuals(self, levels: tuple[Tensor, ...], *, kind: Residual) -> tuple[Tensor, ...]:
        """The difference of each patch from its most similar reference patch: (B, h, w, D) → (B, h, w, D) each.

        "signed" is the paper's residual, "squared" the residual of ResAD's code for CNNs; "none" returns the patches.
        """
        if kind == "none":
            return levels
        found = []
        for level, rows, bank in zip(levels, self.rows, self._banks, strict=True):
            patches = level.flatten(0, 2)  # (B·h·w, D)
            _, indices = bank.nearest(self._directions(patches))
            difference = (patches - rows[indices[:, 0]]).reshape(level.shape)
            found.append(difference.square() if kind == "squared" else difference)
        return tuple(found)

    def _directions(self, rows: Tensor) -> Tensor:
        """The rows, scaled to length 1 for a match by cosine, so that the nearest row has the highest cosine."""
        return F.normalize(rows) if self._match == "cosine" else rows
