"""From the references' features to a fitted method and its thresholds."""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from handful import methods
from handful.data.progress import Track, quietly
from handful.inspection import threshold
from handful.ops.ignoring import hidden, lowered
from handful.ops.tracing import computing
from handful.types import Features, Scores

MAX_VIEWS = 7
MAX_SCORED_VIEWS = 56  # over all references: what calibration may cost
MAX_FOLDS = 8

# Of a single reference: how uneven it is says how far another part may differ, see `prior_from`. Measured on good test
# pictures of the development categories, as the assumptions in handful/inspection/threshold.py were.
UNEVEN = 0.1
MOST_UNEVEN = 0.2


def join(features: Sequence[Features]) -> Features:
    """Several batches of features of one backbone as one."""
    levels = tuple(torch.cat(batches) for batches in zip(*(f.levels for f in features), strict=True))
    images = [f.image for f in features if f.image is not None]
    crops = [f.crops for f in features if f.crops is not None]
    return Features(
        levels,
        features[0].size,
        torch.cat(images) if images else None,
        features[0].text,
        join(crops) if len(crops) == len(features) else None,
    )


def averaged(features: Features) -> Features:
    """Every level averaged over places: (B, h, w, D) → (B, 1, 1, D)."""
    return Features(tuple(level.mean((1, 2), keepdim=True) for level in features.levels), features.size)


def view_count(references: int) -> int:
    """The number of variations of each reference that calibration scores, the picture itself included."""
    return max(1, min(MAX_VIEWS, MAX_SCORED_VIEWS // references))


@computing()
def prior_from(method: methods.Method, references: Sequence[Features]) -> threshold.Prior:
    """The prior of a fitted method's scores.

    Where a single picture is alike all over, another one goes on like it. Where some of its places are far stranger
    than most (a few parts on an even board), another one may hold more of them: the factor by which it may score higher
    is then less certain, by `UNEVEN` times the logarithm of how many times the picture's score is that of its mean
    place, up to `MOST_UNEVEN`.

    Args:
        method: fitted to the references.
        references: of each the features of the picture itself.
    """
    return prior_of(method, method.score_against_itself(references[0]) if len(references) == 1 else None)


def prior_of(method: methods.Method, against_itself: Scores | None) -> threshold.Prior:
    """The prior of a method's scores; `against_itself` are those of a single reference, see `Method`, or None."""
    assumed = threshold.Prior(
        method.good_spread,
        method.single_widening,
        method.single_spread,
        falling=method.good_falling,
        ample=method.ample,
    )
    if against_itself is None:
        return assumed
    score, mean = (
        max(float(value), threshold.SMALLEST_SCORE) for value in (against_itself.image[0], against_itself.maps.mean())
    )
    uneven = min(UNEVEN * math.log(max(score / mean, 1)), MOST_UNEVEN)
    return replace(assumed, widening_spread=max(method.single_spread, uneven), among_places=True)


def fit_and_calibrate(
    method: methods.Method,
    views: Sequence[Sequence[Features]],
    augmented: Sequence[Sequence[Features]] = (),
    turned: Sequence[Features] = (),
    *,
    defects: Sequence[tuple[int, Features]] = (),
    false_alarm_rate: float,
    track: Track = quietly,
) -> threshold.Calibration:
    """Fit a method to the references and set its thresholds.

    Args:
        method: fitted in place.
        views: of each reference the features of its `view_count` mild variations, the picture itself first.
        augmented: of each reference the `averaged` features of as many `random_views` as the method wants; may be
            left out where it wants none.
        turned: of each reference the patches that `handful.fitting.rotation` keeps of its turned copies; left out where
            none are to be learnt.
        defects: the row of a reference, and the features of the picture with a synthetic defect, where the method
            weighs its evidence by these.
        false_alarm_rate: the share of good parts that may be rejected.
        track: shows progress.
    """
    image_scores, map_peaks, _ = fit_and_try(method, views, augmented, turned, defects=defects, track=track)
    assumed = prior_from(method, [of_picture[0] for of_picture in views])
    return threshold.calibrate(image_scores, map_peaks, false_alarm_rate=false_alarm_rate, prior=assumed)


def fit_and_try(
    method: methods.Method,
    views: Sequence[Sequence[Features]],
    augmented: Sequence[Sequence[Features]] = (),
    turned: Sequence[Features] = (),
    *,
    defects: Sequence[tuple[int, Features]] = (),
    planted: Sequence[tuple[int, int, Features]] = (),
    track: Track = quietly,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Fit a method to the references, weigh its evidence, and score every reference by a method that has not seen it.

    Args:
        method, views, augmented, turned, defects, track: as `fit_and_calibrate` takes them.
        planted: the row of a reference, the number of its view that a defect was planted on, and the features of that
            picture with the defect; of a single reference a view other than the first.

    Returns:
        Image scores and map peaks as `good_scores`, and (N, 2) for each planted picture the image score of its view as
        it was, and with the defect. A single reference has been seen by the method; its scores here are those of the
        method itself, places of the picture not compared with one another.
    """
    _fit(method, views, augmented, turned, rows=range(len(views)))
    _weigh(method, views, augmented, turned, defects)
    return _unseen_scores(method, views, augmented, turned, planted=planted, track=track)


@computing()
def _weigh(
    method: methods.Method,
    views: Sequence[Sequence[Features]],
    augmented: Sequence[Sequence[Features]],
    turned: Sequence[Features],
    defects: Sequence[tuple[int, Features]],
) -> None:
    """Bring the kinds of evidence that a fitted method joins to one scale, see `Method.weigh` and `weigh_alone`."""
    pictures = [of_picture[0] for of_picture in views]
    if method.terms(pictures[0]) is None:
        return
    if len(pictures) == 1:
        varied = [method.terms(view) for view in views[0][1:]]
        method.weigh_alone(torch.cat([found for found in varied if found is not None]))
        return
    terms, planted = [], []
    for rows, blind in blind_methods(method, views, augmented, turned, track=quietly):
        for row in rows:
            good = blind.terms(pictures[row])
            with_defects = [blind.terms(features) for of_row, features in defects if of_row == row]
            terms.append(good)
            planted += [
                torch.stack([good, found], 1) for found in with_defects if good is not None and found is not None
            ]
    method.weigh(torch.cat([found for found in terms if found is not None]), torch.cat(planted) if planted else None)


def blind_methods(
    method: methods.Method,
    views: Sequence[Sequence[Features]],
    augmented: Sequence[Sequence[Features]],
    turned: Sequence[Features],
    *,
    track: Track,
) -> Iterator[tuple[list[int], methods.Method]]:
    """The rows of references that are left out together, and a method that has learnt the others."""
    folds = min(len(views), MAX_FOLDS)
    for fold in track(range(folds), description="threshold"):
        blind = method.unfitted()
        _fit(blind, views, augmented, turned, rows=[row for row in range(len(views)) if row % folds != fold])
        yield list(range(fold, len(views), folds)), blind.weighed_as(method)


def score_ignoring(
    method: methods.Method, queries: Features, *, ignored: NDArray[np.bool_] | None, good: Features
) -> Scores:
    """Score pictures by a fitted method, as if they showed in the ignored region what a good one shows there.

    Args:
        method: fitted.
        queries: of the pictures.
        ignored: (H, W) bool, where the maps are then at 0 or their lowest; None for no such region.
        good: of a picture that the method has learnt.
    """
    if ignored is None:
        return method.score(queries)
    return lowered(method.score(hidden(queries, ignored, good)), ignored)


def good_scores(
    method: methods.Method,
    views: Sequence[Sequence[Features]],
    augmented: Sequence[Sequence[Features]] = (),
    turned: Sequence[Features] = (),
    *,
    ignored: NDArray[np.bool_] | None = None,
    track: Track = quietly,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Image scores and map peaks (k, V) of every reference's views by a method that has not seen that reference.

    One reference is left out at a time (with more than eight, an eighth of them). A single reference cannot be left
    out: then its variations, without the unchanged picture itself, are scored by the method that has seen it. That is
    the least that another part may score. Where the method can compare the picture's places with one another, which is
    about the most (see `Method.score_against_itself`), the scores are the geometric means of both.
    `views`, `augmented` and `turned` are those of `fit_and_calibrate`; the method has been fitted to them. `ignored` is
    that of `score_ignoring`.
    """
    image, peaks, _ = _unseen_scores(method, views, augmented, turned, ignored=ignored, track=track)
    return image, peaks


@computing()
def _unseen_scores(
    method: methods.Method,
    views: Sequence[Sequence[Features]],
    augmented: Sequence[Sequence[Features]],
    turned: Sequence[Features],
    *,
    planted: Sequence[tuple[int, int, Features]] = (),
    ignored: NDArray[np.bool_] | None = None,
    track: Track = quietly,
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Image scores and map peaks as `good_scores`, and the scores of planted pictures as `fit_and_try`."""
    of_planted = np.zeros((len(planted), 2))

    def try_planted(row: int, scorer: methods.Method, of_views: Mapping[int, Scores]) -> None:
        for number, (of_row, view, features) in enumerate(planted):
            if of_row == row:
                of_planted[number] = float(of_views[view].image[0]), float(scorer.score(features).image[0])

    if len(views) == 1:
        against_itself = method.score_against_itself(views[0][0])
        varied = [score_ignoring(method, view, ignored=ignored, good=views[0][0]) for view in views[0][1:]]
        rows = [varied if against_itself is None else [halfway(one, against_itself) for one in varied]]
        try_planted(0, method, dict(enumerate(varied, 1)))
    else:
        by_row: dict[int, list[Scores]] = {}
        for left_out, blind in blind_methods(method, views, augmented, turned, track=track):
            good = views[0 if 0 not in left_out else 1][0]
            for row in left_out:
                by_row[row] = [score_ignoring(blind, view, ignored=ignored, good=good) for view in views[row]]
                try_planted(row, blind, dict(enumerate(by_row[row])))
        rows = [by_row[row] for row in range(len(views))]
    image = np.array([[float(scores.image[0]) for scores in row] for row in rows])
    peaks = np.array([[float(scores.maps.max()) for scores in row] for row in rows])
    return image, peaks, of_planted


def halfway(one: Scores, other: Scores) -> Scores:
    """The geometric means of two pictures' scores and of their maps' highest values, these as maps of one pixel."""
    peak = (one.maps.amax((1, 2), keepdim=True) * other.maps.amax((1, 2), keepdim=True)).sqrt()
    return Scores(peak, (one.image * other.image).sqrt())


def _fit(
    method: methods.Method,
    views: Sequence[Sequence[Features]],
    augmented: Sequence[Sequence[Features]],
    turned: Sequence[Features],
    *,
    rows: Sequence[int],
) -> None:
    """Fit a method to some of the references, to their random variations and their turned copies."""
    variations = [view for row in rows for view in augmented[row]] if augmented else []
    method.fit(
        join([views[row][0] for row in rows]),
        augmented=join(variations) if variations else None,
        turned=join([turned[row] for row in rows]) if turned else None,
    )
