"""The comparison of two trees of code, `benchmarks/equal.py`, sees the last bit of an answer, whatever it is called."""

import importlib.util
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest


@pytest.fixture(scope="module")
def equal():
    path = Path(__file__).parents[1] / "benchmarks" / "_equal_answers.py"
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def answer(equal, inspection):
    return [{"by": "graph", "picture": "part.png", **equal.told(inspection)}]


def replace(record, **fields):
    return SimpleNamespace(**vars(record) | fields)


@pytest.fixture
def defect():
    """An inspection as it was before `score` became the calibrated one."""
    place = SimpleNamespace(picture="good.png", at=(0.1, 0.2), distance=0.3)
    region = SimpleNamespace(box=(1, 2, 3, 4), area=5, peak=1.5, peak_at=(2, 3), nearest=place)
    return SimpleNamespace(
        verdict="DEFECT",
        score=3.1,
        calibrated_score=1.1,
        threshold=3.0,
        heatmap=np.linspace(0, 1, 6, dtype=np.float32)[None],
        regions=(region,),
        missing=None,
        size=(6, 1),
        reason=None,
        notes=(),
    )


def one_bit_up(value):
    return np.nextafter(value, type(value)(9))


def test_the_same_answers_do_not_differ(equal, defect):
    assert equal.differences(answer(equal, defect), answer(equal, replace(defect))) == {}


def test_the_last_bit_of_a_map_is_seen(equal, defect):
    heatmap = defect.heatmap.copy()
    heatmap[0, 3] = one_bit_up(heatmap[0, 3])
    found = equal.differences(answer(equal, defect), answer(equal, replace(defect, heatmap=heatmap)))
    assert found == {"part.png by graph": "heatmap"}


def test_the_last_bit_of_a_number_is_seen(equal, defect):
    (region,) = defect.regions
    nearest = replace(region.nearest, distance=float(one_bit_up(0.3)))
    other = replace(defect, score=float(one_bit_up(3.1)), regions=(replace(region, nearest=nearest),))
    found = equal.differences(answer(equal, defect), answer(equal, other))
    assert found == {"part.png by graph": f"raw score 3.1 → {other.score}, regions"}


def test_an_answer_that_is_missing_is_named(equal, defect):
    assert equal.differences(answer(equal, defect), [{"error": "no graph"}]) == {
        "part.png by graph": "given before alone",
        "error": "given now alone",
    }


def test_a_score_is_the_same_under_another_name(equal, defect):
    scores = {"raw_score": defect.score, "score": defect.calibrated_score, "raw_threshold": defect.threshold}
    renamed = replace(defect, **scores)
    del renamed.calibrated_score, renamed.threshold
    assert equal.told(renamed) == equal.told(defect)
