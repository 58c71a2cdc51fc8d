"""Greedy k-centre selection: few rows such that every row has a chosen one near."""

import torch
from torch import Tensor


def greedy_coreset(points: Tensor, size: int, *, start: int = 0) -> Tensor:
    """Choose `size` rows, each time the one farthest from those chosen so far.

    Source: Sener and Savarese, Active Learning for Convolutional Neural Networks: A Core-Set Approach, 2018,
    Algorithm 1, as PatchCore (section 3.2) and FastRecon use it. No random projection goes before: with a handful of
    references the exact distances are cheap.

    Args:
        points: (N, D).
        size: how many rows, 1 to N.
        start: the row chosen first. Row 0 is what FastRecon's code arrives at; another order of rows gives another
            coreset.

    Returns:
        (size,) int64 row numbers in the order of choice. Rows that repeat a chosen one come last, lowest number first.
    """
    chosen = torch.empty(size, dtype=torch.int64, device=points.device)
    chosen[0] = start
    gap = torch.linalg.vector_norm(points - points[start], dim=1)  # (N,) to the nearest chosen row
    gap[start] = -1.0
    room = torch.empty_like(points)  # memory that is new for every row takes time of its own
    for position in range(1, size):
        row = gap.argmax()
        chosen[position] = row
        gap = torch.minimum(gap, torch.linalg.vector_norm(torch.sub(points, points[row], out=room), dim=1))
        gap[row] = -1.0  # below every distance, so that no row is chosen twice
    return chosen
