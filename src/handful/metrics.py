"""Metrics of an evaluation: arrays in, numbers out; never used for a decision."""

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import rankdata

from handful.errors import InputError


def image_auroc(anomalous: ArrayLike, scores: ArrayLike) -> float:
    """The area under the ROC curve over pictures: the chance that an anomalous one scores above a normal one.

    Ties count half (Mann-Whitney).

    Args:
        anomalous: (N,) truth values.
        scores: (N,), higher is more anomalous.

    Returns:
        0 to 1.

    Raises:
        InputError: without at least one normal and one anomalous picture, or with a score that is not finite.
    """
    truth, values = np.asarray(anomalous, dtype=bool), np.asarray(scores, dtype=np.float64)
    positives, negatives = int(truth.sum()), int((~truth).sum())
    if not positives or not negatives:
        raise InputError(f"AUROC needs at least one normal and one anomalous picture, got {negatives} and {positives}.")
    if not np.isfinite(values).all():
        raise InputError(f"Scores must be finite, got {values[~np.isfinite(values)][0]}; look at that picture.")
    ranks = rankdata(values)
    return float((ranks[truth].sum() - positives * (positives + 1) / 2) / (positives * negatives))
