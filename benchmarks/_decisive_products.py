"""Products made by a script, textures and shapes, for heads to learn from besides real ones: no picture is read."""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from handful.ops.defects import RECIPES, make_defect

Pixels = NDArray[np.uint8]
PRODUCTS = 12
GOOD, DEFECTIVE = 20, 30


def product(number: int, size: int) -> Iterator[tuple[Pixels, NDArray[np.bool_]]]:
    """Pictures (size, size, 3) of a product and their masks: twice `GOOD` good ones, then `DEFECTIVE` others."""
    for row in range(2 * GOOD + DEFECTIVE):
        generator = np.random.default_rng([number, 1 + row])
        picture = _picture(number, size, generator)
        if row < 2 * GOOD:
            yield picture, np.zeros((size, size), dtype=bool)
        else:
            recipe = RECIPES[int(generator.integers(len(RECIPES)))]
            yield make_defect(picture, None, recipe=recipe, generator=generator)


def _picture(number: int, size: int, generator: np.random.Generator) -> Pixels:
    """One picture: a ground and, in two products of three, a part on it, each with its texture and colours."""
    design = np.random.default_rng([number, 0])  # the same for all pictures of a product
    canvas = _textured(design, size, generator)
    if number % 3:
        part, inside = _textured(design, size, generator), _shape(design, size, generator)
        canvas = np.where(inside[..., None] > 0.5, part, canvas)
    light = 1 + 0.05 * generator.standard_normal()
    noisy = canvas * light + 0.01 * generator.standard_normal((size, size, 1))
    pixels: Pixels = (noisy.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def _textured(design: np.random.Generator, size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """A texture (size, size, 3) between two colours: grain, stripes, dots or a weave."""
    low, high = design.uniform(0, 1, (2, 3))
    kind, scale, angle = int(design.integers(4)), float(design.uniform(1.5, 8)), float(design.uniform(0, np.pi))
    rows, columns = np.mgrid[:size, :size] + generator.uniform(0, 50, (2, 1, 1))
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    grain = ndimage.gaussian_filter(
        generator.standard_normal((size, size)), (scale, scale * design.uniform(1, 4)), mode="wrap"
    )
    grain /= grain.std()
    waves = [np.sin(way / scale + 0.3 * grain) for way in (along, across)]
    values = [grain / 2, waves[0], (waves[0] * waves[1] > 0.4) * 2.0 - 1, np.maximum(*waves)][kind]
    share = (0.5 + 0.35 * values).clip(0, 1)[..., None]
    texture: NDArray[np.float64] = low + (high - low) * share * design.uniform(0.3, 1)
    return texture


def _shape(design: np.random.Generator, size: int, generator: np.random.Generator) -> NDArray[np.float64]:
    """Where the part lies, 0 or 1 (size, size): a star-shaped outline, moved and turned a little."""
    waves, radius = design.uniform(0, 0.12, 4), float(design.uniform(0.25, 0.42)) * size
    middle = size / 2 + generator.normal(0, size / 60, 2)
    rows, columns = np.mgrid[:size, :size]
    angles = np.arctan2(rows - middle[0], columns - middle[1]) + generator.normal(0, 0.05)
    outline = radius * (1 + sum(wave * np.cos((2 + n) * angles) for n, wave in enumerate(waves)))
    inside: NDArray[np.float64] = (np.hypot(rows - middle[0], columns - middle[1]) < outline).astype(float)
    return inside
