"""Minimum Euclidean and cosine distance of patches to a bank of rows, without the number of the nearest row.

Both distances follow from the same dot products: |q - m|² = |q|² + |m|² - 2 q·m, and at length 1 it is
2 - 2 q·m / (|q| |m|). Rows are arranged in groups of K rows of nearly equal length, so that the largest dot product of
a group is the result of a chain of K convolutions with ReLU, as max(a, b) - c = relu(a - b) + b - c: OpenVINO adds to a
convolution and clips negative values while it writes the output, where writing all products down and searching them
would cost as much as the products. In a group of one length the same row has the largest product and the largest
cosine, so that one group serves both distances. Lengths are therefore rounded by 1 % at most, when rows are learnt and
before anything is calibrated.

Cancellation leaves a squared distance wrong by about 1e-7 of |q|². Squared distances count as `CANCELLED` of |q|² at
least: a patch that is a row of the bank is 4e-3 of its length away, where `handful.ops.neighbors` gives 0. A distance
of 0 by one engine and not by another would let rounding decide on even, white grounds, where many patches recur. The
bound assumes that different patches differ by more than 4e-3 of their length. Features of networks do by far; rows that
share a constant hundreds of times larger than their differences would all be equally far from each other.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.ops.tracing import is_tracing

Measure = Literal["euclidean", "cosine"]

ELEMENTS = 512_000  # of a block of products: 2 MB of float32, which two cores hold by themselves
ELEMENTS_ON_GPU = 2**26  # 256 MB, of all rows of the groups
WIDE = 32  # groups of a block, as a multiple: vectors are 16 wide, and several are computed at a time
CANCELLED = 1.6e-5  # of a squared length: what is left of it after subtracting equals, in float32, and much more
ZERO = 1e-24  # the squared length below which a patch counts as one of zeros
FEW = 100  # rows, of which fewer are searched one by one
LENGTH_RATIO = 1.02  # lengths in one group, the longest over the shortest: so that they are rounded by 1 % at most
# A group of many rows is searched at once, but some groups are filled up by rows that recur: the best number of groups
# is the square root of the number of rows. Rounding in float32 adds up over a group.
ROWS_FOR_ONE, DEEPEST = 16, 16


def in_groups(rows: Tensor, measures: Sequence[Measure]) -> Tensor:
    """Arrange rows to be searched: (M, D) → (K, L, D), K rows in each of L groups.

    From `FEW` rows on, rows of about equal length form a group, filled up by a repeated row. For two measures all rows
    of a group get one length, the geometric mean of the shortest and the longest; their directions stay. The order of
    the rows does not matter.
    """
    if len(rows) < FEW:
        return rows[None]
    each, both = min(DEEPEST, math.isqrt(len(rows) // ROWS_FOR_ONE)), len(measures) > 1
    lengths, order = torch.linalg.vector_norm(rows, dim=1).sort()
    found = _starts(lengths.tolist(), each) if both else range(0, len(rows), each)
    starts = torch.tensor(found, device=rows.device)
    last = torch.cat([starts[1:], starts.new_tensor([len(rows)])]) - 1
    places = torch.minimum(starts + torch.arange(each, device=rows.device)[:, None], last)  # (K, L)
    groups: Tensor = rows[order[places]]
    if not both:
        return groups
    middle = (lengths[starts] * lengths[last]).sqrt()
    return groups * torch.where(lengths[places] > 0, middle / lengths[places], 1.0)[..., None]


def _starts(lengths: list[float], each: int) -> list[int]:
    """Where groups of lengths in ascending order start: with the first that is too long for the one before, or full."""
    starts, end = [], 0
    while end < len(lengths):
        starts.append(end)
        end = bisect_right(lengths, LENGTH_RATIO * lengths[end], end, min(end + each, len(lengths)))
    return starts


def least_distances(
    rows: Tensor, queries: Tensor, measures: Sequence[Measure], *, among: Tensor | None = None
) -> list[Tensor]:
    """The distance of each query to the nearest row: (P, N) of each measure.

    Args:
        rows: (P, K, L, D): P slices, each arranged by `in_groups` and searched by itself.
        queries: (N, D).
        measures: Euclidean, and "cosine": Euclidean at length 1. Patches of zeros stay zeros in both.
        among: (C,) numbers of slices, to search these alone, together as one slice.
    """
    if among is not None and not is_tracing():  # torch would prepare all the others too, for every picture
        rows, among = rows[among].transpose(0, 1).flatten(1, 2)[None], None
    if among is not None or len(rows) == 1:  # filled up by the last group
        wide = WIDE // math.gcd(WIDE, 1 if among is None else len(among))
        rows = torch.cat([rows, rows[:, :, -1:].expand(-1, -1, -rows.shape[2] % wide, -1)], 2)
    prepared = _prepared(rows, measures)
    if among is not None:  # what comes before is the same for all pictures: a graph does it once
        prepared = tuple(each[:, :, among].transpose(1, 2).flatten(1, 2)[:, :, None] for each in prepared)
    steps, of_rows, of_zeros = prepared
    of_zeros = of_zeros.amin((0, 1))[:, None]
    nearest, likest = _least(steps, of_rows, queries, measures)
    squares = queries.square().sum(1)
    shares = _shares(squares)
    # 1/2 - cos is half a squared distance less half that of the query, as |m|²/2 - q·m; a row of zeros makes both 0.
    lengths = {"euclidean": squares, "cosine": torch.where(shares > 0, 1.0, 0.0)}
    halves = {"euclidean": nearest, "cosine": shares * likest + 0.5}
    found = []
    for measure in measures:
        distances = lengths[measure] + 2 * torch.minimum(halves[measure], of_zeros)
        found.append(torch.maximum(distances, CANCELLED * lengths[measure]).sqrt())
    return found


def _prepared(rows: Tensor, measures: Sequence[Measure]) -> tuple[Tensor, ...]:
    """The factors of the search that do not depend on the queries, of rows (P, K, L, D).

    The groups come before the slices: OpenVINO is slow to find the least of values that lie side by side.

    Returns:
        The factors of `_largest` (K, L, P, D or D + 1), the length of each group's rows without rows of zeros
        (1, L, P), and 0 where a group has rows of zeros, else infinity (1, L, P).
    """
    rows = rows.permute(1, 2, 0, 3)
    squares = rows.square().sum(3)
    shares = _shares(squares)
    vectors = rows * shares[..., None] if "cosine" in measures else torch.cat([rows, -squares[..., None] / 2], 3)
    steps = vectors if rows.is_cuda else torch.cat([vectors[:-1] - vectors[1:], vectors[-1:]])
    of_zeros = torch.where(shares > 0, math.inf, 0.0)
    return steps, squares.sqrt().amax(0, keepdim=True), of_zeros.amin(0, keepdim=True)


def _least(steps: Tensor, lengths: Tensor, queries: Tensor, measures: Sequence[Measure]) -> tuple[Tensor, Tensor]:
    """The least |m|²/2 - q·m and -q·m / |m| over the rows m of each slice, (P, N) each, a block of groups at a time.

    A value that no wanted measure needs is of no use.
    """
    each, count, slices, _ = steps.shape
    by_length = "cosine" not in measures
    if by_length:  # the largest q·m - |m|²/2
        queries = F.pad(queries, (0, 1), value=1.0)
    elements = ELEMENTS_ON_GPU / each if steps.is_cuda else ELEMENTS
    blocks = math.ceil(slices * count * len(queries) / elements)
    block = math.ceil(count / blocks) if slices > 1 else WIDE * math.ceil(count / blocks / WIDE)
    least = []  # of each block
    for start in range(0, count, block):
        some = slice(start, start + block)
        largest = _largest(steps[:, some].flatten(1, 2), queries).view(1, -1, slices, len(queries))
        length = lengths[:, some, :, None]
        nearest = (-largest if by_length else (length / 2 - largest) * length).amin(1)
        # Laid together at once: else a graph comes back to products that no cache holds any more.
        least.append(torch.cat([nearest, -largest.amax(1)]))
    nearest, likest = torch.stack(least).amin(0)
    return nearest, likest


def _largest(steps: Tensor, queries: Tensor) -> Tensor:
    """The largest product of each group's rows: (K, L, D) differences from row to row, (N, D) → (1, L, 1, N).

    On a GPU they are the rows themselves.
    """
    if steps.is_cuda:  # where the start of a computation is what takes time
        return (steps @ queries.T).amax(0)[None, :, None]
    first, *others = steps
    if is_tracing():
        asked = queries[None, None].permute(0, 3, 1, 2)  # (1, D, 1, N): OpenVINO convolves faster than it multiplies
        largest: Tensor = F.conv2d(asked, first[..., None, None])
        for step in others:
            largest = F.conv2d(asked, step[..., None, None]) + F.relu(largest)
        return largest
    products: Tensor = first @ queries.T
    for step in others:
        torch.addmm(products.relu_(), step, queries.T, out=products)
    return products[None, :, None]


def _shares(squares: Tensor) -> Tensor:
    """1 / length, of zeros 0, from squared lengths."""
    return torch.where(squares > ZERO, squares.clamp_min(ZERO).rsqrt(), 0.0)
