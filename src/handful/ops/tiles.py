"""A large picture as equal tiles that overlap, and the tiles' maps as one map without seams."""

import math
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Pixels that neighbours share at least. What a network says of a place beside a tile's edge hangs on the edge: there
# the tile does not count (BLIND), and further in it counts more and more, while its neighbour counts less and less.
OVERLAP, BLIND = 64, 16


class Tiles(NamedTuple):
    """How a frame is covered.

    Attributes:
        frame: (H, W) in pixels, at least a tile's each way.
        tile: (h, w) of each tile.
    """

    frame: tuple[int, int]
    tile: tuple[int, int]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Top and left of each tile, row by row."""
        return list(product(*self._starts))

    def __len__(self) -> int:
        """How many tiles there are; in proportion to the frame's area."""
        rows, columns = self._starts
        return len(rows) * len(columns)

    def cuts(self, image: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Cut a picture (3, H, W) into its tiles, one after the other: (3, h, w) each, contiguous."""
        height, width = self.tile
        for top, left in self.places:
            yield np.ascontiguousarray(image[:, top : top + height, left : left + width])

    def joined(self, maps: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Join the maps (h, w) of all tiles, in the order of `places`: (H, W).

        Where tiles overlap each counts the more the farther inside of it a place lies, so that the map is continuous.
        """
        height, width = self.tile
        weights = map(_weights, self.frame, self.tile)
        joined = np.zeros(self.frame, np.float32)
        for (top, left), (down, across), found in zip(self.places, product(*weights), maps, strict=True):
            joined[top : top + height, left : left + width] += down[:, None] * across * found
        return joined

    @property
    def _starts(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        return _starts(self.frame[0], self.tile[0]), _starts(self.frame[1], self.tile[1])


@cache
def _starts(length: int, tile: int) -> tuple[int, ...]:
    """Where tiles start along a side: as few as overlap by `OVERLAP`, as far apart as each other but for rounding."""
    if length <= tile:
        return (0,)
    count = 1 + math.ceil((length - tile) / (tile - OVERLAP))
    return tuple(round(number * (length - tile) / (count - 1)) for number in range(count))


@cache
def _weights(length: int, tile: int) -> list[NDArray[np.float32]]:
    """How much each tile counts at each of its pixels along a side, together 1 everywhere: (tile,) each."""
    starts, inside = _starts(length, tile), np.arange(tile) + 0.5
    ramp = ((inside - BLIND) / (OVERLAP - 2 * BLIND)).clip(0, 1)
    found, total = [], np.zeros(length)
    for start in starts:
        before = ramp if start > 0 else np.ones(tile)
        after = ramp[::-1] if start + tile < length else np.ones(tile)
        found.append((slice(start, start + tile), before * after))
        total[start : start + tile] += before * after
    return [(weights / total[along]).astype(np.float32) for along, weights in found]
