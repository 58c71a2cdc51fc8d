"""Cells give what a detector gives, share features, fail alone, and go on after a stop."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.metrics import average_precision_score, roc_auc_score

from handful import backbones, methods
from handful.backbones.base import Backbone
from handful.data import images
from handful.data.layouts.registry import open_dataset
from handful.data.masks import read_regions
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.detector import Detector
from handful.errors import InputError, SettingError
from handful.evaluation import results
from handful.evaluation import run as run_module
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.cells import plan, spoken, unfinished
from handful.evaluation.run import backbone_label, run
from handful.types import Dataset, Scores

METHODS = ("patchcore", "fastrecon:lam=0.5,share=0.01")
TIMES = {"fit_s": None, "ms_per_image": None, "peak_rss_mb": None}


@pytest.fixture
def tree(tmp_path, picture_factory) -> Path:
    """Two categories in MVTec layout: four training pictures, three good and three defective test pictures."""
    root = tmp_path / "parts"
    for number, name in enumerate(("disc", "plate")):
        for part, seeds, defect in (("train/good", 4, False), ("test/good", 3, False), ("test/scratch", 3, True)):
            (root / name / part).mkdir(parents=True)
            for seed in range(seeds):
                picture = picture_factory(100 * number + 10 * len(part) + seed, defect=defect)
                Image.fromarray(picture).save(root / name / part / f"{seed}.png")
    masks = root / "disc/ground_truth/scratch"
    masks.mkdir(parents=True)
    y, x = np.mgrid[:96, :96] / 96 - 0.5
    mask = (abs(y - x) < 0.02) & (x > 0.02) & (x < 0.2)  # as `draw_picture` draws it
    for seed in range(3):
        Image.fromarray((255 * mask).astype(np.uint8)).save(masks / f"{seed}_mask.png")
    return root


@pytest.fixture
def parts(tree) -> Dataset:
    return open_dataset(tree)


def frame(path):
    """A picture as a small backbone takes it: (1, 3, 32, 32)."""
    return torch.from_numpy(Preprocessing((32, 32))(images.read_picture(path)))[None]


class Counting:
    """A backbone that counts the pictures it is given."""

    def __init__(self, backbone: Backbone) -> None:
        self.spec, self.entries, self.device = backbone.spec, backbone.entries, backbone.device
        self.backbone, self.pictures = backbone, 0

    def __call__(self, images):
        self.pictures += len(images)
        return self.backbone(images)


@pytest.fixture
def backbone(fitted) -> Counting:
    return Counting(fitted._needed.backbone)


def table(parts, backbone, out, *, shots=(1, 2), seeds=(0, 1), names=METHODS):
    cells = plan({"parts": parts}, methods=names, shots=shots, seeds=seeds)
    return list(run(unfinished(cells, out), backbone, out, false_alarm_rate=0.05))


def numbers(rows):
    return sorted((replace(row, **TIMES) for row in rows), key=lambda row: row.key)


def test_a_cell_gives_what_a_detector_gives(parts, backbone, tmp_path):
    names = (*METHODS, "handful:turn=always")
    rows = table(parts, backbone, tmp_path / "out", shots=(2,), seeds=(1,), names=names)
    assert [(row.category, row.method) for row in rows] == [(c, m) for c in ("disc", "plate") for m in names]
    for row, category in zip(rows, [c for c in parts.categories for _ in names], strict=True):
        method = methods.parse(row.method)
        detector = Detector(method.name, settings=method.settings, backbone=backbone, false_alarm_rate=0.05)
        references = draw(category.train, shots=2, seed=1)
        detector.fit(references)
        assert row.references == "|".join(Path(path).name for path in references)
        assert row.threshold == detector.calibration.threshold
        inspections = detector.inspect([sample.path for sample in category.test])
        truth, scores = [s.anomalous for s in category.test], [i.raw_score for i in inspections]
        assert row.image_auroc == pytest.approx(100 * roc_auc_score(truth, scores))
        assert row.image_ap == pytest.approx(100 * average_precision_score(truth, scores))
        rejected = np.array([inspection.verdict == "DEFECT" for inspection in inspections])
        assert row.false_alarm_rate == pytest.approx(100 * rejected[~np.array(truth)].mean())
        assert row.miss_rate == pytest.approx(100 - 100 * rejected[np.array(truth)].mean())
        written = results.read_scores(results.scores_path(tmp_path / "out", row))
        assert [(s.path, s.raw_score) for s in written] == [(i.path, i.raw_score) for i in inspections]


def test_pixel_metrics_are_those_of_the_masks(parts, backbone, tmp_path):
    disc, plate = table(parts, backbone, tmp_path, shots=(4,), seeds=(0,), names=("patchcore",))
    assert (plate.pixel_auroc, plate.pixel_ap, plate.pixel_f1_oracle, plate.aupro) == (None,) * 4  # it has no masks
    detector = Detector("patchcore", backbone=backbone).fit(draw(parts.categories[0].train, shots=4, seed=0))
    samples = parts.categories[0].test
    maps = np.stack([detector.inspect(sample.path)[0].heatmap for sample in samples])
    mask = np.asarray(Image.open(samples[-1].masks[0]).resize((64, 64), Image.Resampling.NEAREST)) > 0
    truth = np.stack([mask if sample.anomalous else np.zeros_like(mask) for sample in samples])
    # 1e-4 is the histograms' promise; the calibrated map is a rising function of the raw one
    assert disc.pixel_auroc == pytest.approx(100 * roc_auc_score(truth.ravel(), maps.ravel()), abs=0.01)
    assert disc.pixel_ap == pytest.approx(100 * average_precision_score(truth.ravel(), maps.ravel()), abs=0.01)
    assert disc.aupro > 50


def test_a_pictures_features_are_computed_once_for_all_cells(parts, backbone, tmp_path):
    table(parts, backbone, tmp_path)
    tested = sum(len(category.test) for category in parts.categories)
    draws = [(k, seed) for k in (1, 2) for seed in (0, 1)]
    drawn = [{p for k, s in draws for p in draw(c.train, shots=k, seed=s)} for c in parts.categories]
    blanks = len(parts.categories)  # one each, to learn how large features are
    assert backbone.pictures == tested + 7 * sum(map(len, drawn)) + blanks


def test_a_method_gets_the_variations_it_wants_and_they_are_computed_once(parts, backbone, tmp_path):
    names, disc = ("coft:views=3", "patchcore", "coft:views=2"), parts.categories[0]
    rows = table(replace(parts, categories=(disc,)), backbone, tmp_path, shots=(1, 2), seeds=(0,), names=names)
    drawn = {path for count in (1, 2) for path in draw(disc.train, shots=count, seed=0)}
    assert backbone.pictures == len(disc.test) + (7 + 3) * len(drawn) + 1
    (row,) = (row for row in rows if (row.method, row.shots) == ("coft:views=2", 2))
    references = draw(disc.train, shots=2, seed=0)
    detector = Detector("coft", settings={"views": 2}, backbone=backbone, false_alarm_rate=0.05).fit(references)
    assert row.threshold == detector.calibration.threshold
    written = results.read_scores(results.scores_path(tmp_path, row))
    inspections = detector.inspect([sample.path for sample in disc.test])
    assert [(s.path, s.raw_score) for s in written] == [(i.path, i.raw_score) for i in inspections]


def test_a_category_in_parts_gives_the_same(parts, backbone, tmp_path, monkeypatch):
    whole = table(parts, backbone, tmp_path / "whole")
    monkeypatch.setattr(run_module, "FEATURE_BYTES", 1)  # one picture at a time
    assert numbers(table(parts, backbone, tmp_path / "parts")) == numbers(whole)


def test_a_run_that_was_stopped_goes_on_and_ends_with_the_same_numbers(parts, backbone, tmp_path):
    whole = table(parts, backbone, tmp_path / "whole")
    cells = plan({"parts": parts}, methods=METHODS, shots=(1, 2), seeds=(0, 1))
    stopped = run(cells, backbone, tmp_path / "out", false_alarm_rate=0.05)
    for _ in range(5):
        next(stopped)
    stopped.close()
    assert len(unfinished(cells, tmp_path / "out")) == len(cells) - 5
    assert len(table(parts, backbone, tmp_path / "out")) == len(cells) - 5
    assert not table(parts, backbone, tmp_path / "out")
    written = [results.read(tmp_path / name / results.RESULTS) for name in ("out", "whole")]
    assert numbers(written[0]) == numbers(written[1])
    assert len(written[0]) == len(whole)


def test_a_failing_cell_is_recorded_and_the_rest_goes_on(parts, backbone, tmp_path):
    rows = table(parts, backbone, tmp_path, shots=(2, 5), seeds=(0,), names=("patchcore",))
    errors = {(row.category, row.shots): row.error for row in rows}
    assert errors["disc", 2] == errors["plate", 2] == ""
    assert errors["disc", 5] == "`shots` must be from 1 to the 4 pictures there are, got 5."
    assert [row.image_auroc for row in rows if row.error] == [None, None]
    assert len(unfinished(plan({"parts": parts}, methods=["patchcore"], shots=[2, 5], seeds=[0]), tmp_path)) == 2


def test_an_unreadable_picture_fails_its_category_alone(parts, backbone, tmp_path):
    broken = Path(parts.categories[0].test[2].path)
    broken.write_bytes(b"no picture")
    rows = table(parts, backbone, tmp_path, shots=(1,), seeds=(0,))
    assert [bool(row.error) for row in rows] == [True, True, False, False]
    assert str(broken) in rows[0].error


def test_what_nobody_foresaw_is_recorded_too(parts, backbone, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise RuntimeError("out of\nmemory")

    monkeypatch.setattr(methods.METHODS["fastrecon"], "_fit", fail)
    rows = table(parts, backbone, tmp_path, shots=(1,), seeds=(0,))
    assert [row.error for row in rows] == ["", "RuntimeError: out of memory"] * 2


def test_a_reference_among_the_test_pictures_is_refused(parts, backbone, tmp_path):
    reference = draw(parts.categories[0].train, shots=1, seed=0)[0]
    leaked = Path(parts.categories[0].test[0].path)
    leaked.write_bytes(Path(reference).read_bytes())
    row = table(parts, backbone, tmp_path, shots=(1,), seeds=(0,), names=("patchcore",))[0]
    assert row.error.startswith("References must not be among the test pictures") and str(leaked) in row.error


def test_a_category_without_defects_says_so(tree, backbone, tmp_path):
    for path in (tree / "plate/test/scratch").iterdir():
        path.unlink()
    rows = table(open_dataset(tree), backbone, tmp_path, shots=(1,), seeds=(0,), names=("patchcore",))
    assert rows[0].error == "" and "at least one normal and one anomalous picture" in rows[1].error


def test_transductive_scores_are_named_and_have_no_threshold(parts, backbone, tmp_path, monkeypatch):
    class Leaky(methods.METHODS["patchcore"]):
        name = "leaky"
        transductive = True

        def _score(self, queries):
            scores = super()._score(queries)
            return replace(scores, parts=(scores.maps, scores.image))

        def over_test_set(self, parts):
            for maps, image in parts:
                yield Scores(maps - 10 * len(parts), -image)

    monkeypatch.setitem(methods.METHODS, "leaky", Leaky)
    plain, leaky = table(parts, backbone, tmp_path, shots=(2,), seeds=(0,), names=("patchcore", "leaky"))[:2]
    assert (plain.protocol, leaky.protocol) == ("target-only", "target-only transductive")
    assert leaky.image_auroc == pytest.approx(100 - plain.image_auroc)
    assert leaky.pixel_auroc == pytest.approx(plain.pixel_auroc, abs=0.01)  # float32's steps are wider there
    assert leaky.threshold is leaky.false_alarm_rate is leaky.miss_rate is None


def test_the_label_tells_when_weights_are_not_the_real_ones(fitted):
    spec = fitted.backbone_spec
    assert backbone_label(spec) == "tf_efficientnet_lite0"
    assert backbone_label(replace(spec, weights="random")) == "tf_efficientnet_lite0 (random weights)"
    assert backbone_label(replace(spec, weights="file my.pth")) == "tf_efficientnet_lite0 (weights file my.pth)"


def test_the_plan_names_each_method_once_by_its_settings(parts):
    cells = plan({"parts": parts}, methods=["fastrecon:lam=2.0", "fastrecon", "patchcore"], shots=[1, 1], seeds=[0])
    assert [cell.method for cell in cells] == ["fastrecon", "patchcore"] * 2
    with pytest.raises(SettingError, match="patchcore"):
        plan({"parts": parts}, methods=["magic"], shots=[1], seeds=[0])
    with pytest.raises(SettingError, match="at least 1"):
        plan({"parts": parts}, methods=["patchcore"], shots=[0], seeds=[0])


def test_results_read_back_as_written(parts, backbone, tmp_path):
    rows = table(parts, backbone, tmp_path, shots=(1, 5), seeds=(0,))
    path = tmp_path / results.RESULTS
    results.write(tmp_path / "again.csv", results.read(path))
    assert (tmp_path / "again.csv").read_bytes() == path.read_bytes()
    header = (
        "dataset,category,method,protocol,backbone,weights_sha256,size,shots,seed,references,image_auroc,image_ap,"
        "image_f1_oracle,pixel_auroc,pixel_ap,pixel_f1_oracle,aupro,threshold,false_alarm_rate,miss_rate,fit_s,"
        "ms_per_image,peak_rss_mb,error"
    )
    assert path.read_text().splitlines()[0] == header
    assert f",{rows[-1].image_auroc:.2f}," in path.read_text()
    path.write_text("dataset,category\n")
    with pytest.raises(InputError, match="must have the columns"):
        results.read(path)


def test_a_table_is_not_gone_on_with_under_other_conditions(parts, backbone, tmp_path):
    def begin(**changes):
        options = {"methods": ["patchcore"], "shots": [1], "seeds": [0], **changes}
        return Benchmark({"parts": options.pop("parts", parts)}, backbone, tmp_path, **options)

    begin()
    begin(methods=["fastrecon"], shots=[2])  # more of the same table
    with pytest.raises(InputError, match="goes on with the false alarm rate that it began with"):
        begin(false_alarm_rate=0.1)
    fewer = replace(parts.categories[0], test=parts.categories[0].test[1:])
    with pytest.raises(InputError, match="goes on with the test sets that it began with"):
        begin(parts=replace(parts, categories=(fewer, *parts.categories[1:])))
    backbone.spec = replace(backbone.spec, weights_sha256="another")
    with pytest.raises(InputError, match="goes on with the backbone that it began with"):
        begin()


def test_peak_memory_is_that_of_the_cell(tmp_path):
    from handful.evaluation.peak_memory import peak_mb, reset_peak

    large = torch.ones(50_000_000)  # 200 MB
    reset_peak()
    with_it = peak_mb()
    del large
    reset_peak()
    without = peak_mb()
    assert with_it - without > 150


def test_a_trained_backbone_is_shared_by_the_methods_that_score_on_it(parts, backbone, tmp_path, monkeypatch):
    trained = []

    def train(cell, on, weights):
        trained.append((cell.category.name, cell.tuning, cell.shots, cell.seed, weights))
        return on

    monkeypatch.setattr(run_module, "_trained", train)
    names = ("patchcore", "patchcore@reb", "fastrecon@reb", "patchcore@reb:updates=3")
    rows = table(parts, backbone, tmp_path, shots=(1,), seeds=(0, 1), names=names)
    assert trained == [
        (category, tuning, 1, seed, "auto")
        for category in ("disc", "plate")
        for seed in (0, 1)
        for tuning in ("reb", "reb:updates=3")
    ]
    by_method = {row.method: row for row in rows if row.category == "disc" and row.seed == 0}
    assert set(by_method) == set(names)
    assert by_method["patchcore@reb"].image_auroc == by_method["patchcore"].image_auroc  # nothing was trained here
    assert by_method["patchcore@reb"].backbone == "tf_efficientnet_lite0"


def test_a_training_that_fails_fails_its_cells_alone(parts, backbone, tmp_path, monkeypatch):
    def fail(*_):
        raise SettingError("The loss must stay finite, got nan.")

    monkeypatch.setattr(run_module, "_trained", fail)
    rows = table(parts, backbone, tmp_path, shots=(1,), seeds=(0,), names=("patchcore@reb", "patchcore"))
    assert [row.error for row in rows] == ["", "The loss must stay finite, got nan."] * 2


def test_training_changes_the_scores_and_counts_into_the_fit(parts, backbone, tmp_path):
    one = replace(parts, categories=parts.categories[:1])
    names = ("patchcore", "patchcore@reb:updates=2,sources=1,size=64,warmup=0,lr=0.1")
    plain, tuned = table(one, backbone, tmp_path, shots=(1,), seeds=(0,), names=names)
    assert tuned.threshold != plain.threshold
    assert tuned.fit_s > plain.fit_s
    assert tuned.weights_sha256 == plain.weights_sha256  # those that the training began with


def test_a_training_is_part_of_a_cells_name(parts):
    cell = plan({"parts": parts}, methods=["fastrecon:lam=2.0@reb:updates=100,lr=0.5"], shots=[1], seeds=[0])[0]
    assert (cell.method, cell.scorer.name, cell.tuning) == ("fastrecon@reb:lr=0.5", "fastrecon", "reb:lr=0.5")
    with pytest.raises(SettingError, match="`training` must be one of"):
        plan({"parts": parts}, methods=["patchcore@magic"], shots=[1], seeds=[0])


def test_winclip_needs_no_reference_and_then_has_no_threshold(parts, tiny_clip, tmp_path):
    backbone = backbones.create(tiny_clip, weights="random", device="cpu")
    rows = table(parts, backbone, tmp_path, shots=(0, 1), names=("winclip",))
    assert [(row.category, row.shots, row.seed) for row in rows] == [
        (category, shots, seed) for category in ("disc", "plate") for shots, seed in ((0, 0), (1, 0), (1, 1))
    ]
    without, with_one = rows[0], rows[1]
    assert without.error == with_one.error == without.references == ""
    assert without.image_auroc is not None and without.pixel_auroc is not None and without.aupro is not None
    assert (without.threshold, without.false_alarm_rate, without.miss_rate) == (None, None, None)
    assert with_one.threshold is not None

    category = parts.categories[0]
    features = backbones.about(backbone, "disc")
    method = methods.create("winclip", {}).fit(features(torch.zeros(1, 3, 32, 32))[[]])
    inputs = [frame(sample.path) for sample in category.test]
    scores = [float(method.score(features(image)).image[0]) for image in inputs]
    assert [s.raw_score for s in results.read_scores(results.scores_path(tmp_path, without))] == scores


def test_each_category_is_spoken_of_by_its_name(tree, tiny_clip, tmp_path):
    (tree / "disc").rename(tree / "metal_disc")
    parts = open_dataset(tree)
    assert [spoken(category) for category in parts.categories] == ["metal disc", "plate"]
    backbone = backbones.create(tiny_clip, weights="random", device="cpu")
    table(parts, backbone, tmp_path / "out", shots=(0,), names=("winclip",))
    (row,) = (row for row in results.read(tmp_path / "out/results.csv") if row.category == "metal_disc")
    kept = results.read_scores(results.scores_path(tmp_path / "out", row))

    def score(name):
        features = backbones.about(backbone, name)
        method = methods.create("winclip", {}).fit(features(torch.zeros(1, 3, 32, 32))[[]])
        return float(method.score(features(frame(kept[0].path))).image[0])

    assert score("metal disc") == kept[0].raw_score != score("object")


@pytest.mark.parametrize("names", [("patchcore",), ("winclip", "patchcore"), ("winclip@reb",)])
def test_methods_that_need_references_refuse_none(parts, names):
    with pytest.raises(SettingError, match=rf"at least 1 for {names[-1]} .* got 0 and 0"):
        plan({"parts": parts}, methods=names, shots=[0, 1], seeds=[0])


@pytest.fixture
def oblong(tree) -> Dataset:
    """The category disc as pictures of 240 x 80 pixels, but for one square test picture."""
    for path in [*(tree / "disc").rglob("*.png")]:
        if path.name != "0.png" or "test/good" not in str(path):
            with Image.open(path) as picture:
                wide = picture.resize((240, 80), Image.Resampling.NEAREST)
            wide.save(path)
    return open_dataset(tree)


@pytest.mark.parametrize("frames", ["references", "exact", "squeezed"])
def test_a_cell_of_oblong_pictures_gives_what_a_detector_gives(oblong, backbone, tmp_path, frames):
    cells = plan({"parts": oblong}, methods=("handful",), shots=(2,), seeds=(1,))
    (row, _) = run(cells, backbone, tmp_path / "out", false_alarm_rate=0.05, frames=frames)
    category = oblong.categories[0]
    size = 64 if frames == "references" else None
    detector = Detector(backbone=backbone, size=size, squeeze=frames == "squeezed", false_alarm_rate=0.05)
    detector.fit(draw(category.train, shots=2, seed=1))
    inspections = detector.inspect([sample.path for sample in category.test])
    written = results.read_scores(results.scores_path(tmp_path / "out", row))
    assert [(s.path, s.raw_score) for s in written] == [(i.path, i.raw_score) for i in inspections]
    assert row.threshold == detector.calibration.threshold
    assert row.size == {"references": "64", "exact": "64x64 padded", "squeezed": "64x64"}[frames]
    assert detector.backbone_spec.size == ((32, 96) if frames == "references" else (64, 64))
    # Pixels are counted on each picture's own part of the frame, as the heatmaps are cut.
    masks, maps = [], [inspection.heatmap for inspection in inspections]
    for sample, heatmap in zip(category.test, maps, strict=True):
        masks += [region.mask for region in read_regions(sample, heatmap.shape)] or [np.zeros(heatmap.shape, bool)]
    truth, values = (np.concatenate([one.ravel() for one in those]) for those in (masks, maps))
    assert row.pixel_auroc == pytest.approx(100 * roc_auc_score(truth, values), abs=0.01)


def test_all_shots_are_every_good_training_picture(parts, backbone, tmp_path):
    disc, plate = parts.categories
    uneven = replace(parts, categories=(replace(disc, train=disc.train[:3]), plate))
    cells = plan({"parts": uneven}, methods=["patchcore"], shots=("all", 4), seeds=(0,))
    assert [(cell.category.name, cell.shots) for cell in cells] == [("disc", 3), ("disc", 4), ("plate", 4)]
    (row,) = run(cells[:1], backbone, tmp_path, false_alarm_rate=0.05)
    assert sorted(row.references.split("|")) == [Path(path).name for path in disc.train[:3]]
