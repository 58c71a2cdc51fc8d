import json

import pytest
import torch

from handful.report.result import Inspection
from handful.types import Features, Verdict


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_the_first_level_that_is_not_finite_is_named(value):
    levels = [torch.ones(2, n, n, 3) for n in (4, 2, 1)]
    assert Features(tuple(levels), (8, 8)).unfinite_level is None
    levels[1][1, 0, 1, 2] = value
    levels[2][0, 0, 0, 0] = value
    assert Features(tuple(levels), (8, 8)).unfinite_level == 1


def test_infinities_that_cancel_are_seen():
    level = torch.zeros(1, 2, 2, 1)
    level[0, 0, 0, 0], level[0, 1, 1, 0] = float("inf"), -float("inf")
    assert Features((level,), (8, 8)).unfinite_level == 0


def test_finite_values_whose_sum_overflows_are_finite():
    assert Features((torch.full((1, 2, 2, 3), 3e38),), (8, 8)).unfinite_level is None


def test_notes_stand_in_json_only_where_there_are_any():
    assert "notes" not in Inspection("a.png", "OK").as_dict()
    assert Inspection("a.png", "OK", notes=("Look twice.",)).as_dict()["notes"] == ["Look twice."]


@pytest.mark.parametrize("verdict", Verdict)
def test_a_verdict_is_its_name_as_text(verdict):
    inspection = Inspection("a.png", verdict)
    assert verdict == verdict.name == f"{verdict}" and inspection.as_dict()["verdict"] == verdict.name
    assert json.loads(json.dumps(inspection.as_dict()))["verdict"] == verdict.name
    assert inspection.is_defect == (verdict.name == "DEFECT")
