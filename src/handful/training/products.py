"""Made products: drawn textures and shapes with synthetic defects, for heads to learn from beside data sets.

No picture is read: a product and its pictures follow from the product's number alone. Twelve made products beside eight
classes of papers helped heads on other products: benchmarks/papers/decisive.md.
"""

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from handful.ops.defects import RECIPES, make_defect

Pixels = NDArray[np.uint8]
REFERENCES, GOOD, DEFECTIVE = 20, 20, 30  # pictures of a product, in this order


def made_product(number: int, size: tuple[int, int]) -> Iterator[tuple[Pixels, NDArray[np.bool_]]]:
    """The pictures of a made product.

    Args:
        number: the number of the product, from 0 on.
        size: (H, W) in pixels. Textures keep their scale in pixels; parts grow with the shorter side.

    Yields:
        Each picture, (H, W, 3), and its mask, (H, W), True in the defect: `REFERENCES` + `GOOD` good pictures, then
        `DEFECTIVE` pictures with a synthetic defect each.
    """
    for row in range(REFERENCES + GOOD + DEFECTIVE):
        generator = np.random.default_rng([number, 1 + row])
        picture = _picture(number, size, generator)
        if row < REFERENCES + GOOD:
            yield picture, np.zeros(size, dtype=bool)
        else:
            recipe = RECIPES[int(generator.integers(len(RECIPES)))]
            yield make_defect(picture, None, recipe=recipe, generator=generator)


def _picture(number: int, size: tuple[int, int], generator: np.random.Generator) -> Pixels:
    """One picture: a ground and, in two products of three, a part on it, each with its texture and colours."""
    design = np.random.default_rng([number, 0])  # the same for all pictures of a product
    canvas = _textured(design, size, generator)
    if number % 3:
        part, inside = _textured(design, size, generator), _shape(design, size, generator)
        canvas = np.where(inside[..., None] > 0.5, part, canvas)
    light = 1 + 0.05 * generator.standard_normal()
    noisy = canvas * light + 0.01 * generator.standard_normal((*size, 1))
    pixels: Pixels = (noisy.clip(0, 1) * 255).round().astype(np.uint8)
    return pixels


def _textured(
    design: np.random.Generator, size: tuple[int, int], generator: np.random.Generator
) -> NDArray[np.float64]:
    """A texture (H, W, 3) between two colours: grain, stripes, dots or a weave."""
    low, high = design.uniform(0, 1, (2, 3))
    kind, scale, angle = int(design.integers(4)), float(design.uniform(1.5, 8)), float(design.uniform(0, np.pi))
    rows, columns = np.mgrid[: size[0], : size[1]] + generator.uniform(0, 50, (2, 1, 1))
    along = rows * np.cos(angle) + columns * np.sin(angle)
    across = columns * np.cos(angle) - rows * np.sin(angle)
    grain = ndimage.gaussian_filter(generator.standard_normal(size), (scale, scale * design.uniform(1, 4)), mode="wrap")
    grain /= grain.std()
    waves = [np.sin(way / scale + 0.3 * grain) for way in (along, across)]
    values = [grain / 2, waves[0], (waves[0] * waves[1] > 0.4) * 2.0 - 1, np.maximum(*waves)][kind]
    share = (0.5 + 0.35 * values).clip(0, 1)[..., None]
    texture: NDArray[np.float64] = low + (high - low) * share * design.uniform(0.3, 1)
    return texture


def _shape(design: np.random.Generator, size: tuple[int, int], generator: np.random.Generator) -> NDArray[np.float64]:
    """The place of the part, 1 within a star-shaped outline and 0 elsewhere (H, W), moved and turned a little."""
    waves, radius = design.uniform(0, 0.12, 4), float(design.uniform(0.25, 0.42)) * min(size)
    middle = np.array(size) / 2 + generator.normal(0, min(size) / 60, 2)
    rows, columns = np.mgrid[: size[0], : size[1]]
    angles = np.arctan2(rows - middle[0], columns - middle[1]) + generator.normal(0, 0.05)
    outline = radius * (1 + sum(wave * np.cos((2 + n) * angles) for n, wave in enumerate(waves)))
    inside: NDArray[np.float64] = (np.hypot(rows - middle[0], columns - middle[1]) < outline).astype(float)
    return inside
