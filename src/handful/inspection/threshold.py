"""The threshold, predicted from the scores of good pictures alone; no label is used.

docs/threshold.md explains the statistics and their assumptions.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.errors import InspectorError, SettingError, number_of
from handful.ops import student_t

# The priors were measured on good test pictures of the development categories, only `Prior.ample` on defects too:
# benchmarks/threshold/handful.md and benchmarks/threshold/patchcore.md.
DEFAULT_RATE = 0.03  # the default false-alarm rate; docs/threshold.md gives the reasons
PRIOR_WEIGHT = 12  # pictures: the weight of the prior spread
LARGEST = 1e30  # bound of the numbers of a calibration, far beyond any method's scores
SMALLEST_RATE = 1e-6  # bound of the false-alarm rate
SMALLEST_SCORE = 1e-9  # replaces a score of 0, which a copy of a reference gets and which has no logarithm


@dataclass(frozen=True)
class Prior:
    """Assumptions about the scores of good pictures; the defaults are measured on PatchCore.

    Attributes:
        spread: standard deviation of the log score between good parts of a product (measured: 0.04 to 0.14 for half
            of the products).
        widening: with a single reference, the expected ratio of another good part's score to the score of the
            reference's mild variations (measured: 1.9 to 2.1 for half of the products).
        widening_spread: standard deviation of the ratio's logarithm between products.
        among_places: whether a single reference's scores also take in how much its places differ from each other, not
            its mild variations alone.
        falling: good scores fall with this power of the number of references (measured: about 0.07 to 0.09).
        ample: the number of further good pictures from which on the references' own scores no longer count; 0 for
            never. The default method's `ample` was chosen by the missed defects of the development categories, not on
            held-out data.
    """

    spread: float = 0.07
    widening: float = 2.0
    widening_spread: float = 0.12
    among_places: bool = False
    falling: float = 0.08
    ample: int = 0

    def aside(self, references: int, further: int) -> bool:
        """Whether the references' scores are left out beside further good pictures; a single reference's always are."""
        return further > 0 and (references == 1 or 0 < self.ample <= further)


PATCHCORE = Prior()


@dataclass(frozen=True)
class Calibration:
    """The threshold and its basis; raw scores in the method's unit.

        calibration: handful.Calibration = inspector.calibration
        assert calibration.calibrated(calibration.threshold) == 1

    Attributes:
        threshold: the raw image score above which a picture is a DEFECT.
        typical: the raw image score of a typical good picture.
        map_threshold: the raw map value above which a pixel belongs to a region.
        map_typical: the highest raw map value of a typical good picture.
        false_alarm_rate: the share of good parts that the threshold is meant to reject.
        references: the number of good pictures whose scores set the threshold.
        rests_on: the basis of the threshold in words, for people.
    """

    threshold: float
    typical: float
    map_threshold: float
    map_typical: float
    false_alarm_rate: float
    references: int
    rests_on: str

    def calibrated(self, score: float) -> float:
        """A raw image score on the common scale: 0 for a typical good part, 1 at the threshold."""
        return (score - self.typical) / (self.threshold - self.typical)

    def calibrated_map(self, values: NDArray[np.float32]) -> NDArray[np.float32]:
        """A raw map on the common scale: 0 at the highest value of a typical good picture, 1 at the map's threshold."""
        scale = self.map_threshold - self.map_typical
        return ((values - self.map_typical) / scale).astype(np.float32)

    def as_dict(self) -> dict[str, Any]:
        """The calibration as a dictionary for JSON."""
        return asdict(self)

    @classmethod
    def from_dict(cls, fields: Mapping[str, Any]) -> "Calibration":
        """Make a calibration from the dictionary of `as_dict`, which a person may have edited.

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
    """Whether a value is a number of magnitude at most `LARGEST`, so that differences of such numbers are finite."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) <= LARGEST


def check_rate(false_alarm_rate: float) -> None:
    """Raise SettingError unless the rate is in [1e-6, 0.5): for a smaller one no threshold would be finite."""
    if not SMALLEST_RATE <= false_alarm_rate < 0.5:
        raise SettingError(
            f"The false-alarm rate must be a share in [{SMALLEST_RATE:g}, 0.5), got {false_alarm_rate!r}; "
            f"3 of 100 is 0.03."
        )


@dataclass(frozen=True)
class Prediction:
    """The predictive distribution of the next good picture's score: its logarithm follows Student's t.

    Attributes:
        mean: the mean of the logarithm.
        spread: standard deviation of the logarithm between pictures.
        standard_error: the standard error of `mean`.
        degrees_of_freedom: of Student's t.
        shrinkage: added to the mean for a typical score (0 or less), as each reference was scored by a method with one
            reference fewer, which gives higher scores.
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
        """The probability that the next good picture's score exceeds a score."""
        if score <= 0:
            return 1.0
        steps = (math.log(score) - self.mean) / self._scale
        return student_t.upper_tail(steps, self.degrees_of_freedom)

    def interval(self, rate: float, *, chance: float = 0.9) -> tuple[float, float]:
        """The confidence interval, with coverage `chance`, of the score that good pictures exceed at `rate`.

        With q the logarithm of that score, (q - mean) / standard_error follows the non-central t distribution around
        the normal quantile times spread / standard_error, as in normal tolerance limits (Owen, Technometrics 10, 1968).
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
        image_scores: (k, V) positive image scores of V views of each of k references, by a method that had not learnt
            the reference, or, at k = 1, had learnt only its unchanged picture.
        map_peaks: (k, V) the highest map values of these views.
        false_alarm_rate: the share of good parts that may be rejected, in [1e-6, 0.5).
        further_scores: image scores of further good pictures, by the final method, which has not learnt them.
        further_peaks: the highest map values of the further good pictures.
        prior: assumptions about the scores of the method.

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
    unseen = f"{number_of(further, 'further good picture')} that the inspector had not seen"
    if prior.aside(references, further):
        return f"{unseen}, the {'single one' if references == 1 else references} that it has learnt left aside"
    if references > 1:
        basis = (
            f"{number_of(references, 'good picture')}, each scored in {number_of(views, 'mild variation')} by an "
            f"inspector that had not seen it"
        )
        return f"{basis}, and {unseen} either" if further else basis
    places = " and what lies elsewhere in it" if prior.among_places else ""
    return (
        f"a single good picture: {number_of(views, 'mild variation')} of it{places}, and the assumption that other "
        f"good parts score {prior.widening:g} times as high"
    )


def predict(scores: NDArray[np.float64], further: Sequence[float] = (), *, prior: Prior = PATCHCORE) -> Prediction:
    """Predict the next good picture's score from the scores of the references' views (k, V) and of n further pictures.

    Good scores are taken as log-normal with unknown mean and spread. The spread between pictures has a
    scaled inverse chi-square prior (`Prior.spread`, `PRIOR_WEIGHT`), so the next picture's log score follows Student's
    t with PRIOR_WEIGHT + k - 1 degrees of freedom (Gelman et al., Bayesian Data Analysis, section 3.3).

    A reference counts by the mean log score of its views, a further picture by its single log score. Scores of further
    pictures already contain the variation between shots, so the variance within views is added for the references'
    share of the pictures alone. A single reference does not count beside further pictures.

    With two or more references, each was scored by a method with one reference fewer, which gives higher scores
    (`Prior.falling`). The typical score is corrected for this; the threshold is not, and so errs on the side of fewer
    false alarms.
    """
    logs = np.log(np.maximum(scores, SMALLEST_SCORE))  # (k, V)
    alone = len(logs) == 1
    pictures = np.log(np.maximum(np.asarray(further, dtype=np.float64), SMALLEST_SCORE))  # (n,)
    known = 0 if prior.aside(len(logs), len(pictures)) else len(logs)
    pictures = np.concatenate([logs[:known].mean(1), pictures])  # (k + n,)
    count = len(pictures)
    freedom = PRIOR_WEIGHT + count - 1
    between = (PRIOR_WEIGHT * prior.spread**2 + float(((pictures - pictures.mean()) ** 2).sum())) / freedom
    if alone and known:  # the spread of a single reference's views does not tell the spread between parts
        mean = float(np.median(logs)) + math.log(prior.widening)
        return Prediction(mean, math.sqrt(between), math.sqrt(between + prior.widening_spread**2), freedom)
    within = float(logs.var(axis=1).mean()) * known / count
    shrinkage = prior.falling * math.log((known - 1) / known) * known / count if known > 1 else 0.0
    spread, error = math.sqrt(between + within), math.sqrt(between / count)
    return Prediction(float(pictures.mean()), spread, error, freedom, shrinkage)


def of_parts(rate: float) -> str:
    """A share of good parts as a count in words: "about 1 of 100"."""
    for whole in (100, 1000, 10_000):
        if rate * whole >= 0.995:
            return f"about {rate * whole:.2g} of {whole:,}".replace(",", " ")
    return "fewer than 1 of 10 000"
