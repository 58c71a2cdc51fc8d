"""How far patches are from the nearest of those learnt, by one product for two measures, and without finding which.

|q - m|² is |q|² + |m|² - 2 q·m, and that of q and m at length 1 is 2 - 2 q·m / (|q| |m|): products are most of the
work, and the same ones serve both measures. What cancels leaves a squared distance wrong by some 1e-7 of |q|². So below
`CANCELLED` of that it counts as 0: a patch that was learnt is 0 away, as by `handful.ops.neighbors`.

This assumes that different patches differ by more than 2e-3 of their length, as networks' features do by far. Those
that share a constant hundreds of times larger than what tells them apart would all be 0 away from each other.
"""

import math
from collections.abc import Sequence
from functools import reduce
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Measure = Literal["euclidean", "cosine"]

ELEMENTS = 1_250_000  # of one block of the product: 5 MB of float32, which is looked through right after
GRAPH_ELEMENTS = 512_000  # the same in a graph, so that two cores hold a block by themselves
ABREAST = 4  # of these blocks
CANCELLED = 4e-6  # of a squared length: what is left of it after subtracting equals, in float32, and some more
ZERO = 1e-24  # the squared length below which a patch counts as one of zeros


def least_distances(rows: Tensor, queries: Tensor, measures: Sequence[Measure], *, parts: int = 1) -> list[Tensor]:
    """The distance of each query to the nearest row, in each measure.

    Args:
        rows: (M, D).
        queries: (N, D).
        measures: Euclidean, and "cosine": Euclidean at length 1. Patches of zeros stay what they are in both.
        parts: into how many runs of equally many rows, each of which counts by itself.

    Returns:
        (parts, N) of each measure.
    """
    squares, of_queries = rows.square().sum(1), queries.square().sum(1)
    shares, queries_shares = _shares(squares), _shares(of_queries)
    search = _in_a_graph if torch.compiler.is_compiling() else _by_blocks
    nearest, likest = search(rows, squares / 2, shares, -queries, parts)
    # 1/2 - cos, half a squared distance less that of the query; a row of zeros, whose share is 0, makes it 0.
    of_zeros = torch.where(shares > 0, 2.0, 0.0).unflatten(0, (parts, -1)).amin(1, keepdim=True)
    likest = torch.minimum(queries_shares * likest + 0.5, of_zeros)
    lengths = {"euclidean": of_queries, "cosine": torch.where(queries_shares > 0, 1.0, 0.0)}
    halves = {"euclidean": nearest, "cosine": likest}
    found = []
    for measure in measures:
        distances = lengths[measure] + 2 * halves[measure]
        found.append(torch.where(distances < CANCELLED * lengths[measure], 0.0, distances).sqrt())
    return found


def _by_blocks(rows: Tensor, halves: Tensor, shares: Tensor, negated: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """The least |m|²/2 - q·m and the least -q·m / |m| over the rows m of each part, a block of queries at a time.

    Args:
        rows: (M, D).
        halves: |m|²/2 of each (M,).
        shares: 1 / |m| of each (M,), of zeros 0.
        negated: -q, (N, D).
        parts: of the rows.

    Returns:
        (parts, N) each.
    """
    block = max(1, ELEMENTS // len(rows))
    room = negated.new_empty(min(block, len(negated)), len(rows))  # memory that is new for every block takes time
    least: tuple[list[Tensor], list[Tensor]] = [], []
    for some in negated.split(block):
        order = torch.addmm(halves, some, rows.T, out=room[: len(some)])  # (n, M)
        least[0].append(order.unflatten(1, (parts, -1)).amin(2))
        least[1].append(order.sub_(halves).mul_(shares).unflatten(1, (parts, -1)).amin(2))
    return torch.cat(least[0]).T, torch.cat(least[1]).T


def _in_a_graph(rows: Tensor, halves: Tensor, shares: Tensor, negated: Tensor, parts: int) -> tuple[Tensor, Tensor]:
    """As `_by_blocks`, but a block of rows at a time and as a convolution, which OpenVINO computes faster.

    Of `ABREAST` blocks it takes the least of each place first: so it goes through them once for both measures.
    """
    each = len(rows) // parts
    block = math.ceil(each / ABREAST / math.ceil(len(rows) * len(negated) / ABREAST / GRAPH_ELEMENTS))  # of each part
    rows, halves, shares = (_in_blocks(one.unflatten(0, (parts, each)), block) for one in (rows, halves, shares))
    asked, shares = negated.T[None, :, None], shares[:, None, None]  # (1, D, 1, N)
    of_rows = (rows[:, :, None, None], halves, shares, halves[:, None, None] * shares)
    blocks = list(zip(*(of_each.split(parts * block) for of_each in of_rows), strict=True))
    least: tuple[list[Tensor], list[Tensor]] = [], []
    for start in range(0, len(blocks), ABREAST):
        found = []
        for some, half, share, offset in blocks[start : start + ABREAST]:
            order = F.conv2d(asked, some, half)  # (1, parts · block, 1, N)
            found.append((order, order * share - offset))
        for of_measure, kept in zip(zip(*found, strict=True), least, strict=True):
            places = reduce(torch.minimum, of_measure)
            kept.append(places.amin(1, keepdim=True) if parts == 1 else places.unflatten(1, (parts, block)).amin(2))
    nearest, likest = (torch.cat(kept).amin(0)[:, 0] for kept in least)
    return nearest, likest


def _in_blocks(rows: Tensor, block: int) -> Tensor:
    """So many rows of each part, then as many more, …: (parts, P, …) → (parts · whole blocks, …).

    The last row comes again until there are as many blocks as go `ABREAST`.
    """
    parts, each, *rest = rows.shape
    whole = torch.cat([rows, rows[:, -1:].expand(parts, -each % (ABREAST * block), *rest)], 1)
    by_block: Tensor = whole.unflatten(1, (-1, block)).transpose(0, 1).flatten(0, 2)
    return by_block


def _shares(squares: Tensor) -> Tensor:
    """1 / length, of zeros 0, from squared lengths (N,)."""
    return torch.where(squares > ZERO, squares.clamp_min(ZERO).rsqrt(), 0.0)
