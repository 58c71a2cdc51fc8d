"""The thresholds that follow from the scores that are kept and from the revisions that stand."""

import dataclasses
import json
from dataclasses import asdict

import numpy as np
import pytest

from handful.errors import InspectorError
from handful.fitting.revisions import History, PictureRecord, Revision
from handful.inspection.threshold import PATCHCORE, Prior, calibrate
from handful.saved.history import HISTORY_ENTRY, history_entry, history_of

SCORES = np.array([[1.0, 1.1], [1.05, 1.1], [0.95, 1.0]])


def history(*made):
    """Revisions numbered from 1, of (kind, what else)."""
    numbered = tuple(Revision(n, kind, "2024-01-01", 0, 0, **more) for n, (kind, more) in enumerate(made, 1))
    return dataclasses.replace(History.start(SCORES, 2 * SCORES, rate=0.01, prior=PATCHCORE), revisions=numbered)


def given(score, *, digest="a"):
    return (PictureRecord(f"{digest}.png", digest, score, 2 * score),)


PLAIN = calibrate(SCORES, 2 * SCORES, false_alarm_rate=0.01)
BY_HAND = dataclasses.replace(PLAIN, threshold=5.0, rests_on="a person")


def test_without_revisions_it_is_what_fit_gives():
    assert history().calibration() == PLAIN


def test_further_pictures_and_the_rate_enter_the_model():
    made = history(("normals", {"pictures": given(1.2)}), ("rate", {"value": 0.1}))
    expected = calibrate(SCORES, 2 * SCORES, false_alarm_rate=0.1, further_scores=[1.2], further_peaks=[2.4])
    assert made.calibration() == expected


@pytest.mark.parametrize(
    ("after", "threshold"),
    [
        ((), 5.0),
        ((("good", {"pictures": given(9.0)}),), 5.0),
        ((("rate", {"value": 0.01}),), PLAIN.threshold),
        ((("rate", {"value": 0.01}), ("undo", {"value": 2})), 5.0),
        ((("undo", {"value": 1}),), PLAIN.threshold),
    ],
)
def test_a_threshold_by_hand_stands_until_the_next_is_worked_out(after, threshold):
    assert history(("threshold", {"calibration": BY_HAND.as_dict()}), *after).calibration().threshold == threshold


def test_a_missed_defect_bounds_the_threshold_until_a_person_sets_it():
    defect = ("defect", {"pictures": given(1.15)})
    assert history(defect).calibration().threshold == pytest.approx(0.999 * 1.15)
    assert history(defect, ("rate", {"value": 0.001})).calibration().threshold == pytest.approx(0.999 * 1.15)
    assert history(defect, ("threshold", {"calibration": BY_HAND.as_dict()})).calibration().threshold == 5
    assert history(("threshold", {"calibration": BY_HAND.as_dict()}), defect).calibration().threshold < 1.15
    assert history(defect, ("undo", {"value": 1})).calibration() == PLAIN
    assert history(("defect", {"pictures": given(50.0)})).calibration() == PLAIN


def test_a_picture_learnt_as_good_leaves_the_threshold_alone():
    assert history(("good", {"pictures": given(3.0)})).calibration() == PLAIN


def test_a_raw_score_may_bear_its_earlier_name_score():
    made = history(("normals", {"pictures": given(1.2)}))
    earlier = history_entry(made).replace(b'"raw_score"', b'"score"')
    assert earlier != history_entry(made) and history_of({HISTORY_ENTRY: earlier}) == made


def test_it_comes_back_from_json_as_it_was():
    made = history(("normals", {"pictures": given(1.2), "ignoring": (3,)}), ("undo", {"value": 1}))
    assert history_of({HISTORY_ENTRY: history_entry(made)}) == made
    with pytest.raises(InspectorError, match=r"revisions\.json"):
        history_of({})


def test_an_unknown_kind_of_revision_is_refused():
    values = asdict(history(("rate", {"value": 0.1})))
    values["revisions"][0]["kind"] = "magic"
    with pytest.raises(InspectorError, match="unknown revision 1"):
        history_of({HISTORY_ENTRY: json.dumps(values).encode()})


def test_the_basis_predicts_the_rate_that_was_asked_for():
    made = history()
    basis = made.basis(made.calibration())
    assert basis.predicted_rate == pytest.approx(0.01)
    assert basis.low < basis.raw_threshold < basis.high
    assert made.basis(BY_HAND).predicted_rate < 1e-6


def test_the_prior_is_kept_and_was_patchcores_before_it_was():
    prior = Prior(spread=0.02, widening=1.0, widening_spread=0.01)
    history = History.start(SCORES[:1], SCORES[:1], rate=0.01, prior=prior)
    kept = history_of({HISTORY_ENTRY: history_entry(history)})
    assert kept == history
    assert kept.calibration() == calibrate(SCORES[:1], SCORES[:1], false_alarm_rate=0.01, prior=prior)
    earlier = asdict(history)
    del earlier["prior"]
    assert history_of({HISTORY_ENTRY: json.dumps(earlier).encode()}).prior == PATCHCORE


def changed(**fields):
    """The refusal of a history whose file says something else."""
    made = history(("normals", {"pictures": given(1.2)}), ("rate", {"value": 0.1}))
    part = json.dumps(asdict(made) | fields).encode()
    with pytest.raises(InspectorError, match=r"^revisions\.json must hold an inspector's revisions, got: ") as error:
        made = history_of({HISTORY_ENTRY: part})
    assert "\n" not in str(error.value)
    assert str(error.value).endswith("; fit it again.")


@pytest.mark.parametrize(
    "fields",
    [
        {"image_scores": [[1.0, 1.1], [1.0]]},
        {"image_scores": [[1.0, 1.1]]},
        {"image_scores": []},
        {"image_scores": [[1.0, float("nan")]] * 3},
        {"image_scores": [[1.0, 1e300]] * 3},
        {"image_scores": [["1", 1.0]] * 3},
        {"image_scores": 7},
        {"map_peaks": [[-1.0, 1.0]] * 3},
        {"image_factors": [1.0, 1.0]},
        {"rate": 0.7},
        {"rate": None},
        {"written": 3},
        {"prior": {"spread": 0.0}},
        {"prior": {"widening": "2"}},
        {"prior": {"unheard": 1}},
        {"revisions": [[]]},
        {"revisions": {"a": 1}},
        {"revisions": [None]},
    ],
)
def test_a_history_of_another_form_is_refused_in_a_sentence(fields):
    changed(**fields)


@pytest.mark.parametrize(
    "fields",
    [
        {"number": "1"},
        {"before": None},
        {"after": float("inf")},
        {"value": None},
        {"value": 0.6},
        {"pictures": [{"name": 1, "sha256": "a"}]},
        {"pictures": [{"name": "a"}]},
        {"ignoring": ["x"]},
        {"date": 2024},
        {"calibration": {"threshold": 1}},
    ],
)
def test_a_revision_of_another_form_is_refused_in_a_sentence(fields):
    values = asdict(history(("normals", {"pictures": given(1.2)}), ("rate", {"value": 0.1})))
    changed(revisions=[values["revisions"][0], values["revisions"][1] | fields])
