"""Greedy k-centre selection: few rows such that every row has a chosen row near."""

import math

import torch
from torch import Tensor

from handful.ops.least import CANCELLED


def greedy_coreset(points: Tensor, size: int, *, start: int = 0) -> Tensor:
    """Choose `size` rows of (N, D), each time the row farthest from all rows chosen so far.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018,
    Algorithm 1, as PatchCore (section 3.2) and FastRecon use it. No random projection goes before: with a handful of
    references the exact distances are cheap.

    Args:
        points: (N, D).
        size: 1 to N.
        start: the row chosen first; FastRecon's code arrives at row 0. Another order of rows gives another coreset.

    Returns:
        (size,) int64 row numbers in the order of choice. Rows closer to a chosen row than `CANCELLED` allows to tell
        come last, lowest number first.
    """
    chosen = torch.empty(size, dtype=torch.int64, device=points.device)
    centred = points - points.mean(0)  # distances stay, and the squares of what lies around 0 cancel least
    squares = centred.square().sum(1)
    least = CANCELLED * squares
    gap, buffer = torch.full_like(squares, math.inf), torch.empty_like(squares)  # squared, to the nearest chosen row
    row = torch.tensor(start, device=points.device)
    for position in range(size):
        chosen[position] = row
        torch.addmv(squares, centred, centred[row], alpha=-2, out=buffer).add_(squares[row])
        torch.minimum(gap, buffer.masked_fill_(buffer < least + least[row], 0.0), out=gap)
        gap[row] = -1.0  # below every distance, so that no row is chosen twice
        row = gap.argmax()
    return chosen
