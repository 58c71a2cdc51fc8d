"""Parts that lie turned anyhow: told from the references alone, which are then learnt in turned copies too.

A screw dropped on a table shows its thread at any angle, and four references show four of them. Turned copies supply
the rest. They cost time, memory, and the eye for a part that is turned though it must not be; so "auto" makes them only
where the references show that parts turn:

- With two or more: where oblong parts on an even ground lie more than `ASKEW` degrees apart; or where the first one,
  turned, is at least `NEARER` times as near to the others, on the mean, as it is upright. On 18 development categories
  at 4 references this was 1.10 to 1.11 for screws, up to 1.15 for crops that show another place each, and at most 1.03
  elsewhere (benchmarks/default/turning.md).
- With one, which cannot show it: where an oblong part on an even ground lies askew, more than `ASKEW` degrees off both
  axes of the picture. A part mounted askew passes for one that turns; `turn=never` says that it is not.
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

TURNS = 12  # copies in all, the upright one included
KEPT = 0.5  # of a copy's patches, those farthest from the upright picture's: what is alike at every angle is there
NEARER = 1.03
ASKEW = 7.5  # degrees
OBLONG = 1.3  # length to width, as standard deviations of the part's pixels
EDGE = 0.1  # of the side: what a copy shows there is made up


@dataclass(frozen=True)
class Rotation:
    """Whether references are learnt in turned copies, and why, in words for people."""

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
    """Decide whether references are to be learnt in turned copies.

    Args:
        wanted: by the method.
        images: the references, (3, H, W) in [0, 1] each.
        aspects: width to height of each picture before it was brought into the frame.
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
        One picture's, every level (1, C, N, D): of each of C copies the `KEPT` patches farthest from the picture's.
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
    """The factor by which the first reference is nearer to the others at its best angle than upright.

    Near by the coarsest level's cosine: the mean distance of the others' patches, those along the edge left out, to the
    nearest of its own.

    Args:
        image: of the first, (3, H, W).
        features: of all, the first one's first.
        aspect: of the first, see `decide`.

    Returns:
        The factor, at least 1, a geometric mean over the others; and the best angle of the one it is largest for.
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

    None where there is no part on an even ground, or it is not oblong. For the aspect see `decide`.
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
    """How far two directions are apart, in degrees, where they repeat after a period."""
    difference = abs(one - other) % period
    return min(difference, period - difference)


def _copies(image: Tensor, backbone: Backbone, aspect: float) -> Iterator[tuple[float, Features]]:
    for number in range(1, TURNS):
        degrees = 360 * number / TURNS
        yield degrees, backbone(turned_view(image, degrees, aspect=aspect)[None])


def _inner(features: Features) -> Tensor:
    """The coarsest level's patches but for those along the edge, at length 1: (N, D)."""
    level = features.levels[-1][0]
    down, across = (round(EDGE * side) for side in level.shape[:2])
    return F.normalize(level[down : len(level) - down, across : level.shape[1] - across].flatten(0, 1), dim=1)


def _distances(queries: Sequence[Tensor], of: Features) -> Tensor:
    bank = Bank(F.normalize(of.levels[-1].flatten(0, 2), dim=1))
    return torch.stack([bank.nearest(rows)[0].mean() for rows in queries])


def _pixels(image: Tensor) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = (255 * image).round().byte().permute(1, 2, 0).numpy()
    return pixels
