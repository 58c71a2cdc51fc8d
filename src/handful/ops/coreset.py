"""Greedy k-centre selection: a small subset of rows such that every row is near a row of the subset."""

import math

import torch
from torch import Tensor

from handful.ops.least import CANCELLED


def greedy_coreset(points: Tensor, size: int, *, start: int = 0) -> Tensor:
    """Choose `size` rows of (N, D), each time the row farthest from all rows chosen so far.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018,
    Algorithm 1, as PatchCore (section 3.2) and FastRecon use it. Departure: no random projection, as exact distances
    are cheap with a handful of references.

    Args:
        points: (N, D).
        size: 1 to N.
        start: the row chosen first; row 0 in FastRecon's code. The coreset depends on the order of rows.

    Returns:
        (size,) int64 row numbers in the order of choice. Rows that float32 cannot tell from a chosen row, see
        `CANCELLED`, come last, lowest number first.
    """
    chosen = torch.empty(size, dtype=torch.int64, device=points.device)
    centred = points - points.mean(0)  # centring keeps distances and lessens cancellation in squares
    squares = centred.square().sum(1)
    least = CANCELLED * squares
    gap, buffer = torch.full_like(squares, math.inf), torch.empty_like(squares)  # squared distance to the chosen rows
    row = torch.tensor(start, device=points.device)
    for position in range(size):
        chosen[position] = row
        torch.addmv(squares, centred, centred[row], alpha=-2, out=buffer).add_(squares[row])
        torch.minimum(gap, buffer.masked_fill_(buffer < least + least[row], 0.0), out=gap)
        gap[row] = -1.0  # below every distance, so that no row is chosen twice
        row = gap.argmax()
    return chosen
