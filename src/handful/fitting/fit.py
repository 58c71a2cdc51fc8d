"""The fit: from references to features, thresholds, turned copies and statistics for the gate."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from handful.data.progress import Track
from handful.fitting import calibration, oddity, rotation
from handful.fitting.calibration import averaged, join, view_count
from handful.fitting.oddity import Oddity
from handful.fitting.reference_features import ReferenceFeatures
from handful.fitting.references import References
from handful.fitting.revisions import History
from handful.fitting.rotation import Rotation
from handful.fitting.tiling import Tiling
from handful.fitting.visibility import Trial, Trials
from handful.inspection.gate import ReferenceStatistics, learn_statistics
from handful.methods import Method
from handful.ops.frames import whole
from handful.ops.planting import Planting, plan
from handful.ops.views import mild_views, random_views
from handful.types import Features

IN_TILES = Rotation(False, "parts are learnt as they lie where pictures are looked at in tiles")


@dataclass(frozen=True, eq=False)
class Fit:
    """The result of a fit, besides the fitted method.

    Attributes:
        features: the features of the references.
        statistics: the statistics of the references for the gate.
        turning: whether turned copies of the references were learnt, and why.
        history: the scores of the references, without revisions yet.
        oddities: references that are unlike the other references.
        trials: scores of synthetic defects; None if none were planted.
    """

    features: ReferenceFeatures
    statistics: ReferenceStatistics
    turning: Rotation
    history: History
    oddities: tuple[Oddity, ...]
    trials: Trials | None


def fit(
    method: Method, references: References, *, rate: float, accept_odd: bool, try_defects: bool, track: Track
) -> Fit:
    """Fit a method to references, and set the threshold by leave-one-out scores of the references.

    Args:
        method: the method, fitted in place.
        references: 1 or more.
        rate: the share of good parts that the threshold may reject.
        accept_odd: whether to learn references that are clearly unlike the other references too.
        try_defects: whether to plant synthetic defects.
        track: shows progress.

    Raises:
        InputError: for a reference that is clearly unlike the others, without `accept_odd`.
    """
    pictures, backbone, preprocessing = references.pictures, references.backbone, references.preprocessing
    tiling = Tiling(backbone, preprocessing) if preprocessing.tiles else None
    inputs = [torch.from_numpy(preprocessing(picture)) for picture in pictures]
    variations = [mild_views(image, view_count(len(inputs))) for image in inputs]
    views, augmented = [], []
    for image, of_image in track(list(zip(inputs, variations, strict=True)), description="features"):
        views.append([backbone(view[None]) for view in (of_image[:1] if tiling else of_image)])
        augmented.append([averaged(backbone(view[None])) for view in random_views(image, method.views_wanted)])
    upright = [of_image[0] for of_image in views]
    statistics = learn_statistics(
        [[view.numpy() for view in of_image] for of_image in variations],
        [features.arrays() for features in upright],
        fine=[tiling.blocks(picture) for picture in pictures] if tiling else None,
    )
    placements = [preprocessing.placement(picture.size) for picture in pictures]
    names, sizes = [picture.name for picture in pictures], [picture.size for picture in pictures]
    oddities = oddity.find(names, sizes, upright, statistics, placements=placements)
    if not accept_odd:
        oddity.check(oddities)
    turning, turned = _turned(method, references, inputs, upright, track=track)
    if tiling and try_defects:
        variations = [tiling.middles(picture, alone=len(pictures) == 1) for picture in pictures]
    weighs = method.weighs_defects and len(pictures) > 1 and not (tiling or turned)
    plantings = []
    if try_defects or weighs:
        plantings = _plantings(references, upright, variations, tiling, spots=try_defects)
    planted = [
        (one.row, one.view, backbone(one.draw(variations[one.row][one.view])[None]))
        for one in track(plantings, description="defects")
    ]
    defects = [
        (row, features)
        for one, (row, _, features) in zip(plantings, planted, strict=True)
        if weighs and one.diameter is None
    ]
    if not try_defects:
        plantings, planted = [], []
    tiles: list[Features] = []
    if tiling:
        tiles, *good, tried, prior = tiling.fit(method, pictures, planted=planted, track=track)
    else:
        *good, tried = calibration.fit_and_try(
            method, views, augmented, turned, defects=defects, planted=planted, track=track
        )
        prior = calibration.prior_from(method, upright)
    trials = tuple(
        Trial(one.kind, clean, found, one.diameter)
        for one, (clean, found) in zip(plantings, tried.tolist(), strict=True)
    )
    kept = tuple(join(found) for found in augmented if found)
    return Fit(
        features=ReferenceFeatures(tuple(upright), kept, tuple(turned), tiles=tuple(tiles)),
        statistics=statistics,
        turning=turning,
        history=History.start(*good, rate=rate, prior=prior),
        oddities=oddities,
        trials=Trials(trials, sizes[_order(references)[0]], len(pictures) == 1) if trials else None,
    )


def _turned(
    method: Method, references: References, inputs: Sequence[torch.Tensor], upright: Sequence[Features], *, track: Track
) -> tuple[Rotation, list[Features]]:
    """The decision on turned copies, and the patches that the turned copies add, none without turned copies."""
    preprocessing, backbone = references.preprocessing, references.backbone
    if preprocessing.tiles:
        return IN_TILES, []
    aspects = [preprocessing.aspect(picture) for picture in references.pictures]
    turning = rotation.decide(method.turn_wanted, inputs, upright, backbone, aspects=aspects)
    rows = list(zip(inputs, upright, aspects, strict=True)) if turning.turned else []
    return turning, [
        rotation.turned_patches(image, features, backbone, aspect=aspect)
        for image, features, aspect in track(rows, description="turned")
    ]


def _plantings(
    references: References,
    upright: Sequence[Features],
    variations: Sequence[Sequence[torch.Tensor]],
    tiling: Tiling | None,
    *,
    spots: bool,
) -> list[Planting]:
    """The synthetic defects to plant on variations of the references; with tiles, on the tile in the middle."""
    pictures, preprocessing = references.pictures, references.preprocessing
    placements = [
        whole(preprocessing.size) if tiling else preprocessing.placement(picture.size) for picture in pictures
    ]
    shown = [tiling.shown(picture) if tiling else picture.size for picture in pictures]
    patch = preprocessing.size[0] / upright[0].levels[0].shape[1]
    first = [of_picture[0] for of_picture in variations]
    return plan(first, _order(references), placements, shown, views=len(variations[0]), patch=patch, spots=spots)


def _order(references: References) -> list[int]:
    """The rows of the references sorted by digest, so that the order of the references does not matter."""
    return sorted(range(len(references.digests)), key=references.digests.__getitem__)
