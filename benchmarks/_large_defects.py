"""Large defects made from good pictures: a quarter to three quarters of the part broken away, covered, moved or spilt.

Where `handful.ops.foreground` tells a part from its ground, shares are of the part and what is broken away shows the
ground; elsewhere the whole picture is the part, and what is broken away shows an even colour.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from handful.ops.foreground import foreground

SHARES = (0.25, 0.5, 0.75)
WORKING_SIDE = 320  # pixels of the shorter side, at most: defects are made at about the model input's scale
RIM = 4  # pixels beyond the part that show its edge or its shadow, and break away with it

Pixels = NDArray[np.uint8]  # (H, W, 3)
Mask = NDArray[np.bool_]  # (H, W)


@dataclass(frozen=True, eq=False)
class Canvas:
    """A good picture to be damaged.

    Attributes:
        pixels: (H, W, 3).
        part: (H, W), true on the part.
        taken: (H, W), the part with its rim.
        ground: (H, W, 3), the picture without its part.
        stranger: a good picture of another product at the same size.
    """

    pixels: Pixels
    part: Mask
    taken: Mask
    ground: Pixels
    stranger: Pixels


def canvas(pixels: Pixels, stranger: Pixels, generator: np.random.Generator) -> Canvas:
    """Prepare a good picture (H, W, 3), shrunk to `WORKING_SIDE`, and a good picture of another product."""
    image = Image.fromarray(pixels)
    scale = min(1.0, WORKING_SIDE / min(image.size))
    image = image.resize((round(scale * image.width), round(scale * image.height)), Image.Resampling.LANCZOS)
    small = np.asarray(image)
    other = np.asarray(Image.fromarray(stranger).resize(image.size, Image.Resampling.BICUBIC))
    part = foreground(small)
    if part.all():
        level = generator.integers(10, 246, 3) if generator.random() < 0.5 else small.mean((0, 1))
        noise = generator.normal(0, 2, (*small.shape[:2], 1))
        return Canvas(small, part, part, _pixels(np.broadcast_to(level, small.shape) + noise), other)
    taken = ndimage.binary_dilation(part, iterations=RIM)
    beyond = ~taken if not taken.all() else ~part
    rows, columns = ndimage.distance_transform_edt(~beyond, return_distances=False, return_indices=True)
    smooth = ndimage.gaussian_filter(small[rows, columns].astype(float), (6, 6, 0))
    grain = (small - ndimage.gaussian_filter(small.astype(float), (2, 2, 0)))[beyond]
    filled = smooth + grain[generator.integers(0, len(grain), small.shape[:2])]
    return Canvas(small, part, taken, np.where(beyond[..., None], small, _pixels(filled)), other)


def broken(on: Canvas, region: Mask, generator: np.random.Generator) -> Pixels:
    """The part lacks the region, where the ground shows."""
    return np.where((region & on.taken)[..., None], on.ground, on.pixels)


def covered(on: Canvas, region: Mask, generator: np.random.Generator) -> Pixels:
    """An even colour lies over the region."""
    colour = generator.integers(0, 256, 3) if generator.random() < 0.5 else np.full(3, generator.integers(0, 256))
    return _laid(on, region, colour + generator.normal(0, 2, on.pixels.shape))


def covered_by_another(on: Canvas, region: Mask, generator: np.random.Generator) -> Pixels:
    """A piece of another product lies over the region."""
    return _laid(on, region, on.stranger)


def shifted(on: Canvas, region: Mask, generator: np.random.Generator) -> Pixels:
    """The region of the part lies 8 % to 25 % of the side elsewhere; the ground shows where the region was."""
    angle, length = generator.uniform(0, 2 * np.pi), generator.uniform(0.08, 0.25) * min(region.shape)
    by = round(length * np.sin(angle)), round(length * np.cos(angle))
    moved = ndimage.shift((region & on.taken).astype(np.uint8), by, order=0) > 0
    piece = ndimage.shift(on.pixels, (*by, 0), order=0, mode="nearest")
    return np.where(moved[..., None], piece, broken(on, region, generator))


def spilt(on: Canvas, region: Mask, generator: np.random.Generator) -> Pixels:
    """A smooth, shaded liquid lies over the region."""
    height = ndimage.gaussian_filter(np.sqrt(ndimage.distance_transform_edt(region)), 3)
    light = np.gradient(height, axis=0) + np.gradient(height, axis=1)
    colour = generator.integers(20, 236, 3)
    return _laid(on, region, colour * (1 + 0.8 * light[..., None]))


def melted(on: Canvas, region: Mask, generator: np.random.Generator) -> Pixels:
    """The region has run: softened by 5 % of the side and swirled."""
    side = min(region.shape)
    at = np.indices(region.shape).astype(float)
    warp = [ndimage.gaussian_filter(generator.normal(size=region.shape), side / 12) for _ in range(2)]
    places = [axis + 0.06 * side * field / field.std() for axis, field in zip(at, warp, strict=True)]
    soft = ndimage.gaussian_filter(on.pixels.astype(float), (side / 20, side / 20, 0))
    run = np.stack([ndimage.map_coordinates(soft[..., c], places, order=1, mode="nearest") for c in range(3)], 2)
    return _laid(on, region, run)


def smeared(on: Canvas, region: Mask, generator: np.random.Generator) -> Pixels:
    """The region is wiped in one direction over 15 % of the side."""
    steps, angle = round(0.15 * min(region.shape)), generator.uniform(0, np.pi)
    wiped = np.zeros(on.pixels.shape)
    for step in np.linspace(-steps / 2, steps / 2, 15):
        by = step * np.sin(angle), step * np.cos(angle), 0
        wiped += ndimage.shift(on.pixels.astype(float), by, order=1, mode="nearest") / 15
    return _laid(on, region, wiped)


KINDS: dict[str, Callable[[Canvas, Mask, np.random.Generator], Pixels]] = {
    "broken away": broken,
    "covered": covered,
    "covered by another product": covered_by_another,
    "shifted": shifted,
    "spilt": spilt,
    "melted": melted,
    "smeared": smeared,
}


def region_of(part: Mask, share: float, generator: np.random.Generator) -> Mask:
    """A region that holds this share of the part: beyond a jagged line across, or a blob; even odds."""
    ragged = ndimage.gaussian_filter(generator.normal(size=part.shape), min(part.shape) / 20)
    ragged /= ragged.std()
    places = np.argwhere(part)
    at = np.moveaxis(np.indices(part.shape), 0, -1)
    if generator.random() < 0.5:
        angle = generator.uniform(0, 2 * np.pi)
        far = at @ np.array([np.sin(angle), np.cos(angle)])
    else:
        far = np.linalg.norm(at - places[generator.integers(len(places))], axis=2)
    order = far + 0.03 * min(part.shape) * ragged
    region: Mask = order <= np.quantile(order[part], share)
    return region


def damaged(on: Canvas, kind: str, share: float, generator: np.random.Generator) -> Pixels:
    """The picture with a defect of a kind in `KINDS` over this share of its part."""
    return KINDS[kind](on, region_of(on.part, share, generator), generator)


def _laid(on: Canvas, region: Mask, over: NDArray[np.floating] | Pixels) -> Pixels:
    """The picture with something else in the region, its rim one pixel soft."""
    weight = ndimage.gaussian_filter(region.astype(float), 0.7)[..., None]
    return _pixels(weight * over + (1 - weight) * on.pixels)


def _pixels(values: NDArray[np.floating]) -> Pixels:
    pixels: Pixels = np.rint(values).clip(0, 255).astype(np.uint8)
    return pixels
