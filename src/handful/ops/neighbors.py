"""Exact nearest neighbours in a bank of patches, in bounded memory."""

import math
from functools import cache, cached_property

import torch
from torch import Tensor

from handful.ops.tracing import is_tracing

CHUNK_ELEMENTS = 4_000_000  # of one block of the distance matrix: 16 MB of float32, near the optimum of common CPUs
CODED_ELEMENTS = 2_000_000  # the same of whole numbers, which are looked through more often
GRAPH_ELEMENTS = 1_250_000  # the same in a graph, which OpenVINO looks through right after each block
GROUP = 32  # bank rows whose least distance is looked at first
GRAPH_GROUP = 64  # the same in a graph, or what goes into both this and the bank
# How many of them one query may have to look into, and which share of all, before the plain search is as fast.
MOST_GROUPS, MOST_SHARE = 48, 0.25
CODES = 127  # whole numbers of 8 bits run from minus this to this


class Bank:
    """Rows to search among, prepared once for many searches.

    On CPUs that multiply whole numbers of 8 bits exactly, a search for one neighbour takes two steps. Rows and queries
    are rounded to a common grid, q to q̂ and m to m̂, where distances are exact and quick. By the triangle
    inequality

        | |q - m| - |q̂ - m̂| |  ≤  |q - q̂| + |m - m̂|,

    so the row nearest on the grid bounds the distance of the nearest row, and every row that may lie within that bound
    is measured in full: a handful for each query. The answer is that of a search without rounding.

    Args:
        rows: (M, D).
        once: for one search alone: rounding is then not worth its preparation.
    """

    def __init__(self, rows: Tensor, *, once: bool = False) -> None:
        self.rows, self._once = rows, once
        self._middle = rows.mean(0)  # distances stay, and the squares of what lies around 0 cancel least

    @cached_property
    def _grid(self) -> "_Grid | None":
        if self._once or self.rows.device.type != "cpu" or not _multiplies_codes():
            return None
        return _Grid(self.rows - self._middle)

    def nearest(self, queries: Tensor, *, neighbours: int = 1, excluded: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Find the nearest rows of each query by Euclidean distance, nearest first.

        The distances of the rows found are computed from the difference itself, so that they carry no cancellation
        error and a query that is in the bank is exactly 0 away from it.

        While torch.export follows it, for a graph, the search is the plain one: rounding would bring in operations
        that few runtimes have, and rooms that are written to.

        Args:
            queries: (N, D).
            neighbours: K, how many to find: at most as many as rows are left.
            excluded: (N, E) rows that are no neighbours of a query, repeated where there are fewer than E.

        Returns:
            Distances (N, K) and row numbers in the bank (N, K), int64.
        """
        rounded = neighbours == 1 and excluded is None and not is_tracing()
        if rounded and (grid := self._grid) is not None:
            indices = self._nearest_by_codes(queries, grid)[:, None]
        else:
            indices = self._nearest_by_products(queries, neighbours, excluded)
        distances = torch.stack([distance(queries, self.rows[column]) for column in indices.T], 1)
        if neighbours > 1:
            if is_tracing():  # torch cannot write a stable sort as ONNX
                distances, order = distances.topk(neighbours, largest=False)
            else:
                distances, order = distances.sort(dim=1, stable=True)
            indices = indices.gather(1, order)
        return distances, indices

    def _nearest_by_products(self, queries: Tensor, neighbours: int, excluded: Tensor | None) -> Tensor:
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

    def _nearest_by_codes(self, queries: Tensor, grid: "_Grid") -> Tensor:
        """The nearest row (N,) of each query, the lowest of those equally near."""
        codes, errors = grid.encode(queries - self._middle)
        block = max(1, CODED_ELEMENTS // grid.padded)
        buffer = torch.empty(min(block, len(queries)), grid.padded, dtype=torch.int32)
        nearest = torch.empty(len(queries), dtype=torch.int64)
        for start in range(0, len(queries), block):
            some = slice(start, start + block)
            order = grid.order(codes[some], buffer)  # (n, G, GROUP)
            least = order.amin(2)  # (n, G)
            first = least.argmin(1)
            closest = GROUP * first + order[torch.arange(len(order)), first].argmin(1)
            rows = closest.clamp_max(len(self.rows) - 1)
            limits = grid.limits(codes[some], errors[some] + distance(queries[some], self.rows[rows]))  # (n,)
            inside = least <= limits[:, None]
            # Far from all rows, or as near to many.
            crowded = inside.sum(1) > min(MOST_GROUPS, max(8, int(MOST_SHARE * least.shape[1])))
            query, group = (inside & ~crowded[:, None]).nonzero(as_tuple=True)
            pair, member = (order[query, group] <= limits[query, None]).nonzero(as_tuple=True)
            rows = (GROUP * group[pair] + member).clamp_max(len(self.rows) - 1)
            nearest[some] = self._least(queries[some], query[pair], rows)
            if crowded.any():
                nearest[some][crowded] = self._nearest_by_products(queries[some][crowded], 1, None)[:, 0]
        return nearest

    def _least(self, queries: Tensor, query: Tensor, rows: Tensor) -> Tensor:
        """The nearest row of each query among pairs of a query's and a row's number (P,): → (n,), 0 without a pair."""
        distances = distance(queries[query], self.rows[rows])
        least = distances.new_full((len(queries),), math.inf).scatter_reduce_(0, query, distances, "amin")
        rows = torch.where(distances == least[query], rows, len(self.rows))
        nearest = rows.new_full((len(queries),), len(self.rows)).scatter_reduce_(0, query, rows, "amin")
        return torch.where(nearest < len(self.rows), nearest, 0)


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


def windows(pictures: int, height: int, width: int, *, radius: int) -> Tensor:
    """The rows of the same picture within a radius of each row, its own included: → (B·h·w, (2·radius + 1)²).

    Args:
        pictures, height, width: B, h and w of the patches (B, h, w, D) whose B·h·w rows these are.
        radius: in grid steps, diagonal ones included.
    """
    steps = torch.arange(-radius, radius + 1)
    # Beyond the border the window repeats the border's row, which belongs to it in any case.
    down, across = ((torch.arange(side)[:, None] + steps).clamp(0, side - 1) for side in (height, width))
    window = down[:, None, :, None] * width + across[:, None, :]  # (h, w, n, n)
    first = torch.arange(pictures)[:, None, None, None, None] * (height * width)
    return (first + window).flatten(0, 2).flatten(1)


class _Grid:
    """Rows rounded to whole numbers of 8 bits.

    They are turned by a random rotation first: it leaves distances alone and spreads what lies in a few channels over
    all, so that the largest value, which sets the step, is nearer to the others.

    Args:
        centred: (M, D), their mean 0.
    """

    def __init__(self, centred: Tensor) -> None:
        depth = centred.shape[1]
        square = torch.randn(depth, depth, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
        self._rotation = torch.linalg.qr(square).Q.to(centred)
        turned = centred @ self._rotation
        self._step = (turned.abs().max() / CODES).clamp_min(torch.finfo(torch.float32).tiny)
        codes, errors = self._rounded(turned)
        self._error = errors.max()
        half_squares = codes.long().square().sum(1) // 2
        # A product of codes is to hold |m̂|²/2 as well: as CODES times the first of some more columns, and the rest.
        quotient = half_squares // CODES
        columns = max(1, math.ceil(int(quotient.max()) / CODES))
        digits = (quotient[:, None] - CODES * torch.arange(columns)).clamp(0, CODES)
        rest = (half_squares % CODES)[:, None]
        whole = torch.cat([codes, digits.to(torch.int8), rest.to(torch.int8)], 1)
        self.padded = GROUP * math.ceil(len(whole) / GROUP)
        self._codes = torch.cat([whole, whole[-1:].expand(self.padded - len(whole), -1)])  # the last row again
        self._factors = torch.tensor([CODES] * columns + [1], dtype=torch.int8)

    def encode(self, centred: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (N, D) of queries, and how far each query and any row may be from theirs together (N,)."""
        codes, errors = self._rounded(centred @ self._rotation)
        return codes, errors + self._error

    def order(self, codes: Tensor, buffer: Tensor) -> Tensor:
        """⌊|m̂|²/2⌋ - q̂·m̂ for each row and query, in steps squared: (n, D) → (n, padded / GROUP, GROUP) int32."""
        whole = torch.cat([-codes, self._factors.expand(len(codes), -1)], 1)
        order: Tensor = torch._int_mm(whole, self._codes.T, out=buffer[: len(codes)])
        return order.unflatten(1, (-1, GROUP))  # type: ignore[no-any-return]  # torch does not annotate it

    def limits(self, codes: Tensor, distances: Tensor) -> Tensor:
        """What `order` is at most for rows within these distances (n,) of the queries: (n,) int32."""
        slack = 1 + 1e-3  # rounding in float32 is below 5e-4 of what rounding to codes amounts to
        squares = (slack * distances.double() / self._step).square()
        limits: Tensor = (squares - codes.double().square().sum(1)) / 2
        return limits.clamp_max(torch.iinfo(torch.int32).max).floor().to(torch.int32)

    def _rounded(self, turned: Tensor) -> tuple[Tensor, Tensor]:
        """The codes (N, D) int8, and their distances from the values (N,)."""
        codes = (turned / self._step).round().clamp(-CODES, CODES)
        return codes.to(torch.int8), distance(turned, self._step * codes)


@cache
def _multiplies_codes() -> bool:
    """Whether this CPU multiplies whole numbers of 8 bits fast and without overflow: some old ones saturate."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX") or not torch.backends.mkldnn.is_available():
        return False
    row = torch.full((64, 192), CODES, dtype=torch.int8)
    products = torch._int_mm(torch.cat([row, -row]), row.T)
    return bool((products[:64] == 192 * CODES**2).all() and (products[64:] == -192 * (CODES**2)).all())


def distance(one: Tensor, other: Tensor) -> Tensor:
    """The Euclidean distance of rows: (N, D), (N, D) → (N,)."""
    norms: Tensor = torch.linalg.vector_norm(one - other, dim=1)
    return norms
