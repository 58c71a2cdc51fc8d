"""Exact nearest neighbours in a bank of patches, in bounded memory."""

import math

import torch
from torch import Tensor

CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32, near the optimum of common CPUs


def nearest(
    queries: Tensor, bank: Tensor, *, neighbours: int = 1, excluded: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Find the nearest bank rows of each query by Euclidean distance, nearest first.

    Candidates come from the expanded square |q|² - 2 q·m + |m|², one block of queries at a time; the distances of those
    chosen are computed again from the difference itself, so that they carry no cancellation error and a query that
    is in the bank is exactly 0 away from it.

    Args:
        queries: (N, D).
        bank: (M, D), at least `neighbours` rows besides those excluded.
        neighbours: K, how many to find.
        excluded: (N, E) rows of the bank that are no neighbours of a query, repeated where there are fewer than E.

    Returns:
        Distances (N, K) and row numbers in the bank (N, K), int64.
    """
    middle = bank.mean(0)  # distances stay, and the squares of what lies around 0 cancel least
    centred = bank - middle
    half_squares = centred.square().sum(1) / 2  # (M,)
    rows = max(1, CHUNK_ELEMENTS // len(bank))
    found = []
    blocks = (queries - middle).split(rows)
    barred = [None] * len(blocks) if excluded is None else excluded.split(rows)
    for block, rows_barred in zip(blocks, barred, strict=True):
        # |m|²/2 - q·m orders the bank as the distance does.
        order = torch.addmm(half_squares[None], block, centred.T, alpha=-1)  # (n, M)
        if rows_barred is not None:
            order.scatter_(1, rows_barred, math.inf)
        found.append(
            order.argmin(1, keepdim=True) if neighbours == 1 else order.topk(neighbours, dim=1, largest=False).indices
        )
    indices = torch.cat(found)  # (N, K)
    distances = torch.stack([distance(queries, bank[column]) for column in indices.T], 1)
    if neighbours > 1:
        distances, order = distances.sort(dim=1, stable=True)
        indices = indices.gather(1, order)
    return distances, indices


def distance(one: Tensor, other: Tensor) -> Tensor:
    """The Euclidean distance of rows: (N, D), (N, D) → (N,)."""
    norms: Tensor = torch.linalg.vector_norm(one - other, dim=1)
    return norms
