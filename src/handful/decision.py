"""From good pictures' scores to a threshold, and from a map to regions; nothing here ever sees a label.

How the threshold comes about, and what it rests on: docs/threshold.md.
"""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from dataclasses import fields as dataclass_fields
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage, special

from handful.errors import InspectorError, SettingError
from handful.types import Region

# Assumptions, from good test pictures of 18 development categories (benchmarks/good_scores.md), never from defects.
# Standard deviation of the log score between good parts of one product (measured: half of them 0.04 to 0.14).
PRIOR_SPREAD = 0.07
PRIOR_WEIGHT = 12  # how many pictures that is worth
# One reference: another good part's score over that of a mild variation of it (measured: half of them 1.9 to 2.1).
SINGLE_WIDENING = 2.0
SINGLE_SPREAD = 0.12  # standard deviation of that factor's logarithm
SMALLEST_SCORE = 1e-9  # what a score of 0 (a part like a reference to the last bit) counts as


@dataclass(frozen=True)
class Calibration:
    """The threshold and what it rests on; raw scores in the method's unit.

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
            if name != "rests_on" and (isinstance(fields[name], bool) or not isinstance(fields[name], (int, float))):
                raise InspectorError(f"The calibration's {name} must be a number, got {fields[name]!r}; correct it.")
        calibration = cls(**fields)
        for name in ("threshold", "map_threshold"):
            low = calibration.typical if name == "threshold" else calibration.map_typical
            if not getattr(calibration, name) > low:
                raise InspectorError(
                    f"The calibration's {name} must be above the typical {low}, got {fields[name]}; correct it."
                )
        return calibration


def check_rate(false_alarm_rate: float) -> None:
    """Raise SettingError unless the rate is in (0, 0.5)."""
    if not 0 < false_alarm_rate < 0.5:
        raise SettingError(f"`false_alarm_rate` must be in (0, 0.5), got {false_alarm_rate!r}.")


def calibrate(
    image_scores: NDArray[np.float64], map_peaks: NDArray[np.float64], *, false_alarm_rate: float
) -> Calibration:
    """Set the thresholds from the scores of good pictures that the scoring method has not learnt from.

    Args:
        image_scores: (k, V) positive image scores of V views of each of k references; the method had not seen that
            reference, or, at k = 1, had seen only its unchanged picture.
        map_peaks: (k, V) the highest map values of the same.
        false_alarm_rate: the share of good parts that may be rejected, in (0, 0.5).

    Raises:
        SettingError: for a rate out of bounds.
    """
    check_rate(false_alarm_rate)
    typical, threshold = _predict(image_scores, false_alarm_rate)
    map_typical, map_threshold = _predict(map_peaks, false_alarm_rate)
    references, views = image_scores.shape
    if references > 1:
        basis = (
            f"{references} good pictures, each scored in {views} mild variations by an inspector that had not seen it"
        )
    else:
        basis = (
            f"a single good picture: {views} mild variations of it, and the assumption that other good parts score "
            f"{SINGLE_WIDENING:g} times as high"
        )
    words = (
        f"{basis}. About {100 * false_alarm_rate:.3g} of 100 good parts taken like these should be rejected; so few "
        f"pictures cannot prove that rate, and pictures from another day or light may score higher."
    )
    return Calibration(threshold, typical, map_threshold, map_typical, false_alarm_rate, references, words)


def _predict(scores: NDArray[np.float64], rate: float) -> tuple[float, float]:
    """The typical score of the next good picture, and the score it exceeds with probability `rate`.

    Good scores are taken as log-normal with unknown mean and spread. The spread between pictures has a
    scaled inverse chi-square prior (`PRIOR_SPREAD`, `PRIOR_WEIGHT`), so the next picture's log score follows Student's
    t with PRIOR_WEIGHT + k - 1 degrees of freedom (Gelman et al., Bayesian Data Analysis, section 3.3).
    """
    logs = np.log(np.maximum(scores, SMALLEST_SCORE))  # (k, V)
    pictures = logs.mean(1)
    count = len(pictures)
    freedom = PRIOR_WEIGHT + count - 1
    between = (PRIOR_WEIGHT * PRIOR_SPREAD**2 + float(((pictures - pictures.mean()) ** 2).sum())) / freedom
    variance = between * (1 + 1 / count)
    if count == 1:  # its variations differ by what was done to them, which says nothing about other parts
        middle = float(np.median(logs)) + math.log(SINGLE_WIDENING)
        variance += SINGLE_SPREAD**2
    else:
        middle = float(pictures.mean())
        variance += float(logs.var(axis=1).mean())
    spread = math.sqrt(variance)
    return math.exp(middle), math.exp(middle + float(special.stdtrit(freedom, 1 - rate)) * spread)


def regions(heatmap: NDArray[np.float32], size: tuple[int, int]) -> tuple[Region, ...]:
    """The connected regions (8 neighbours) of a defective picture's map, strongest first.

    Args:
        heatmap: (H, W) calibrated; a region is where it exceeds 1. Where it exceeds 1 nowhere (a picture may be
            rejected for many slightly strange patches), the region is the highest 1 % of its pixels.
        size: width, height of the original picture, in whose pixels the regions are given.
    """
    inside_any = heatmap > 1 if heatmap.max() > 1 else heatmap >= np.quantile(heatmap, 0.99)
    labels, _ = ndimage.label(inside_any, structure=np.ones((3, 3)))
    height, width = heatmap.shape
    across, down = size[0] / width, size[1] / height
    found = []
    for number, (rows, columns) in enumerate(ndimage.find_objects(labels), 1):
        inside = np.where(labels[rows, columns] == number, heatmap[rows, columns], -np.inf)
        y, x = np.unravel_index(int(inside.argmax()), inside.shape)
        left, top = math.floor(columns.start * across), math.floor(rows.start * down)
        right, bottom = math.ceil(columns.stop * across), math.ceil(rows.stop * down)
        peak_at = (int((columns.start + x + 0.5) * across), int((rows.start + y + 0.5) * down))
        area = max(1, round(int(np.isfinite(inside).sum()) * across * down))
        found.append(Region((left, top, right - left, bottom - top), area, float(inside.max()), peak_at))
    return tuple(sorted(found, key=lambda region: -region.peak))
