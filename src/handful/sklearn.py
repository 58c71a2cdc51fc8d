"""A detector for scikit-learn: in pipelines, searches over settings, and its metrics.

scikit-learn's outlier detectors say the opposite of the rest of Handful: here **higher is more normal**.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from handful.errors import ImageError, needing

with needing("handful.sklearn", "sklearn"):
    from sklearn.base import BaseEstimator, OutlierMixin
    from sklearn.utils import Tags
    from sklearn.utils.validation import check_is_fitted

from handful import backbones
from handful.backbones.base import Backbone
from handful.detector import Detector
from handful.inspection.gate import CHECKS
from handful.inspection.threshold import DEFAULT_RATE
from handful.methods import Method


class AnomalyDetector(OutlierMixin, BaseEstimator):  # type: ignore[misc]  # scikit-learn has no types
    """`handful.Detector` as an outlier detector of scikit-learn.

        from handful.sklearn import AnomalyDetector

        detector = AnomalyDetector(method="patchcore").fit(["good/001.png", "good/002.png"])
        print(detector.predict(["incoming/001.png", "incoming/002.png"]))  # 1 as the good parts, -1 a defect
        print(detector.score_samples("incoming/"), detector.decision_function("incoming/"))

    Pictures `X` are a list of whatever `handful.data.images.read_picture` takes, an array (n, h, w, 3) or (n, h, w), or
    a folder. Rows of numbers are no pictures, so scikit-learn's `check_estimator` skips this estimator.

    Args:
        accept_odd: whether pictures may be learnt that are clearly unlike the others.
        method, settings, backbone, levels, size, weights, engine, device, false_alarm_rate, gate: as `handful.Detector`
            takes them.

    Attributes:
        detector_: the fitted `handful.Detector`; `detector_.inspect` gives heatmaps and regions.
        offset_: -1, the threshold on the scale of `score_samples`.
    """

    def __init__(
        self,
        method: str | Method = "handful",
        *,
        settings: Mapping[str, Any] | None = None,
        backbone: str | Backbone = backbones.DEFAULT_BACKBONE,
        levels: Sequence[str | int] | None = None,
        size: Any = None,
        weights: str = "auto",
        engine: backbones.EngineChoice = "auto",
        device: backbones.Device = "auto",
        false_alarm_rate: float = DEFAULT_RATE,
        gate: Sequence[str] | str = CHECKS,
        accept_odd: bool = False,
    ) -> None:
        self.method = method
        self.settings = settings
        self.backbone = backbone
        self.levels = levels
        self.size = size
        self.weights = weights
        self.engine = engine
        self.device = device
        self.false_alarm_rate = false_alarm_rate
        self.gate = gate
        self.accept_odd = accept_odd

    def fit(self, X: Any, y: Iterable[int] | None = None) -> Self:
        """Learn from good pictures.

        Args:
            y: unlike other outlier detectors, of pictures labelled -1 nothing is learnt: a detector learns from good
                pictures alone, so cross-validation may be given labelled ones. None where all are good.

        Raises:
            As `handful.Detector.fit`.
        """
        pictures = _pictures(X)
        if y is not None:
            pictures = [picture for picture, label in zip(pictures, np.asarray(y), strict=True) if label != -1]
        options = {name: value for name, value in self.get_params(deep=False).items() if name != "accept_odd"}
        self.detector_ = Detector(**options).fit(pictures, accept_odd=self.accept_odd, try_defects=False)
        self.offset_ = -1.0
        return self

    def score_samples(self, X: Any) -> NDArray[np.float64]:
        """The opposite of `Inspection.score`: (n,), 0 for a typical good part, below -1 for a defect.

        Raises:
            ImageError: for a picture that cannot be read.
            sklearn.exceptions.NotFittedError: before `fit`.
        """
        check_is_fitted(self)
        scores = []
        for inspection in self.detector_.stream(_pictures(X)):
            if inspection.score is None:
                raise ImageError(inspection.reason)
            scores.append(-inspection.score)
        return np.array(scores)

    def decision_function(self, X: Any) -> NDArray[np.float64]:
        """`score_samples` less `offset_`: (n,), negative for a defect."""
        return self.score_samples(X) - self.offset_

    def predict(self, X: Any) -> NDArray[np.int64]:
        """(n,): 1 for a picture like the good ones, -1 for a defect; where the gate alone doubts a picture, 1."""
        return np.where(self.decision_function(X) < 0, -1, 1)

    def __sklearn_tags__(self) -> Tags:
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = False
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = True
        tags.no_validation = True
        return tags


def _pictures(given: Any) -> Any:
    """A folder as it is; else a list, of an array one picture a row."""
    return given if isinstance(given, (str, os.PathLike)) else list(given)
