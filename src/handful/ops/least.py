"""Minimum Euclidean and cosine distance of patches to a bank of rows, without the number of the nearest row.

Both squared distances follow from the same dot products: |q - m|² = |q|² + |m|² - 2 q·m, and at length 1,
2 - 2 q·m / (|q| |m|). Rows are arranged in groups of K rows of nearly equal length, so that a group's largest dot
product is the result of a chain of K convolutions with ReLU, as max(a, b) - c = relu(a - b) + b - c. OpenVINO fuses
addition and ReLU with the convolution; writing all products to memory and searching them would take as long as the
products. In a group of rows of equal length, the row with the largest product also has the largest cosine, so that the
same groups serve both distances. Lengths are therefore rounded by at most 1 %, when rows are learnt and before the
method is calibrated.

Float32 cancellation makes a squared distance wrong by about 1e-7 of |q|², by an amount that depends on the engine.
Squared distances are therefore at least `CANCELLED` of |q|²: a patch equal to a row of the bank is at a distance of
4e-3 of its length, where `handful.ops.neighbors` gives 0. Without the bound, rounding would decide the ranking on even,
white grounds, where many patches recur. The bound assumes that different patches differ by more than 4e-3 of their
length. The features of networks differ far more; rows that share a constant hundreds of times larger than their
differences would all be equally far from each other.
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

ELEMENTS = 512_000  # of a block of products: 2 MB of float32, which fits into the caches of two cores
ELEMENTS_ON_GPU = 2**26  # 256 MB, of all rows of the groups
WIDE = 32  # blocks have a multiple of this number of groups: vector registers hold 16 values, and several are used
CANCELLED = 1.6e-5  # least squared distance as a share of the squared length, far above float32's cancellation error
ZERO = 1e-24  # squared length below which a patch counts as a patch of zeros
FEW = 100  # rows; smaller banks have a single row in each group
LENGTH_RATIO = 1.02  # the longest over the shortest row of a group, so that lengths are rounded by at most 1 %
# Rows per group. Deeper groups are searched faster, but more groups are then filled up by repeated rows: the best depth
# grows with the square root of the number of rows. Float32 rounding errors add up over a group.
ROWS_FOR_ONE, DEEPEST = 16, 16


def in_groups(rows: Tensor, measures: Sequence[Measure]) -> Tensor:
    """Arrange rows for the search: (M, D) → (K, L, D), K rows in each of L groups.

    From `FEW` rows on, rows of about equal length form a group, filled up by a repeated row. For two measures all rows
    of a group get the same length, the geometric mean of the shortest and the longest row; their directions stay. The
    order of the rows does not matter.
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
    """The starts of groups of ascending lengths: a group ends before a length above `LENGTH_RATIO`, or when full."""
    starts, end = [], 0
    while end < len(lengths):
        starts.append(end)
        end = bisect_right(lengths, LENGTH_RATIO * lengths[end], end, min(end + each, len(lengths)))
    return starts


def least_distances(
    rows: Tensor, queries: Tensor, measures: Sequence[Measure], *, among: Tensor | None = None
) -> list[Tensor]:
    """The distance of each query to the nearest row: (P, N) for each measure.

    Args:
        rows: (P, K, L, D): P slices, each arranged by `in_groups` and searched separately.
        queries: (N, D).
        measures: "euclidean", and "cosine", the Euclidean distance of vectors scaled to length 1. Patches of zeros stay
            zeros in both.
        among: (C,) numbers of slices that are searched together as a single slice; None to search every slice.
    """
    if among is not None and not is_tracing():  # in torch, preparing only the wanted slices saves time
        rows, among = rows[among].transpose(0, 1).flatten(1, 2)[None], None
    if among is not None or len(rows) == 1:  # repeats the last group up to a multiple of WIDE
        wide = WIDE // math.gcd(WIDE, 1 if among is None else len(among))
        rows = torch.cat([rows, rows[:, :, -1:].expand(-1, -1, -rows.shape[2] % wide, -1)], 2)
    prepared = _prepared(rows, measures)
    if among is not None:  # in a graph, the steps before do not depend on the picture and run once
        prepared = tuple(each[:, :, among].transpose(1, 2).flatten(1, 2)[:, :, None] for each in prepared)
    steps, of_rows, of_zeros = prepared
    of_zeros = of_zeros.amin((0, 1))[:, None]
    nearest, likest = _least(steps, of_rows, queries, measures)
    squares = queries.square().sum(1)
    shares = _shares(squares)
    # Half a squared distance, less half the query's squared length: |m|²/2 - q·m, or 1/2 - cos at length 1. Both are 0
    # for a row of zeros.
    lengths = {"euclidean": squares, "cosine": torch.where(shares > 0, 1.0, 0.0)}
    halves = {"euclidean": nearest, "cosine": shares * likest + 0.5}
    found = []
    for measure in measures:
        distances = lengths[measure] + 2 * torch.minimum(halves[measure], of_zeros)
        found.append(torch.maximum(distances, CANCELLED * lengths[measure]).sqrt())
    return found


def _prepared(rows: Tensor, measures: Sequence[Measure]) -> tuple[Tensor, ...]:
    """The factors of the search that do not depend on the queries, from rows (P, K, L, D).

    The axis of groups comes before the axis of slices, as OpenVINO is slow at minima over adjacent values.

    Returns:
        The `steps` of `_largest` (K, L, P, D or D + 1), the largest row length of each group (1, L, P), and 0 if a
        group has rows of zeros, else infinity (1, L, P).
    """
    rows = rows.permute(1, 2, 0, 3)
    squares = rows.square().sum(3)
    shares = _shares(squares)
    vectors = rows * shares[..., None] if "cosine" in measures else torch.cat([rows, -squares[..., None] / 2], 3)
    steps = vectors if rows.is_cuda else torch.cat([vectors[:-1] - vectors[1:], vectors[-1:]])
    of_zeros = torch.where(shares > 0, math.inf, 0.0)
    return steps, squares.sqrt().amax(0, keepdim=True), of_zeros.amin(0, keepdim=True)


def _least(steps: Tensor, lengths: Tensor, queries: Tensor, measures: Sequence[Measure]) -> tuple[Tensor, Tensor]:
    """The least |m|²/2 - q·m and the least -q·m / |m| over the rows m of each slice: (P, N) each.

    Groups are searched in blocks, to bound the memory. A result that none of the measures needs has no meaning.
    """
    each, count, slices, _ = steps.shape
    by_length = "cosine" not in measures
    if by_length:  # the largest q·m - |m|²/2
        queries = F.pad(queries, (0, 1), value=1.0)
    elements = ELEMENTS_ON_GPU / each if steps.is_cuda else ELEMENTS
    blocks = math.ceil(slices * count * len(queries) / elements)
    block = math.ceil(count / blocks) if slices > 1 else WIDE * math.ceil(count / blocks / WIDE)
    least = []  # an item for each block
    for start in range(0, count, block):
        some = slice(start, start + block)
        largest = _largest(steps[:, some].flatten(1, 2), queries).view(1, -1, slices, len(queries))
        length = lengths[:, some, :, None]
        nearest = (-largest if by_length else (length / 2 - largest) * length).amin(1)
        # Both minima are concatenated here, so that a graph computes both while the products are still in the cache.
        least.append(torch.cat([nearest, -largest.amax(1)]))
    nearest, likest = torch.stack(least).amin(0)
    return nearest, likest


def _largest(steps: Tensor, queries: Tensor) -> Tensor:
    """The largest dot product of each group's rows with each query: (K, L, D), (N, D) → (1, L, 1, N).

    `steps` are the differences between successive rows of each group and the last row; on a GPU, the rows themselves.
    """
    if steps.is_cuda:  # few large operations are fastest on a GPU
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
    """1 / length from squared lengths; 0 for patches of zeros."""
    return torch.where(squares > ZERO, squares.clamp_min(ZERO).rsqrt(), 0.0)
