"""Large pictures are looked at in tiles: small defects are found in their place, by one map without seams."""

import copy
import dataclasses
import json

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import ndimage

from handful.detector import Detector
from handful.errors import InputError, InspectorError, SettingError
from handful.evaluation import budget
from handful.evaluation.budget import Budget
from handful.fitting import sizing, tiling
from handful.inspector import Inspector
from handful.saved import archive
from handful.saved.state import EVIDENCE_OF_TILES

QUICK = {"engine": "torch", "device": "cpu"}
TINY = {**QUICK, "backbone": "test_efficientnet", "weights": "random"}
HEIGHT, WIDTH = 608, 800
CENTRES = [(70, 90), (300, 300), (304, 545), (150, 500), (760, 560)]  # the second and third where tiles overlap


def fabric(seed, *, defects=(), width=WIDTH, height=HEIGHT, diameter=4):
    """A fine texture, every seed another one: (height, width, 3). A defect is a dark disc at (x, y)."""
    generator = np.random.default_rng(seed)
    grey = ndimage.gaussian_filter(generator.normal(size=(height, width)), 0.7, mode="wrap")
    grey = 128 + 14 * grey / grey.std()
    y, x = np.mgrid[:height, :width]
    grey += 12 * np.sin(x / 2.5) * np.sin(y / 2.5)
    for at in defects:
        grey[np.hypot(x - at[0], y - at[1]) <= diameter / 2] = 20
    return np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2)


@pytest.fixture(autouse=True, scope="module")
def small():
    """Tiles for pictures of fewer pixels, and fewer patches, so that tests are quick."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sizing, "TILED_FROM", 400_000)
        patch.setattr(tiling, "KEPT", 1024)
        yield


@pytest.fixture(scope="module")
def detector():
    return Detector(size="auto", **QUICK).fit([fabric(seed) for seed in range(2)])


def test_auto_takes_tiles_and_says_so(detector):
    assert detector.tiles.frame == (608, 800) and detector.backbone_spec.size == detector.tiles.tile
    assert detector.sizing.startswith("auto: 697² pixels in tiles of about 320², as the references have 697²")
    assert detector.evidence == EVIDENCE_OF_TILES
    assert not detector.turning.turned


def test_defects_are_planted_on_the_tile_in_the_middle(detector):
    seen = detector.visibility
    assert seen.size == (WIDTH, HEIGHT) and seen.counted == 18 and seen.found >= 12
    assert seen.spots_from is not None and seen.spots_from <= 16  # pixels of the picture
    plain = Detector(size=320, **QUICK).fit([fabric(seed) for seed in range(2)]).visibility
    assert plain.spots_from is None or plain.spots_from > seen.spots_from
    assert seen.spots_tried[0] < plain.spots_tried[0]


@pytest.mark.parametrize("at", CENTRES)
def test_a_small_defect_is_found_once_and_in_its_place(detector, at):
    (found,) = detector.inspect([fabric(20, defects=[at])])
    assert found.verdict == "DEFECT" and found.size == (WIDTH, HEIGHT)
    assert found.heatmap.shape == (608, 800)
    (region,) = found.regions
    assert np.hypot(region.peak_at[0] - at[0], region.peak_at[1] - at[1]) <= 12
    left, top, width, height = region.box
    assert left <= at[0] < left + width and top <= at[1] < top + height
    assert region.nearest is not None and found.missing is not None


def test_one_input_does_not_see_it():
    whole = Detector(size=320, **QUICK).fit([fabric(seed) for seed in range(2)])
    assert {one.verdict for one in whole.inspect([fabric(20, defects=[at]) for at in CENTRES])} == {"OK"}


def test_a_good_picture_is_ok_and_its_map_has_no_seams(detector):
    (good,) = detector.inspect([fabric(21)])
    assert good.verdict == "OK" and not good.regions
    steps = [np.abs(np.diff(good.heatmap, axis=axis)) for axis in (0, 1)]
    starts = [sorted({place[axis] for place in detector.tiles.places}) for axis in (0, 1)]
    for axis in (0, 1):
        inner = list(starts[axis][1:]) + [start + detector.tiles.tile[axis] for start in starts[axis][:-1]]
        beside = np.concatenate([np.take(steps[axis], range(at - 2, at + 2), axis).ravel() for at in inner])
        # As large as elsewhere: a step where a tile begins or ends would stand out.
        assert np.quantile(beside, 0.99) <= 1.5 * np.quantile(steps[axis], 0.99)


def test_the_saved_graph_answers_alike_and_old_readers_refuse_the_file(tmp_path, monkeypatch):
    fast = Detector(size="auto", engine="openvino").fit([fabric(seed) for seed in range(2)])
    path = tmp_path / "part.handful"
    fast.save(path)
    inspector = Inspector.load(path)
    query = fabric(22, defects=[(300, 300)])
    there, here = inspector.inspect([query])[0], fast.inspect([query])[0]
    loaded = Detector.load(path)
    assert there.verdict == "DEFECT" and there.regions[0].box == here.regions[0].box
    assert there.score == pytest.approx(here.score, abs=1e-3)
    assert loaded.inspect([query])[0].raw_score == pytest.approx(here.raw_score, rel=1e-4)
    assert loaded.sizing == fast.sizing and loaded.tiles == fast.tiles and loaded.evidence == fast.evidence
    assert archive.read(path)[0]["format_version"] == archive.FORMAT_OF_TILES == 4
    monkeypatch.setattr(archive, "FORMAT_OF_TILES", 3)
    with pytest.raises(InspectorError, match="must be of format 2 to 3, got 4"):
        archive.read(path)


def test_a_file_without_tiles_is_one_that_older_versions_read(saved):
    manifest = archive.read(saved)[0]
    assert manifest["format_version"] == 3 and "fine" not in manifest["preprocessing"]


def test_it_is_copied_as_it_is(detector):
    query = fabric(23, defects=[(300, 300)])
    one, other = detector.inspect([query])[0], copy.deepcopy(detector).inspect([query])[0]
    assert one.raw_score == other.raw_score and np.array_equal(one.heatmap, other.heatmap)


def test_the_bank_does_not_grow_with_the_pictures():
    few, many = (
        Detector(size="auto", **TINY).fit([fabric(seed, width=width, height=640) for seed in range(2)])
        for width in (800, 1600)
    )
    assert len(many.tiles) > 1.7 * len(few.tiles)
    kept = [one._state.features.tiles[0].levels for one in (few, many)]
    for before, after in zip(*kept, strict=True):
        assert after.shape[:2] == (1, 1) and after.shape[2] <= 1.05 * before.shape[2]
    assert tiling.KEPT <= kept[1][0].shape[2] <= 1.05 * tiling.KEPT


def test_an_inspection_looks_at_each_tile_once_whatever_the_area(detector):
    shapes = []
    plain = detector.inspector
    counting = dataclasses.replace(plain, _forward=lambda image: shapes.append(image.shape) or plain._forward(image))
    counting.inspect([fabric(29)])
    assert shapes == [(3, *detector.tiles.tile)] * (1 + len(detector.tiles))  # and once at the picture as a whole


def test_a_blurred_picture_is_to_be_taken_again(detector):
    soft = ndimage.gaussian_filter(fabric(29), (1.0, 1.0, 0))  # half a pixel in one input, which does not show it
    found = detector.inspect([soft])[0]
    assert found.verdict == "RETAKE" and "must be as sharp as the references" in found.reason
    with pytest.raises(InputError, match="must be as sharp as the references"):
        copy.deepcopy(detector).teach_good([soft], accept_odd=True)


def test_a_single_reference_serves(detector):
    alone = Detector(size="auto", **QUICK).fit([fabric(0)])
    assert alone.tiles is not None
    good, bad = alone.inspect([fabric(24), fabric(25, defects=[(300, 300)], diameter=8)])  # it errs to OK
    assert (good.verdict, bad.verdict) == ("OK", "DEFECT")


def test_corrections_count_in_tiles(detector):
    corrected = copy.deepcopy(detector)
    before = corrected.calibration
    alarm = fabric(30, defects=[(300, 300)])
    done = corrected.teach_good([alarm], accept_odd=True)
    (was, now) = done.scores[0]
    assert was > 1 > now and corrected.inspect([alarm])[0].verdict == "OK"
    digest = corrected.digest
    corrected.undo(1)
    again, first = corrected.inspect([alarm])[0], detector.inspect([alarm])[0]
    assert again.raw_score == first.raw_score and np.array_equal(again.heatmap, first.heatmap)
    assert corrected.digest != digest and corrected.calibration == before

    more = corrected.add_normals([fabric(seed) for seed in range(31, 34)])
    assert more.after.pictures == before.references + 3

    with pytest.raises(SettingError, match="must be inspected in a single input for a region to be ignored"):
        corrected.ignore(np.eye(200, dtype=np.uint8) * 255)


def test_a_missed_defect_lowers_the_threshold_and_is_seen_again(detector):
    corrected = copy.deepcopy(detector)
    corrected.set_threshold(corrected.calibration.threshold * 3)
    missed = fabric(40, defects=[(300, 300)])
    assert corrected.inspect([missed])[0].verdict == "OK"
    corrected.teach_defect([missed], accept_cost=True)
    assert corrected.inspect([missed])[0].verdict == "DEFECT"
    kept = corrected._state.features.defects[0]
    score = float(corrected.method.score(kept).maps.max())
    assert score == corrected.inspect([missed])[0].raw_score  # its strangest tile is kept


def test_a_budget_leaves_out_patches():
    references = [fabric(seed, width=704) for seed in range(2)]
    whole = budget.fit(Detector(size="auto", **TINY), references, Budget(max_mb=100))
    assert whole.share == 1 and whole.megabytes is not None
    small = Detector(size="auto", **TINY)
    kept = budget.fit(small, references, Budget(max_mb=whole.megabytes - 0.05))
    assert kept.share < 1 and kept.megabytes < whole.megabytes and small.tiles is not None


def test_the_command_line_says_what_is_looked_at(command_line, tmp_path):
    for seed in range(3):
        Image.fromarray(fabric(seed, width=704, height=608)).save(tmp_path / f"{seed}.png")
    part = tmp_path / "part.handful"
    options = ("--backbone", "test_efficientnet", "--weights", "random", "--engine", "torch", "--size", "auto")
    _, lines, said = command_line("fit", tmp_path / "0.png", tmp_path / "1.png", "-o", part, *options)
    assert lines[2] == "size auto: 654² pixels in tiles of about 320², as the references have 654² pixels", said
    _, rows, _ = command_line("info", part)
    assert "tiles       9 of 352 x 288 pixels over 704 x 608; a picture's score is its map's peak" in rows
    assert f"evidence    {EVIDENCE_OF_TILES}" in rows
    _, lines, _ = command_line("inspect", part, tmp_path / "2.png", "--json", "--report", tmp_path / "report")
    assert json.loads(lines[0])["size"] == [704, 608] and (tmp_path / "report" / "index.html").exists()


def test_exporting_is_refused(detector, tmp_path):
    with pytest.raises(SettingError, match="must take each picture as a single input to be written as a graph"):
        detector.export(tmp_path / "graph")


def test_a_method_that_needs_the_grid_takes_one_input():
    found = Detector("patchcore", size="auto", **TINY).fit([fabric(seed) for seed in range(2)])
    assert found.tiles is None and "the most for one input" in found.sizing


def test_16_bits_are_seen_as_8_bits(detector):
    query = fabric(26, defects=[(300, 300)])
    eight = detector.inspect([query])[0]
    deep = detector.inspect([query.astype(np.uint16) * 257])[0]
    assert deep.verdict == "DEFECT" and deep.raw_score == pytest.approx(eight.raw_score, rel=1e-3)


def test_a_picture_of_another_shape_lies_in_the_frame_of_tiles(detector):
    (found,) = detector.inspect([fabric(27, width=400, defects=[(200, 300)])])
    assert found.verdict == "DEFECT" and found.notes
    assert found.heatmap.shape == (608, 400)
    assert np.hypot(found.regions[0].peak_at[0] - 200, found.regions[0].peak_at[1] - 300) <= 12


def test_a_score_that_is_not_finite_is_an_error(detector):
    broken = copy.deepcopy(detector)
    broken._state.method.rows_[0].fill_(torch.nan)
    assert broken.inspect([fabric(28)])[0].verdict == "ERROR"
