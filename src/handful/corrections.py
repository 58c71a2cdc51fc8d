"""Corrections of an inspector by a person: functions from a state and the person's pictures to the next state.

Each public function implements the method of `Detector` that has its name; see there for arguments and errors. Each
adds a revision to the history by `_revised`, the only function that derives method, threshold and graph from the
features, the references and the history of a state.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from handful.data import images
from handful.data.images import Picture, Pictures, PictureSource
from handful.data.masks import read_ignored
from handful.data.progress import Track, quietly
from handful.data.thumbnails import thumbnail_jpeg
from handful.errors import InputError, SettingError
from handful.fitting import oddity, rotation
from handful.fitting.calibration import averaged, join
from handful.fitting.revisions import Basis, Correction, History, Kind, PictureRecord, missed_again
from handful.inspection.threshold import check_rate, of_parts
from handful.methods import Method
from handful.ops.views import random_views
from handful.saved.state import InspectorState
from handful.types import Features, Reference

MOST_IGNORED = 0.5  # share of the frame; more needs `accept_odd`


@dataclass(frozen=True, eq=False)
class ScoredPicture:
    """A picture given for a correction, with its score before the correction.

    Attributes:
        picture: the picture as read.
        image: (3, H, W), the input of the backbone.
        features: the features of `image`.
        scored: the features that gave the image score: `features`, or with tiles the features of the highest tile.
        record: the picture's record for the history.
        score: the raw image score, higher is more anomalous.
    """

    picture: Picture
    image: Tensor
    features: Features
    scored: Features
    record: PictureRecord
    score: float


Corrected = tuple[InspectorState, Correction]


def teach_good(state: InspectorState, good: Pictures, *, accept_odd: bool) -> Corrected:
    """Learn pictures as good; the threshold stays. See `Detector.teach_good`."""
    pictures = _scored(state, good)
    _history(state).check_new(_records(pictures), _learnt(state), "good", "defect")
    augmented, turned = [], []
    for one in pictures:
        views = [averaged(state.backbone(view[None])) for view in random_views(one.image, state.method.views_wanted)]
        augmented += [join(views)] if views else []
        if state.features.turned:
            aspect = state.preprocessing.aspect(one.picture)
            turned.append(rotation.turned_patches(one.image, one.features, state.backbone, aspect=aspect))
    depth_of = state.preprocessing.depth_of
    new = tuple(
        Reference(
            one.record.name, one.record.sha256, thumbnail_jpeg(one.picture), depth_of(one.picture), one.picture.size
        )
        for one in pictures
    )
    tiles = [state.tiling.kept(one.picture).features for one in pictures] if state.tiling else []
    features = state.features.with_learnt([one.features for one in pictures], augmented, turned, tiles)
    taught = replace(state, references=(*state.references, *new), features=features)
    return _revised(state, taught, "good", pictures=pictures, accepted=accept_odd)


def ignore(state: InspectorState, mask: PictureSource, *, accept_odd: bool) -> Corrected:
    """Ignore a region of the frame. See `Detector.ignore`."""
    if state.preprocessing.tiles is not None:
        raise SettingError(
            "Pictures must be inspected in a single input for a region to be ignored, got an inspector with tiles; "
            "cover the region in the pictures, or fit with a number as `--size`."
        )
    if state.features.good.crops is not None or state.features.good.image is not None:
        raise SettingError(
            f"A method must score by patches alone for a region to be ignored, got {state.method.name} with crops or "
            f"whole pictures; cover the region in the pictures, or fit another method."
        )
    frame = state.preprocessing
    region, name, digest = read_ignored(mask, frame.size, keeps_aspect=frame.keeps_aspect)
    number = len(_history(state).revisions) + 1
    features = replace(state.features, masks={**state.features.masks, number: region})
    assert features.ignored is not None
    if bool(features.ignored.all()):
        raise InputError(
            f"Ignored regions must leave a part of the frame to inspect, got the whole frame ignored with {name}; use "
            f"another mask."
        )
    if not accept_odd and (share := float(features.ignored.mean())) > MOST_IGNORED:
        raise InputError(
            f"Ignored regions must leave most of the frame to inspect, got {share:.0%} ignored with {name}; swap "
            f"its black and white if black marks the region, or accept so large a region (`--accept-odd`)."
        )
    records = (PictureRecord(name, digest),)
    return _revised(state, replace(state, features=features), "ignore", records=records, value=float(region.mean()))


def teach_defect(state: InspectorState, defects: Pictures, *, accept_cost: bool) -> Corrected:
    """Record missed defects, and lower the threshold below their scores. See `Detector.teach_defect`."""
    pictures = _scored(state, defects, gated=False)
    _history(state).check_new(_records(pictures), _learnt(state), "good", "defect", "normals")
    for one in pictures:
        if one.score > state.calibration.threshold:
            raise SettingError(f"A missed defect must not be a DEFECT already, got {one.record.name}; leave it out.")
    features = replace(state.features, defects=(*state.features.defects, *(one.scored for one in pictures)))
    return _revised(state, replace(state, features=features), "defect", pictures=pictures, accepted=accept_cost)


def add_normals(state: InspectorState, good: Pictures, *, accept_odd: bool, track: Track = quietly) -> Corrected:
    """Set a more precise threshold by further good pictures. See `Detector.add_normals`."""
    history, pictures = _history(state), _scored(state, good, track=track)
    history.check_new(_records(pictures), _learnt(state), "good", "defect", "normals")
    if not accept_odd:
        history.check_odd(_records(pictures))
    return _revised(state, state, "normals", pictures=pictures, ignoring=history.ignoring)


def set_rate(state: InspectorState, false_alarm_rate: float) -> Corrected:
    """Set the threshold for another false-alarm rate. See `Detector.set_rate`."""
    check_rate(false_alarm_rate)
    return _revised(state, state, "rate", value=false_alarm_rate)


def set_threshold(state: InspectorState, threshold: float) -> Corrected:
    """Set the raw threshold by hand. See `Detector.set_threshold`."""
    calibration = _history(state).by_hand(threshold, state.calibration).as_dict()
    return _revised(state, state, "threshold", calibration=calibration)


def undo(state: InspectorState, number: int) -> Corrected:
    """Undo a revision. See `Detector.undo`."""
    history, features, references = _history(state), state.features, state.references
    standing = {one.number: one for one in history.revisions if one.kind != "undo"}
    if number not in standing or number in history.undone:
        left = ", ".join(str(one) for one in standing if one not in history.undone) or "none"
        raise SettingError(f"A revision to undo must stand (revisions that stand: {left}), got {number}.")
    revision = standing[number]
    digests = {picture.sha256 for picture in revision.pictures}
    if revision.kind == "good":
        rows = [row for row, one in enumerate(references) if one.sha256 in digests]
        features = features.without_learnt(rows)
        references = tuple(one for row, one in enumerate(references) if row not in rows)
    if revision.kind == "ignore":
        features = replace(features, masks={n: mask for n, mask in features.masks.items() if n != number})
    if revision.kind == "defect":
        recorded = [picture for one in history.standing("defect") for picture in one.pictures]
        pairs = zip(recorded, features.defects, strict=True)
        features = replace(features, defects=tuple(f for picture, f in pairs if picture.sha256 not in digests))
    return _revised(state, replace(state, references=references, features=features), "undo", value=number)


def basis(state: InspectorState) -> Basis:
    """The threshold, its basis, and the range in which the true threshold probably lies."""
    return _history(state).basis(state.calibration)


def _history(state: InspectorState) -> History:
    """The history of a state; a threshold that a person has edited in the saved file becomes a revision."""
    return state.history.edited(state.calibration)


def _scored(
    state: InspectorState, pictures: Pictures, *, gated: bool = True, track: Track = quietly
) -> list[ScoredPicture]:
    """Read pictures and score them.

    Args:
        state: the state before the correction, which scores the pictures.
        pictures: a picture, several pictures, or a folder.
        gated: whether a picture must pass the gate; required of good pictures, not of defects.
        track: shows progress.

    Raises:
        InputError: with `gated`, for a picture that the gate doubts; ImageError for an unreadable picture.
    """
    scored = []
    for source, name in track(images.gather(pictures, recursive=False), description="pictures"):
        picture = state.preprocessing.read(source, name)
        image = state.preprocessing(picture)
        features = state.backbone(torch.from_numpy(image)[None])
        if gated and (doubt := state.doubt(picture, image, features)):
            raise InputError(f"{picture.name} {doubt}")
        scores, of_score = state.judge(picture, features)
        score, peak = float(scores.image[0]), float(scores.maps.max())
        record = PictureRecord(picture.name, images.digest(source, picture), score, peak)
        scored.append(ScoredPicture(picture, torch.from_numpy(image), features, of_score, record, score))
    return scored


def _revised(
    before: InspectorState,
    after: InspectorState,
    kind: Kind,
    *,
    pictures: Sequence[ScoredPicture] = (),
    records: tuple[PictureRecord, ...] = (),
    value: float | None = None,
    calibration: dict[str, Any] | None = None,
    ignoring: tuple[int, ...] = (),
    accepted: bool = True,
) -> Corrected:
    """Add a revision, and derive method, threshold and graph of the state after the revision.

    Args:
        before: the state before the correction.
        after: `before` with the features and references of the correction, all other fields unchanged.
        kind, value, calibration, ignoring: the fields of the revision.
        pictures: the scored pictures of the correction.
        records: the records of pictures that were not scored.
        accepted: whether the person accepts the cost of a defect, or odd pictures as good; False raises an error that
            states the cost or names the odd picture.
    """
    now, history = before.calibration, _history(before)
    was, records = history.basis(now), records or _records(pictures)
    history = history.with_revision(
        kind, now.threshold, pictures=records, value=value, calibration=calibration, ignoring=ignoring
    )
    method = before.method
    if len(after.features.learnt) != len(before.references):
        method = after.features.fitted(method)
    if remasked := after.features.masks.keys() != before.features.masks.keys():
        history = _with_factors(history, after, method)
    history, then = history.settled()
    made, rests = history.revisions[-1], history.basis(then)
    if kind == "defect" and not accepted:
        _ask(rests, was)
    graph = None if method is not before.method or remasked else before.graph
    loaded = before.loaded if after is before else None  # the threshold alone is another
    after = replace(after, method=method, calibration=then, history=history, graph=graph, loaded=loaded)
    missed = _missed(after)
    warnings, scores = list(missed), []
    for one in pictures:
        score = one.score
        if method is not before.method or before.preprocessing.tiles is None:
            score = float(after.judge(one.picture, one.features)[0].image[0])
        scores.append((now.calibrated(one.score), then.calibrated(score)))
        warnings += before.preprocessing.notes(one.picture, before.references)
        if kind == "good":
            warnings += _doubts_about_learnt(one.record.name, scores[-1], made.number)
    if kind == "good" and not accepted:
        oddity.check_near([one.record.name for one in pictures], [score for score, _ in scores], missed=len(missed))
    ignored = None if after.features.ignored is None else float(after.features.ignored.mean())
    digests = (before.digest, after.digest)
    return after, Correction(made, was, rests, digests, tuple(scores), tuple(warnings), ignored)


def _with_factors(history: History, after: InspectorState, method: Method) -> History:
    """The history with the factors by which ignored regions change the references' scores."""
    image, peaks = ([row[0] for row in rows] for rows in (history.image_scores, history.map_peaks))
    of_image, of_map = after.features.factors(method, len(image), image, peaks)
    return replace(history, image_factors=of_image, map_factors=of_map)


def _missed(state: InspectorState) -> list[str]:
    """A sentence for each recorded defect that the state misses."""
    recorded = [picture for one in state.history.standing("defect") for picture in one.pictures]
    return [
        missed_again(picture.name)
        for picture, features in zip(recorded, state.features.defects, strict=True)
        if state.image_score(features) <= state.calibration.threshold
    ]


def _records(pictures: Sequence[ScoredPicture]) -> tuple[PictureRecord, ...]:
    return tuple(one.record for one in pictures)


def _learnt(state: InspectorState) -> dict[str, str]:
    return {one.sha256: one.name for one in state.references}


def _ask(after: Basis, before: Basis) -> None:
    """Raise SettingError with the cost of a lower threshold in false alarms."""
    raise SettingError(
        f"To find the missed defect the threshold must fall from {before.raw_threshold:.4g} to "
        f"{after.raw_threshold:.4g}, and {of_parts(after.predicted_rate)} good parts would be rejected instead of "
        f"{of_parts(before.predicted_rate)}; accept that cost (`--accept-cost`), or fit with more pixels or other "
        f"references."
    )


def _doubts_about_learnt(name: str, scores: tuple[float, float], number: int) -> list[str]:
    """Warnings about a picture that was learnt as good, from its calibrated scores before and after."""
    said = []
    if scores[0] > oddity.FAR:
        said.append(
            f"{name} was far from good at {scores[0]:.2f}: every picture like it counts as good from now on; if it "
            f"shows a defect, undo revision {number}."
        )
    if scores[1] > 1:
        said.append(
            f"{name} is still a DEFECT at {scores[1]:.2f}: the threshold must rise for it, or the method change."
        )
    return said
