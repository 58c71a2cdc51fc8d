"""The verbs by which a person corrects a fitted inspector; `Detector` has them all."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import wraps
from typing import Any, Concatenate, ParamSpec, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import decision, learning, methods, oddity, turning
from handful.data import images
from handful.data.images import Picture, Pictures, PictureSource
from handful.data.masks import read_ignored
from handful.data.preprocessing import thumbnail_jpeg
from handful.decision import of_parts
from handful.errors import InputError, NotFittedError, SettingError
from handful.fitted import Fitted
from handful.learning import Track, averaged, join, quietly
from handful.memory import Memory
from handful.ops.views import random_views
from handful.revisions import Basis, Given, History, Kind, Revision
from handful.tiling import Tiling
from handful.types import Features, Reference, Scores

MOST_IGNORED = 0.5  # of the frame; more only if a person insists

Self_ = TypeVar("Self_", bound="Corrections")
Given_ = ParamSpec("Given_")
Result = TypeVar("Result")


def one_at_a_time(
    change: Callable[Concatenate[Self_, Given_], Result],
) -> Callable[Concatenate[Self_, Given_], Result]:
    """Let a thread that changes a detector wait until another thread's change is complete."""

    @wraps(change)
    def waiting(detector: Self_, /, *arguments: Given_.args, **options: Given_.kwargs) -> Result:
        with detector._changing:
            return change(detector, *arguments, **options)

    return waiting


@dataclass(frozen=True)
class Correction:
    """What a correction did.

    Attributes:
        revision: as it is kept.
        before, after: the threshold and what it rests on.
        scores: the calibrated scores of the pictures that came with it, before and after.
        warnings: what a person should know, a sentence each.
        digests: that named the inspector before, and that names it now.
        ignored: the share of the frame that is ignored now, all regions together; None where there are none.
    """

    revision: Revision
    before: Basis
    after: Basis
    digests: tuple[str, str]
    scores: tuple[tuple[float, float], ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Seen:
    """A picture that came with a correction, and what the inspector as it is makes of it."""

    picture: Picture
    image: Tensor  # (3, H, W)
    features: Features
    telling: Features  # that its score is of: in tiles, those of the strangest one
    given: Given


class Corrections:
    """What people may correct; every verb is one revision, which `undo` takes back."""

    method: methods.Method
    _fitted: Fitted | None
    _changing: AbstractContextManager[bool]
    _digest_of: Callable[[Fitted], str]

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """Every correction so far, those undone included."""
        return self._needed.history.revisions

    @property
    def basis(self) -> Basis:
        """The threshold, what it rests on, and the range it may lie in."""
        return self._correctable[2].basis(self._needed.calibration)

    @one_at_a_time
    def teach(self, good: Pictures, *, accept_odd: bool = False) -> Correction:
        """Learn pictures as good, false alarms say; the threshold stays.

        Args:
            good: one or several, or a folder.
            accept_odd: whether a picture may be learnt that is far from all that is known to be good: its calibrated
                score is above `handful.oddity.FAR`.

        Raises:
            InputError: for a picture that was given before or that the gate doubts, or one far from good without
                `accept_odd`; ImageError for one that cannot be read.
        """
        fitted, memory, history = self._correctable
        seen = self._see(good)
        history.check_new(_given(seen), _learnt(fitted), "good", "defect")
        augmented, turned = [], []
        for one in seen:
            views = [
                averaged(fitted.backbone(view[None])) for view in random_views(one.image, self.method.views_wanted)
            ]
            augmented += [join(views)] if views else []
            if memory.turned:
                aspect = fitted.preprocessing.aspect(one.picture)
                turned.append(turning.learn(one.image, one.features, fitted.backbone, aspect=aspect))
        depth_of = fitted.preprocessing.depth_of
        new = tuple(
            Reference(s.given.name, s.given.sha256, thumbnail_jpeg(s.picture), depth_of(s.picture), s.picture.size)
            for s in seen
        )
        tiles = [self._tiling.kept(one.picture).features for one in seen] if fitted.preprocessing.tiles else []
        memory = memory.with_learnt([one.features for one in seen], augmented, turned, tiles)
        fitted = replace(fitted, references=(*fitted.references, *new))
        return self._correct("good", fitted, memory, history, seen=seen, accepted=accept_odd)

    @one_at_a_time
    def ignore(self, mask: PictureSource, *, accept_odd: bool = False) -> Correction:
        """Let a region of the frame never count.

        Maps and regions leave it out. For the score every patch that touches it is taken as what the first reference
        shows there, so parts should lie as in the references.

        Args:
            mask: a picture of any size, white where to ignore; it covers of the frame what a picture of its shape does.
            accept_odd: whether more than half of the frame may be ignored, with the regions ignored already.

        Raises:
            InputError: if it leaves nothing to ignore, or nothing to inspect, or ignores most of the frame without
                `accept_odd`; ImageError if it cannot be read.
            SettingError: where the method looks at more than patches: at crops, or the picture as a whole; or where
                pictures are looked at in tiles.
        """
        fitted, memory, history = self._correctable
        if fitted.preprocessing.tiles is not None:
            raise SettingError(
                "Pictures must be looked at in one input for a region to be ignored, got an inspector that looks at "
                "tiles; cover the region in the pictures, or fit with a number as `--size`."
            )
        if memory.good.windows is not None or memory.good.image is not None:
            raise SettingError(
                f"A method must look at patches alone for a region to be ignored, got {self.method.name} with crops or "
                f"whole pictures; cover the region in the pictures, or fit another method."
            )
        frame = fitted.preprocessing
        region, name, digest = read_ignored(mask, frame.size, keeps_aspect=frame.keeps_aspect)
        number = len(history.revisions) + 1
        memory = replace(memory, masks={**memory.masks, number: region})
        if memory.ignored is not None and bool(memory.ignored.all()):
            raise InputError(
                f"Ignored regions must leave something to inspect, got all of it with {name}; use another."
            )
        assert memory.ignored is not None
        if not accept_odd and (share := float(memory.ignored.mean())) > MOST_IGNORED:
            raise InputError(
                f"Ignored regions must leave most of the frame to inspect, got {share:.0%} ignored with {name}; swap "
                f"its black and white if they are the wrong way round, or accept so large a region (`--accept-odd`)."
            )
        value = float(region.mean())
        return self._correct("ignore", fitted, memory, history, pictures=(Given(name, digest),), value=value)

    @one_at_a_time
    def report_defect(self, pictures: Pictures, *, accept_cost: bool = False) -> Correction:
        """Record defects that were missed, and lower the threshold below their scores.

        A defect that was a RETAKE is recorded as any other.

        Args:
            pictures: one or several, or a folder.
            accept_cost: whether to do so at the cost that the sentence without it names.

        Raises:
            InputError: for a picture that was given before; ImageError for one that cannot be read.
            SettingError: without `accept_cost`, with the cost in false alarms; for a picture that is a DEFECT already;
                and for one that scores no higher than a typical good part.
        """
        fitted, memory, history = self._correctable
        seen = self._see(pictures, gated=False)
        history.check_new(_given(seen), _learnt(fitted), "good", "defect", "normals")
        for one in seen:
            if _score(one) > fitted.calibration.threshold:
                raise SettingError(f"A missed defect must not be a DEFECT already, got {one.given.name}; leave it out.")
        memory = replace(memory, defects=(*memory.defects, *(one.telling for one in seen)))
        return self._correct("defect", fitted, memory, history, seen=seen, accepted=accept_cost)

    @one_at_a_time
    def add_normals(self, good: Pictures, *, accept_odd: bool = False, track: Track = quietly) -> Correction:
        """Sharpen the threshold by further good pictures, which are not learnt.

        Args:
            good: one or several, or a folder: all that came by, not a choice of those that score high.
            accept_odd: whether pictures may count whose scores are unlike those of good pictures.
            track: shows progress.

        Raises:
            InputError: for a picture that was given before or that the gate doubts, or an odd one without
                `accept_odd`; ImageError for one that cannot be read.
        """
        fitted, memory, history = self._correctable
        seen = self._see(good, track=track)
        history.check_new(_given(seen), _learnt(fitted), "good", "defect", "normals")
        if not accept_odd:
            history.check_odd(_given(seen))
        return self._correct("normals", fitted, memory, history, seen=seen, ignoring=history.ignoring)

    @one_at_a_time
    def set_rate(self, false_alarm_rate: float) -> Correction:
        """Set the threshold anew for another false-alarm rate, from the scores that are kept.

        Raises:
            SettingError: for a rate out of bounds.
        """
        decision.check_rate(false_alarm_rate)
        return self._correct("rate", *self._correctable, value=false_alarm_rate)

    @one_at_a_time
    def set_threshold(self, threshold: float) -> Correction:
        """Set the raw threshold by hand; it stays until another rate is set or further good pictures are added.

        Raises:
            SettingError: if it does not lie above the typical score.
        """
        fitted, memory, history = self._correctable
        calibration = history.by_hand(threshold, fitted.calibration).as_dict()
        return self._correct("threshold", fitted, memory, history, calibration=calibration)

    @one_at_a_time
    def undo(self, number: int) -> Correction:
        """Take a revision back; scores and threshold are then to the bit what they would have been without it.

        Raises:
            SettingError: if there is no such revision, or it was undone already.
        """
        fitted, memory, history = self._correctable
        standing = {one.number: one for one in history.revisions if one.kind != "undo"}
        if number not in standing or number in history.undone:
            left = ", ".join(str(one) for one in standing if one not in history.undone) or "none"
            raise SettingError(f"A revision to undo must be one of those that stand ({left}), got {number}.")
        revision = standing[number]
        digests = {picture.sha256 for picture in revision.pictures}
        if revision.kind == "good":
            rows = [row for row, one in enumerate(fitted.references) if one.sha256 in digests]
            memory = memory.without_learnt(rows)
            kept = tuple(one for row, one in enumerate(fitted.references) if row not in rows)
            fitted = replace(fitted, references=kept)
        if revision.kind == "ignore":
            memory = replace(memory, masks={n: mask for n, mask in memory.masks.items() if n != number})
        if revision.kind == "defect":
            recorded = [picture for one in history.standing("defect") for picture in one.pictures]
            pairs = zip(recorded, memory.defects, strict=True)
            memory = replace(memory, defects=tuple(f for picture, f in pairs if picture.sha256 not in digests))
        return self._correct("undo", fitted, memory, history, value=number)

    @property
    def _needed(self) -> Fitted:
        if self._fitted is None:
            raise NotFittedError("A detector must be fitted before it is used; call `fit` or `Detector.load` first.")
        return self._fitted

    @property
    def _correctable(self) -> tuple[Fitted, Memory, History]:
        """All that a correction needs; a threshold that a person edited in the file is a revision first."""
        fitted = self._needed
        history, found = fitted.history, fitted.calibration.as_dict()
        if found != history.written:
            number, now = len(history.revisions) + 1, fitted.calibration.threshold
            edited = Revision(number, "threshold", _now(), history.written["threshold"], now, calibration=found)
            history = replace(history, revisions=(*history.revisions, edited), written=found)
        return fitted, fitted.memory, history

    def _features(self, picture: Picture, image: NDArray[np.float32], *, gated: bool) -> Features:
        """A picture's features.

        Raises:
            InputError: with `gated`, where the picture (3, H, W) is to be taken again.
        """
        fitted = self._needed
        features = fitted.backbone(torch.from_numpy(image)[None])
        if not gated:
            return features
        good = [one.arrays() for one in fitted.memory.learnt]
        fine = fitted.preprocessing.in_detail(picture) if fitted.preprocessing.tiles else None
        doubt = fitted.gate.refuse_image(image, fine) or fitted.gate.refuse_features(features.arrays(), good)
        if doubt:
            raise InputError(f"{picture.name} {doubt}")
        return features

    @property
    def _tiling(self) -> Tiling:
        fitted = self._needed
        return Tiling(fitted.backbone, fitted.preprocessing)

    def _judged(
        self, picture: Picture, features: Features, memory: Memory, method: methods.Method
    ) -> tuple[Scores, Features]:
        """A picture's scores, and the features that its image score is of: in tiles, those of the strangest one."""
        preprocessing = self._needed.preprocessing
        if preprocessing.tiles is None:
            return self._scores(features, memory, method), features
        return self._tiling.score(method, preprocessing.in_detail(picture))

    def _score_of(self, features: Features, memory: Memory, method: methods.Method) -> float:
        """The image score of the features that `_judged` gave beside it."""
        scores = self._scores(features, memory, method)
        return float(scores.maps.max() if self._needed.preprocessing.tiles else scores.image[0])

    def _scores(self, features: Features, memory: Memory, method: methods.Method) -> Scores:
        if memory.ignored is None:
            return method.score(features)
        return learning.score(method, features, ignored=memory.ignored, good=memory.good)

    def _see(self, pictures: Pictures, *, gated: bool = True, track: Track = quietly) -> list[_Seen]:
        """Read pictures and score them by the inspector as it is.

        Args:
            pictures: one or several, or a folder.
            gated: whether a picture must pass the gate, as one that is to count as good must.
            track: shows progress.

        Raises:
            InputError: with `gated`, for a picture that the gate doubts; ImageError for one that cannot be read.
        """
        fitted, memory, _ = self._correctable
        seen = []
        for source, name in track(images.gather(pictures, recursive=False), description="pictures"):
            picture = fitted.preprocessing.read(source, name)
            image = fitted.preprocessing(picture)
            features = self._features(picture, image, gated=gated)
            scores, telling = self._judged(picture, features, memory, self.method)
            digest = images.digest(source, picture)
            given = Given(picture.name, digest, float(scores.image[0]), float(scores.maps.max()))
            seen.append(_Seen(picture, torch.from_numpy(image), features, telling, given))
        return seen

    def _correct(
        self,
        kind: Kind,
        fitted: Fitted,
        memory: Memory,
        history: History,
        *,
        seen: Sequence[_Seen] = (),
        pictures: tuple[Given, ...] = (),
        value: float | None = None,
        calibration: dict[str, Any] | None = None,
        ignoring: tuple[int, ...] = (),
        accepted: bool = True,
    ) -> Correction:
        """Add a revision and bring the inspector to what follows from it, whole or not at all."""
        now, old, digest = fitted.calibration, self._needed, self._digest_of(self._needed)
        before = history.basis(now)
        pictures = pictures or _given(seen)
        number = len(history.revisions) + 1
        made = Revision(number, kind, _now(), now.threshold, now.threshold, pictures, value, calibration, ignoring)
        history = replace(history, revisions=(*history.revisions, made))
        method = self.method
        if len(memory.learnt) != len(old.references):
            method = memory.fitted(method)
        if memory.masks.keys() != old.memory.masks.keys():
            image, peaks = ([row[0] for row in rows] for rows in (history.image_scores, history.map_peaks))
            factors = memory.factors(method, len(image), image, peaks)
            history = replace(history, image_factors=factors[0], map_factors=factors[1])
        then = history.calibration()
        after = history.basis(then)
        if kind == "defect" and not accepted:
            _ask(after, before)
        made = replace(made, after=then.threshold)
        history = replace(history, revisions=(*history.revisions[:-1], made), written=then.as_dict())
        missed = self._missed(memory, method, history, then)
        warnings, scores = list(missed), []
        for one in seen:
            score = _score(one)
            if method is not self.method or old.preprocessing.tiles is None:
                score = float(self._judged(one.picture, one.features, memory, method)[0].image[0])
            scores.append((now.calibrated(_score(one)), then.calibrated(score)))
            warnings += old.preprocessing.notes(one.picture, old.references)
            if kind == "good":
                warnings += _still(one.given.name, scores[-1], number)
        if kind == "good" and not accepted:
            oddity.check_near([one.given.name for one in seen], [before for before, _ in scores], missed=len(missed))
        same = method is self.method and memory.masks.keys() == old.memory.masks.keys()
        graph = fitted.graph if same else None
        self._fitted = replace(fitted, method=method, calibration=then, memory=memory, history=history, graph=graph)
        self.method = method
        ignored = None if memory.ignored is None else float(memory.ignored.mean())
        digests = (digest, self._digest_of(self._fitted))
        return Correction(made, before, after, digests, tuple(scores), tuple(warnings), ignored)

    def _missed(
        self, memory: Memory, method: methods.Method, history: History, calibration: decision.Calibration
    ) -> list[str]:
        """A sentence for each recorded defect that is missed (again)."""
        recorded = [picture for one in history.standing("defect") for picture in one.pictures]
        return [
            f"{picture.name}, a recorded defect, is missed now: look at it again with `inspect`."
            for picture, features in zip(recorded, memory.defects, strict=True)
            if self._score_of(features, memory, method) <= calibration.threshold
        ]


def _given(seen: Sequence[_Seen]) -> tuple[Given, ...]:
    return tuple(one.given for one in seen)


def _learnt(fitted: Fitted) -> dict[str, str]:
    return {one.sha256: one.name for one in fitted.references}


def _ask(after: Basis, before: Basis) -> None:
    """Raise the sentence that says what a lower threshold costs."""
    raise SettingError(
        f"To find the missed defect the threshold must fall from {before.threshold:.4g} to {after.threshold:.4g}, and "
        f"{of_parts(after.predicted_rate)} good parts would be rejected instead of {of_parts(before.predicted_rate)}; "
        f"accept that cost (`--accept-cost`), or fit with more pixels or other references."
    )


def _still(name: str, scores: tuple[float, float], number: int) -> list[str]:
    """What a person should know of a picture that was learnt as good."""
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


def _score(one: _Seen) -> float:
    assert one.given.score is not None
    return one.given.score


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
