"""How far patches are from the nearest of those learnt, by one product for two measures, and without finding which.

|q - m|² is |q|² + |m|² - 2 q·m, and that of q and m at length 1 is 2 - 2 q·m / (|q| |m|): products are most of the
work, and the same ones serve both measures. What cancels leaves a squared distance wrong by some 1e-7 of |q|². So it
counts as `CANCELLED` of that at least: a patch that is one of the rows is 4e-3 of its length away, where it is 0 by
`handful.ops.neighbors`. Were it 0 here, then a product of distances would be 0 by one engine and not by another, for
rounding decides which: on even, white grounds many patches come again nearly to the bit.

This assumes that different patches differ by more than 4e-3 of their length, as networks' features do by far. Those
that share a constant hundreds of times larger than what tells them apart would all be as far from each other.

Writing all products down and going through them costs as much as multiplying. `in_lanes` saves it: since

    max(a, b) - c  =  relu(a - b) + b - c,

one product after another by the differences of K rows, each added to what there is, keeps the largest of their products
where there were K. OpenVINO adds to a convolution, and cuts off what is negative, while it writes its output. Of rows
of one length the same has the largest product and the largest cosine: one such lane serves both measures. So lengths
are rounded a little, when rows are learnt and before anything is calibrated.
"""

import math
from bisect import bisect_right
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.ops.following import followed

Measure = Literal["euclidean", "cosine"]

ELEMENTS = 512_000  # of a block of products: 2 MB of float32, which two cores hold by themselves
ELEMENTS_ON_GPU = 2**26  # 256 MB, of all rows of the lanes
WIDE = 32  # lanes of a block, as a multiple: vectors are 16 wide, and several are computed at a time
CANCELLED = 1.6e-5  # of a squared length: what is left of it after subtracting equals, in float32, and much more
ZERO = 1e-24  # the squared length below which a patch counts as one of zeros
FEW = 100  # rows, of which fewer are searched one by one
APART = 1.02  # lengths in one lane, the longest over the shortest: so that they are rounded by 1 % at most
# A lane of many rows is looked through once for all of them, but some are filled up: their number is best as the square
# root of that of all rows. Rounding in float32 adds up over a lane.
ROWS_FOR_ONE, DEEPEST = 16, 16


def in_lanes(rows: Tensor, measures: Sequence[Measure]) -> Tensor:
    """Arrange rows to be searched: in lanes, for two measures of one length each.

    Of `FEW` rows or more those that are about as long go into a lane, filled up by one that comes again. For two
    measures they are all made as long as the middle of the shortest and the longest, by geometric mean; their
    directions stay. The order of the rows does not matter.

    Args:
        rows: (M, D).
        measures: that distances are wanted in.

    Returns:
        (K, L, D), K rows in each of L lanes.
    """
    if len(rows) < FEW:
        return rows[None]
    each, both = min(DEEPEST, math.isqrt(len(rows) // ROWS_FOR_ONE)), len(measures) > 1
    lengths, order = torch.linalg.vector_norm(rows, dim=1).sort()
    found = _starts(lengths.tolist(), each) if both else range(0, len(rows), each)
    starts = torch.tensor(found, device=rows.device)
    last = torch.cat([starts[1:], starts.new_tensor([len(rows)])]) - 1
    places = torch.minimum(starts + torch.arange(each, device=rows.device)[:, None], last)  # (K, L)
    lanes: Tensor = rows[order[places]]
    if not both:
        return lanes
    middle = (lengths[starts] * lengths[last]).sqrt()
    return lanes * torch.where(lengths[places] > 0, middle / lengths[places], 1.0)[..., None]


def _starts(lengths: list[float], each: int) -> list[int]:
    """Where lanes of lengths in ascending order start: with the first that is too long for the one before, or full."""
    starts, end = [], 0
    while end < len(lengths):
        starts.append(end)
        end = bisect_right(lengths, APART * lengths[end], end, min(end + each, len(lengths)))
    return starts


def least_distances(rows: Tensor, queries: Tensor, measures: Sequence[Measure]) -> list[Tensor]:
    """The distance of each query to the nearest row, in each measure.

    Args:
        rows: (P, K, L, D): P parts, each of which counts by itself and is as `in_lanes` arranges it.
        queries: (N, D).
        measures: Euclidean, and "cosine": Euclidean at length 1. Patches of zeros stay what they are in both.

    Returns:
        (P, N) of each measure.
    """
    if len(rows) == 1:
        rows = torch.cat([rows, rows[:, :, -1:].expand(-1, -1, -rows.shape[2] % WIDE, -1)], 2)  # the last lane again
    squares, of_queries = rows.square().sum(3), queries.square().sum(1)
    shares, queries_shares = _shares(squares), _shares(of_queries)
    nearest, likest = _least(rows, squares / 2, shares, queries, measures)
    # 1/2 - cos is half a squared distance less half that of the query, as |m|²/2 - q·m; a row of zeros makes both 0.
    of_zeros = torch.where(shares > 0, math.inf, 0.0).amin((1, 2))[:, None]
    lengths = {"euclidean": of_queries, "cosine": torch.where(queries_shares > 0, 1.0, 0.0)}
    halves = {"euclidean": nearest, "cosine": queries_shares * likest + 0.5}
    found = []
    for measure in measures:
        distances = lengths[measure] + 2 * torch.minimum(halves[measure], of_zeros)
        found.append(torch.maximum(distances, CANCELLED * lengths[measure]).sqrt())
    return found


def _least(
    rows: Tensor, halves: Tensor, shares: Tensor, queries: Tensor, measures: Sequence[Measure]
) -> tuple[Tensor, Tensor]:
    """The least |m|²/2 - q·m and the least -q·m / |m| over the rows m of each part, a block of lanes at a time.

    Args:
        rows: (P, K, L, D).
        halves: |m|²/2 of each (P, K, L).
        shares: 1 / |m| of each (P, K, L), of zeros 0.
        queries: (N, D).
        measures: that are wanted; the other is of no use.

    Returns:
        (P, N) each.
    """
    parts, _, count, _ = rows.shape
    by_length = "cosine" not in measures
    if by_length:  # the largest q·m - |m|²/2
        rows, queries = torch.cat([rows, -halves[..., None]], 3), F.pad(queries, (0, 1), value=1.0)
    else:
        rows = rows * shares[..., None]
    lengths = (2 * halves).sqrt().amax(1)  # (P, L), of each lane's rows but for those of zeros
    elements = ELEMENTS_ON_GPU / rows.shape[1] if rows.is_cuda else ELEMENTS
    blocks = math.ceil(parts * count * len(queries) / elements)
    block = math.ceil(count / blocks) if parts > 1 else WIDE * math.ceil(count / blocks / WIDE)
    least: tuple[list[Tensor], list[Tensor]] = [], []
    for start in range(0, count, block):
        some = slice(start, start + block)
        largest = _largest(rows[:, :, some].transpose(0, 1).flatten(1, 2), queries).view(parts, -1, 1, len(queries))
        length = lengths[:, some, None, None]
        least[0].append((-largest if by_length else (length / 2 - largest) * length).amin(1))
        least[1].append(-largest.amax(1))
    nearest, likest = (torch.stack(kept).amin(0)[:, 0] for kept in least)
    return nearest, likest


def _largest(rows: Tensor, queries: Tensor) -> Tensor:
    """The largest product of each lane's rows: (K, L, D), (N, D) → (1, L, 1, N)."""
    if rows.is_cuda:  # where the start of a computation is what takes time
        return (rows @ queries.T).amax(0)[None, :, None]
    first, *others = torch.cat([rows[:-1] - rows[1:], rows[-1:]])
    if followed():
        asked = queries.T[None, :, None]  # (1, D, 1, N): OpenVINO convolves faster than it multiplies
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
