"""A budget leaves out good patches until file and inspection are small and quick enough, and says what that costs."""

import math
import re

import pytest
import torch

from handful.detector import Detector
from handful.errors import SettingError
from handful.evaluation import budget
from handful.evaluation.budget import Budget
from handful.inspector import Inspector
from handful.methods import METHODS


@pytest.fixture
def new(fitted):
    """A detector that is not fitted yet, on the backbone of `fitted`."""

    def make(method="handful", **settings):
        return Detector(method, settings=settings, backbone=fitted._needed.backbone)

    return make


@pytest.fixture
def two(good_folder):
    """Two good pictures: as many as it takes, and quicker than four."""
    return [good_folder / "0.png", good_folder / "1.png"]


def plain(new, references, tmp_path, share):
    """An inspector of a share that was set by hand, and the megabytes of its file."""
    detector, path = new(coreset_ratio=share).fit(references), tmp_path / f"{share}.handful"
    detector.save(path)
    return detector, path.stat().st_size / 1e6


def same(one, other):
    mine, theirs = one.method.state(), other.method.state()
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_within_the_budget_nothing_is_left_out(new, fitted, good_folder, tmp_path):
    whole, size = plain(new, good_folder, tmp_path, 1.0)
    detector = new()
    kept = budget.fit(detector, good_folder, Budget(max_mb=size))
    assert kept == budget.Kept(1.0, size, None, 0.0)
    assert same(detector, whole) and same(detector, fitted)
    assert detector.calibration == whole.calibration


def test_the_largest_share_that_does_is_kept(new, two, tmp_path):
    whole, _ = plain(new, two, tmp_path, 1.0)
    quarter, size = plain(new, two, tmp_path, 0.25)
    detector = new()
    kept = budget.fit(detector, two, Budget(max_mb=size))
    assert (kept.share, kept.megabytes) == (0.25, size)
    assert detector.method.settings == {**whole.method.settings, "coreset_ratio": 0.25}
    assert same(detector, quarter)
    assert detector.calibration == quarter.calibration
    assert kept.rise == whole.calibration.calibrated(quarter.calibration.typical) > 0
    detector.save(tmp_path / "part.handful")
    assert (tmp_path / "part.handful").stat().st_size / 1e6 == pytest.approx(size, abs=1e-4)  # digits of the settings


def test_a_share_that_was_asked_for_is_the_most_that_is_kept(new, two):
    detector = new(coreset_ratio=0.2)
    assert budget.fit(detector, two, Budget(max_mb=100)).share == 0.2


def test_an_inspection_is_timed_and_both_limits_must_hold(new, two, monkeypatch, tmp_path):
    real = budget.fit(new(), two, Budget(latency_ms=1e6))
    assert (real.share, real.megabytes) == (1.0, None)
    assert 0 < real.milliseconds < 1e6
    monkeypatch.setattr(budget, "_milliseconds", lambda detector, _: 100 * detector.method.coreset_ratio)
    _, size = plain(new, two, tmp_path, 0.25)
    quick = budget.fit(new(), two, Budget(latency_ms=60))
    both = budget.fit(new(), two, Budget(max_mb=size, latency_ms=60))
    assert (quick.share, quick.milliseconds) == (0.5, 50)
    assert (both.share, both.megabytes, both.milliseconds) == (0.25, size, 25)


def test_what_the_time_is_of(new, two, monkeypatch):
    detector, times, seen = new().fit(two), iter([0, 100, *(t for n in range(9) for t in (0, n))]), []
    monkeypatch.setattr(budget.time, "perf_counter", lambda: next(times))
    monkeypatch.setattr(Inspector, "__call__", lambda inspector, picture: seen.append(picture))
    assert budget._milliseconds(detector, two) == 4000  # the first does not count; the median of 0 to 8
    assert {picture.name for picture in seen} == {detector.references[0].name}


def test_patchcore_has_a_budget_too(new, two, monkeypatch):
    monkeypatch.setattr(budget, "SHARES", (0.05,))
    detector = new("patchcore")
    with pytest.raises(SettingError):
        budget.fit(detector, two, Budget(max_mb=0.001))
    assert detector.method.coreset_ratio == 0.05
    assert len(detector.method.bank_.rows) == int(0.05 * 2 * 64)


def test_a_budget_out_of_reach_is_one_sentence_of_what_fills_the_file(new, two, monkeypatch):
    monkeypatch.setattr(budget, "SHARES", (0.05,))
    with pytest.raises(SettingError) as refused:
        budget.fit(new(), two, Budget(max_mb=0.5, latency_ms=1e-6))
    assert re.fullmatch(
        r"An inspector must keep within its budget of 0\.5 MB and 1e-06 ms, got \d+\.\d MB \(backbone \d+\.\d, patches "
        r"0\.0, features for teaching 0\.\d\) and \d+ ms with 5 % of the patches; use fewer references, a "
        r"smaller input, another backbone or method, or a larger budget\.",
        str(refused.value),
    )


def test_a_single_reference_stays_whole(new, good_folder):
    assert budget.fit(new(), good_folder / "0.png", Budget(max_mb=100)).share == 1
    with pytest.raises(SettingError, match="with 100 % of the patches; give a second reference, as a single one"):
        budget.fit(new(), good_folder / "0.png", Budget(max_mb=0.5))


def test_a_method_that_keeps_no_share_is_refused_before_anything_is_learnt(new):
    able = [name for name, method in METHODS.items() if budget.SETTING in method.setting_names()]
    with pytest.raises(SettingError, match=f"must be one of {', '.join(able)}, got reb; choose one"):
        budget.fit(new("reb"), "nowhere", Budget(max_mb=5))


@pytest.mark.parametrize("limit", [0, -1, math.nan])
@pytest.mark.parametrize("name", ["max_mb", "latency_ms"])
def test_a_limit_must_be_above_0(name, limit):
    with pytest.raises(SettingError, match=rf"`{name}` must be above 0, got {limit:g}\."):
        Budget(**{name: limit})
