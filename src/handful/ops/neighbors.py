"""Exact nearest neighbours in a bank of patches, in bounded memory."""

import math

import torch
from torch import Tensor

from handful.ops.tracing import is_tracing

CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32, near the optimum of common CPUs
GRAPH_ELEMENTS = 1_250_000  # the same in a graph, which OpenVINO looks through right after each block
GRAPH_GROUP = 64  # bank rows whose least distance a graph looks at first, or what divides both this and the bank


class Bank:
    """Rows (M, D) to search among, prepared once for many searches."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self._middle = rows.mean(0)  # distances stay, and the squares of what lies around 0 cancel least

    def nearest(self, queries: Tensor, *, neighbours: int = 1, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the K nearest rows of each query (N, D) by Euclidean distance, nearest first.

        The distances of the rows found are computed from the difference itself, so that they carry no cancellation
        error and a query that is in the bank is exactly 0 away from it.

        Args:
            queries: (N, D).
            neighbours: K, at most the number of rows that are not excluded.
            excluded: (N, E) rows that are no neighbours of a query, repeated where there are fewer than E.

        Returns:
            Distances (N, K) and row numbers in the bank (N, K), int64.
        """
        indices = self._by_products(queries, neighbours, excluded)
        distances = torch.stack([distance(queries, self.rows[column]) for column in indices.T], 1)
        if neighbours > 1:
            if is_tracing():  # torch cannot write a stable sort as ONNX
                distances, order = distances.topk(neighbours, largest=False)
            else:
                distances, order = distances.sort(dim=1, stable=True)
            indices = indices.gather(1, order)
        return distances, indices

    def _by_products(self, queries: Tensor, neighbours: int, excluded: Tensor | None) -> Tensor:
        """The rows (N, K) by |m|²/2 - q·m, which orders them as the distance does, a block of queries at a time."""
        centred = self.rows - self._middle
        half_squares = centred.square().sum(1) / 2  # (M,)
        in_graph = is_tracing()
        block = max(1, (GRAPH_ELEMENTS if in_graph else CHUNK_ELEMENTS) // len(centred))
        # One room for all: memory that is new for every block takes time of its own.
        buffer = None if in_graph else queries.new_empty(min(block, len(queries)), len(centred))
        blocks = (self._middle - queries).split(block)  # -q, so that a graph adds |m|²/2 where it multiplies
        barred = [None] * len(blocks) if excluded is None else excluded.split(block)
        found = []
        for some, rows_barred in zip(blocks, barred, strict=True):
            out = None if buffer is None else buffer[: len(some)]
            order = torch.addmm(half_squares, some, centred.T, out=out)  # (n, M)
            if rows_barred is not None:
                order.scatter_(1, rows_barred, math.inf)
            one = neighbours == 1
            found.append(_first_least(order) if one else order.topk(neighbours, largest=False).indices)
        return torch.cat(found)


def _first_least(order: Tensor) -> Tensor:
    """The place of the least value of each row, the first of equals: (n, M) → (n, 1)."""
    if not is_tracing():
        return order.argmin(1, keepdim=True)
    # In a graph: the least value is quickly found, its place only among few values.
    size = math.gcd(order.shape[1], GRAPH_GROUP)
    groups = order.unflatten(1, (-1, size))  # (n, M / size, size)
    group = first_place(groups.amin(2))
    within = groups.gather(1, group[:, :, None].expand(-1, 1, size))[:, 0]  # (n, size)
    return size * group + first_place(within)


def first_place(order: Tensor) -> Tensor:
    """The place of the least value of each row, the first of equals: (n, M) → (n, 1); alike in all runtimes."""
    places, last = torch.arange(order.shape[1], device=order.device), order.shape[1] - 1
    return torch.where(order == order.amin(1, keepdim=True), places, last).amin(1, keepdim=True)


def neighbourhoods(pictures: int, height: int, width: int, *, radius: int) -> Tensor:
    """The rows of the same picture within a radius of each row, its own included: → (B·h·w, (2·radius + 1)²).

    The rows are the patches (B, h, w, D); the radius is in grid steps, diagonal steps included.
    """
    steps = torch.arange(-radius, radius + 1)
    # Beyond the border the window repeats the border's row, which belongs to it in any case.
    down, across = ((torch.arange(side)[:, None] + steps).clamp(0, side - 1) for side in (height, width))
    window = down[:, None, :, None] * width + across[:, None, :]  # (h, w, n, n)
    first = torch.arange(pictures)[:, None, None, None, None] * (height * width)
    return (first + window).flatten(0, 2).flatten(1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """The Euclidean distance of rows: (N, D), (N, D) → (N,)."""
    norms: Tensor = torch.linalg.vector_norm(one - other, dim=1)
    return norms
