"""From good pictures' scores to a threshold; nothing here ever sees a label.

How the threshold comes about, and what it rests on: docs/threshold.md.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.errors import InspectorError, SettingError
from handful.ops import student_t

# Assumptions, from good test pictures of the development categories; from defects only `Prior.ample`:
# benchmarks/good_scores_handful.md and good_scores_patchcore.md.
DEFAULT_RATE = 0.03  # of false alarms, unless asked otherwise: docs/threshold.md says why
PRIOR_WEIGHT = 12  # how many pictures the prior spread is worth
LARGEST = 1e30  # of a number of a calibration: far beyond any method's scores
SMALLEST_RATE = 1e-6  # of false alarms
SMALLEST_SCORE = 1e-9  # what a score of 0 (a part like a reference to the last bit) counts as


@dataclass(frozen=True)
class Prior:
    """Assumptions about the scores of good pictures; the defaults are measured on PatchCore.

    Attributes:
        spread: standard deviation of the log score between good parts of one product (measured: half of the products
            0.04 to 0.14).
        widening: at one reference, how many times as high another good part scores (measured: half of them 1.9 to 2.1
            times as high as a mild variation).
        widening_spread: standard deviation of that factor's logarithm between products.
        among_places: whether a single reference's scores count how much its places differ too, and not its variations
            alone.
        falling: good scores fall with this power of the number of references (measured: about 0.07 to 0.09).
        ample: from so many further good pictures on the references' own scores no longer count; 0 for never. The
            default's was chosen by the defects that passed on the development categories, not on data left out.
    """

    spread: float = 0.07
    widening: float = 2.0
    widening_spread: float = 0.12
    among_places: bool = False
    falling: float = 0.08
    ample: int = 0

    def aside(self, references: int, further: int) -> bool:
        """Whether so many references do not count beside so many further good pictures: a single one never does."""
        return further > 0 and (references == 1 or 0 < self.ample <= further)


PATCHCORE = Prior()


@dataclass(frozen=True)
class Calibration:
    """The threshold and what it rests on; raw scores in the method's unit.

        calibration: handful.Calibration = inspector.calibration
        assert calibration.calibrated(calibration.threshold) == 1

    Attributes:
        threshold: above it a picture is a DEFECT.
        typical: the score of a typical good picture.
        map_threshold: above it a pixel belongs to a region.
        map_typical: the highest value of a typical good picture's map.
        false_alarm_rate: the share of good parts that the threshold is meant to reject.
        references: k, how many pictures it rests on.
        rests_on: the same in words, for people.
    """

    threshold: float
    typical: float
    map_threshold: float
    map_typical: float
    false_alarm_rate: float
    references: int
    rests_on: str

    def calibrated(self, score: float) -> float:
        """A raw image score on the common scale: 0 typical of good parts, 1 the threshold."""
        return (score - self.typical) / (self.threshold - self.typical)

    def calibrated_map(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A raw map on the common scale: 0 the highest value of a typical good picture, 1 the map's threshold."""
        scale = self.map_threshold - self.map_typical
        return ((values - self.map_typical) / scale).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Calibration":
        """Read back what `as_dict` gave, which a person may have edited since.

        Raises:
            InspectorError: if a field is missing or unknown, is no number, or a threshold does not lie above its
                typical score.
            SettingError: if the false-alarm rate is out of bounds.
        """
        known = {field.name: field.type for field in dataclass_fields(cls)}
        if set(fields) != set(known):
            odd = sorted(set(fields) ^ set(known))[0]
            raise InspectorError(
                f"The calibration must hold {', '.join(known)}, got a difference in {odd}; correct it."
            )
        if not isinstance(fields["rests_on"], str):
            raise InspectorError(f"The calibration's rests_on must be text, got {fields['rests_on']!r}; correct it.")
        for name in known:
            if name != "rests_on" and not _is_number(fields[name]):
                raise InspectorError(f"The calibration's {name} must be a number, got {fields[name]!r}; correct it.")
        check_rate(fields["false_alarm_rate"])
        calibration = cls(**fields)
        for name in ("threshold", "map_threshold"):
            low = calibration.typical if name == "threshold" else calibration.map_typical
            if not getattr(calibration, name) > low:
                raise InspectorError(
                    f"The calibration's {name} must be above the typical {low}, got {fields[name]}; correct it."
                )
        return calibration


def _is_number(value: object) -> bool:
    """Whether it is a finite number whose distance to another is one too."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def check_rate(false_alarm_rate: float) -> None:
    """Raise SettingError unless the rate is in [1e-6, 0.5): for a smaller one no threshold would be finite."""
    if not SMALLEST_RATE <= false_alarm_rate < 0.5:
        raise SettingError(f"`false_alarm_rate` must be in [{SMALLEST_RATE:g}, 0.5), got {false_alarm_rate!r}.")


@dataclass(frozen=True)
class Prediction:
    """The predictive distribution of the next good picture's score: its logarithm follows Student's t.

    Attributes:
        mean: of the logarithm.
        spread: standard deviation of the logarithm between pictures.
        standard_error: of the mean.
        degrees_of_freedom: of Student's t.
        shrinkage: added to the mean for a typical score, as each reference was scored by the others alone.
    """

    mean: float
    spread: float
    standard_error: float
    degrees_of_freedom: int
    shrinkage: float = 0.0

    @property
    def _scale(self) -> float:
        return math.hypot(self.spread, self.standard_error)

    @property
    def typical(self) -> float:
        """The score of a typical good picture by the final method."""
        return math.exp(self.mean + self.shrinkage)

    def threshold(self, rate: float) -> float:
        """The score that the next good picture exceeds with probability `rate`."""
        return math.exp(self.mean + student_t.upper_quantile(rate, self.degrees_of_freedom) * self._scale)

    def rate(self, score: float) -> float:
        """The probability that the next good picture exceeds a score."""
        if score <= 0:
            return 1.0
        steps = (math.log(score) - self.mean) / self._scale
        return student_t.upper_tail(steps, self.degrees_of_freedom)

    def interval(self, rate: float, *, chance: float = 0.9) -> tuple[float, float]:
        """Where the score that good pictures exceed at `rate` truly lies, with this chance.

        With q that score's logarithm, (q - mean) / standard_error follows the non-central t distribution around the
        normal quantile times spread / standard_error, as in normal tolerance limits (Owen, Technometrics 10, 1968).
        """
        beyond = -NormalDist().inv_cdf(rate) * self.spread / self.standard_error
        low, high = (
            student_t.upper_quantile((1 - side * chance) / 2, self.degrees_of_freedom, delta=beyond) for side in (-1, 1)
        )
        return math.exp(self.mean + low * self.standard_error), math.exp(self.mean + high * self.standard_error)


def calibrate(
    image_scores: NDArray[np.float64],
    map_peaks: NDArray[np.float64],
    *,
    false_alarm_rate: float,
    further_scores: Sequence[float] = (),
    further_peaks: Sequence[float] = (),
    prior: Prior = PATCHCORE,
) -> Calibration:
    """Set the thresholds from the scores of good pictures that the scoring method has not learnt from.

    Args:
        image_scores: (k, V) positive image scores of V views of each of k references; the method had not seen that
            reference, or, at k = 1, had seen only its unchanged picture.
        map_peaks: (k, V) the highest map values of the same.
        false_alarm_rate: the share of good parts that may be rejected, in [1e-6, 0.5).
        further_scores: image scores of further good pictures, by the final method, which has not learnt them.
        further_peaks: the highest map values of the same.

    Raises:
        SettingError: for a rate out of bounds.
    """
    check_rate(false_alarm_rate)
    image, peaks = (
        predict(scores, further, prior=prior)
        for scores, further in ((image_scores, further_scores), (map_peaks, further_peaks))
    )
    (references, views), further = image_scores.shape, len(further_scores)
    few = "; so few pictures cannot prove that rate, and" if references + further < 3 / false_alarm_rate else ", but"
    words = (
        f"{_basis(references, views, further, prior)}. About {100 * false_alarm_rate:.3g} of 100 good parts taken "
        f"like these should be rejected{few} pictures from another day or light may score higher."
    )
    thresholds = [one.threshold(false_alarm_rate) for one in (image, peaks)]
    return Calibration(
        thresholds[0], image.typical, thresholds[1], peaks.typical, false_alarm_rate, references + further, words
    )


def _basis(references: int, views: int, further: int, prior: Prior) -> str:
    """The basis of a threshold in words."""
    unseen = f"{further} further good picture{'s' if further > 1 else ''} that the inspector had not seen"
    if prior.aside(references, further):
        return f"{unseen}, the {'single one' if references == 1 else references} that it has learnt left aside"
    if references > 1:
        basis = (
            f"{references} good pictures, each scored in {views} mild variations by an inspector that had not seen it"
        )
        return f"{basis}, and {unseen} either" if further else basis
    places = " and what lies elsewhere in it" if prior.among_places else ""
    return (
        f"a single good picture: {views} mild variations of it{places}, and the assumption that other good parts score "
        f"{prior.widening:g} times as high"
    )


def predict(scores: NDArray[np.float64], further: Sequence[float] = (), *, prior: Prior = PATCHCORE) -> Prediction:
    """Predict the next good picture's score from those of the references' views (k, V) and of n further good pictures.

    Good scores are taken as log-normal with unknown mean and spread. The spread between pictures has a
    scaled inverse chi-square prior (`Prior.spread`, `PRIOR_WEIGHT`), so the next picture's log score follows Student's
    t with PRIOR_WEIGHT + k - 1 degrees of freedom (Gelman et al., Bayesian Data Analysis, section 3.3).

    Further pictures are one score each and no mean of variations: they differ by how they were taken already, so what
    variations add is added for the references' share of the pictures alone. A single reference, whose variations say
    little, does not count beside them.

    Two references or more were each scored by a method with one fewer, which gives higher scores (`Prior.falling`).
    What is typical allows for that; the threshold does not, so it errs on the side of fewer false alarms.
    """
    logs = np.log(np.maximum(scores, SMALLEST_SCORE))  # (k, V)
    alone = len(logs) == 1
    pictures = np.log(np.maximum(np.asarray(further, dtype=np.float64), SMALLEST_SCORE))  # (n,)
    known = 0 if prior.aside(len(logs), len(pictures)) else len(logs)
    pictures = np.concatenate([logs[:known].mean(1), pictures])  # (k + n,)
    count = len(pictures)
    freedom = PRIOR_WEIGHT + count - 1
    between = (PRIOR_WEIGHT * prior.spread**2 + float(((pictures - pictures.mean()) ** 2).sum())) / freedom
    if alone and known:  # its variations differ by what was done to them, which says nothing about other parts
        mean = float(np.median(logs)) + math.log(prior.widening)
        return Prediction(mean, math.sqrt(between), math.sqrt(between + prior.widening_spread**2), freedom)
    within = float(logs.var(axis=1).mean()) * known / count
    shrinkage = prior.falling * math.log((known - 1) / known) * known / count if known > 1 else 0.0
    spread, error = math.sqrt(between + within), math.sqrt(between / count)
    return Prediction(float(pictures.mean()), spread, error, freedom, shrinkage)


def of_parts(rate: float) -> str:
    """A share of good parts in words, as a count: "about 1 of 100"."""
    for whole in (100, 1000, 10_000):
        if rate * whole >= 0.995:
            return f"about {rate * whole:.2g} of {whole:,}".replace(",", " ")
    return "fewer than 1 of 10 000"
