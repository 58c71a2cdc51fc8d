"""The adapter behaves as scikit-learn's outlier detectors do."""

import pickle

import numpy as np
import pytest
from PIL import Image
from sklearn.base import clone
from sklearn.exceptions import NotFittedError, SkipTestWarning
from sklearn.metrics import roc_auc_score
from sklearn.model_selection import GridSearchCV, StratifiedKFold
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from sklearn.utils import check_array
from sklearn.utils.estimator_checks import check_estimator, parametrize_with_checks

from handful import Detector, ImageError, InputError, backbones
from handful.methods.patchcore import PatchCore
from handful.sklearn import AnomalyDetector

TINY = {"backbone": "test_efficientnet", "weights": "random", "size": (32, 32), "engine": "torch", "device": "cpu"}
QUICK = TINY | {"method": "patchcore", "gate": ()}


@pytest.fixture(autouse=True, scope="module")
def one_backbone():
    """The same random weights for all."""
    made = backbones.create("test_efficientnet", weights="random", size=(32, 32), engine="torch", device="cpu")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(backbones, "create", lambda *_, **__: made)
        patched.setattr(backbones, "load", lambda *_, **__: made)
        yield


@pytest.fixture(scope="module")
def labelled():
    """Pictures (12, 64, 64, 3) and their labels: 1 good, -1 with a bright square."""
    random = np.random.default_rng(0)
    pictures = random.normal(120, 12, (12, 64, 64, 3)).clip(0, 255).astype(np.uint8)
    labels = np.array([1, 1, -1] * 4)
    pictures[labels == -1, 20:44, 20:44] = 250
    return pictures, labels


def test_it_says_the_opposite_of_the_detector(labelled):
    pictures, labels = labelled
    adapter = AnomalyDetector(**QUICK).fit(pictures[labels == 1][:4])
    inspections = Detector(**QUICK).fit(list(pictures[labels == 1][:4]), try_defects=False).inspect(pictures)
    scores = adapter.score_samples(pictures)
    assert scores.tolist() == [-inspection.score for inspection in inspections]
    assert np.array_equal(adapter.decision_function(pictures), scores + 1)
    predicted = adapter.predict(pictures)
    assert predicted.tolist() == [-1 if inspection.is_defect else 1 for inspection in inspections]
    assert (predicted[labels == -1] == -1).all() and roc_auc_score(labels, scores) == 1


def test_pictures_come_as_paths_arrays_and_folders(labelled, tmp_path):
    pictures = labelled[0][:2]
    for number, each in enumerate(pictures):
        Image.fromarray(each).save(tmp_path / f"{number}.png")
    paths = [tmp_path / "0.png", tmp_path / "1.png"]
    answers = [
        AnomalyDetector(**QUICK).fit(given).score_samples(given).tolist()
        for given in (pictures, list(pictures), paths, np.array([str(path) for path in paths]), tmp_path)
    ]
    assert answers == [answers[0]] * 5
    grey = AnomalyDetector(**QUICK).fit(pictures[..., 0])  # (n, h, w)
    assert grey.predict(pictures[..., 0]).tolist() == [1, 1]


def test_of_defects_nothing_is_learnt(labelled):
    pictures, labels = labelled
    of_all = AnomalyDetector(**QUICK).fit(pictures, labels)
    assert len(of_all.detector_.references) == 8
    good = AnomalyDetector(**QUICK).fit(pictures[labels == 1])
    assert np.array_equal(of_all.score_samples(pictures), good.score_samples(pictures))
    with pytest.raises(InputError, match="At least one picture"):
        AnomalyDetector(**QUICK).fit(pictures, -np.ones(12))


def test_it_works_in_a_pipeline_and_in_a_search(labelled):
    pictures, labels = labelled
    flipped = make_pipeline(FunctionTransformer(lambda stack: stack[:, ::-1]), AnomalyDetector(**QUICK))
    search = GridSearchCV(
        flipped,
        {
            "anomalydetector__method": ["patchcore", PatchCore(coreset_ratio=0.5)],
            "anomalydetector__false_alarm_rate": [0.01],
        },
        cv=StratifiedKFold(2),
        scoring="roc_auc",
        error_score="raise",
    ).fit(pictures, labels)
    assert search.cv_results_["mean_test_score"].tolist() == [1, 1]
    assert search.predict(pictures).tolist() == labels.tolist()
    assert search.best_estimator_[-1].detector_.false_alarm_rate == 0.01


def test_it_is_cloned_unfitted_and_pickled_fitted(labelled):
    pictures, _ = labelled
    adapter = AnomalyDetector(**QUICK).fit(pictures[:2])
    assert clone(adapter).get_params() == adapter.get_params()
    with pytest.raises(NotFittedError):
        clone(adapter).predict(pictures)
    again = pickle.loads(pickle.dumps(adapter))
    assert np.array_equal(again.score_samples(pictures), adapter.score_samples(pictures))


def test_a_picture_that_cannot_be_read_is_an_error(labelled, tmp_path):
    adapter = AnomalyDetector(**QUICK).fit(labelled[0][:2])
    with pytest.raises(ImageError, match=r"nothing\.png must be a readable picture"):
        adapter.predict([tmp_path / "nothing.png"])
    with pytest.raises(ImageError, match="must have the shape"):
        adapter.predict(np.zeros((3, 5)))  # rows of numbers


class OfRows(AnomalyDetector):
    """Draws each row of numbers as a picture, for scikit-learn's checks, which know nothing else."""

    def fit(self, X, y=None):  # noqa: N803
        return super().fit(drawn(X), y)

    def score_samples(self, X):  # noqa: N803
        return super().score_samples(drawn(X))

    def __sklearn_tags__(self):
        tags = super().__sklearn_tags__()
        tags.input_tags.two_d_array = True
        tags.input_tags.one_d_array = tags.input_tags.three_d_array = tags.input_tags.string = False
        return tags


def drawn(rows):
    """Rows (n, features) as pictures (32, 32): noise that the numbers of a row alone decide."""
    rows = check_array(rows, dtype=np.float64)
    return [np.random.default_rng(list(row.tobytes())).integers(60, 200, (32, 32), dtype=np.uint8) for row in rows]


# The checks that pictures, or a detector that learns from good ones alone, cannot pass.
TWICE = "the same picture must not be learnt twice"
INLIERS = "a detector rejects no picture that it has learnt, and the check wants some rejected"
FAILED = {
    "check_positive_only_tag_during_fit": TWICE,
    "check_outliers_fit_predict": INLIERS,
    "check_outliers_train": INLIERS,
}


@parametrize_with_checks([OfRows(**QUICK, accept_odd=True)], expected_failed_checks=lambda _: FAILED)
def test_rows_drawn_as_pictures_pass_scikit_learns_checks(estimator, check):
    check(estimator)


def test_rows_of_numbers_are_no_pictures_for_scikit_learn():
    with pytest.warns(SkipTestWarning, match="Can't test estimator AnomalyDetector which requires input"):
        check_estimator(AnomalyDetector())
