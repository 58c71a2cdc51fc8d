"""Calibration: leave-one-out scores of the references, and the thresholds of a fitted method."""

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
MAX_SCORED_VIEWS = 56  # over all references, which bounds the time of calibration
MAX_FOLDS = 8

# The unevenness of a single reference predicts how far another part may differ, see `prior_from`. Both constants were
# measured on good test pictures of the development categories, like the priors in handful/inspection/threshold.py.
UNEVEN = 0.1
MOST_UNEVEN = 0.2


def join(features: Sequence[Features]) -> Features:
    """Concatenate batches of features of the same backbone."""
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
    """The number of variations of each reference that calibration scores, including the unchanged picture."""
    return max(1, min(MAX_VIEWS, MAX_SCORED_VIEWS // references))


@computing()
def prior_from(method: methods.Method, references: Sequence[Features]) -> threshold.Prior:
    """The prior of a fitted method's scores.

    A single reference whose places are all alike predicts the scores of other parts well. If some of its places score
    far above the mean (a few components on a plain board), other parts may hold more such places, and `Prior.widening`
    is less certain: `widening_spread` is then `UNEVEN` times the logarithm of the ratio of the picture's score to the
    mean of its map, at most `MOST_UNEVEN` and at least the method's own.

    Args:
        method: fitted to the references.
        references: for each reference the features of its unchanged picture.
    """
    return prior_of(method, method.score_against_itself(references[0]) if len(references) == 1 else None)


def prior_of(method: methods.Method, against_itself: Scores | None) -> threshold.Prior:
    """The prior of a method's scores.

    Args:
        method: the method.
        against_itself: the scores of a single reference by `Method.score_against_itself`; None with more references or
            if the method has no such scores.
    """
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
        method: the method, fitted in place.
        views: for each reference the features of its `view_count` mild variations, the unchanged picture first.
        augmented: for each reference the `averaged` features of the random views that the method wants; may be left out
            if the method wants none.
        turned: for each reference the patches of its turned copies, see `handful.fitting.rotation.turned_patches`; left
            out if no turned copies are learnt.
        defects: the row of a reference and the features of that reference with a synthetic defect, for a method that
            weighs its evidence by synthetic defects.
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
    """Fit a method to the references, weigh its evidence, and score every reference by a method that has not learnt it.

    Args:
        method, views, augmented, turned, defects, track: see `fit_and_calibrate`.
        planted: the row of a reference, the number of the view that a defect was planted on, and the features of that
            view with the defect; for a single reference a view other than the first.

    Returns:
        Image scores and map peaks, see `good_scores`, and an array (N, 2): for each planted defect the image score of
        its view without and with the defect. For a single reference, which the method has learnt, this array holds the
        scores of the fitted method, without `Method.score_against_itself`.
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
    """Bring the kinds of evidence of a fitted method to a common scale, see `Method.weigh` and `weigh_alone`."""
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
    """For each fold, the rows of the references left out and a method fitted to the other references.

    Up to `MAX_FOLDS` references, each is left out alone.
    """
    folds = min(len(views), MAX_FOLDS)
    for fold in track(range(folds), description="threshold"):
        blind = method.unfitted()
        _fit(blind, views, augmented, turned, rows=[row for row in range(len(views)) if row % folds != fold])
        yield list(range(fold, len(views), folds)), blind.weighed_as(method)


def score_ignoring(
    method: methods.Method, queries: Features, *, ignored: NDArray[np.bool_] | None, good: Features
) -> Scores:
    """Score pictures by a fitted method, the ignored region's patches replaced by a good picture's patches.

    Args:
        method: fitted.
        queries: the features of the pictures.
        ignored: (H, W) bool, the ignored region, where the maps get 0 or their lowest value; None without one.
        good: the features of a picture that the method has learnt.
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
    """Image scores and map peaks (k, V) of every reference's views by a method that has not learnt the reference.

    Each reference is left out in turn (with more than eight, an eighth of the references). A single reference cannot be
    left out: the fitted method scores its mild variations, without the unchanged picture, which gives a lower bound for
    the scores of other parts. If the method can score the picture's patches against the rest of the picture, which
    gives about an upper bound (see `Method.score_against_itself`), the scores are the geometric means of both bounds.

    Args:
        method: fitted to the references.
        views, augmented, turned, track: see `fit_and_calibrate`.
        ignored: see `score_ignoring`.
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
    """Image scores and map peaks, see `good_scores`, and the scores of planted defects, see `fit_and_try`."""
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
    """The geometric means of two image scores and of the peaks of two maps, the latter as a map of a single pixel."""
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
    """Fit a method to the references of some rows, with their random variations and turned copies."""
    variations = [view for row in rows for view in augmented[row]] if augmented else []
    method.fit(
        join([views[row][0] for row in rows]),
        augmented=join(variations) if variations else None,
        turned=join([turned[row] for row in rows]) if turned else None,
    )
