"""Equal, overlapping tiles of a large picture, and the tiles' maps joined to a map without seams."""

import math
from collections.abc import Iterable, Iterator
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

# Pixels that neighbouring tiles share at least, and pixels along a tile's edge where the tile does not count, as the
# edge disturbs the network's features there. Further inside, a tile's weight rises while its neighbour's falls.
OVERLAP, BLIND = 64, 16


class Tiles(NamedTuple):
    """The tiles that cover a frame.

    Attributes:
        frame: (H, W) in pixels, at least as large as a tile.
        tile: (h, w) of each tile, in pixels.
    """

    frame: tuple[int, int]
    tile: tuple[int, int]

    @property
    def places(self) -> list[tuple[int, int]]:
        """Top and left of each tile, row by row."""
        return list(product(*self._starts))

    def __len__(self) -> int:
        """The number of tiles, roughly in proportion to the frame's area."""
        rows, columns = self._starts
        return len(rows) * len(columns)

    def cuts(self, image: NDArray[Any]) -> Iterator[NDArray[Any]]:
        """Cut a picture (3, H, W) into its tiles, in turn: (3, h, w) each, contiguous."""
        height, width = self.tile
        for top, left in self.places:
            yield np.ascontiguousarray(image[:, top : top + height, left : left + width])

    def joined(self, maps: Iterable[NDArray[np.float32]]) -> NDArray[np.float32]:
        """Join the maps (h, w) of all tiles, in the order of `places`: (H, W).

        In an overlap, a tile's weight at a place grows with the place's distance from the tile's edge, so that the
        joined map is continuous.
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
    """The starts of tiles along a side: the fewest tiles that overlap by `OVERLAP`, equally spaced up to rounding."""
    if length <= tile:
        return (0,)
    count = 1 + math.ceil((length - tile) / (tile - OVERLAP))
    return tuple(round(number * (length - tile) / (count - 1)) for number in range(count))


@cache
def _weights(length: int, tile: int) -> list[NDArray[np.float32]]:
    """The weight of each tile at each of its pixels along a side, whose sum is 1 at every pixel: (tile,) each."""
    starts, inside = _starts(length, tile), np.arange(tile) + 0.5
    ramp = ((inside - BLIND) / (OVERLAP - 2 * BLIND)).clip(0, 1)
    found, total = [], np.zeros(length)
    for start in starts:
        before = ramp if start > 0 else np.ones(tile)
        after = ramp[::-1] if start + tile < length else np.ones(tile)
        found.append((slice(start, start + tile), before * after))
        total[start : start + tile] += before * after
    return [(weights / total[along]).astype(np.float32) for along, weights in found]
