"""Synthetic defects on good pictures, with their masks: the DefectMaker of REB.

Source: Lyu, Mo and Wong, REB: Reducing Biases in Representation for Industrial Anomaly Detection, Knowledge-Based
Systems, 2024, https://arxiv.org/abs/2308.12577. Where the paper is silent we follow the authors' code (GitHub
ShuaiLYU/REB, commit 438314c), with these departures:

- Lengths in pixels (the scar's box, the grains, the soft edge) hold at 256 pixels and grow with the shorter side;
  theirs are fixed, and their pictures always 256 wide.
- Curves are filled where pixel centres lie inside, and a scar is turned before it is filled: theirs truncate to whole
  pixels, draw the outline too, and turn the finished mask, which frays it. Control points are real numbers, so that no
  two coincide.
- A coarse grain's height follows the box's height; theirs follows its width, which ties the grain to the box's aspect.
- On a picture whose channels are equal, noise is grey: theirs is coloured, and colour alone would give it away.
- The colour jitter is one linear map in which hue turns about the grey axis: quicker than a turn in HSV, exact on grey,
  and the order of its steps, random in theirs, makes no difference.
- A soft edge stays within the shape and falls off on all sides; theirs stays hard where the shape meets its box. An
  edge that wears the whole shape away is drawn again; theirs then hands out an unchanged picture as a defect.
- The eight turns and mirrorings are equally likely; theirs counts two twice and leaves one out. An oblong picture takes
  the four that keep its shape, and turning can be switched off, as orientation may be what a defect is about.
- The fifth empty mask in a row gives way to a hard-edged ellipse as large as its box; theirs stops with an error.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray

from handful.errors import InputError

Pixels = NDArray[np.uint8]
Mask = NDArray[np.bool_]
Reals = NDArray[np.float32]
Shape = Literal["blob", "scar", "clump"]
Fill = Literal["cut", "noise"]

ATTEMPTS = 5  # draws of a mask at most, until a mask is not empty
JITTER = 0.1  # of brightness, contrast, saturation (each a factor of 1 ± this) and hue (± this part of a full turn)
SOFT_EDGE = 0.5  # probability that a defect's edge is softened
EDGE_WIDTH: dict[Shape, int] = {"blob": 5, "scar": 3, "clump": 3}  # pixels
AREA = (0.02, 0.15)  # the box of a blob or clump, as a share of the picture
# Luma and two axes of colour (YIQ): the rows of colour sum to 0, so that a turn of hue does not change grey.
TO_YIQ = np.array([[0.299, 0.587, 0.114], [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])
FROM_YIQ = np.linalg.inv(TO_YIQ)


@dataclass(frozen=True)
class Recipe:
    """A kind of defect: its shape and its filling."""

    shape: Shape
    fill: Fill

    @property
    def name(self) -> str:
        """Filling and shape in words, such as "cut blob"."""
        return f"{self.fill} {self.shape}"


# In the order of the classes 1 to 6; class 0 is the unmodified picture.
RECIPES: tuple[Recipe, ...] = tuple(Recipe(shape, fill) for fill in get_args(Fill) for shape in get_args(Shape))


def seven_variants(
    pictures: Sequence[Pixels],
    foregrounds: Sequence[Mask | None],
    *,
    row: int,
    generator: np.random.Generator,
    turn: bool = True,
) -> tuple[Pixels, Mask]:
    """Augment a good picture and put every recipe's defect on it: the seven classes of REB's training.

    Cut fills come from any of the pictures, which is augmented independently.

    Args:
        pictures: good pictures, each (H, W, 3), all of the same size.
        foregrounds: (H, W) for each picture, or None for everywhere.
        row: the number of the picture to augment.
        generator: the source of random numbers.
        turn: whether pictures may be turned and mirrored.

    Returns:
        (7, H, W, 3), the picture without a defect first and then `RECIPES` in order, and (7, H, W) masks, the first
        empty.

    Raises:
        InputError: see `make_defect`.
    """
    picture, foreground = base_augment(pictures[row], foregrounds[row], generator=generator, turn=turn)
    variants = [(picture, np.zeros(picture.shape[:2], dtype=bool))]
    for recipe in RECIPES:
        source = allowed = None
        if recipe.fill == "cut":
            other = int(generator.integers(len(pictures)))
            source, allowed = base_augment(pictures[other], foregrounds[other], generator=generator, turn=turn)
        made = make_defect(
            picture, foreground, recipe=recipe, generator=generator, source=source, source_foreground=allowed
        )
        variants.append(made)
    return np.stack([pixels for pixels, _ in variants]), np.stack([mask for _, mask in variants])


def base_augment(
    picture: Pixels, foreground: Mask | None, *, generator: np.random.Generator, turn: bool = True
) -> tuple[Pixels, Mask | None]:
    """Jitter a picture's colours, and turn and mirror picture and foreground at random: → (H, W, 3), (H, W).

    Square pictures take any of eight turns and mirrorings, oblong pictures the four that keep their shape.

    Raises:
        InputError: if the picture is not (H, W, 3) uint8, or its foreground has another size or is empty.
    """
    _check(picture, foreground, size=picture.shape[:2])
    jittered = _to_pixels(_jitter(picture.astype(np.float32), generator=generator))
    if not turn:
        return jittered, foreground
    square = picture.shape[0] == picture.shape[1]
    quarters = int(generator.integers(4)) if square else 2 * int(generator.integers(2))
    step = -1 if generator.integers(2) else 1
    turned = np.ascontiguousarray(np.rot90(jittered, quarters)[:, ::step])
    return turned, None if foreground is None else np.ascontiguousarray(np.rot90(foreground, quarters)[:, ::step])


def make_defect(
    picture: Pixels,
    foreground: Mask | None,
    *,
    recipe: Recipe,
    generator: np.random.Generator,
    source: Pixels | None = None,
    source_foreground: Mask | None = None,
) -> tuple[Pixels, Mask]:
    """Put a defect on a good picture, its box centred on a pixel of the foreground as far as the border allows.

    Args:
        picture: (H, W, 3), any H and W.
        foreground: (H, W), the pixels on which defects may be centred; None for everywhere.
        recipe: the kind of the defect.
        generator: the source of random numbers; an equal state makes an equal defect.
        source, source_foreground: picture and foreground that a cut is taken from; None for `picture` itself.

    Returns:
        The defective picture (H, W, 3), and its mask (H, W): true where the fill has a share in the pixel, never empty;
        all other pixels are unchanged.

    Raises:
        InputError: if a picture is not (H, W, 3) uint8, the source has another size, or a foreground has another size
            or is empty.
    """
    source, source_foreground = (picture, foreground) if source is None else (source, source_foreground)
    for pixels, allowed in ((picture, foreground), (source, source_foreground)):
        _check(pixels, allowed, size=picture.shape[:2])
    size = (picture.shape[0], picture.shape[1])
    weights = _weights(size, recipe=recipe, generator=generator)  # (h, w)
    top, left = _place(size, weights.shape, allowed=foreground, generator=generator)
    if recipe.fill == "cut":
        fill = cut_fill(source, source_foreground, size=weights.shape, generator=generator)
    else:
        grey = bool((picture == picture[..., :1]).all())
        fill = noise_fill(weights.shape, generator=generator, scale=_scale(size), grey=grey)
    box = (slice(top, top + weights.shape[0]), slice(left, left + weights.shape[1]))
    made, mask = picture.copy(), np.zeros(size, dtype=bool)
    below = picture[box].astype(np.float32)
    made[box] = _to_pixels(below + weights[..., None] * (_jitter(fill, generator=generator) - below))
    mask[box] = weights > 0
    return made, mask


def blob_mask(size: tuple[int, int], *, generator: np.random.Generator) -> Mask:
    """Draw a blob for a picture of `size` (H, W): (h, w) of its box, 2 to 15 % of the picture, aspect up to 3.3."""
    box = _box(size, aspect=3.3, generator=generator)
    return fill_curve(_fit(_random_curve((5, 6), generator=generator), box), size=box)


def scar_mask(size: tuple[int, int], *, generator: np.random.Generator) -> Mask:
    """Draw a small blob turned by up to 45 degrees for a picture of `size` (H, W): (h, w) of its box.

    Before the turn it is 7 to 21 pixels wide and 15 to 30 high where the shorter side is 256, in proportion elsewhere,
    and never below 2.
    """
    scale = _scale(size)
    width, height = (max(2.0, scale * int(generator.integers(low, high + 1))) for low, high in ((7, 21), (15, 30)))
    curve = _fit(_random_curve((5, 6), generator=generator), (height, width))
    angle = math.radians(float(generator.uniform(-45, 45)))
    cosine, sine = math.cos(angle), math.sin(angle)
    curve = curve @ np.array([[cosine, sine], [-sine, cosine]])
    curve -= curve.min(axis=0)
    across, down = curve.max(axis=0)
    return fill_curve(curve, size=(math.ceil(down), math.ceil(across)))


def clump_mask(size: tuple[int, int], *, generator: np.random.Generator) -> Mask:
    """Draw scattered speckle inside a blob for a picture of `size` (H, W): (h, w) of its box, 2 to 15 % of the picture.

    The speckle is where coarse noise (77 to 177, a grain of 5 to 7 pixels at 256, up to twice as long as wide) exceeds
    138. The mask may be empty, most often on a tiny picture.
    """
    height, width = box = _box(size, aspect=3.0, generator=generator)
    grain = float(generator.uniform(5, 7)) * _scale(size)
    stretch = math.exp(float(generator.uniform(-math.log(2), math.log(2))))
    coarse = (max(1, int(height / grain * stretch)), max(1, int(width / grain / stretch)))
    noise = _resize(generator.integers(77, 178, (1, *coarse)).astype(np.float32), box)[..., 0]
    return fill_curve(_fit(_random_curve((5, 9), generator=generator), box), size=box) & (noise > 138)


def closed_bezier(points: NDArray[np.float64], *, pull: float, straight: Mask) -> NDArray[np.float64]:
    """Join points by a smooth closed curve of cubic Bézier segments.

    The tangent at a point is parallel to the line between the middles of its two edges. The point's two handles divide
    the length of that line, times `1 - pull`, in proportion to the lengths of the edges.

    Args:
        points: (n, 2) in order around, n at least 3, no two neighbours equal.
        pull: the authors' k, from 0 (roundest) to 1 (a polygon).
        straight: (n,) whether the segment that starts at a point is a straight line.

    Returns:
        (S, 2), the curve's corners in order, not closed: 11 of each curved segment, its start of each straight one.
    """
    following = np.roll(points, -1, axis=0)
    after = (points + following) / 2  # (n, 2) the middle of the edge that starts at each point
    before = np.roll(after, 1, axis=0)
    lengths = np.linalg.norm(following - points, axis=1)[:, None]
    before_length = np.roll(lengths, 1, axis=0)
    reach = (1 - pull) * (after - before) / (before_length + lengths)
    leaving, arriving = points + reach * lengths, points - reach * before_length
    controls = np.stack([points, leaving, np.roll(arriving, -1, axis=0), following])  # (4, n, 2)
    t = np.linspace(0, 1, 12)[:-1]
    basis = np.stack([(1 - t) ** 3, 3 * t * (1 - t) ** 2, 3 * t**2 * (1 - t), t**3])  # (4, 11)
    curve = np.einsum("ct,cnd->ntd", basis, controls)  # (n, 11, 2)
    kept: NDArray[np.float64] = curve[~straight[:, None] | (t == 0)]
    return kept


def fill_curve(curve: NDArray[np.float64], *, size: tuple[int, int]) -> Mask:
    """Mark the pixels whose centres lie inside a closed curve, by the even-odd rule: (S, 2) corners x, y → (h, w).

    Pixel (row, column) has its centre at x = column + 0.5, y = row + 0.5.
    """
    height, width = size
    (x, y), (next_x, next_y) = curve.T, np.roll(curve, -1, axis=0).T
    centres = np.arange(height)[:, None] + 0.5
    rows, edges = np.nonzero((y <= centres) != (next_y <= centres))
    slope = (next_x - x)[edges] / (next_y - y)[edges]
    crossings = x[edges] + (rows + 0.5 - y[edges]) * slope
    columns = np.clip(np.ceil(crossings - 0.5), 0, width).astype(np.int64)  # the first centre right of the crossing
    toggles = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1)).reshape(height, width + 1)
    inside: Mask = np.cumsum(toggles, axis=1)[:, :width] % 2 == 1
    return inside


def soften_edge(mask: Mask, *, width: int) -> Reals:
    """Erode a mask and blur the rest: (h, w) → (h, w) weights in [0, 1], 0 wherever the mask is false.

    The mask is eroded by a disc and blurred by a Gaussian, both of the odd `width` in pixels, which is the Gaussian's
    sigma too; a width of 1 changes nothing. The mask counts as false outside of its box.
    """
    radius = width // 2
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float32)
    disc = (offsets.abs() <= (radius**2 - offsets.square()).sqrt().round()[:, None]).float()
    gaussian = torch.exp(-0.5 * (offsets / width).square())
    gaussian /= gaussian.sum()
    missing = 1 - torch.from_numpy(mask.astype(np.float32))[None, None]
    worn = F.conv2d(F.pad(missing, [radius] * 4, value=1.0), disc[None, None]) < 0.5
    blurred = F.conv2d(worn.float(), (gaussian[:, None] * gaussian)[None, None], padding=radius)[0, 0]
    return np.where(mask, blurred.clamp(0, 1).numpy(), np.float32(0))


def noise_fill(
    size: tuple[int, int], *, generator: np.random.Generator, scale: float = 1.0, grey: bool = False
) -> Reals:
    """Draw noise of a random level, strength and grain for a box of `size` (h, w): (h, w, 3), about 0 to 255.

    The noise is uniform within at most 45 of a mean of 50 to 190, in grains of 1, 2 or 4 pixels times `scale`, up to
    four times as long as wide, and interpolated, which overshoots a little. With `grey`, the channels are equal.
    """
    mean, swing = 10 * int(generator.integers(5, 20)), 5 * int(generator.integers(10))
    grain, stretch = scale * 2 ** int(generator.integers(3)), 2.0 ** int(generator.integers(-2, 3))
    coarse = (max(1, int(size[0] / grain * stretch)), max(1, int(size[1] / grain / stretch)))
    draws = generator.integers(mean - swing, mean + swing + 1, (1 if grey else 3, *coarse))
    fill = _resize(draws.astype(np.float32), size)
    return np.repeat(fill, 3, axis=2) if grey else fill


def cut_fill(
    source: Pixels, foreground: Mask | None, *, size: tuple[int, int], generator: np.random.Generator
) -> Reals:
    """Cut a box of `size` (h, w) out around a pixel of the foreground: (H, W, 3), (H, W) → (h, w, 3)."""
    top, left = _place((source.shape[0], source.shape[1]), size, allowed=foreground, generator=generator)
    return source[top : top + size[0], left : left + size[1]].astype(np.float32)


def _check(pixels: Pixels, foreground: Mask | None, *, size: tuple[int, ...]) -> None:
    if pixels.dtype != np.uint8 or pixels.shape != (*size, 3):
        got = f"{pixels.shape} {pixels.dtype}"
        raise InputError(f"A picture must be {(*size, 3)} uint8, got {got}; bring all pictures to one size.")
    if foreground is not None and (foreground.shape != size or not foreground.any()):
        got = f"{foreground.shape} with {int(foreground.sum())} true"
        raise InputError(f"A foreground must be {size} and true somewhere, got {got}; pass None where it is unknown.")


def _weights(size: tuple[int, int], *, recipe: Recipe, generator: np.random.Generator) -> Reals:
    """The fill's share in each pixel of the box, above 0 in at least one: (h, w)."""
    draw = {"blob": blob_mask, "scar": scar_mask, "clump": clump_mask}[recipe.shape]
    opacity = np.float32(generator.uniform(0.5, 1) if recipe.shape == "clump" else 1)
    width = 2 * int(EDGE_WIDTH[recipe.shape] * _scale(size) / 2) + 1
    for _ in range(ATTEMPTS):
        mask = draw(size, generator=generator)
        soft = generator.random() < SOFT_EDGE
        weights = soften_edge(mask, width=width) if soft else mask.astype(np.float32)
        if weights.any():
            return opacity * weights
    rows, columns = (np.abs(2 * np.arange(length) + 1 - length) / length for length in mask.shape)
    ellipse: Mask = np.hypot(rows[:, None], columns) < 1
    return opacity * ellipse.astype(np.float32)


def _place(
    size: tuple[int, int], box: tuple[int, ...], *, allowed: Mask | None, generator: np.random.Generator
) -> tuple[int, int]:
    """Top and left of a box centred on a random allowed pixel and then moved inside the picture."""
    inside = range(size[0] * size[1]) if allowed is None else np.flatnonzero(allowed)
    row, column = divmod(int(inside[generator.integers(len(inside))]), size[1])
    top = min(max(row - box[0] // 2, 0), size[0] - box[0])
    return top, min(max(column - box[1] // 2, 0), size[1] - box[1])


def _box(size: tuple[int, int], *, aspect: float, generator: np.random.Generator) -> tuple[int, int]:
    """A random box (h, w) inside the picture, of `AREA` of its area, one side up to `aspect` times the other."""
    area = float(generator.uniform(*AREA)) * size[0] * size[1]
    shape = math.exp(float(generator.uniform(-math.log(aspect), math.log(aspect))))  # width over height
    width = min(math.sqrt(area * shape), size[1])
    height = min(area / width, size[0])
    width = min(area / height, size[1])
    return max(2, round(height)), max(2, round(width))


def _scale(size: tuple[int, int]) -> float:
    return min(size) / 256  # lengths in pixels hold for a shorter side of 256


def _random_curve(counts: tuple[int, int], *, generator: np.random.Generator) -> NDArray[np.float64]:
    """A closed curve (S, 2) through a random number of random points, half of its segments straight."""
    count = int(generator.integers(counts[0], counts[1] + 1))
    pull = 0.1 * int(generator.integers(2, 5))
    points = generator.uniform(0, 100, (count, 2))
    x, y = (points - points.mean(axis=0)).T
    return closed_bezier(points[np.argsort(np.arctan2(y, x))], pull=pull, straight=generator.random(count) < 0.5)


def _fit(curve: NDArray[np.float64], box: tuple[float, float]) -> NDArray[np.float64]:
    """Stretch a curve (S, 2) until it touches all four sides of a box (h, w) at the origin."""
    low, high = curve.min(axis=0), curve.max(axis=0)
    fitted: NDArray[np.float64] = (curve - low) / (high - low) * (box[1], box[0])
    return fitted


def _resize(channels: Reals, size: tuple[int, int]) -> Reals:
    """Resize (C, h, w) by Pillow's bicubic interpolation: → (H, W, C)."""
    resized = F.interpolate(torch.from_numpy(channels)[None], size=size, mode="bicubic", antialias=True)
    pixels: Reals = resized[0].permute(1, 2, 0).numpy()
    return pixels


def _jitter(picture: Reals, *, generator: np.random.Generator) -> Reals:
    """Change brightness, contrast, saturation and hue a little, all at once: (H, W, 3) → (H, W, 3), not yet clipped.

    Contrast changes about the mean luma, saturation about each pixel's luma. A grey picture stays exactly grey.
    """
    brightness, contrast, saturation = (float(generator.uniform(1 - JITTER, 1 + JITTER)) for _ in range(3))
    angle = 2 * math.pi * float(generator.uniform(-JITTER, JITTER))
    cosine, sine = saturation * math.cos(angle), saturation * math.sin(angle)
    colour = np.array([[1, 0, 0], [0, cosine, -sine], [0, sine, cosine]])
    mix = (FROM_YIQ @ colour @ TO_YIQ).astype(np.float32)  # (3, 3), rows sum to 1
    red, green, blue = np.moveaxis(picture, 2, 0).reshape(3, -1)  # (H·W,) each
    # The rows of `mix` sum to 1, so the product is green plus a mix of the differences from green, 0 in a grey picture.
    mixed = green + mix[:, ::2] @ np.stack([red - green, blue - green])  # (3, H·W)
    luma = float(TO_YIQ[0] @ [red.mean(), green.mean(), blue.mean()])
    changed = np.float32(brightness * contrast) * mixed + np.float32(brightness * (1 - contrast) * luma)
    return np.reshape(changed.T, picture.shape)


def _to_pixels(values: Reals) -> Pixels:
    return np.clip(np.rint(values), 0, 255).astype(np.uint8)
