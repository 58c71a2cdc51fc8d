"""Corrections of an inspector by a person: from a state and the pictures that were given to the next state.

Each function is a verb of `Detector`, whose docstring says what the verb does and what it raises. Each adds one
revision to the history and calls `_revised`, the one place where method, threshold and graph follow from the features,
the references and the history of a state.
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

MOST_IGNORED = 0.5  # of the frame; more only if a person insists


@dataclass(frozen=True, eq=False)
class ScoredPicture:
    """A picture that came with a correction, scored by the inspector as it was.

    Attributes:
        picture: as it was read.
        image: (3, H, W), the input of the backbone.
        features: of the picture.
        scored: the features that its image score is of: in tiles, those of the strangest tile.
        record: for the history.
        score: raw image score, higher is more anomalous.
    """

    picture: Picture
    image: Tensor
    features: Features
    scored: Features
    record: PictureRecord
    score: float


Corrected = tuple[InspectorState, Correction]


def teach_good(state: InspectorState, good: Pictures, *, accept_odd: bool) -> Corrected:
    """Learn pictures as good; the threshold stays."""
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
    """Let a region of the frame never count."""
    if state.preprocessing.tiles is not None:
        raise SettingError(
            "Pictures must be looked at in one input for a region to be ignored, got an inspector that looks at "
            "tiles; cover the region in the pictures, or fit with a number as `--size`."
        )
    if state.features.good.crops is not None or state.features.good.image is not None:
        raise SettingError(
            f"A method must look at patches alone for a region to be ignored, got {state.method.name} with crops or "
            f"whole pictures; cover the region in the pictures, or fit another method."
        )
    frame = state.preprocessing
    region, name, digest = read_ignored(mask, frame.size, keeps_aspect=frame.keeps_aspect)
    number = len(_history(state).revisions) + 1
    features = replace(state.features, masks={**state.features.masks, number: region})
    assert features.ignored is not None
    if bool(features.ignored.all()):
        raise InputError(f"Ignored regions must leave something to inspect, got all of it with {name}; use another.")
    if not accept_odd and (share := float(features.ignored.mean())) > MOST_IGNORED:
        raise InputError(
            f"Ignored regions must leave most of the frame to inspect, got {share:.0%} ignored with {name}; swap "
            f"its black and white if they are the wrong way round, or accept so large a region (`--accept-odd`)."
        )
    records = (PictureRecord(name, digest),)
    return _revised(state, replace(state, features=features), "ignore", records=records, value=float(region.mean()))


def teach_defect(state: InspectorState, defects: Pictures, *, accept_cost: bool) -> Corrected:
    """Record defects that were missed, and lower the threshold below their scores."""
    pictures = _scored(state, defects, gated=False)
    _history(state).check_new(_records(pictures), _learnt(state), "good", "defect", "normals")
    for one in pictures:
        if one.score > state.calibration.threshold:
            raise SettingError(f"A missed defect must not be a DEFECT already, got {one.record.name}; leave it out.")
    features = replace(state.features, defects=(*state.features.defects, *(one.scored for one in pictures)))
    return _revised(state, replace(state, features=features), "defect", pictures=pictures, accepted=accept_cost)


def add_normals(state: InspectorState, good: Pictures, *, accept_odd: bool, track: Track = quietly) -> Corrected:
    """Sharpen the threshold by further good pictures, which are not learnt."""
    history, pictures = _history(state), _scored(state, good, track=track)
    history.check_new(_records(pictures), _learnt(state), "good", "defect", "normals")
    if not accept_odd:
        history.check_odd(_records(pictures))
    return _revised(state, state, "normals", pictures=pictures, ignoring=history.ignoring)


def set_rate(state: InspectorState, false_alarm_rate: float) -> Corrected:
    """Set the threshold anew for another false-alarm rate, from the scores that are kept."""
    check_rate(false_alarm_rate)
    return _revised(state, state, "rate", value=false_alarm_rate)


def set_threshold(state: InspectorState, threshold: float) -> Corrected:
    """Set the raw threshold by hand."""
    calibration = _history(state).by_hand(threshold, state.calibration).as_dict()
    return _revised(state, state, "threshold", calibration=calibration)


def undo(state: InspectorState, number: int) -> Corrected:
    """Take a revision back."""
    history, features, references = _history(state), state.features, state.references
    standing = {one.number: one for one in history.revisions if one.kind != "undo"}
    if number not in standing or number in history.undone:
        left = ", ".join(str(one) for one in standing if one not in history.undone) or "none"
        raise SettingError(f"A revision to undo must be one of those that stand ({left}), got {number}.")
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
    """The threshold, its basis, and the range that the threshold may lie in."""
    return _history(state).basis(state.calibration)


def _history(state: InspectorState) -> History:
    """The history of a state; a threshold that a person edited in the file is a revision of its own."""
    return state.history.edited(state.calibration)


def _scored(
    state: InspectorState, pictures: Pictures, *, gated: bool = True, track: Track = quietly
) -> list[ScoredPicture]:
    """Read pictures and score them.

    Args:
        state: of the inspector as it is.
        pictures: one or several, or a folder.
        gated: whether a picture must pass the gate, as a picture that is to count as good must.
        track: shows progress.

    Raises:
        InputError: with `gated`, for a picture that the gate doubts; ImageError for one that cannot be read.
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
    """Add a revision, and derive from the state after it everything that follows: the only place that does.

    Args:
        before: the state before the correction.
        after: the same with the features and references that the correction gives; the rest as before.
        kind, value, calibration, ignoring: of the revision.
        pictures: that came with it.
        records: of these, where they were not scored.
        accepted: whether a correction is made at the cost, or of the odd pictures, that the sentence names otherwise.
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
    """The history with the factors by which the ignored regions change the scores of the references."""
    image, peaks = ([row[0] for row in rows] for rows in (history.image_scores, history.map_peaks))
    of_image, of_map = after.features.factors(method, len(image), image, peaks)
    return replace(history, image_factors=of_image, map_factors=of_map)


def _missed(state: InspectorState) -> list[str]:
    """A sentence for each recorded defect that is missed (again)."""
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
    """Raise the sentence with the cost of a lower threshold."""
    raise SettingError(
        f"To find the missed defect the threshold must fall from {before.raw_threshold:.4g} to "
        f"{after.raw_threshold:.4g}, and {of_parts(after.predicted_rate)} good parts would be rejected instead of "
        f"{of_parts(before.predicted_rate)}; accept that cost (`--accept-cost`), or fit with more pixels or other "
        f"references."
    )


def _doubts_about_learnt(name: str, scores: tuple[float, float], number: int) -> list[str]:
    """Sentences on a picture that was learnt as good, from its calibrated scores before and after."""
    said = []
    if scores[0] > oddity.FAR:
        said.append(
            f"{name} was far from good at {scores[0]:.2f}: whatever looks like it counts as good from now on; if it "
            f"shows a defect, undo revision {number}."
        )
    if scores[1] > 1:
        said.append(
            f"{name} is still a DEFECT at {scores[1]:.2f}: the threshold must rise for it, or the method change."
        )
    return said
