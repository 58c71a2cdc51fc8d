"""Turned copies: decides from the references alone whether parts lie at any angle, and if so learns turned copies.

A screw dropped on a table lies at any angle, and four references show four angles. Turned copies supply other angles.
They cost time and memory, and a wrong orientation is then no longer detected; so "auto" makes turned copies only if the
references show that parts turn:

- Two or more references: if oblong parts on an even ground lie more than `ASKEW` degrees apart; or if the first
  reference, turned to its best angle, is at least `NEARER` times as near to the other references, on the mean, as
  upright. On 18 development categories at 4 references this factor was 1.10 to 1.11 for screws, up to 1.15 for crops of
  different places, and at most 1.03 for the other categories (benchmarks/default/turning.md).
- A single reference, which cannot show that parts turn: if an oblong part on an even ground lies askew, more than
  `ASKEW` degrees off both axes of the picture. For a part that is always mounted askew set `turn=never`.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from handful.backbones.base import Backbone
from handful.methods import Turn
from handful.ops.foreground import foreground
from handful.ops.neighbors import Bank
from handful.ops.views import turned_view
from handful.types import Features

TURNS = 12  # angles in all, including upright
KEPT = 0.5  # share of a copy's patches that is kept: the farthest from the upright patches, which are learnt already
NEARER = 1.03
ASKEW = 7.5  # degrees
OBLONG = 1.3  # length to width, as standard deviations of the part's pixels
EDGE = 0.1  # share of the side left out at each edge, where a turned copy shows filled-in pixels


@dataclass(frozen=True)
class Rotation:
    """The decision whether turned copies of the references are learnt, with the reason in words."""

    turned: bool
    why: str


def decide(
    wanted: Turn,
    images: Sequence[Tensor],
    features: Sequence[Features],
    backbone: Backbone,
    *,
    aspects: Sequence[float],
) -> Rotation:
    """Decide whether to learn turned copies of references.

    Args:
        wanted: the method's setting.
        images: the references, (3, H, W) in [0, 1] each.
        features: the features of each reference.
        backbone: computes the features of turned copies.
        aspects: width to height of each original picture, before the picture was resized to the frame.
    """
    if wanted != "auto":
        return Rotation(wanted == "always", "as asked for")
    axes = [axis(_pixels(image), aspect=aspect) for image, aspect in zip(images, aspects, strict=True)]
    if len(images) == 1:
        if axes[0] is None:
            return Rotation(False, "the single reference shows no oblong part on an even ground")
        askew = angle_between(axes[0] % 90, 0, 90)
        turned = askew > ASKEW
        verdict = "taken for one that turns" if turned else "taken for one that does not turn"
        return Rotation(turned, f"the part of the single reference lies {askew:.0f}° askew: {verdict}")
    oblong = [one for one in axes if one is not None]
    widest = max((angle_between(one, other, 180) for one in oblong for other in oblong), default=0.0)
    if len(oblong) == len(images) and widest > ASKEW:
        return Rotation(True, f"the references' parts lie up to {widest:.0f}° apart")
    nearer, degrees = nearer_turned(images[0], features, backbone, aspect=aspects[0])
    if nearer < NEARER:
        return Rotation(False, f"turned, the first reference is at most {nearer:.2f} times as near to the others")
    said = f"the first reference is {nearer:.2f} times as near to the others turned as it is upright"
    return Rotation(True, f"{said}, for one of them by {degrees:.0f}°")


def turned_patches(image: Tensor, upright: Features, backbone: Backbone, *, aspect: float) -> Features:
    """The patches of turned copies of a picture (3, H, W) in [0, 1] that are least like its upright patches.

    For the aspect see `decide`.

    Returns:
        Every level (1, C, N, D): of each of C copies, the share `KEPT` of patches farthest from the upright patches.
    """
    banks = [Bank(level.flatten(0, 2)) for level in upright.levels]
    kept: list[list[Tensor]] = [[] for _ in banks]
    for _, copy in _copies(image, backbone, aspect):
        for bank, level, rows_kept in zip(banks, copy.levels, kept, strict=True):
            rows = level.flatten(0, 2)
            farthest = bank.nearest(rows)[0][:, 0].topk(max(1, round(KEPT * len(rows)))).indices
            rows_kept.append(rows[farthest])
    return Features(tuple(torch.stack(rows)[None] for rows in kept), upright.size)


def nearer_turned(
    image: Tensor, features: Sequence[Features], backbone: Backbone, *, aspect: float
) -> tuple[float, float]:
    """The factor by which the first reference is nearer to the other references at its best angle than upright.

    The distance from the first reference to another is the mean cosine distance, at the coarsest level, from the
    other's patches (without patches along the edge) to the nearest patches of the first.

    Args:
        image: the first reference, (3, H, W).
        features: the features of all references, in order.
        backbone: computes the features of turned copies.
        aspect: of the first reference, see `decide`.

    Returns:
        The factor, at least 1, a geometric mean over the other references; and the best angle for the reference of the
        largest factor, in degrees.
    """
    queries = [_inner(one) for one in features[1:]]
    angles, distances = [0.0], [_distances(queries, features[0])]
    for degrees, copy in _copies(image, backbone, aspect):
        angles.append(degrees)
        distances.append(_distances(queries, copy))
    by_angle = torch.stack(distances).clamp_min(torch.finfo(torch.float32).tiny)  # (T, k - 1)
    nearest, at = by_angle.min(0)
    gains = (by_angle[0] / nearest).log()
    return float(gains.mean().exp()), angles[int(at[gains.argmax()])]


def axis(picture: NDArray[np.uint8], *, aspect: float) -> float | None:
    """The direction of an oblong part's longer axis in a picture (H, W, 3), in degrees from 0 to 180.

    None if the picture shows no part on an even ground, or the part is not oblong. For the aspect see `decide`.
    """
    part = foreground(picture)
    if part.all():
        return None
    rows, columns = np.nonzero(part)
    frame = aspect * part.shape[0] / part.shape[1]  # pixels of the frame need not be square
    variances, axes = np.linalg.eigh(np.cov(np.stack([columns * frame, rows])))
    if variances[1] <= OBLONG**2 * max(variances[0], 1e-9):
        return None
    return math.degrees(math.atan2(axes[1, 1], axes[0, 1])) % 180


def angle_between(one: float, other: float, period: float) -> float:
    """The angle between two directions in degrees, where directions repeat after a period."""
    difference = abs(one - other) % period
    return min(difference, period - difference)


def _copies(image: Tensor, backbone: Backbone, aspect: float) -> Iterator[tuple[float, Features]]:
    for number in range(1, TURNS):
        degrees = 360 * number / TURNS
        yield degrees, backbone(turned_view(image, degrees, aspect=aspect)[None])


def _inner(features: Features) -> Tensor:
    """The coarsest level's patches, without patches along the edge, at length 1: (N, D)."""
    level = features.levels[-1][0]
    down, across = (round(EDGE * side) for side in level.shape[:2])
    return F.normalize(level[down : len(level) - down, across : level.shape[1] - across].flatten(0, 1), dim=1)


def _distances(queries: Sequence[Tensor], of: Features) -> Tensor:
    bank = Bank(F.normalize(of.levels[-1].flatten(0, 2), dim=1))
    return torch.stack([bank.nearest(rows)[0].mean() for rows in queries])


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (255 * image).round().byte().permute(1, 2, 0).numpy()
    return pixels
