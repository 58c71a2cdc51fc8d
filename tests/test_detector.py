import copy
import dataclasses
import zipfile

import numpy as np
import pytest
import torch
from PIL import Image

from handful import Detector
from handful.errors import ImageError, InputError, NotFittedError, SettingError
from handful.fitting.calibration import averaged, fit_and_calibrate
from handful.fitting.rotation import Rotation
from handful.methods.coft.scoring import COFT
from handful.saved import archive
from handful.types import Features

QUICK = {"size": 64, "engine": "torch", "device": "cpu"}


def disc(seed, *, defect=None, size=96):
    """A textured disc on grey; `defect` (left, top, side) paints a dark square."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:size, :size] - size / 2
    grey = np.where(np.hypot(x, y) < 0.4 * size, 170, 60) + generator.normal(0, 6, (size, size))
    pixels = np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, axis=2)
    if defect:
        left, top, side = defect
        pixels[top : top + side, left : left + side] = (20, 10, 10)
    return pixels


@pytest.fixture(scope="module")
def detector():
    return Detector(**QUICK).fit([disc(seed) for seed in range(4)])


def same(one, other):
    return (
        one.raw_score == other.raw_score
        and np.array_equal(one.heatmap, other.heatmap)
        and one.regions == other.regions
        and one.verdict == other.verdict
    )


def test_a_defect_is_rejected_at_its_place_and_a_good_part_is_not(detector):
    good, bad = detector.inspect([disc(50), disc(51, defect=(40, 55, 14))])
    assert (good.verdict, bad.verdict) == ("OK", "DEFECT")
    assert good.regions == () and good.score < 1 < bad.score
    left, top, width, height = bad.regions[0].box
    assert left < 47 < left + width and top < 62 < top + height
    assert bad.size == (96, 96)
    assert bad.heatmap.shape == (64, 64) and bad.heatmap.dtype == np.float32
    assert float(bad.heatmap.max()) == pytest.approx(bad.regions[0].peak)


def test_a_good_parts_map_stays_below_its_threshold(detector):
    for inspection in detector.inspect([disc(seed) for seed in range(60, 66)]):
        assert float(inspection.heatmap.max()) < 1


def test_every_kind_of_source_gives_the_same_answer(detector, tmp_path):
    pixels = disc(51, defect=(40, 55, 14))
    file = tmp_path / "part.png"
    Image.fromarray(pixels).save(file)
    sources = [file, str(file), Image.open(file), pixels, torch.from_numpy(pixels).movedim(2, 0), tmp_path]
    first, *others = [detector.inspect(source)[0] for source in sources]
    assert all(same(first, other) for other in others)
    assert first.path == str(file)
    assert detector.inspect([pixels, pixels])[1].path == "picture 1"


def test_an_unreadable_picture_is_an_error_and_the_others_go_on(detector, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    Image.fromarray(disc(50)).save(tmp_path / "b.png")
    broken, fine = detector.inspect(tmp_path)
    assert broken.verdict == "ERROR" and "a.png" in broken.reason and broken.raw_score is None
    assert fine.verdict == "OK"


def test_a_blank_picture_is_doubted(detector):
    for value in (0, 128, 255):
        (inspection,) = detector.inspect(np.full((50, 50, 3), value, dtype=np.uint8))
        (sentence,) = inspection.notes if inspection.verdict == "DEFECT" else (inspection.reason,)
        assert "uniform" in sentence


def test_references_of_different_sizes_and_aspects_are_taken(detector):
    mixed = Detector(**QUICK).fit([disc(0), disc(1, size=200), Image.fromarray(disc(2)).resize((120, 60))])
    assert len(mixed.references) == 3
    assert mixed.inspect(disc(50, size=300))[0].size == (300, 300)


@pytest.mark.parametrize(("squeeze", "shape"), [(True, (64, 128)), (False, (64, 64))])
def test_an_oblong_input_keeps_places_right(squeeze, shape):
    options = {"size": (64, 128), "squeeze": squeeze, "engine": "torch", "device": "cpu"}
    oblong = Detector(**options).fit([disc(seed) for seed in range(3)])
    (bad,) = oblong.inspect(disc(51, defect=(30, 60, 16)))
    x, y = bad.regions[0].peak_at
    assert abs(x - 38) <= 8 and abs(y - 68) <= 8
    assert bad.heatmap.shape == shape


def test_a_detector_says_what_it_is(detector, tmp_path):
    assert repr(Detector("patchcore", **QUICK)) == "<Detector by patchcore, not fitted>"
    said = f"<Detector by handful on tf_efficientnet_lite0, 4 good pictures, threshold {detector.raw_threshold:.4g}>"
    detector.save(tmp_path / "part.handful")
    assert repr(detector) == repr(Detector.load(tmp_path / "part.handful")) == said


def test_one_reference_answers():
    alone = Detector(**QUICK).fit(disc(0))
    good, bad = alone.inspect([disc(50), disc(51, defect=(30, 30, 30))])
    assert (good.verdict, bad.verdict) == ("OK", "DEFECT")
    assert "single good picture" in alone.calibration.rests_on


@pytest.mark.parametrize(("method", "settings"), [("patchcore", {}), ("fastrecon", {}), ("coft", {"views": 5})])
def test_saved_and_loaded_it_answers_bit_for_bit_equal(method, settings, tmp_path):
    fitted = Detector(method, settings=settings, **QUICK).fit([disc(seed) for seed in range(3)])
    fitted.save(tmp_path / "part.handful")
    loaded = Detector.load(tmp_path / "part.handful", device="cpu")
    pictures = [disc(50), disc(51, defect=(40, 55, 14))]
    assert all(same(a, b) for a, b in zip(fitted.inspect(pictures), loaded.inspect(pictures), strict=True))
    assert loaded.calibration == fitted.calibration
    assert loaded.backbone_spec == fitted.backbone_spec
    assert loaded.references == fitted.references
    assert loaded.method.settings == fitted.method.settings
    loaded.save(tmp_path / "again.handful")
    assert (tmp_path / "again.handful").read_bytes() == (tmp_path / "part.handful").read_bytes()


def test_a_loaded_inspector_is_fitted_anew_on_its_own_backbone(detector, tmp_path):
    detector.save(tmp_path / "part.handful")
    again = Detector.load(tmp_path / "part.handful", device="cpu").fit([disc(seed) for seed in range(10, 13)])
    assert again.backbone_spec == detector.backbone_spec  # 64 pixels and torch, not the defaults
    assert len(again.references) == 3
    assert again.inspect(disc(10))[0].raw_score < 0.1 * again.calibration.typical  # it is among them


@pytest.mark.parametrize("method", ["patchcore", "fastrecon"])
def test_both_engines_give_the_same_scores(method, tmp_path):
    fitted = Detector(method, size=64, engine="openvino").fit([disc(seed) for seed in range(3)])
    fitted.save(tmp_path / "part.handful")
    other = Detector.load(tmp_path / "part.handful", engine="torch", device="cpu")
    assert (fitted.backbone_spec.engine, other.backbone_spec.engine) == ("openvino", "torch")
    for seed in range(50, 54):
        (one,), (two,) = fitted.inspect(disc(seed, defect=(40, 55, 14))), other.inspect(disc(seed, defect=(40, 55, 14)))
        assert two.raw_score == pytest.approx(one.raw_score, rel=1e-4)  # float32 sums in another order
        assert np.abs(one.heatmap - two.heatmap).max() < 1e-2
        assert one.verdict == two.verdict


def test_bf16_is_recorded_and_calibrated_at_or_refused_where_the_cpu_lacks_it(tmp_path):
    bf16 = Detector(size=64, engine="openvino", precision="bf16")
    try:
        bf16.fit([disc(seed) for seed in range(3)])
    except SettingError as error:
        assert "use f32" in str(error)
        return
    bf16.save(tmp_path / "part.handful")
    loaded = Detector.load(tmp_path / "part.handful")
    assert loaded.backbone_spec.precision == "bf16"
    (one,), (two,) = bf16.inspect(disc(51)), loaded.inspect(disc(51))
    assert two.raw_score == pytest.approx(one.raw_score, rel=1e-4) and one.verdict == two.verdict == "OK"
    exact = Detector(size=64, engine="openvino").fit([disc(seed) for seed in range(3)]).inspect(disc(51))[0]
    assert one.raw_score != exact.raw_score  # it really is another precision
    assert one.raw_score == pytest.approx(exact.raw_score, rel=0.1)


def test_a_picture_and_its_sixteen_bit_copy_score_alike(detector):
    pixels = disc(51, defect=(40, 55, 14))
    deep = pixels.astype(np.uint16) * 257
    fitted = Detector(**QUICK).fit([disc(seed).astype(np.uint16) * 257 for seed in range(4)])
    (shallow,), (same_part,) = detector.inspect(pixels), fitted.inspect(deep)
    assert same_part.raw_score == pytest.approx(shallow.raw_score, rel=0.02)  # 8-bit resizing rounds, 16-bit does not


def test_twelve_bits_in_a_sixteen_bit_file_are_no_dark_picture(detector):
    references = [disc(seed).astype(np.uint16) * 16 for seed in range(4)]  # 0 to 4080
    fitted = Detector(**QUICK).fit(references)
    good, bad = fitted.inspect([disc(50).astype(np.uint16) * 16, disc(51, defect=(40, 55, 14)).astype(np.uint16) * 16])
    assert (good.verdict, bad.verdict) == ("OK", "DEFECT")
    assert bad.raw_score == pytest.approx(detector.inspect(disc(51, defect=(40, 55, 14)))[0].raw_score, rel=0.05)


def test_the_order_of_references_does_not_matter(detector):
    other = Detector(**QUICK).fit([disc(seed) for seed in (2, 0, 3, 1)])
    assert other.inspect(disc(50))[0].raw_score == pytest.approx(detector.inspect(disc(50))[0].raw_score, rel=1e-5)
    assert other.calibration.threshold == pytest.approx(detector.calibration.threshold, rel=1e-5)


def test_the_same_fit_twice_is_the_same_to_the_byte(detector, tmp_path):
    detector.save(tmp_path / "one.handful")
    Detector(**QUICK).fit([disc(seed) for seed in range(4)]).save(tmp_path / "two.handful")
    assert (tmp_path / "one.handful").read_bytes() == (tmp_path / "two.handful").read_bytes()


def test_a_threshold_never_sees_the_reference_it_scores(detector):
    # A picture's own patches are as near to it as can be; the references' calibration scores are those of strangers.
    inside = detector.inspect(disc(0))[0]
    assert inside.raw_score < 0.1 * detector.calibration.typical
    assert detector.calibration.typical > 0.5 * np.mean([i.raw_score for i in detector.inspect([disc(50), disc(51)])])


def labelled(row, count=1):
    """Features of reference `row`, none like another's."""
    levels = torch.rand(count, 3, 3, 4, generator=torch.Generator().manual_seed(row)) + row
    return Features((levels,), (32, 32))


@pytest.mark.parametrize("references", [3, 10])
def test_a_left_out_reference_takes_its_variations_along(references, monkeypatch):
    seen = []

    def fit(self, pictures, *, augmented, turned):
        of_pictures, of_variations = (
            level.mean((1, 2, 3)).int().tolist() for (level,) in (pictures.levels, augmented.levels)
        )
        seen.append((of_pictures, of_variations))
        return kept(self, pictures, augmented=augmented, turned=turned)

    kept = COFT.fit
    monkeypatch.setattr(COFT, "fit", fit)
    views = [[labelled(row), labelled(row)] for row in range(references)]
    augmented = [[averaged(labelled(row)), averaged(labelled(row))] for row in range(references)]
    method = COFT(views=2)
    fit_and_calibrate(method, views, augmented, false_alarm_rate=0.01)
    (whole, whole_augmented), *folds = seen
    assert whole == list(range(references)) and whole_augmented == [row for row in whole for _ in range(2)]
    assert len(folds) == min(references, 8)
    for pictures, variations in folds:
        assert variations == [row for row in pictures for _ in range(2)]
    left_out = [set(whole) - set(pictures) for pictures, _ in folds]
    assert set.union(*left_out) == set(whole) and sum(map(len, left_out)) == references


def test_a_detector_gives_a_method_the_variations_it_wants(monkeypatch):
    asked = []
    kept = COFT.fit

    def fit(self, pictures, *, augmented, turned):
        asked.append((len(pictures), len(augmented), augmented.levels[0].shape[1:3]))
        return kept(self, pictures, augmented=augmented, turned=turned)

    monkeypatch.setattr(COFT, "fit", fit)
    Detector("coft", settings={"views": 4}, **QUICK).fit([disc(seed) for seed in range(2)])
    assert asked == [(2, 8, (1, 1)), (1, 4, (1, 1)), (1, 4, (1, 1))]


@pytest.mark.parametrize(("turn", "copies"), [("always", 4), ("never", 0)])
def test_an_inspector_knows_whether_its_part_turns_and_why(turn, copies, tmp_path):
    detector = Detector(settings={"turn": turn}, **QUICK).fit([disc(seed) for seed in range(4)])
    assert detector.turning == Rotation(turn == "always", "as asked for")
    assert len(detector._needed.features.turned) == copies
    detector.save(tmp_path / "part.handful")
    again = Detector.load(tmp_path / "part.handful", device="cpu")
    assert again.turning == detector.turning
    assert same(again.inspect(disc(50))[0], detector.inspect(disc(50))[0])


def test_more_references_than_eight_are_taken():
    many = Detector(**QUICK).fit([disc(seed) for seed in range(11)])
    assert many.calibration.references == 11
    assert many.inspect(disc(50))[0].verdict == "OK"


def test_a_failed_fit_leaves_the_earlier_one(detector):
    before = detector.inspect(disc(50))[0]
    with pytest.raises(ImageError):
        detector.fit(["nowhere.png"])
    assert same(detector.inspect(disc(50))[0], before)


def test_references_must_differ():
    with pytest.raises(InputError, match="the same in picture 0 and picture 2"):
        Detector(**QUICK).fit([disc(0), disc(1), disc(0)])


@pytest.mark.parametrize("use", ["inspect", "save", "calibration"])
def test_an_unfitted_detector_says_so(use, tmp_path):
    detector = Detector(**QUICK)
    with pytest.raises(NotFittedError, match="must be fitted"):
        {"inspect": lambda: detector.inspect(disc(0)), "save": lambda: detector.save(tmp_path / "x.handful")}.get(
            use, lambda: detector.calibration
        )()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"method": "magic"}, "patchcore"),
        ({"settings": {"share": 1.5}}, r"`share` must be in \[0, 1\], got 1.5"),
        ({"size": 5}, "32 to 4096"),
        ({"size": (64, 64, 3)}, "32 to 4096"),
        ({"false_alarm_rate": 0}, "false-alarm rate"),
    ],
)
def test_options_out_of_bounds_are_refused_before_anything_is_loaded(options, sentence):
    with pytest.raises(SettingError, match=sentence):
        Detector(**options)


def test_an_inspection_is_frozen_and_ready_for_json(detector):
    (inspection,) = detector.inspect(disc(51, defect=(40, 55, 14)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        inspection.raw_score = 0
    fields = inspection.as_dict()
    scores, places = {"score", "raw_score", "raw_threshold"}, {"regions", "missing"}
    assert set(fields) == {"path", "verdict", "size", "inspector"} | scores | places
    assert set(fields["regions"][0]) == {"box", "area", "peak", "peak_at", "nearest"}
    assert set(fields["missing"]) == set(fields["regions"][0]["nearest"]) == {"picture", "at", "distance"}


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_fitted_on_cuda_it_answers_on_the_cpu(tmp_path):
    fitted = Detector(size=64, engine="torch", device="cuda").fit([disc(seed) for seed in range(3)])
    fitted.save(tmp_path / "part.handful")
    on_cpu = Detector.load(tmp_path / "part.handful", device="cpu")
    (one,), (two,) = fitted.inspect(disc(50)), on_cpu.inspect(disc(50))
    assert two.raw_score == pytest.approx(one.raw_score, rel=5e-3)  # cuDNN may take TF32's shorter mantissa


def test_winclip_saved_and_loaded_inspects_alike_without_a_text_tower(
    good_folder, picture_factory, tiny_clip, tmp_path
):
    detector = Detector("winclip", backbone=tiny_clip, weights="random", device="cpu", object_name="disc")
    detector.fit(good_folder).save(tmp_path / "part.handful")
    with zipfile.ZipFile(tmp_path / "part.handful") as zipped:
        parts = {name for name in zipped.namelist() if name.startswith("backbone.")}
    assert parts == {"backbone.safetensors", "backbone.text.safetensors"}
    loaded = Detector.load(tmp_path / "part.handful", device="cpu")
    assert loaded.backbone_spec == detector.backbone_spec
    assert (loaded.backbone_spec.object_name, loaded.backbone_spec.size) == ("disc", (32, 32))
    one, other = (d.inspect(picture_factory(9, defect=True))[0] for d in (detector, loaded))
    assert one.raw_score == other.raw_score and np.array_equal(one.heatmap, other.heatmap)


def test_what_the_part_is_called_matters_to_winclip(good_folder, picture_factory, tiny_clip):
    scores = [
        Detector("winclip", backbone=tiny_clip, weights="random", device="cpu", object_name=name)
        .fit(good_folder)
        .inspect(picture_factory(9))[0]
        .raw_score
        for name in ("disc", "metal nut")
    ]
    assert scores[0] != scores[1]


def test_clips_blocks_serve_other_methods(good_folder, picture_factory, tiny_clip):
    detector = Detector(backbone=tiny_clip, levels=[1, 3], size=48, weights="random", device="cpu").fit(good_folder)
    assert detector.backbone_spec.levels == ("block1", "block3")
    assert detector.backbone_spec.object_name is None
    assert detector.inspect(picture_factory(9, defect=True))[0].raw_score > 0


def test_winclip_on_a_backbone_without_texts_says_what_it_needs(good_folder, ready_backbone):
    with pytest.raises(InputError, match="use a clip: backbone"):
        Detector("winclip").fit(good_folder)


# --- the frame follows the references


def strip(seed, *, defect=None):
    """A strip of 240 x 80 pixels, a disc in its middle and a dark ground; a defect as left, top, side."""
    ground = np.random.default_rng(seed).normal(40, 4, (80, 240, 3)).clip(0, 255).astype(np.uint8)
    ground[:, 80:160] = disc(seed, size=80)
    if defect is not None:
        left, top, side = defect
        ground[top : top + side, left : left + side] = 255
    return ground


@pytest.fixture(scope="module")
def long():
    return Detector(**QUICK).fit([strip(seed) for seed in range(3)])


def test_long_references_make_a_long_input(long):
    assert long.backbone_spec.size == (32, 96)
    assert long.reshaped == ()
    good, bad = long.inspect([strip(50), strip(51, defect=(205, 30, 18))])
    assert good.notes == bad.notes == ()
    assert bad.verdict == "DEFECT" and bad.heatmap.shape == (32, 96)
    x, y = bad.regions[0].peak_at
    assert abs(x - 214) <= 12 and abs(y - 39) <= 12
    left, top, width, height = bad.regions[0].box
    assert 0 <= left < left + width <= 240 and 0 <= top < top + height <= 80


def test_square_references_answer_to_the_bit_as_squeezed(detector):
    squeezed = Detector(**QUICK, squeeze=True).fit([disc(seed) for seed in range(3)])
    followed = Detector(**QUICK).fit([disc(seed) for seed in range(3)])
    assert followed.backbone_spec.size == squeezed.backbone_spec.size == (64, 64)
    pictures = [disc(50), disc(51, defect=(30, 30, 20))]
    for one, other in zip(followed.inspect(pictures), squeezed.inspect(pictures), strict=True):
        assert same(one, other)


@pytest.mark.parametrize("tall", [False, True])
def test_a_picture_of_another_shape_has_a_note_and_its_regions_lie_right(detector, tall):
    pixels = np.random.default_rng(3).normal(40, 4, (80, 240, 3)).clip(0, 255).astype(np.uint8)
    pixels[30:50, 200:220] = 255
    pixels = pixels.transpose(1, 0, 2) if tall else pixels
    (bad,) = detector.inspect([pixels])
    assert any("another shape than the input's 64 x 64" in note for note in bad.notes)
    assert bad.heatmap.shape == ((64, 21) if tall else (21, 64))
    assert bad.verdict == "DEFECT" and bad.size == ((80, 240) if tall else (240, 80))
    x, y = bad.regions[0].peak_at[::-1] if tall else bad.regions[0].peak_at
    assert abs(x - 210) <= 30 and abs(y - 40) <= 30  # a patch covers 30 pixels


def test_references_of_mixed_shapes_are_named_and_squeezed():
    mixed = Detector(**QUICK).fit([strip(0), strip(1), disc(2)], accept_odd=True)
    assert mixed.backbone_spec.size == (64, 64) and not mixed.keeps_aspect
    assert mixed.reshaped == ("picture 0", "picture 1")
    assert mixed.inspect(strip(3))[0].notes == ()
    again = copy.deepcopy(mixed).fit([strip(seed) for seed in range(3)])  # copied as it is saved and loaded
    assert again.backbone_spec.size == (32, 96) and again.keeps_aspect


def test_fitted_again_the_input_follows_the_new_references(long):
    again = copy.deepcopy(long).fit([disc(seed) for seed in range(3)])
    assert again.backbone_spec.size == (64, 64)
    fresh = Detector(**QUICK).fit([disc(seed) for seed in range(3)])
    assert same(*(one.inspect(disc(51))[0] for one in (again, fresh)))


def test_a_file_that_lacks_a_later_setting_keeps_its_digest(detector, tmp_path):
    """Loaded and saved again, the inspector has the name that results have quoted; a correction gives it another."""
    detector.save(tmp_path / "new.handful")
    manifest, calibration, parts = archive.read(tmp_path / "new.handful")
    del manifest["method"]["settings"]["sigma"]
    old = tmp_path / "old.handful"
    archive.write(old, manifest, calibration, parts)
    wanted = archive.read(old)[0]["digest"]
    assert wanted != detector.digest
    loaded = Detector.load(old)
    assert loaded.digest == loaded.inspector.digest == wanted
    loaded.save(old)
    loaded.save(tmp_path / "again.handful")
    assert archive.read(old)[0]["digest"] == archive.read(tmp_path / "again.handful")[0]["digest"] == wanted
    correction = loaded.set_threshold(2 * loaded.calibration.threshold)
    assert correction.digests == (wanted, loaded.digest) and loaded.digest != wanted
    loaded.teach_good(disc(60), accept_odd=True)
    loaded.save(old)
    corrected = archive.read(old)[0]
    assert corrected["digest"] == loaded.digest
    assert len(corrected["references"]) == len(manifest["references"]) + 1


def test_an_inspector_of_format_2_squeezes_as_before(long, tmp_path, monkeypatch):
    """Without the fields of format 3 it is what an older version has saved."""
    squeezed = Detector(**QUICK, squeeze=True).fit([disc(seed) for seed in range(3)])
    squeezed.save(tmp_path / "new.handful")
    manifest, calibration, parts = archive.read(tmp_path / "new.handful")
    assert "keeps_aspect" not in manifest["preprocessing"]
    del manifest["format_version"]
    for reference in manifest["references"]:
        del reference["size"]
    monkeypatch.setattr(archive, "FORMAT_VERSION", 2)
    archive.write(tmp_path / "old.handful", manifest, calibration, parts)
    monkeypatch.undo()
    old = Detector.load(tmp_path / "old.handful", device="cpu")
    assert old.digest == archive.read(tmp_path / "old.handful")[0]["digest"]
    for one, other in zip(old.inspect([strip(9), disc(9)]), squeezed.inspect([strip(9), disc(9)]), strict=True):
        assert same(one, other)
        assert one.notes == () and one.heatmap.shape == (64, 64)


def test_corrections_of_a_long_inspector_take_pictures_and_masks_of_any_shape(long):
    own = copy.deepcopy(long)
    own.teach_good(strip(60), accept_odd=True)
    own.teach_good(disc(61), accept_odd=True)
    assert [one.size for one in own.references] == [(240, 80)] * 4 + [(96, 96)]
    assert own.reshaped == ("picture 0",)
    mask = np.zeros((80, 240), np.uint8)
    mask[:, 160:] = 255
    assert own.ignore(mask).ignored == pytest.approx(1 / 3)
    found = own.inspect(strip(51, defect=(205, 30, 18)))[0]
    assert all(region.peak_at[0] < 180 for region in found.regions)


# --- synthetic defects


def test_it_says_how_many_synthetic_defects_it_finds_and_how_small_a_spot(detector):
    seen = detector.visibility
    assert (seen.counted, seen.tried, seen.single, seen.changed) == (18, 18, False, 0)
    assert 6 <= seen.found <= 18
    assert seen.spots_tried == (6.0, 24.0) and seen.size == (96, 96)  # 96 pixels at 64, patches of 8
    assert seen.spots_from in (6.0, 12.0, 24.0)


def test_a_spot_of_the_size_that_it_sees_is_a_defect_and_one_a_quarter_as_large_is_not(detector):
    y, x = np.mgrid[:96, :96]
    verdicts = {}
    for diameter in (detector.visibility.spots_from / 4, 2 * detector.visibility.spots_from):
        spotted = []
        for seed, (row, column) in enumerate([(40, 40), (52, 60), (60, 44), (36, 56)], 70):
            pixels = disc(seed)
            inside = np.hypot(y - row, x - column) <= diameter / 2
            pixels[inside] = pixels[inside] // 2
            spotted.append(pixels)
        verdicts[diameter] = [inspection.verdict for inspection in detector.inspect(spotted)]
    few, many = verdicts.values()
    assert few.count("DEFECT") <= 1 and many.count("DEFECT") >= 3


@pytest.mark.parametrize("count", [1, 2, 4])
def test_the_order_of_references_does_not_matter_to_what_it_finds(detector, count):
    pictures, backbone = [disc(seed) for seed in range(count)], detector._needed.backbone
    one, other = (
        Detector(settings={"turn": "never"}, backbone=backbone).fit(pictures[::step], accept_odd=True)
        for step in (1, -1)
    )
    scores = [[(one.clean, one.planted) for one in fitted._needed.trials.trials] for fitted in (one, other)]
    assert np.array(scores[0]) == pytest.approx(np.array(scores[1]), rel=1e-5)
    assert one.visibility == other.visibility


def test_another_threshold_finds_another_share_from_the_scores_kept(detector, tmp_path):
    detector.save(tmp_path / "part.handful")
    corrected = Detector.load(tmp_path / "part.handful", device="cpu")
    assert corrected.visibility == detector.visibility
    highest = max(trial.planted for trial in corrected._needed.trials.trials)
    corrected.set_threshold(1.1 * highest)
    assert (corrected.visibility.found, corrected.visibility.spots_from) == (0, None)
    corrected.undo(1)
    assert corrected.visibility == detector.visibility


def test_corrections_of_what_is_learnt_are_said_until_they_are_undone(detector, tmp_path):
    detector.save(tmp_path / "part.handful")
    corrected = Detector.load(tmp_path / "part.handful", device="cpu")
    corrected.teach_good(disc(90))
    assert corrected.visibility == dataclasses.replace(detector.visibility, changed=1)
    mask = np.zeros((96, 96), np.uint8)
    mask[:20] = 255
    corrected.ignore(mask)
    assert corrected.visibility.changed == 2
    corrected.undo(1)
    corrected.undo(2)
    assert corrected.visibility == detector.visibility


def test_a_fit_that_tries_no_defects_gives_the_same_inspector(detector):
    plain = Detector(**QUICK).fit([disc(seed) for seed in range(4)], try_defects=False)
    assert plain.visibility is None
    assert plain.digest == detector.digest and plain.calibration == detector.calibration


def test_a_score_is_on_the_common_scale_and_a_raw_score_on_the_methods_own(detector):
    calibration = detector.calibration
    for inspection in detector.inspect([disc(50), disc(51, defect=(40, 55, 14))]):
        assert inspection.score == calibration.calibrated(inspection.raw_score)
        assert inspection.raw_threshold == calibration.threshold
        assert inspection.is_defect == (inspection.score > 1) == (inspection.raw_score > inspection.raw_threshold)


def test_a_detector_says_whether_it_is_fitted_and_where_its_threshold_lies(detector):
    new = Detector(**QUICK)
    assert detector.is_fitted and not new.is_fitted
    assert detector.raw_threshold == detector.calibration.threshold == detector.basis.raw_threshold
    with pytest.raises(NotFittedError):
        new.raw_threshold  # noqa: B018 - the access is the test


def test_detector_and_inspector_call_the_same_thing_by_the_same_word(detector):
    inspector = detector.inspector
    for name in ("backbone_spec", "calibration", "digest", "gate", "references"):
        assert getattr(inspector, name) == getattr(detector, name)
    assert inspector.method_name == detector.method.name


def test_a_bar_shows_progress_where_it_is_asked_for(ready_backbone, monkeypatch):
    shown = []
    monkeypatch.setattr("handful.detector.bar", lambda items, description: shown.append(description) or items)
    detector = Detector(**QUICK).fit([disc(0), disc(1)], try_defects=False)
    assert shown == []
    detector.add_normals(disc(2), accept_odd=True, progress=True)
    assert shown == ["pictures"]
    detector.fit([disc(0), disc(1)], try_defects=False, progress=True)
    assert {"features", "threshold"} <= set(shown)
