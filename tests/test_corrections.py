"""What a person corrects in an inspector holds, is kept with it, and can be taken back to the bit."""

import dataclasses
import json
import re

import numpy as np
import pytest
import torch
from PIL import Image

from handful import backbones, methods
from handful.detector import Detector
from handful.errors import ImageError, InputError, InspectorError, OutputError, SettingError
from handful.fitting import oddity
from handful.fitting.reference_features import ReferenceFeatures
from handful.inspection.threshold import DEFAULT_RATE
from handful.methods import HEAD_TRAININGS, METHODS
from handful.saved import archive
from handful.saved.history import HISTORY_ENTRY
from handful.saved.state import _feature_entries, _reference_features
from handful.training import head_file
from handful.types import Features

SETTINGS = {"coft": {"views": 3}, "fasl": {"winmode": "mul", "win_size": 4, "win_stride": 2}}
LOOKS_BEYOND_PATCHES = [
    name
    for name, method in sorted(METHODS.items())
    if method.needs_text or method(**SETTINGS.get(name, {})).crops_wanted is not None
]


@pytest.fixture(scope="module")
def picture(picture_factory):
    return picture_factory


@pytest.fixture(scope="module")
def make(fitted, picture, tiny_clip):
    """A detector of a method, fitted to three pictures (or as many as wanted)."""
    plain = fitted._needed.backbone
    clip = backbones.create(tiny_clip, weights="random", device="cpu")

    def fit(name="patchcore", count=3):
        backbone, head = clip if METHODS[name].needs_text else plain, None
        if name in HEAD_TRAININGS:
            training = HEAD_TRAININGS[name](**HEAD_TRAININGS[name].quick)
            depths = backbone(torch.zeros(1, 3, 64, 64)).depths
            identity = head_file.identity(backbone.spec)
            record = head_file.Record(name, training.settings, depths, identity, (), (), {}, (), 0)
            head = head_file.TrainedHead(training.make_head(depths, seed=0).eval(), record, "0", "head.safetensors")
        detector = Detector(name, settings=SETTINGS.get(name), backbone=backbone, head=head, gate=("blank",))
        return detector.fit([picture(seed) for seed in range(count)], accept_odd=backbone is clip)  # of random weights

    return fit


@pytest.fixture
def detector(make):
    return make()


def answers(detector, pictures):
    return [
        (one.raw_score, one.verdict, one.heatmap.tobytes(), one.raw_threshold, one.regions)
        for one in detector.inspect(pictures)
    ]


def state(detector):
    return {name: tensor.clone() for name, tensor in detector.method.state().items()}


def same_state(one, other):
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def half_mask(side=40):
    mask = np.zeros((side, side), dtype=np.uint8)
    mask[:, side // 2 :] = 255
    return mask


# --- teach


@pytest.mark.parametrize("name", sorted(METHODS))
def test_undoing_gives_every_score_back_to_the_bit(name, make, picture):
    detector = make(name)
    pictures = [picture(50), picture(51, defect=True)]
    before, learnt, calibration = answers(detector, pictures), state(detector), detector.calibration
    seen = detector.visibility
    assert (seen.tried, seen.changed) == (18, 0) and seen.found <= seen.counted
    detector.teach_good([picture(60), picture(61, defect=True)], accept_odd=True)
    if name not in LOOKS_BEYOND_PATCHES:
        detector.ignore(half_mask())
    assert not same_state(state(detector), learnt)
    assert answers(detector, pictures) != before
    assert detector.visibility.changed == len(detector.revisions)
    for number in range(1, len(detector.revisions) + 1):
        detector.undo(number)
    assert answers(detector, pictures) == before
    assert same_state(state(detector), learnt)
    assert detector.calibration == calibration
    assert detector.visibility == seen
    assert len(detector.references) == 3


def test_a_part_that_turns_is_taught_and_untaught_in_turned_copies(fitted, picture, tmp_path):
    detector = Detector("handful", settings={"turn": "always"}, backbone=fitted._needed.backbone, gate=("blank",))
    detector.fit([picture(seed) for seed in range(2)])
    learnt, pictures = state(detector), [picture(50), picture(51, defect=True)]
    before = answers(detector, pictures)
    detector.teach_good(picture(60))
    for name, tensor in state(detector).items():
        if name.startswith(
            ("rows", "turned")
        ):  # patches of three pictures and of their copies; groups are filled up by some again
            patches, before_it = (len(of.flatten(0, -2).unique(dim=0)) for of in (tensor, learnt[name]))
            assert patches == pytest.approx(1.5 * before_it, rel=0.01)
    detector.save(tmp_path / "part.handful")
    again = Detector.load(tmp_path / "part.handful", device="cpu")
    assert answers(again, pictures) == answers(detector, pictures)
    again.undo(1)
    assert same_state(state(again), learnt)
    assert answers(again, pictures) == before


@pytest.mark.parametrize("name", sorted(METHODS))
def test_what_was_taught_is_a_fit_of_references_and_it(name, make, picture):
    detector = make(name, 3)
    detector.teach_good(picture(3))
    assert same_state(state(detector), state(make(name, 4)))


def test_undoing_the_first_of_two_leaves_the_second(make, picture):
    both, second = make(), make()
    both.teach_good(picture(60))
    both.teach_good(picture(61))
    both.undo(1)
    second.teach_good(picture(61))
    assert same_state(state(both), state(second))
    assert [one.sha256 for one in both.references] == [one.sha256 for one in second.references]


def test_a_taught_picture_is_ok_from_then_on_and_the_threshold_stays(detector, picture):
    odd = picture(51, defect=True)
    assert detector.inspect(odd)[0].verdict == "DEFECT"
    threshold = detector.calibration.threshold
    correction = detector.teach_good(odd, accept_odd=True)
    assert detector.inspect(odd)[0].verdict == "OK"
    assert detector.calibration.threshold == threshold
    ((before, after),) = correction.scores
    assert before > 1 > after
    assert correction.revision.pictures[0].raw_score > threshold


def test_a_picture_far_from_good_is_learnt_only_if_a_person_insists(detector, picture):
    noise = np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)
    before = state(detector)
    with pytest.raises(
        InputError, match=r"got picture 1, which scores [\d.]+, where .* the threshold is 1.*accept-odd"
    ):
        detector.teach_good([picture(60), noise])
    assert same_state(state(detector), before) and detector.revisions == ()
    (warning,) = detector.teach_good(noise, accept_odd=True).warnings
    assert "far from good" in warning and "undo revision 1" in warning


def test_a_good_picture_is_taught_unasked(detector, picture):
    assert detector.inspect(picture(60))[0].score < oddity.FAR
    assert detector.teach_good(picture(60)).warnings == ()


def test_a_taught_picture_of_another_depth_is_told_so(detector, picture):
    deep = np.rint(picture(7) / 255 * 4095).astype(np.uint16)
    (said,) = detector.teach_good([deep], accept_odd=True).warnings
    assert "holds values of 12 bits where the references have 8" in said
    assert [reference.bits for reference in detector.references] == [8, 8, 8, 12]
    assert detector.add_normals([deep[:, ::-1]], accept_odd=True).warnings == ()  # of a depth that is known by now


def test_recorded_defects_are_part_of_what_an_odd_picture_costs(detector, picture):
    missed = picture(51, defect=True)
    detector.set_threshold(detector.calibration.typical * 1.2)  # so low that whatever is taught is far from good
    detector.set_threshold(detector.inspect(missed)[0].raw_score * 1.01)
    detector.teach_defect(missed, accept_cost=True)
    detector.set_threshold(detector.calibration.typical * 1.2)
    near = missed.copy()
    near[0, 0] += 1
    with pytest.raises(InputError, match="1 recorded defect would be missed"):
        detector.teach_good(near)


@pytest.mark.parametrize("seed", [0, 60])
def test_a_picture_is_not_taught_twice(detector, picture, seed):
    detector.teach_good(picture(60))
    before = state(detector), detector.calibration, detector.revisions
    with pytest.raises(InputError, match="must not be given twice"):
        detector.teach_good([picture(61), picture(seed)])
    assert same_state(before[0], state(detector))
    assert (detector.calibration, detector.revisions) == before[1:]


def test_an_undone_picture_may_be_taught_again(detector, picture):
    detector.teach_good(picture(60))
    detector.undo(1)
    assert detector.teach_good(picture(60)).revision.number == 3


def test_a_picture_that_shows_nothing_or_cannot_be_read_is_refused(detector, tmp_path):
    with pytest.raises(InputError, match="almost uniform"):
        detector.teach_good(np.full((50, 50, 3), 9, dtype=np.uint8))
    with pytest.raises(ImageError, match="nowhere"):
        detector.add_normals(tmp_path / "nowhere.png")
    assert detector.revisions == ()


@pytest.mark.parametrize("number", [0, 2, 3, -1])
def test_only_a_standing_revision_is_undone(detector, picture, number):
    detector.teach_good(picture(60))
    detector.undo(1)
    with pytest.raises(SettingError, match=r"revisions that stand: none\)"):
        detector.undo(number if number != 3 else 1)


# --- ignore


@pytest.mark.parametrize("name", LOOKS_BEYOND_PATCHES)
def test_a_region_cannot_be_ignored_where_more_than_patches_count(name, make):
    with pytest.raises(SettingError, match="must score by patches alone"):
        make(name).ignore(half_mask())


@pytest.mark.parametrize("name", sorted(set(METHODS) - set(LOOKS_BEYOND_PATCHES)))
def test_what_an_ignored_region_shows_changes_nothing_but_beside_it(name, make, picture):
    # The backbone itself looks beyond a patch, so the region is drawn wider than what it is to hide.
    detector = make(name)
    part = picture(50)
    stained = part.copy()
    stained[40:56, 76:88] = (255, 0, 255)
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[20:76, 48:] = 255
    open_eyed = [i.raw_score for i in detector.inspect([part, stained])]
    detector.ignore(mask)
    plain, hidden = detector.inspect([part, stained])
    assert abs(hidden.raw_score - plain.raw_score) <= 0.35 * abs(open_eyed[1] - open_eyed[0])
    inside, small = mask[::3, ::3] > 0, hidden.heatmap[::2, ::2]  # 96 and 64 pixels wide
    assert np.all(small[inside] == hidden.heatmap.min())


def test_a_defect_outside_of_the_ignored_region_is_still_found(detector, picture):
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[:16, :16] = 255
    detector.ignore(mask)
    good, bad = detector.inspect([picture(50), picture(51, defect=True)])
    assert (good.verdict, bad.verdict) == ("OK", "DEFECT")


def test_the_threshold_follows_what_the_references_show_outside(make, picture, tmp_path):
    # Good parts that differ on the right alone: with the right half ignored they are alike.
    def part(seed):
        pixels = picture(seed)
        pixels[:, 48:] = np.random.default_rng(seed).integers(0, 255, (96, 48, 3))
        return pixels

    detector = make().fit([part(seed) for seed in range(3)])
    detector.set_rate(0.01)
    before = detector.calibration.threshold
    detector.ignore(half_mask())
    assert detector.calibration.threshold < 0.9 * before
    assert detector.inspect(part(9))[0].verdict == "OK"


def test_the_share_of_the_frame_that_is_ignored_is_said(detector, tmp_path):
    first, second = np.zeros((2, 40, 40), dtype=np.uint8)
    first[:4], second[2:8] = 255, 255
    correction = detector.ignore(first)
    assert correction.ignored == correction.revision.value == pytest.approx(0.1, abs=0.02)  # to a pixel of 64
    assert re.search(r"of the frame$", correction.revision.words)
    correction = detector.ignore(second)
    assert correction.revision.value == pytest.approx(0.15, abs=0.02)
    assert correction.ignored == pytest.approx(0.2, abs=0.02)
    assert detector.undo(1).ignored == correction.revision.value
    assert detector.undo(2).ignored is None
    detector.save(tmp_path / "part.handful")
    assert Detector.load(tmp_path / "part.handful", device="cpu").revisions == detector.revisions


def test_most_of_the_frame_is_ignored_only_if_a_person_insists(detector):
    mask = np.full((40, 40), 255, dtype=np.uint8)
    mask[:8] = 0
    with pytest.raises(InputError, match="got 80% ignored with .*black and white.*accept-odd"):
        detector.ignore(mask)
    assert detector.revisions == ()
    assert detector.ignore(mask, accept_odd=True).ignored == pytest.approx(0.8, abs=0.02)


def test_two_regions_add_up_and_cannot_leave_nothing(detector):
    detector.ignore(half_mask())
    with pytest.raises(InputError, match="a part of the frame to inspect"):
        detector.ignore(255 - half_mask())
    for blank in (0, 255):
        with pytest.raises(InputError, match="white on black"):
            detector.ignore(np.full((9, 9), blank, dtype=np.uint8))


def test_further_pictures_count_only_while_the_same_is_ignored(detector, picture):
    detector.add_normals([picture(seed) for seed in range(50, 60)], accept_odd=True)
    assert detector.basis.pictures == 13
    detector.ignore(half_mask())
    assert detector.basis.pictures == 3
    detector.undo(2)
    assert detector.basis.pictures == 13


# --- the threshold


def test_further_pictures_narrow_the_range(detector, picture):
    correction = detector.add_normals([picture(seed) for seed in range(50, 70)], accept_odd=True)
    before, after = correction.before, correction.after
    assert after.pictures == 23 and before.pictures == 3
    assert np.log(after.high / after.low) < np.log(before.high / before.low)
    assert after.predicted_rate == pytest.approx(DEFAULT_RATE)
    assert "20 further good pictures" in detector.calibration.rests_on
    detector.undo(1)
    assert detector.basis == before


def test_further_pictures_are_not_learnt(detector, picture):
    learnt = state(detector)
    detector.add_normals(picture(50))
    assert same_state(learnt, state(detector))


def test_odd_further_pictures_are_refused_unless_accepted(detector, picture):
    with pytest.raises(InputError, match="nothing like a good picture"):
        detector.add_normals([picture(50), np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8)])
    copy = picture(0).copy()
    copy[0, 0] += 1
    with pytest.raises(InputError, match="like a copy"):
        detector.add_normals(copy)
    assert detector.revisions == ()
    assert detector.add_normals(copy, accept_odd=True).revision.number == 1


def test_another_rate_comes_from_the_same_scores(make, fitted, picture):
    detector = make()
    references = [picture(seed) for seed in range(3)]
    other = Detector("patchcore", backbone=fitted._needed.backbone, false_alarm_rate=0.05).fit(references)
    detector.set_rate(0.05)
    assert detector.calibration == other.calibration
    with pytest.raises(SettingError, match="false-alarm rate"):
        detector.set_rate(0.7)


def test_a_threshold_by_hand_says_what_the_scores_predict(detector):
    basis = detector.basis
    correction = detector.set_threshold(basis.typical * 1.001)
    # A typical score is what three references give, the prediction what two gave: a little over half.
    assert 0.5 < correction.after.predicted_rate < 0.7
    assert "set it by hand" in detector.calibration.rests_on and "of 100 good parts" in detector.calibration.rests_on
    with pytest.raises(SettingError, match="above the score of a typical"):
        detector.set_threshold(basis.typical)
    detector.set_rate(DEFAULT_RATE)
    assert detector.basis == basis


def test_a_missed_defect_costs_false_alarms_and_is_found_then(detector, picture):
    missed = picture(51, defect=True)
    detector.set_threshold(detector.inspect(missed)[0].raw_score * 1.5)
    with pytest.raises(
        SettingError, match=r"10 000 good parts would be rejected instead of fewer than 1 of 10 000.*accept"
    ):
        detector.teach_defect(missed)
    assert len(detector.revisions) == 1 and detector.inspect(missed)[0].verdict == "OK"
    detector.teach_defect(missed, accept_cost=True)
    assert detector.inspect(missed)[0].verdict == "DEFECT"
    assert "missed defect of revision 2" in detector.calibration.rests_on
    with pytest.raises(SettingError, match="must not be a DEFECT already"):
        detector.teach_defect(np.random.default_rng(0).integers(0, 255, (96, 96, 3), dtype=np.uint8))
    with pytest.raises(InputError, match="must not be given twice"):
        detector.teach_good(missed)


def test_a_missed_defect_that_the_gate_doubts_is_recorded_and_found_then(detector):
    empty = np.full((96, 96, 3), 200, dtype=np.uint8)
    detector.set_threshold(detector.inspect(empty)[0].raw_score * 1.5)
    assert detector.inspect(empty)[0].verdict == "RETAKE"
    detector.teach_defect(empty, accept_cost=True)
    (found,) = detector.inspect(empty)
    assert found.verdict == "DEFECT" and "almost uniform" in found.notes[0]
    with pytest.raises(InputError, match="almost uniform"):
        detector.add_normals(np.full((96, 96, 3), 199, dtype=np.uint8))


def test_a_defect_like_a_good_part_cannot_be_bought(detector, picture):
    good = min((picture(seed) for seed in range(50, 60)), key=lambda pixels: detector.inspect(pixels)[0].raw_score)
    darker = (good * 0.98).astype(np.uint8)
    if detector.inspect(darker)[0].raw_score > detector.calibration.typical:
        pytest.skip("it scores above a typical good part")
    with pytest.raises(SettingError, match="to be told from it"):
        detector.teach_defect(darker, accept_cost=True)


def test_a_defect_that_is_missed_again_is_named(detector, picture):
    missed = picture(51, defect=True)
    detector.set_threshold(detector.inspect(missed)[0].raw_score * 1.5)
    detector.teach_defect(missed, accept_cost=True)
    near = missed.copy()
    near[0, 0] += 1
    assert any("is missed now" in warning for warning in detector.teach_good(near, accept_odd=True).warnings)


# --- the file


def test_all_corrections_come_back_from_the_file(detector, picture, tmp_path):
    detector.teach_good(picture(60))
    detector.ignore(half_mask())
    detector.add_normals([picture(50), picture(52)], accept_odd=True)
    missed = picture(51, defect=True)
    detector.set_threshold(1e3)
    detector.teach_defect(missed, accept_cost=True)
    detector.save(tmp_path / "part.handful")
    loaded = Detector.load(tmp_path / "part.handful", device="cpu")
    pictures = [picture(53), missed]
    assert loaded.revisions == detector.revisions and loaded.basis == detector.basis
    assert answers(loaded, pictures) == answers(detector, pictures)
    for one in (loaded, detector):
        for number in (1, 2, 3):
            one.undo(number)
    assert answers(loaded, pictures) == answers(detector, pictures)
    dates = [dataclasses.replace(r, date="") for r in loaded.revisions]
    assert dates == [dataclasses.replace(r, date="") for r in detector.revisions]
    loaded.save(tmp_path / "again.handful")
    assert "defects.safetensors" in archive.read(tmp_path / "again.handful")[2]
    assert "ignored.safetensors" not in archive.read(tmp_path / "again.handful")[2]


def test_a_threshold_edited_in_the_file_is_a_revision_of_its_own(saved, rezip, picture):
    calibration = archive.read(saved)[1] | {"threshold": 123.0}
    edited = Detector.load(rezip(saved, {"calibration.json": json.dumps(calibration).encode()}), device="cpu")
    edited.teach_good(picture(60))
    assert [one.kind for one in edited.revisions] == ["threshold", "good"]
    assert edited.calibration.threshold == 123
    edited.undo(1)
    assert edited.calibration == Detector.load(saved, device="cpu").calibration


def test_an_inspector_of_format_1_is_refused_in_a_sentence(saved, tmp_path, monkeypatch):
    manifest, calibration, parts = archive.read(saved)
    manifest.pop("format_version")
    monkeypatch.setattr(archive, "FORMAT_VERSION", 1)
    archive.write(tmp_path / "old.handful", manifest, calibration, parts)
    monkeypatch.undo()
    with pytest.raises(InspectorError, match=r"must be of format 2 to 4, got 1.*fit it again"):
        Detector.load(tmp_path / "old.handful", device="cpu")


@pytest.mark.parametrize("change", [b"[]", b"{", b'{"rate": 1}'])
def test_revisions_that_cannot_be_read_are_refused(saved, tmp_path, change):
    manifest, calibration, parts = archive.read(saved)
    manifest.pop("format_version")
    archive.write(tmp_path / "odd.handful", manifest, calibration, parts | {HISTORY_ENTRY: change})
    with pytest.raises(InspectorError, match="revisions"):
        Detector.load(tmp_path / "odd.handful", device="cpu")


def test_a_correction_that_cannot_be_saved_leaves_the_old_file(detector, picture, tmp_path, monkeypatch):
    path = tmp_path / "part.handful"
    detector.save(path)
    before = path.read_bytes()
    detector.teach_good(picture(60))

    def fail(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("zipfile.ZipFile._write_end_record", fail)
    with pytest.raises(OutputError):
        detector.save(path)
    monkeypatch.undo()
    assert path.read_bytes() == before and [one.name for one in tmp_path.iterdir()] == ["part.handful"]


def test_the_features_are_kept_as_the_backbone_gave_them(detector, picture, tmp_path, fitted):
    Image.fromarray(picture(60)).save(tmp_path / "taught.png")
    detector.teach_good(tmp_path / "taught.png")
    detector.save(tmp_path / "part.handful")
    loaded = Detector.load(tmp_path / "part.handful", device="cpu")
    kept = loaded._needed.features.learnt
    fresh = [detector._needed.preprocessing(p) for p in map(read, [picture(0), picture(60)])]
    for one, image in zip((kept[0], kept[3]), fresh, strict=True):
        levels = fitted._needed.backbone(torch.from_numpy(image)[None]).levels
        assert all(torch.equal(a, b) for a, b in zip(one.levels, levels, strict=True))
    assert methods.METHODS[loaded.method.name] is type(loaded.method)


def test_all_that_features_consist_of_is_kept():
    generator = torch.Generator().manual_seed(0)

    def one():
        crops = tuple(torch.randn(1, 5, n, n, 3, generator=generator) for n in (3, 2))
        levels = tuple(torch.randn(1, n, n, 3, generator=generator) for n in (4, 2))
        image, text = torch.randn(1, 7, generator=generator), torch.ones(2, 7)
        return Features(levels, (32, 32), image, text, Features(crops, (24, 16)))

    learnt = (one(), one())
    back = _reference_features(_feature_entries(ReferenceFeatures(learnt)), size=(32, 32), device="cpu").learnt
    assert len(back) == 2
    for kept, given in zip(back, learnt, strict=True):
        assert (kept.size, kept.crops.size) == ((32, 32), (24, 16))
        for name in ("image", "text"):
            assert torch.equal(getattr(kept, name), getattr(given, name))
        pairs = zip((*kept.levels, *kept.crops.levels), (*given.levels, *given.crops.levels), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


def read(pixels):
    from handful.data.images import read_picture

    return read_picture(pixels)


@pytest.mark.parametrize("options", [("--rate", "1e-300"), ("--rate", "nan"), ("--set", "1e308"), ("--set", "inf")])
def test_a_threshold_that_no_file_can_hold_leaves_the_inspector_as_it_was(saved, tmp_path, command_line, options):
    path = tmp_path / "part.handful"
    path.write_bytes(saved.read_bytes())
    code, _, err = command_line("threshold", path, *options)
    assert (code, len(err)) == (2, 1)
    assert path.read_bytes() == saved.read_bytes()
