"""Signs that a reference does not belong among the others, and the strength of each sign.

The difference of each picture from the others is compared with the differences of the others from one another, so that
a second odd picture hardly changes the comparison. The kinds:

- uniform: the picture has next to no contrast, compared with the others.
- darker, brighter: every brightness quantile lies beyond the others', as under another light.
- softer: the picture has less fine detail than any other, as with another focus or camera.
- product: the mean patch lies far from the others' mean patches. The shortest links that join all pictures are cut,
  longest first; pictures outside the group of more than half of the pictures are odd. The links within that group tell
  the usual length of a link; usual lengths below `NEAR` are drawn towards `NEAR`.
- place: the oddest 2 % of the picture's places score far above the same score of good pictures, each against all other
  pictures. The scores are taken as log-normal; their spread combines the measured spread with an assumption that grows
  with the unevenness of the pictures' scores and with the distances between the pictures.

A strength above `WARN` gives a warning, a strength above `CLEAR` makes `fit` refuse the references. The bounds were
chosen on good pictures alone, so that of draws of 3 to 8 references from 21 development categories fewer than 1 in 20
are warned of and fewer than 1 in 200 refused. On data sets left out of the choice, 7 of 100 draws are warned of and 1.3
of 100 refused.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray

from handful.inspection import gate
from handful.inspection.gate import BLACK, BURNT, ROOM, WHITE, ReferenceStatistics
from handful.inspection.threshold import Prediction
from handful.methods.handful import edge_weights
from handful.ops.least import Measure, in_groups, least_distances
from handful.types import Features

Kind = Literal["uniform", "darker", "brighter", "softer", "product", "place"]
Strengths = dict[Kind, float]

# Strengths: for darker, brighter, softer and product the logarithm of a factor; for uniform and place a power of ten.
WARN: Strengths = {"uniform": 1.0, "darker": 0.3, "brighter": 0.15, "softer": 0.85, "product": 0.18, "place": 1.4}
CLEAR: Strengths = {"uniform": 1.0, "darker": 0.4, "brighter": 0.35, "softer": 1.15, "product": 0.35, "place": 3.0}
UNSURE = 0.25  # added to `CLEAR` for a sign that does not tell which picture is odd
# Few pictures do not tell how much good pictures differ: the strength of k pictures is reduced by this / (k - 1)^1.5.
UNKNOWN: Strengths = {"darker": 0.35, "brighter": 0.35, "softer": 0.35, "product": 0.15}
RANGE = 0.5  # a good picture may lie outside the range of the others by this share of the range
OFFSET = 0.02  # added to brightness, so that the ratio of two dark places counts little
# Distances of mean patches, in standard deviations of a picture's patches: NEAR, the least between different products;
# TYPICAL, usual between good pictures; TRUST, the exponent that draws distances below NEAR towards NEAR.
NEAR, TYPICAL, TRUST = 0.4, 0.08, 0.25
SHARE = 0.02  # share of the places that count as the oddest
# The assumed spread of good log scores, as a share of the log ratio of top to mean score, for three pictures or more;
# the same for the difference of two pictures; and the number of pictures that the assumption weighs as much as.
UNEVEN, UNEVEN_OF_TWO, WEIGHT = 0.1, 0.11, 3
MEASURES: tuple[Measure, ...] = ("euclidean", "cosine")


@dataclass(frozen=True)
class Sign:
    """A weak or strong sign against a reference.

    Attributes:
        row: the number of the picture.
        kind, known: see `handful.fitting.oddity.Oddity`.
        strength: see `WARN`; higher is odder.
        factor: by which the picture is darker, brighter or farther; for softer the share of fine detail left; else 1.
        at: (x, y) of an odd place, as shares of width and height; None for other signs.
    """

    row: int
    kind: Kind
    strength: float
    known: bool = True
    factor: float = 1.0
    at: tuple[float, float] | None = None


def is_clear(sign: Sign) -> bool:
    """Whether `fit` refuses the references because of a sign; never for an odd place in one of two pictures."""
    if sign.known:
        return sign.strength > CLEAR[sign.kind]
    return sign.kind != "place" and sign.strength > CLEAR[sign.kind] + UNSURE


def signs_of(pairs: NDArray[np.float32], learnt: ReferenceStatistics) -> list[Sign]:
    """All signs of k pictures, weak signs too.

    A uniform picture gets no other sign, and a picture with any other sign above `WARN` gets no sign of an odd place.

    Args:
        pairs: see `compare`.
        learnt: the statistics of the k pictures.
    """
    found = _uniform(learnt)
    left = _left(range(len(learnt.contrast)), found)
    if len(left) < 2:
        return found
    some = rows_of(learnt, left)
    of_whole = [*_light(some), *_soft(some), *_product(some)]
    found += [replace(sign, row=left[sign.row]) for sign in of_whole]
    left = _left(left, found)
    if len(left) > 1:
        kept = pairs[np.ix_(left, left)]
        places = _places(kept, _distances(rows_of(learnt, left))) if len(left) > 2 else _places_of_two(kept)
        found += [replace(sign, row=left[sign.row]) for sign in places]
    return found


def compare(features: Sequence[Features]) -> NDArray[np.float32]:
    """The anomaly scores of each picture's places against each other picture, see `strange_to`.

    Returns:
        (k, k, h, w): at [i, j] the scores of the places of picture i against picture j alone; infinite for i = j.
    """
    count = len(features)
    pairs = np.full((count, count, *features[0].levels[0].shape[1:3]), np.inf, np.float32)
    for known in range(count if count > 1 else 0):
        others = [row for row in range(count) if row != known]
        pairs[others, known] = strange_to(features[known], [features[row] for row in others])
    return pairs


def strange_to(known: Features, others: Sequence[Features]) -> NDArray[np.float32]:
    """The anomaly scores of N pictures' places against a single known picture, by the scoring of method `handful`.

    Returns:
        (N, h, w) on the finest grid: the geometric mean, over levels and over Euclidean distance and distance between
        unit-length vectors, of the distances to the nearest patch of the known picture.
    """
    grid = known.levels[0].shape[1:3]
    product = np.ones((len(others), *grid), np.float32)
    for number, level in enumerate(known.levels):
        queries = torch.cat([one.levels[number].flatten(0, 2) for one in others])
        lengths, directions = least_distances(in_groups(level.flatten(0, 2), MEASURES)[None], queries, MEASURES)
        coarse = level.shape[1:3]
        strange = (lengths * directions).sqrt().reshape(-1, *coarse) * edge_weights(*coarse, device=level.device)
        down, across = (np.arange(side) * cells // side for side, cells in zip(grid, coarse, strict=True))
        product *= strange.cpu().numpy()[:, down][..., across]
    result: NDArray[np.float32] = product ** np.float32(1 / len(known.levels))
    return result


def rows_of(learnt: ReferenceStatistics, rows: Sequence[int]) -> ReferenceStatistics:
    """The statistics of some of the references."""
    kept = {name: values[list(rows)] for name, values in learnt.as_dict().items() if name != "depths"}
    return ReferenceStatistics(**kept, depths=learnt.depths)


def _left(rows: Sequence[int], found: Sequence[Sign]) -> list[int]:
    """The rows of pictures that have no sign above `WARN` yet."""
    odd = {sign.row for sign in found if sign.strength > WARN[sign.kind]}
    return [row for row in rows if row not in odd]


def _unknown(kind: Kind, count: int) -> float:
    return UNKNOWN[kind] / math.pow(count - 1, 1.5)


def _uniform(learnt: ReferenceStatistics) -> list[Sign]:
    contrast, highest = learnt.contrast.tolist(), float(learnt.contrast.max())
    if not highest > 0:
        return []
    return [Sign(row, "uniform", math.log10(highest / max(one, 1e-9))) for row, one in enumerate(contrast)]


def _light(learnt: ReferenceStatistics) -> list[Sign]:
    """Signs that the darkest pictures (up to half of all) or the brightest (fewer than half) lie beyond the others."""
    quantiles = learnt.brightness[:, 0]  # (k, 5)
    order = np.argsort(quantiles[:, quantiles.shape[1] // 2], kind="stable").tolist()
    count, found = len(order), []
    for number in range(1, count // 2 + 1):
        found += _changed("darker", order[:number], quantiles, quantiles[order[number:]])
    for number in range(1, (count + 1) // 2):
        found += _changed("brighter", order[count - number :], quantiles, quantiles[order[: count - number]])
    return found


def _changed(kind: Kind, odd: list[int], quantiles: NDArray[np.float32], rest: NDArray[np.float32]) -> list[Sign]:
    """Signs that some pictures are darker or brighter than the rest (N, 5), by the quantile with the least change."""
    some, low, high = quantiles[odd], rest.min(0), rest.max(0)
    if kind == "darker":
        counted, change, least = low > BLACK, _log_ratio(low, some.max(0)), 1
        moved = change
    else:
        counted, change, least = (low > BLACK) & (high < WHITE), _log_ratio(some.min(0), high), ROOM
        moved = np.where(some.min(0) >= BURNT, np.inf, change)  # saturated pixels hide the true change
    if int(counted.sum()) < least:
        return []
    strength = float(moved[counted].min() - RANGE * _log_ratio(high, low)[counted].max())
    strength = min(strength, 9.0) - _unknown(kind, len(quantiles))
    factor = math.exp(float(np.median(change[counted])))
    return [Sign(row, kind, strength, 2 * len(odd) < len(quantiles), factor) for row in odd]


def _log_ratio(above: NDArray[np.float32], below: NDArray[np.float32]) -> NDArray[np.float32]:
    ratio: NDArray[np.float32] = np.log((above + OFFSET) / (below + OFFSET))
    return ratio


def _soft(learnt: ReferenceStatistics) -> list[Sign]:
    """Signs that the softest pictures, up to half of all, are softer than the others."""
    sharp = learnt.sharpness[:, 0].astype(np.float64)
    if np.isnan(sharp).any():  # a flat picture has no sharpness
        return []
    order, found = np.argsort(sharp, kind="stable").tolist(), []
    for number in range(1, len(sharp) // 2 + 1):
        soft, rest = sharp[order[:number]], sharp[order[number:]]
        strength = float(rest.min() - soft.max() - RANGE * (rest.max() - rest.min())) - _unknown("softer", len(sharp))
        shares, known = np.exp(soft - np.median(rest)).tolist(), 2 * number < len(sharp)
        found += [
            Sign(row, "softer", strength, known, share) for row, share in zip(order[:number], shares, strict=True)
        ]
    return found


def _product(learnt: ReferenceStatistics) -> list[Sign]:
    """Signs of another product: the longest links are cut in turn, and pictures outside the largest group are odd."""
    count, links, found = len(learnt.mean), _links(_distances(learnt)), []
    for cut in range(1, len(links) + 1):
        groups = _groups(count, links[cut:])
        largest = max(groups, key=len)
        known = 2 * len(largest) > count
        within = max((length for length, one, _ in links[cut:] if not known or one in largest), default=TYPICAL)
        if within < NEAR:
            within = max(within, 1e-6) ** TRUST * NEAR ** (1 - TRUST)
        factor = links[cut - 1][0] / within
        strength = math.log(max(factor, 1e-9)) - _unknown("product", count)
        odd = [row for group in groups for row in group if not known or group is not largest]
        found += [Sign(row, "product", strength, known, factor) for row in odd]
    return found


def _distances(learnt: ReferenceStatistics) -> NDArray[np.float32]:
    """Distances between mean patches, in standard deviations of the more varied picture's patches: (k, k)."""
    distances = gate.between(learnt)
    nearer: NDArray[np.float32] = np.minimum(distances, distances.T)
    return nearer


def _links(distances: NDArray[np.float32]) -> list[tuple[float, int, int]]:
    """The shortest links that join all pictures (Prim's spanning tree), the longest first."""
    joined, left, links = [0], list(range(1, len(distances))), []
    while left:
        length, one, other = min((float(distances[one, other]), one, other) for one in joined for other in left)
        links.append((length, one, other))
        joined.append(other)
        left.remove(other)
    return sorted(links, reverse=True)


def _groups(count: int, links: Sequence[tuple[float, int, int]]) -> list[set[int]]:
    """The groups of pictures that links join."""
    groups = [{row} for row in range(count)]
    for _, one, other in links:
        first, second = (next(group for group in groups if row in group) for row in (one, other))
        groups.remove(second)
        first |= second
    return groups


def _places(pairs: NDArray[np.float32], distances: NDArray[np.float32]) -> list[Sign]:
    """Signs of odd places among three pictures or more, in up to a third of the pictures.

    The oddest picture is put aside, then the oddest of the remaining pictures, and so on. The strength of each picture
    put aside is the least strength of all pictures put aside, against the remaining pictures (Rosner, Technometrics 25,
    1983).

    Args:
        pairs: (k, k, h, w), see `compare`.
        distances: (k, k) between mean patches.
    """
    left, aside, found = list(range(len(pairs))), [], []
    for _ in range(len(left) // 3):
        strengths = [_strangeness(pairs, distances, row, [other for other in left if other != row]) for row in left]
        aside.append(left.pop(int(np.argmax(strengths))))
        strength = min(_strangeness(pairs, distances, row, left) for row in aside)
        found += [Sign(row, "place", strength, at=_strangest(pairs[row, left].min(0))) for row in aside]
    return found


def _strangeness(pairs: NDArray[np.float32], distances: NDArray[np.float32], row: int, others: list[int]) -> float:
    """-log10 of the probability that the oddest of as many good pictures scores as high as picture `row`."""
    score, _ = _scores(pairs[row, others].min(0))
    rest = {one: [other for other in others if other != one] for one in others}
    logs, uneven = np.array([_scores(pairs[one, rest[one]].min(0)) for one in others]).T
    between = distances[np.ix_(others, others)][np.triu_indices(len(others), 1)]
    steady = math.sqrt(math.exp(float(np.log(np.maximum(between, 1e-6)).mean())) / TYPICAL)
    assumed = UNEVEN * max(float(uneven.mean()), 1e-3) * steady
    freedom = WEIGHT + len(others) - 1
    spread = math.sqrt((WEIGHT * assumed**2 + float(np.square(logs - logs.mean()).sum())) / freedom)
    good = Prediction(float(logs.mean()), spread, spread / math.sqrt(len(others)), freedom)
    return -math.log10(max(good.rate(math.exp(score)) * (len(others) + 1), 1e-12))


def _places_of_two(pairs: NDArray[np.float32]) -> list[Sign]:
    """A sign against the picture of two that scores higher against the other; good pictures score about alike."""
    scores, uneven = np.array([_scores(pairs[row, 1 - row]) for row in range(2)]).T
    odd, difference = int(np.argmax(scores)), float(np.ptp(scores))
    spread = UNEVEN_OF_TWO * max(float(uneven.mean()), 1e-3)
    chance = 2 * Prediction(0.0, spread, 0.0, WEIGHT).rate(math.exp(difference))
    return [Sign(odd, "place", -math.log10(max(chance, 1e-12)), known=False, at=_strangest(pairs[odd, 1 - odd]))]


def _scores(strange: NDArray[np.float32]) -> tuple[float, float]:
    """The log of the mean score of the oddest places, and its difference from the log of the mean of all places."""
    count = max(1, round(SHARE * strange.size))
    top = math.log(max(float(np.partition(strange, -count, axis=None)[-count:].mean()), 1e-9))
    return top, top - math.log(max(float(strange.mean()), 1e-9))


def _strangest(strange: NDArray[np.float32]) -> tuple[float, float]:
    """The centre of the oddest place, x and y as shares of width and height."""
    height, width = strange.shape
    padded = np.pad(strange, 1, mode="edge")
    smooth = sum(padded[y : y + height, x : x + width] for y in range(3) for x in range(3))
    down, across = np.unravel_index(int(np.argmax(smooth)), strange.shape)
    return (float(across) + 0.5) / width, (float(down) + 0.5) / height
