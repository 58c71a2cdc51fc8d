"""Synthetic defects and spots planted on good pictures, to measure whether a new inspector finds defects.

Defects are made by `handful.ops.defects`, at full, 0.7 and 0.5 times length and width; spots are round. All lie on the
part if `handful.ops.foreground` finds a part, and in the rectangle of the frame that the picture fills. A person would
not see a piece of an even surface on the same surface: a defect whose mean brightness differs by less than `CLEAR` from
the picture beneath is made darker or brighter by so much.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import product

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful.ops.defects import RECIPES, TO_YIQ, Mask, Pixels, Recipe, make_defect
from handful.ops.foreground import foreground
from handful.ops.frames import Placement
from handful.ops.tracing import computing

LENGTHS = (1.0, 0.7, 0.5)  # length and width of the defects of each recipe, relative to `handful.ops.defects`
PLACES = 3  # spots of each diameter
SMALLEST = 1 / 2  # the least diameter of a spot in patches; each further diameter is twice the one before
LARGEST = 1 / 4  # the bound of the diameters as a share of the picture's shorter side
CLEAR = 0.15  # share of the range from black to white
# Opacity of a spot, which is black or white, whichever is farther from the mean beneath. The mean changes by a quarter
# of the range at least, and the surface shows through.
CONTRAST = 0.5
SPOT = "spot"  # the kind of a planted spot
GRAIN = 8  # points along a pixel's side that count the share of the pixel which a spot covers
LUMA = torch.from_numpy(TO_YIQ[0]).float()


@dataclass(frozen=True, eq=False)
class Planting:
    """A synthetic defect and the good picture that it is for.

    Attributes:
        row, view: the numbers of the reference and of its mild variation.
        kind: the recipe's name, such as "cut blob", or "spot".
        draw: the picture (3, H, W) in [0, 1] → a copy with the defect.
        diameter: of a spot, in pixels of the original picture of the first row of `plan`'s order; None for any other
            defect.
    """

    row: int
    view: int
    kind: str
    draw: Callable[[Tensor], Tensor] = field(repr=False)
    diameter: float | None = None


def plan(
    images: Sequence[Tensor],
    order: Sequence[int],
    placements: Sequence[Placement],
    sizes: Sequence[tuple[int, int]],
    *,
    views: int,
    patch: float,
    spots: bool = True,
) -> list[Planting]:
    """Plan a defect of every recipe and length, and `PLACES` spots of every diameter, on good pictures in turn.

    Two or more pictures carry the defects unchanged. A single picture's mild variations carry the defects, as the
    method that is to find the defects has learnt the unchanged picture. The drawing of a defect depends only on the
    number of pictures, the number of the defect and its picture.

    Args:
        images: the pictures (3, H, W) in [0, 1].
        order: the rows of the pictures in the order in which pictures take defects in turn.
        placements: the rectangle of the frame that each picture fills.
        sizes: width, height of each original picture.
        views: the number of each picture's mild variations, including the unchanged picture.
        patch: side of the finest level's patches, in pixels of the frame.
        spots: whether to plan spots.
    """
    allowed = {row: _allowed(images[row], placements[row]) for row in order[: len(RECIPES) * len(LENGTHS) + PLACES]}

    def taken(number: int) -> tuple[int, int, tuple[int, int]]:
        row = order[number % len(order)]
        view = 0 if len(order) > 1 else 1 + number % (views - 1)
        return row, view, (len(order), number)

    made = []
    for number, (length, recipe) in enumerate(product(LENGTHS, RECIPES)):
        row, view, seed = taken(number)
        draw = partial(plant_defect, allowed=allowed[row], recipe=recipe, length=length, seed=seed)
        made.append(Planting(row, view, recipe.name, draw))
    first = order[0]
    scale = math.sqrt(math.prod(_scales(placements[first], sizes[first])))
    for number in range(len(made), len(made) + PLACES) if spots else ():
        row, view, seed = taken(number)
        down, across = _scales(placements[row], sizes[row])
        centre = divmod(int(np.random.default_rng(seed).choice(np.flatnonzero(allowed[row]))), allowed[row].shape[1])
        for diameter in spot_diameters(min(placements[first].size), patch=patch):
            axes = (diameter * math.sqrt(down / across), diameter * math.sqrt(across / down))
            draw = partial(plant_spot, centre=centre, diameters=axes)
            made.append(Planting(row, view, SPOT, draw, diameter / scale))
    return made


@computing()
def plant_defect(image: Tensor, allowed: Mask, *, recipe: Recipe, length: float, seed: tuple[int, ...]) -> Tensor:
    """Plant a defect that a person sees, near an allowed pixel.

    Args:
        image: (3, H, W) in [0, 1].
        allowed: (H, W), true somewhere.
        recipe: of the defect.
        length: relative length of the defect; the defect is drawn in a window with this share of the picture's sides.
        seed: the seed of all random choices.

    Returns:
        (3, H, W), unchanged to the bit outside of the defect.
    """
    generator = np.random.default_rng(seed)
    pixels: Pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    here, there = (_window(allowed, length, generator) for _ in range(2))
    made, mask = make_defect(
        pixels[here],
        allowed[here],
        recipe=recipe,
        generator=generator,
        source=pixels[there],
        source_foreground=allowed[there],
    )
    inside, planted = torch.from_numpy(mask), image.clone()
    window = planted[:, here[0], here[1]]
    before, defect = window[:, inside], torch.from_numpy(made).permute(2, 0, 1)[:, inside] / 255  # (3, N) each
    was, now = (float(LUMA @ colours.mean(1)) for colours in (before, defect))
    if abs(now - was) < CLEAR:
        defect = (defect + was - now + (CLEAR if was < 0.5 else -CLEAR)).clamp(0, 1)
    window[:, inside] = defect
    return planted


def _window(allowed: Mask, length: float, generator: np.random.Generator) -> tuple[slice, slice]:
    """The rows and columns of a window around a random allowed pixel, its sides a share `length` of the frame's."""
    centre = divmod(int(generator.choice(np.flatnonzero(allowed))), allowed.shape[1])
    found = []
    for side, middle in zip(allowed.shape, centre, strict=True):
        own = max(2, round(length * side))
        low = min(max(middle - own // 2, 0), side - own)
        found.append(slice(low, low + own))
    return found[0], found[1]


@computing()
def plant_spot(image: Tensor, centre: tuple[int, int], diameters: tuple[float, float]) -> Tensor:
    """Plant a spot, dark on a bright place and bright on a dark place, see `CONTRAST`.

    Args:
        image: (3, H, W) in [0, 1].
        centre: row and column.
        diameters: down and across, in pixels; the spot is cut off at the edge of the frame.

    Returns:
        (3, H, W), unchanged to the bit outside of the spot.
    """
    shares, (rows, columns) = disc(image.shape[1:], centre, diameters)
    share, below = torch.from_numpy(shares), image[:, rows, columns]
    mean = float(LUMA @ (below * share).sum((1, 2)) / share.sum())
    planted = image.clone()
    planted[:, rows, columns] = below + CONTRAST * share * ((1.0 if mean < 0.5 else 0.0) - below)
    return planted


def disc(
    size: Sequence[int], centre: tuple[int, int], diameters: tuple[float, float]
) -> tuple[NDArray[np.float32], tuple[slice, slice]]:
    """The share of each pixel that an ellipse covers, in a box around the ellipse.

    Args:
        size: H, W.
        centre: row and column of the pixel in whose middle the ellipse has its centre.
        diameters: down and across, in pixels.

    Returns:
        (h, w) in [0, 1] of the box, and the box's rows and columns.
    """
    box, squares = [], []
    for length, middle, diameter in zip(size, centre, diameters, strict=True):
        reach = math.ceil(diameter / 2)
        low, high = max(0, middle - reach), min(length, middle + reach + 1)
        points = low + (np.arange(GRAIN * (high - low)) + 0.5) / GRAIN - middle - 0.5
        box.append(slice(low, high))
        squares.append((2 * points / diameter) ** 2)
    inside = squares[0][:, None] + squares[1] <= 1
    pixels = inside.reshape(len(squares[0]) // GRAIN, GRAIN, len(squares[1]) // GRAIN, GRAIN)
    shares: NDArray[np.float32] = pixels.mean((1, 3), dtype=np.float32)
    return shares, (box[0], box[1])


def spot_diameters(side: int, *, patch: float) -> list[float]:
    """The diameters of spots in pixels of the frame, ascending, for a picture of shorter side `side` in the frame."""
    steps = max(0, math.floor(math.log2(LARGEST * side / (SMALLEST * patch)) + 1e-9))
    return [SMALLEST * patch * 2**step for step in range(steps + 1)]


def _allowed(image: Tensor, placement: Placement) -> Mask:
    """The pixels on which a defect may be centred: the part, or the picture's whole rectangle if no part is found."""
    pixels: Pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
    drawn = np.zeros(placement.frame, dtype=bool)
    drawn[placement.top : placement.top + placement.height, placement.left : placement.left + placement.width] = (
        foreground(placement.cut(pixels))
    )
    return drawn


def _scales(placement: Placement, size: tuple[int, int]) -> tuple[float, float]:
    """The pixels of the frame per pixel of a picture of `size` (width, height), down and across."""
    return placement.height / size[1], placement.width / size[0]
