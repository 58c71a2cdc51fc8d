"""The threshold set without torch is what a `Detector` sets and saves, to the byte."""

import shutil
from datetime import UTC, datetime

import numpy as np
import pytest
import safetensors.numpy
from PIL import Image

from handful.detector import Detector
from handful.errors import OutputError, SettingError
from handful.fitting import revisions
from handful.saved import archive
from handful.saved.archive import GATE_ENTRY
from handful.saved.recalibration import SavedCalibration


class Clock(datetime):
    @classmethod
    def now(cls, tz=None):
        return datetime(2030, 1, 2, 3, 4, 5, tzinfo=UTC)


@pytest.fixture
def own(saved, tmp_path, ready_backbone, monkeypatch):
    """An inspector that the test may change, at a time of day that stands still."""
    monkeypatch.setattr(revisions, "datetime", Clock)
    return shutil.copy(saved, tmp_path / "own.handful")


def defect(picture_factory, seed=9):
    return Image.fromarray(picture_factory(seed, defect=True))


def as_fitted(path, picture_factory):
    pass


def taught(path, picture_factory):
    detector = Detector.load(path)
    mask = np.zeros((96, 96), np.uint8)
    mask[:20, :20] = 255
    detector.ignore(Image.fromarray(mask))
    detector.teach_good(Image.fromarray(picture_factory(30)), accept_odd=True)
    detector.add_normals([picture_factory(seed) for seed in (40, 41)], accept_odd=True)
    missed = defect(picture_factory)
    detector.set_threshold(1.5 * detector.inspect(missed)[0].raw_score)
    detector.teach_defect(missed, accept_cost=True)
    detector.save(path)


def edited(path, picture_factory):
    manifest, calibration, entries = archive.read(path)
    archive.write(path, manifest, calibration | {"threshold": 1.3 * calibration["threshold"]}, entries)


def of_an_earlier_version(path, picture_factory):
    manifest, calibration, entries = archive.read(path)
    del manifest["method"]["settings"]["sigma"]
    gate = {name: value for name, value in safetensors.numpy.load(entries[GATE_ENTRY]).items() if name != "detail"}
    manifest |= {"handful": "0.0.1", "format_version": 2}
    archive.write(path, manifest, calibration, entries | {GATE_ENTRY: safetensors.numpy.save(gate)})


@pytest.mark.parametrize("prepare", [as_fitted, taught, edited, of_an_earlier_version])
@pytest.mark.parametrize("change", [("set_rate", 0.01), ("set_threshold", 1e4)])
def test_the_file_is_the_one_that_a_detector_saves(own, tmp_path, picture_factory, prepare, change):
    prepare(own, picture_factory)
    other = shutil.copy(own, tmp_path / "other.handful")
    detector, saved = Detector.load(own), SavedCalibration(other)
    assert saved.basis == detector.basis
    corrections = [getattr(one, change[0])(change[1]) for one in (detector, saved)]
    assert corrections[0] == corrections[1]
    assert bool(corrections[1].warnings) == (prepare is taught and change[1] == 1e4)  # the recorded defect is missed
    detector.save(own)
    saved.save()
    assert own.read_bytes() == other.read_bytes()
    assert archive.read(other)[0]["digest"] == saved.digest == detector.digest == corrections[1].digests[1]


def test_several_changes_are_saved_one_after_the_other(own):
    saved = SavedCalibration(own)
    saved.set_rate(0.01)
    saved.save()
    saved.set_rate(0.2)
    saved.save()
    detector = Detector.load(own)
    assert [revision.value for revision in detector.revisions] == [0.01, 0.2]
    assert detector.undo(2).after.raw_threshold == detector.revisions[0].after


def test_a_file_that_another_has_corrected_is_left_alone(own):
    first, second = SavedCalibration(own), SavedCalibration(own)
    first.set_rate(0.01)
    first.save()
    second.set_rate(0.02)
    kept = own.read_bytes()
    with pytest.raises(OutputError, match="saved meanwhile"):
        second.save()
    assert own.read_bytes() == kept


@pytest.mark.parametrize("change", [("set_rate", 0.7), ("set_threshold", 0.0)])
def test_a_wrong_value_changes_nothing(own, change):
    saved = SavedCalibration(own)
    before = saved.calibration, saved.history, saved.digest
    with pytest.raises(SettingError):
        getattr(saved, change[0])(change[1])
    assert (saved.calibration, saved.history, saved.digest) == before


def test_defects_that_score_otherwise_since_need_a_detector(own, picture_factory):
    detector = Detector.load(own)
    missed = defect(picture_factory)
    detector.set_threshold(1.5 * detector.inspect(missed)[0].raw_score)
    detector.teach_defect(missed, accept_cost=True)
    detector.save(own)
    assert SavedCalibration(own).history.scores_stand
    number = detector.teach_good(Image.fromarray(picture_factory(30)), accept_odd=True).revision.number
    detector.save(own)
    with pytest.raises(SettingError, match="set its threshold by `Detector`"):
        SavedCalibration(own).set_rate(0.01)
    detector.undo(number)
    detector.save(own)
    assert not SavedCalibration(own).history.scores_stand
    detector.undo(2)  # no defect is recorded any more
    detector.save(own)
    assert SavedCalibration(own).set_rate(0.01).after.false_alarm_rate == 0.01
