"""The history of an inspector: the references' scores, the corrections by people, and the thresholds that follow.

The thresholds are always computed from the saved scores and from the revisions that stand, so that undoing a revision
gives the thresholds that there would have been without the revision. docs/teach.md gives the reasons.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from handful.errors import InputError, SettingError, number_of
from handful.inspection.threshold import (
    LARGEST,
    PATCHCORE,
    Calibration,
    Prediction,
    Prior,
    calibrate,
    of_parts,
    predict,
)

BELOW_DEFECT = 0.999  # threshold as a share of a missed defect's score; engines differ by about a tenth of the margin
ODD = 1e-4  # predicted share of good pictures above, or below, a score, under which the score counts as odd

# normals: further good pictures; rate: another false-alarm rate; threshold: set by hand; good: pictures learnt as good;
# ignore: an ignored region; defect: missed defects; undo: an earlier revision undone.
Kind = Literal["normals", "rate", "threshold", "good", "ignore", "defect", "undo"]
CHANGING: tuple[Kind, ...] = ("good", "ignore")  # the kinds of revision that change the scores of pictures


@dataclass(frozen=True)
class PictureRecord:
    """The record of a picture that was given for a correction.

    Attributes:
        name: the picture's path, or the name given to a picture in memory.
        sha256: the digest of the picture's file, or of its pixels.
        raw_score: the raw image score before the correction; None for a mask.
        map_peak: the highest raw map value before the correction; None for a mask.
    """

    name: str
    sha256: str
    raw_score: float | None = None
    map_peak: float | None = None


@dataclass(frozen=True)
class Revision:
    """A correction in the history of an inspector.

    Attributes:
        number: the number of the revision, from 1.
        kind: the kind of correction, see `Kind`.
        date: the date and time in UTC, ISO 8601.
        before, after: the raw threshold before and after the correction.
        pictures: the records of the pictures that were given.
        value: for "rate" the new rate, for "undo" the number of the revision undone, for "ignore" the share of the
            frame (None in files of versions that did not save the share); None for other kinds.
        calibration: the calibration set by "threshold", in the form of `Calibration.as_dict`; None for other kinds.
        ignoring: the revisions whose regions were ignored when the pictures were scored.
    """

    number: int
    kind: Kind
    date: str
    before: float
    after: float
    pictures: tuple[PictureRecord, ...] = ()
    value: float | None = None
    calibration: dict[str, Any] | None = None
    ignoring: tuple[int, ...] = ()

    @property
    def words(self) -> str:
        """The effect of the revision in words."""
        names = ", ".join(picture.name for picture in self.pictures[:3])
        more = f" and {len(self.pictures) - 3} more" if len(self.pictures) > 3 else ""
        said = {
            "normals": f"further good: {names}{more}",
            "rate": f"rate {self.value:g}" if self.value is not None else "",
            "threshold": "threshold set by hand",
            "good": f"learnt as good: {names}{more}",
            "ignore": f"ignores the region of {names}"
            + (f", {_percent(self.value)} of the frame" if self.value is not None else ""),
            "defect": f"missed defect: {names}{more}",
            "undo": f"undid {self.value:g}" if self.value is not None else "",
        }
        return said[self.kind]


@dataclass(frozen=True)
class Basis:
    """A threshold and its basis.

    Attributes:
        raw_threshold: the raw score above which a picture is a DEFECT.
        typical: the raw score of a typical good part.
        false_alarm_rate: the share of good parts that the threshold is meant to reject.
        predicted_rate: the share of good parts that the threshold rejects, as predicted from the saved scores.
        low, high: the 90 % confidence interval of the raw threshold that rejects `false_alarm_rate` of good parts.
        pictures: the number of good pictures whose scores set the threshold.
        rests_on: the basis in words.
    """

    raw_threshold: float
    typical: float
    false_alarm_rate: float
    predicted_rate: float
    low: float
    high: float
    pictures: int
    rests_on: str


@dataclass(frozen=True)
class Correction:
    """The effect of one correction.

        correction: handful.Correction = detector.set_rate(0.01)
        print(correction.before.raw_threshold, correction.after.raw_threshold)

    Attributes:
        revision: the correction's entry in the history.
        before, after: the threshold and its basis, before and after the correction.
        digests: the inspector's digest before and after the correction.
        scores: for each picture of the correction, its calibrated score before and after.
        warnings: sentences for people.
        ignored: the share of the frame that all ignored regions now cover together; None without ignored regions.
    """

    revision: Revision
    before: Basis
    after: Basis
    digests: tuple[str, str]
    scores: tuple[tuple[float, float], ...] = ()
    warnings: tuple[str, ...] = ()
    ignored: float | None = None

    def as_dict(self) -> dict[str, Any]:
        """The correction as a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class History:
    """The references' scores at the time of `fit`, and all revisions.

    Attributes:
        rate: the false-alarm rate of the fit.
        image_scores, map_peaks: (k, V) of the references' views, see `handful.fitting.calibration.good_scores`.
        image_factors, map_factors: (k,) the factors by which the ignored regions change these scores and peaks.
        written: the calibration that Handful last wrote; a different calibration in the file was edited by a person.
        revisions: all revisions, in order.
        prior: the assumptions about the method's scores.
    """

    rate: float
    image_scores: tuple[tuple[float, ...], ...]
    map_peaks: tuple[tuple[float, ...], ...]
    image_factors: tuple[float, ...]
    map_factors: tuple[float, ...]
    written: dict[str, Any]
    revisions: tuple[Revision, ...] = ()
    prior: Prior = PATCHCORE

    @classmethod
    def start(
        cls, image_scores: NDArray[np.float64], map_peaks: NDArray[np.float64], *, rate: float, prior: Prior
    ) -> "History":
        """The history of a newly fitted inspector."""
        rows, peaks = (tuple(tuple(row) for row in values.tolist()) for values in (image_scores, map_peaks))
        same = (1.0,) * len(rows)
        history = cls(rate, rows, peaks, same, same, {}, prior=prior)
        return replace(history, written=history.calibration().as_dict())

    @property
    def undone(self) -> frozenset[int]:
        """The numbers of the revisions that were undone."""
        return frozenset(int(r.value) for r in self.revisions if r.kind == "undo" and r.value is not None)

    def standing(self, *kinds: Kind) -> tuple[Revision, ...]:
        """The revisions of some kinds that were not undone."""
        return tuple(r for r in self.revisions if r.kind in kinds and r.number not in self.undone)

    @property
    def ignoring(self) -> tuple[int, ...]:
        """The numbers of the revisions whose regions are ignored."""
        return tuple(revision.number for revision in self.standing("ignore"))

    @property
    def scores_stand(self) -> bool:
        """Whether no picture was learnt and no region ignored since the defects that stand were recorded.

        Each of these then scores as its record says.
        """
        kinds = {revision.number: revision.kind for revision in self.revisions}
        undone = [r.number for r in self.revisions if r.kind == "undo" and kinds.get(int(r.value or 0)) in CHANGING]
        changed = [r.number for r in self.revisions if r.kind in CHANGING] + undone
        return all(number < defect.number for defect in self.standing("defect") for number in changed)

    @property
    def further(self) -> tuple[PictureRecord, ...]:
        """The further good pictures that count: pictures scored while the present regions were ignored."""
        counting = [r for r in self.standing("normals") if r.ignoring == self.ignoring]
        return tuple(picture for revision in counting for picture in revision.pictures)

    @property
    def asked_rate(self) -> float:
        """The false-alarm rate that was set last."""
        changes = [r.value for r in self.standing("rate") if r.value is not None]
        return changes[-1] if changes else self.rate

    @property
    def prediction(self) -> Prediction:
        """The predictive distribution of the next good picture's image score."""
        scores = self._scores(self.image_scores, self.image_factors)
        return predict(scores, _values(self.further, "raw_score"), prior=self.prior)

    def calibration(self) -> Calibration:
        """The thresholds that follow from the scores and the revisions that stand.

        The last standing revision of the kinds "normals", "rate" and "threshold" decides whether the threshold is
        computed or set by hand. A missed defect bounds the threshold from above, unless a person has set the threshold
        later. A picture learnt as good does not change the threshold.

        Raises:
            SettingError: if a missed defect scores no higher than a typical good part.
        """
        ways = self.standing("normals", "rate", "threshold")
        hand = ways[-1] if ways and ways[-1].kind == "threshold" else None
        if hand is not None and hand.calibration is not None:
            calibration = Calibration.from_dict(hand.calibration)
        else:
            calibration = calibrate(
                self._scores(self.image_scores, self.image_factors),
                self._scores(self.map_peaks, self.map_factors),
                false_alarm_rate=self.asked_rate,
                further_scores=_values(self.further, "raw_score"),
                further_peaks=_values(self.further, "map_peak"),
                prior=self.prior,
            )
        for defect in self.standing("defect"):
            if hand is None or defect.number > hand.number:
                calibration = self._below(calibration, defect)
        return calibration

    def _below(self, calibration: Calibration, defect: Revision) -> Calibration:
        """The calibration, its threshold lowered if necessary below the score of a missed defect."""
        bound = BELOW_DEFECT * min(_values(defect.pictures, "raw_score"))
        if bound >= calibration.threshold:
            return calibration
        if bound <= calibration.typical:
            raise SettingError(
                f"A missed defect must score above a typical good part, {calibration.typical:.4g}, to be told from it, "
                f"got {bound / BELOW_DEFECT:.4g} for {defect.pictures[0].name}; fit with more pixels (`--size`) or "
                f"another method instead (or undo revision {defect.number}, if it was made before)."
            )
        words = (
            f"Lowered below the missed defect of revision {defect.number}: the good pictures' scores predict that "
            f"{of_parts(self.prediction.rate(bound))} good parts are rejected. Before that: {calibration.rests_on}"
        )
        return replace(calibration, threshold=bound, rests_on=words)

    def basis(self, calibration: Calibration) -> Basis:
        """The basis of a calibration and its predicted false-alarm rate, from the saved scores."""
        prediction = self.prediction
        low, high = prediction.interval(self.asked_rate)
        return Basis(
            calibration.threshold,
            calibration.typical,
            self.asked_rate,
            prediction.rate(calibration.threshold),
            low,
            high,
            len(self.image_scores) + len(self.further),
            calibration.rests_on,
        )

    def edited(self, calibration: Calibration) -> "History":
        """The history with a revision of its own for a threshold that a person edited in the file."""
        found = calibration.as_dict()
        if found == self.written:
            return self
        history = self.with_revision("threshold", self.written["threshold"], calibration=found)
        made = replace(history.revisions[-1], after=calibration.threshold)
        return replace(history, revisions=(*self.revisions, made), written=found)

    def with_revision(
        self,
        kind: Kind,
        before: float,
        *,
        pictures: tuple[PictureRecord, ...] = (),
        value: float | None = None,
        calibration: dict[str, Any] | None = None,
        ignoring: tuple[int, ...] = (),
    ) -> "History":
        """The history with one more revision, made now at the raw threshold `before`; `settled` gives its effect."""
        number, date = len(self.revisions) + 1, datetime.now(UTC).isoformat(timespec="seconds")
        made = Revision(number, kind, date, before, before, pictures, value, calibration, ignoring)
        return replace(self, revisions=(*self.revisions, made))

    def settled(self) -> "tuple[History, Calibration]":
        """The thresholds that follow from all revisions, and the history with them noted in the last one.

        Raises:
            SettingError: as `calibration`.
        """
        then = self.calibration()
        made = replace(self.revisions[-1], after=then.threshold)
        return replace(self, revisions=(*self.revisions[:-1], made), written=then.as_dict()), then

    def by_hand(self, threshold: float, calibration: Calibration) -> Calibration:
        """A calibration with a threshold set by hand; raises SettingError unless it lies above the typical score."""
        if not calibration.typical < threshold <= LARGEST:
            other = "lower" if threshold > LARGEST else "higher"
            raise SettingError(
                f"A threshold must lie above the score of a typical good part, {calibration.typical:.4g}, and be at "
                f"most {LARGEST:g}, got {threshold:g}; choose a {other} threshold."
            )
        scored = len(self.image_scores) + len(self.further)
        words = (
            f"A person, who set it by hand; the scores of {number_of(scored, 'good picture')} predict that "
            f"{of_parts(self.prediction.rate(threshold))} good parts are rejected."
        )
        return replace(calibration, threshold=threshold, rests_on=words)

    def check_new(self, pictures: Sequence[PictureRecord], learnt: Mapping[str, str], *kinds: Kind) -> None:
        """Raise InputError for the first picture that is given twice or was given before.

        Args:
            pictures: the pictures given now.
            learnt: the names of the learnt pictures by digest; learnt pictures were given before.
            kinds: the kinds of standing revisions whose pictures were given before.
        """
        known = {digest: f"{name}, which it has learnt" for digest, name in learnt.items()}
        for revision in self.standing(*kinds):
            for picture in revision.pictures:
                known.setdefault(picture.sha256, f"{picture.name} of revision {revision.number}")
        for picture in pictures:
            if picture.sha256 in known:
                raise InputError(
                    f"A picture must not be given twice, got {picture.name}, the same as {known[picture.sha256]}; "
                    f"leave it out."
                )
            known[picture.sha256] = f"{picture.name}, given with it"

    def check_odd(self, pictures: Sequence[PictureRecord]) -> None:
        """Raise InputError for further good pictures whose scores good pictures hardly get, see `ODD`."""
        rates = [(one.name, self.prediction.rate(one.raw_score)) for one in pictures if one.raw_score is not None]
        odd = [(name, rate) for name, rate in rates if not ODD <= rate <= 1 - ODD]
        if odd:
            name, rate = odd[0]
            like = "nothing like a good picture" if rate < ODD else "too well, like a copy of a learnt picture"
            others = f" and {len(odd) - 1} more of the {len(rates)}" if len(odd) > 1 else ""
            raise InputError(
                f"Further good pictures must score like good pictures, got {name}{others}, which scores {like}; look "
                f"at it, and leave it out or accept odd pictures (`--accept-odd`)."
            )

    def _scores(self, rows: tuple[tuple[float, ...], ...], factors: tuple[float, ...]) -> NDArray[np.float64]:
        scores: NDArray[np.float64] = np.array(rows) * np.array(factors)[:, None]
        return scores


def missed_again(name: str) -> str:
    """The sentence about a recorded defect whose score is not above the threshold."""
    return f"{name}, a recorded defect, is missed now: look at it again with `inspect`."


def _percent(share: float) -> str:
    """A share in percent; two significant digits below 10 %."""
    return f"{100 * share:.2g} %" if share < 0.1 else f"{100 * share:.0f} %"


def _values(pictures: tuple[PictureRecord, ...], name: Literal["raw_score", "map_peak"]) -> list[float]:
    found = [getattr(picture, name) for picture in pictures]
    return [value for value in found if value is not None]
