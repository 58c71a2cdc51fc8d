"""The frame of the model's input: its aspect follows the references; a picture of another aspect is fitted whole."""

import math
from collections.abc import Sequence
from functools import cache
from itertools import product
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

STEP = 32  # sides are multiples of this, the largest stride of common networks
LONGEST = 8192  # pixels of a side
# Rounding the sides of a frame of 320² pixels to multiples of 32 changes an aspect of up to 8 by a factor of at most
# 1.07. A picture whose aspect differs from the frame's by a factor of at most ALIKE is resized to fill the frame; in
# other pictures the part would then look stretched beside the references.
ALIKE = 1.1
ASPECT_WEIGHT = 2  # an aspect wrong by a factor counts as much as an area wrong by the square of the factor


@cache
def frame_size(side: int, aspect: float, *, patch: int = 1) -> tuple[int, int]:
    """The (H, W) of a frame of about `side`² pixels and about an aspect, both sides multiples of `STEP`.

    Among all such pairs, aspect and area are nearest to the wanted ones: the root of the sum of the squared logarithms
    of both ratios, the aspect's doubled, is least. If the nearest pair is a square, the frame is `side` x `side`,
    rounded to whole patches.

    Args:
        side: the side of a square frame, in pixels.
        aspect: width to height.
        patch: the side of the network's patches, in pixels; if `STEP` is no multiple of it, sides are multiples of
            `patch` instead.
    """
    step = patch if STEP % patch else STEP
    sides = range(step, LONGEST + 1, step)

    def off(size: tuple[int, int]) -> float:
        height, width = size
        return math.hypot(ASPECT_WEIGHT * math.log(width / height / aspect), math.log(height * width / side**2))

    height, width = min(product(sides, sides), key=off)
    return (max(1, round(side / patch)) * patch,) * 2 if height == width else (height, width)


class Placement(NamedTuple):
    """The rectangle of a frame that a picture fills; the rest of the frame holds the picture's mirror image.

    Attributes:
        frame: (H, W) in pixels.
        top, left, height, width: of the rectangle, in pixels of the frame.
    """

    frame: tuple[int, int]
    top: int
    left: int
    height: int
    width: int

    @property
    def size(self) -> tuple[int, int]:
        """(h, w) of the rectangle."""
        return self.height, self.width

    @property
    def is_whole(self) -> bool:
        """Whether the picture fills the frame."""
        return self.size == self.frame

    def cut(self, values: NDArray[Any]) -> NDArray[Any]:
        """Cut the picture's rectangle out of a map or mask of the frame: (H, W) → (h, w)."""
        cut = values[self.top : self.top + self.height, self.left : self.left + self.width]
        return values if self.is_whole else np.ascontiguousarray(cut)

    def mirrored(self, values: NDArray[Any]) -> NDArray[Any]:
        """Fill the frame around the picture with its mirror image: (…, h, w) → (…, H, W)."""
        if self.is_whole:
            return values
        down = self.top, self.frame[0] - self.top - self.height
        across = self.left, self.frame[1] - self.left - self.width
        return np.pad(values, (*((0, 0),) * (values.ndim - 2), down, across), "symmetric")

    def cell_of(self, at: tuple[int, int], size: tuple[int, int], grid: tuple[int, int]) -> tuple[int, int]:
        """Row and column of the cell of a grid (rows, columns) over the frame that holds a pixel x, y of the picture.

        `size` is the original picture's (width, height).
        """
        (x, y), (width, height) = at, size
        row = (self.top * height + y * self.height) * grid[0] // (self.frame[0] * height)
        return row, (self.left * width + x * self.width) * grid[1] // (self.frame[1] * width)

    def in_picture(self, at: tuple[float, float]) -> tuple[float, float]:
        """The place x, y in the picture that the frame shows at x, y, mirrored beyond the picture's edge.

        The place in the frame is given as shares of the frame's width and height, the result as shares of the
        picture's.
        """
        if self.is_whole:
            return at
        x = (at[0] * self.frame[1] - self.left) / self.width % 2
        y = (at[1] * self.frame[0] - self.top) / self.height % 2
        return min(x, 2 - x), min(y, 2 - y)


def whole(frame: tuple[int, int]) -> Placement:
    """The placement of a picture that fills the frame (H, W)."""
    return Placement(frame, 0, 0, *frame)


def placement_of(size: tuple[int, int], frame: tuple[int, int]) -> Placement:
    """The placement of a picture (width, height) in a frame (H, W).

    A picture of about the frame's aspect fills the frame; any other picture is centred and as large as fits.
    """
    (width, height), (down, across) = size, frame
    if abs(math.log(width / height * down / across)) <= math.log(ALIKE):
        return whole(frame)
    scale = min(across / width, down / height)
    high, wide = max(1, min(down, round(height * scale))), max(1, min(across, round(width * scale)))
    return Placement(frame, (down - high) // 2, (across - wide) // 2, high, wide)


def shared_aspect(aspects: Sequence[float]) -> float | None:
    """The lower median of the references' aspects; None if two aspects differ by a factor above `ALIKE`."""
    if max(aspects) > ALIKE * min(aspects):
        return None
    return sorted(aspects)[(len(aspects) - 1) // 2]
