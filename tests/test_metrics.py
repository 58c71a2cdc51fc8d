import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from handful.errors import InputError
from handful.metrics import image_auroc


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([5, 5, 5, 5], 0.5), ([1, 3, 2, 4], 0.75), ([1, 2, 2, 3], 0.875)],
)
def test_hand_made_cases(scores, expected):
    assert image_auroc([False, False, True, True], scores) == expected


def test_equals_scikit_learn_with_ties():
    generator = np.random.default_rng(0)
    truth, scores = generator.random(500) < 0.3, generator.integers(0, 40, 500)
    assert image_auroc(truth, scores) == pytest.approx(roc_auc_score(truth, scores), abs=1e-12)


@pytest.mark.parametrize("truth", [[True, True], [False, False], []])
def test_one_class_alone_is_refused(truth):
    with pytest.raises(InputError, match="at least one normal and one anomalous"):
        image_auroc(truth, [0.0] * len(truth))


def test_a_score_that_is_not_finite_is_refused():
    with pytest.raises(InputError, match="finite"):
        image_auroc([False, True], [0.0, float("nan")])
