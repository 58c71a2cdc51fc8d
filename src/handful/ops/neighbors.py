"""Exact nearest neighbours in a bank of patches, in bounded memory."""

import math

import torch
from torch import Tensor

from handful.ops.tracing import is_tracing

CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32, near the optimum of common CPUs
GRAPH_ELEMENTS = 1_250_000  # of a block in a graph, where OpenVINO searches each block right after computing it
GRAPH_GROUP = 64  # a graph first takes the minima of groups of rows, as large as divide both this number and the bank


class Bank:
    """Rows (M, D) prepared for many nearest-neighbour searches."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self._middle = rows.mean(0)  # centring keeps distances and lessens cancellation in squares

    def nearest(self, queries: Tensor, *, neighbours: int = 1, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the K nearest rows of each query (N, D) by Euclidean distance, nearest first.

        The distances of the rows found are computed from differences, without cancellation error, so that a query equal
        to a row is at distance 0 exactly.

        Args:
            queries: (N, D).
            neighbours: K, at most the number of rows that are not excluded.
            excluded: (N, E) numbers of rows that must not be neighbours of a query, repeated to fill up E.

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
        """The nearest rows' numbers (N, K), by the least |m|²/2 - q·m, a block of queries at a time."""
        centred = self.rows - self._middle
        half_squares = centred.square().sum(1) / 2  # (M,)
        in_graph = is_tracing()
        block = max(1, (GRAPH_ELEMENTS if in_graph else CHUNK_ELEMENTS) // len(centred))
        # All blocks reuse the buffer, as allocating takes time; a graph allows no in-place buffers.
        buffer = None if in_graph else queries.new_empty(min(block, len(queries)), len(centred))
        blocks = (self._middle - queries).split(block)  # -q, so that a graph can fuse the addition of |m|²/2
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
    """The position of the least value of each row, the first on ties: (n, M) → (n, 1)."""
    if not is_tracing():
        return order.argmin(1, keepdim=True)
    # In a graph, minima are fast but positions of minima are slow, so positions are searched among few values only.
    size = math.gcd(order.shape[1], GRAPH_GROUP)
    groups = order.unflatten(1, (-1, size))  # (n, M / size, size)
    group = first_place(groups.amin(2))
    within = groups.gather(1, group[:, :, None].expand(-1, 1, size))[:, 0]  # (n, size)
    return size * group + first_place(within)


def first_place(order: Tensor) -> Tensor:
    """The position of the least value of each row, the first on ties in every runtime: (n, M) → (n, 1)."""
    places, last = torch.arange(order.shape[1], device=order.device), order.shape[1] - 1
    return torch.where(order == order.amin(1, keepdim=True), places, last).amin(1, keepdim=True)


def neighbourhoods(pictures: int, height: int, width: int, *, radius: int) -> Tensor:
    """The rows of the same picture within a radius of each row, the row itself included: → (B·h·w, (2·radius + 1)²).

    The rows are the patches (B, h, w, D), flattened; the radius is in grid steps, diagonal steps included.
    """
    steps = torch.arange(-radius, radius + 1)
    # Beyond the border the window repeats the border's row, which is in the window in any case.
    down, across = ((torch.arange(side)[:, None] + steps).clamp(0, side - 1) for side in (height, width))
    window = down[:, None, :, None] * width + across[:, None, :]  # (h, w, n, n)
    first = torch.arange(pictures)[:, None, None, None, None] * (height * width)
    return (first + window).flatten(0, 2).flatten(1)


def distance(one: Tensor, other: Tensor) -> Tensor:
    """The Euclidean distances of corresponding rows: (N, D), (N, D) → (N,)."""
    norms: Tensor = torch.linalg.vector_norm(one - other, dim=1)
    return norms
