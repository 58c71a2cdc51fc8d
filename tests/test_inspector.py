"""A saved inspector inspects without torch as the detector that saved it does with it."""

import json
import os
import re
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import handful
from handful import Detector, Inspector
from handful.data import preprocessing
from handful.errors import InputError, InspectorError, SettingError
from handful.inspector import MANY
from handful.methods import METHODS
from handful.saved import archive, scoring_graph
from handful.saved.scoring_graph import TOLERANCE

SMALL = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "engine": "openvino", "device": "cpu"}
VARIANTS = [
    ("handful", {"turn": "always"}),
    ("handful", {"turn": "never", "neighbourhood": 3, "measures": "cosine"}),
    ("patchcore", {"image_score": "reweighted", "neighbours": 3}),
    ("fastrecon", {"gate": True}),
    ("coft", {"views": 3}),
]
OTHERS = {name for name, method in METHODS.items() if method.traceable} - {variant[0] for variant in VARIANTS}


def fit(good_folder, method="handful", settings=None, **options):
    torch.manual_seed(0)  # of the random weights
    return Detector(method, settings=settings, **SMALL | options).fit(good_folder)


@pytest.fixture(scope="module")
def small(_good_pictures):
    """An inspector on a small random network; do not change it."""
    return fit(_good_pictures, settings={"turn": "never"})


@pytest.fixture(scope="module")
def saved(small, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "part.handful"
    small.save(path)
    return path


def assert_same(one, other, calibration):
    """Two answers for one picture, within the tolerance that a graph must keep."""
    scale = calibration.threshold - calibration.typical
    assert one.verdict == other.verdict and one.size == other.size and one.reason == other.reason
    assert abs(one.raw_score - other.raw_score) <= TOLERANCE * max(scale, abs(one.raw_score - calibration.typical))
    assert np.abs(one.heatmap - other.heatmap).max() <= TOLERANCE * max(1, np.abs(one.heatmap).max())
    assert [region.box for region in one.regions] == [region.box for region in other.regions]
    assert [region.nearest for region in one.regions] == [region.nearest for region in other.regions]
    assert one.missing == other.missing


@pytest.mark.parametrize(
    ("method", "settings"),
    [*VARIANTS, *((name, {}) for name in sorted(OTHERS))],
    ids=lambda value: ",".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_it_answers_as_the_detector(method, settings, good_folder, picture_factory, tmp_path):
    detector = fit(good_folder, method, settings)
    detector.save(tmp_path / "part.handful")
    inspector = Inspector.load(tmp_path / "part.handful")
    for pixels in (picture_factory(9, defect=True), picture_factory(10), np.full((96, 96, 3), 90, np.uint8)):
        (by_torch,), (by_graph,) = detector.inspect(pixels), inspector.inspect(pixels)
        if by_torch.verdict == "RETAKE":
            assert by_graph.verdict == "RETAKE" and by_graph.reason == by_torch.reason
        else:
            assert_same(by_torch, by_graph, detector.calibration)


def test_a_loaded_detector_inspects_by_the_graph(saved, picture_factory):
    pixels = picture_factory(9, defect=True)
    (by_detector,), (by_inspector,) = (loads(saved).inspect(pixels) for loads in (Detector.load, Inspector.load))
    assert by_detector.raw_score == by_inspector.raw_score
    assert np.array_equal(by_detector.heatmap, by_inspector.heatmap)
    (by_torch,) = Detector.load(saved, engine="torch").inspect(pixels)
    assert by_torch.raw_score == pytest.approx(by_detector.raw_score, rel=1e-4)


def test_saved_again_it_is_the_same_file(saved, tmp_path):
    Detector.load(saved).save(tmp_path / "again.handful")
    assert (tmp_path / "again.handful").read_bytes() == saved.read_bytes()


def test_it_knows_what_it_is(small, saved):
    inspector = Inspector.load(saved)
    assert (inspector.method_name, inspector.backbone_spec, inspector.calibration) == (
        "handful",
        small.backbone_spec,
        small.calibration,
    )
    assert inspector.references == small.references
    assert "graph" not in repr(inspector) and len(repr(inspector)) < 2000


def test_corrections_reach_it(good_folder, picture_factory, tmp_path):
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[40:75, 45:85] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    pixels = picture_factory(9, defect=True)
    fit(good_folder).save(tmp_path / "part.handful")
    before = Inspector.load(tmp_path / "part.handful").inspect(pixels)[0]
    detector = Detector.load(tmp_path / "part.handful")
    detector.teach_good(picture_factory(11))
    detector.ignore(tmp_path / "mask.png")
    detector.save(tmp_path / "part.handful")
    (after,) = Inspector.load(tmp_path / "part.handful").inspect(pixels)
    assert after.raw_score != pytest.approx(before.raw_score, rel=1e-3)
    assert_same(detector.inspect(pixels)[0], after, detector.calibration)


def test_a_corrected_threshold_leaves_the_graph_alone(saved, monkeypatch, tmp_path):
    monkeypatch.setattr(scoring_graph, "keep", None)  # it would be called to make another
    detector = Detector.load(saved)
    detector.set_rate(0.2)
    detector.save(tmp_path / "part.handful")
    assert Inspector.load(tmp_path / "part.handful").calibration == detector.calibration


def test_one_without_a_graph_says_so(good_folder, tmp_path):
    fit(good_folder, "patchcore", engine="torch").save(tmp_path / "part.handful")
    manifest, _, _ = archive.read(tmp_path / "part.handful")
    assert manifest["graph"]["why"].startswith("The engine must be openvino for a graph, got torch")
    assert Inspector._load_graph(tmp_path / "part.handful") is None
    with pytest.raises(InspectorError, match="must hold a graph of its method .* use `Detector.load`"):
        Inspector.load(tmp_path / "part.handful")


def test_at_bf16_the_backbone_alone_computes_in_it(good_folder, picture_factory, tmp_path):
    try:
        detector = fit(good_folder, precision="bf16")
    except SettingError as error:
        assert "use f32" in str(error)
        pytest.skip("this CPU has no bf16")
    detector.save(tmp_path / "part.handful")
    manifest, _, _ = archive.read(tmp_path / "part.handful")
    assert max(manifest["graph"].values()) < 1e-4  # scoring at bf16 too would be refused
    inspector, pixels = Inspector.load(tmp_path / "part.handful"), picture_factory(9, defect=True)
    assert_same(detector.inspect(pixels)[0], inspector.inspect(pixels)[0], detector.calibration)
    (alone,), (beside, *_) = inspector.inspect(pixels), inspector.inspect([pixels] * MANY)
    assert beside.raw_score == alone.raw_score and np.array_equal(beside.heatmap, alone.heatmap)


def test_a_correction_need_not_wait_for_the_graph(saved, picture_factory, tmp_path):
    detector = Detector.load(saved)
    detector.teach_good(picture_factory(11))
    detector.save(tmp_path / "part.handful", graph=False)
    assert Inspector._load_graph(tmp_path / "part.handful") is None
    assert "before its graph was made" in archive.read(tmp_path / "part.handful")[0]["graph"]["why"]
    Detector.load(tmp_path / "part.handful").save(tmp_path / "part.handful")
    (by_torch,), (by_graph,) = (
        loaded.inspect(picture_factory(9)) for loaded in (detector, Inspector.load(tmp_path / "part.handful"))
    )
    assert_same(by_torch, by_graph, detector.calibration)


def test_a_graph_that_answers_otherwise_is_not_kept(small, monkeypatch, tmp_path):
    monkeypatch.setattr(scoring_graph, "TOLERANCE", -1.0)
    small.save(tmp_path / "part.handful")
    manifest, _, parts = archive.read(tmp_path / "part.handful")
    assert "within -1 of the calibrated score" in manifest["graph"]["why"] and "scoring.xml" not in parts


def test_a_damaged_graph_is_one_sentence(saved, tmp_path):
    manifest, calibration, parts = archive.read(saved)
    del manifest["format_version"]
    archive.write(tmp_path / "part.handful", manifest, calibration, {**parts, "scoring.xml": b"no graph"})
    with pytest.raises(InspectorError, match="The inspector's graph must be readable by OpenVINO"):
        Inspector.load(tmp_path / "part.handful")


LIGHT = """
import sys
import threading
import handful
from handful import Inspector
from handful.cli.main import app
try:
    app(["inspect", *sys.argv[1:], "--json"], standalone_mode=False)
except SystemExit as end:
    code = end.code
heavy = sorted({"torch", "timm", "scipy", "sklearn", "matplotlib", "polars"} & set(sys.modules))
print(heavy, file=sys.stderr)
"""


def test_inspecting_never_imports_torch(saved, good_folder, picture_factory, tmp_path):
    Image.fromarray(picture_factory(9, defect=True)).save(tmp_path / "defect.png")
    words = [
        saved,
        tmp_path / "defect.png",
        good_folder,
        "--report",
        tmp_path / "page",
        "--heatmaps",
        tmp_path / "maps",
    ]
    run = subprocess.run(
        [sys.executable, "-c", LIGHT, *map(str, words)], capture_output=True, text=True, encoding="utf-8", check=False
    )
    assert run.stderr.splitlines()[-1] == "[]", run.stderr
    *answers, _ = [json.loads(line) for line in run.stdout.splitlines()]
    assert answers[0]["path"] == str(tmp_path / "defect.png") and len(answers) == 5
    assert Path(tmp_path / "page" / "index.html").is_file() and list(Path(tmp_path / "maps").iterdir())


def test_many_pictures_are_inspected_side_by_side_in_their_order(saved, picture_factory, tmp_path, monkeypatch):
    for number in range(9):
        pixels = picture_factory(20 + number, defect=number % 3 == 0)
        Image.fromarray(pixels).save(tmp_path / f"{number}.png")
    (tmp_path / "4.png").write_text("no picture")
    inspector = Inspector.load(saved)
    alone = inspector.inspect(tmp_path)
    monkeypatch.setattr("handful.inspector.MANY", 5)
    threads = set()
    look = Inspector._inspect_source

    def noted(self, source, *, name):
        threads.add(threading.current_thread().name)
        return look(self, source, name=name)

    monkeypatch.setattr(Inspector, "_inspect_source", noted)
    many = inspector.inspect(tmp_path)
    assert threads and threading.main_thread().name not in threads
    assert [one.path for one in many] == [one.path for one in alone]
    assert [one.verdict for one in many] == [one.verdict for one in alone] and many[4].verdict == "ERROR"
    for one, other in zip(many, alone, strict=True):
        if one.raw_score is not None:
            assert one.raw_score == pytest.approx(other.raw_score, rel=1e-5)
            assert [region.nearest for region in one.regions] == [region.nearest for region in other.regions]


def test_a_picture_alone_is_resized_by_two_threads_and_one_of_many_by_its_own(saved, picture_factory, monkeypatch):
    used = []
    second = preprocessing._second_thread(os.getpid()).pool
    submit = second.submit
    monkeypatch.setattr(second, "submit", lambda *given: used.append(given) or submit(*given))
    inspector, pictures = Inspector.load(saved), [picture_factory(seed) for seed in range(20, 24)]
    inspector.inspect(pictures[0])
    assert len(used) == 1  # half of the picture
    monkeypatch.setattr("handful.inspector.MANY", len(pictures))
    inspector.inspect(pictures)
    assert len(used) == 1


def test_a_stream_of_many_may_be_left_early(saved, picture_factory, monkeypatch):
    monkeypatch.setattr("handful.inspector.MANY", 2)
    stream = Inspector.load(saved).stream([picture_factory(seed) for seed in range(20, 40)])
    assert next(stream).verdict in ("OK", "DEFECT")
    stream.close()
    assert not any(thread.name.startswith("ThreadPool") for thread in threading.enumerate())


@pytest.mark.parametrize("place", ["score", "map"])
def test_a_score_that_is_not_finite_is_no_verdict(saved, picture_factory, place):
    inspector = Inspector.load(saved)

    def forward(image):
        seen = inspector._forward(image)
        return replace(seen, **{place: seen.score * np.nan if place == "score" else seen.map * np.nan})

    (answer,) = replace(inspector, _forward=forward).inspect(picture_factory(9))
    assert answer.verdict == "ERROR" and answer.raw_score is None
    assert re.fullmatch(r".* must get finite scores, got .*; copy the inspector, or fit it again\.", answer.reason)


def test_one_picture_in_is_one_answer_out(saved, small, picture_factory, tmp_path):
    pixels, path = picture_factory(9, defect=True), tmp_path / "a.png"
    Image.fromarray(pixels).save(path)
    inspector = Inspector.load(saved)
    alone, (among,) = inspector(path), inspector.inspect([path])
    assert alone.path == among.path == str(path)
    for other in (among, inspector(pixels), inspector(inspector.preprocessing.read(path))):
        assert other.raw_score == alone.raw_score and np.array_equal(other.heatmap, alone.heatmap)
    assert_same(small(pixels), alone, inspector.calibration)
    assert inspector(pixels).path == "picture"
    missing = inspector(tmp_path / "b.png")
    assert missing.verdict == "ERROR" and "b.png" in missing.reason


def test_an_iterator_is_asked_for_the_next_picture_after_the_answer(saved, picture_factory):
    given = []

    def camera():
        for seed in (9, 10, 11):
            given.append(seed)
            yield picture_factory(seed)

    answers = Inspector.load(saved).stream(camera())
    assert given == []
    assert [(next(answers).path, len(given)) for _ in range(2)] == [("picture 0", 1), ("picture 1", 2)]


def test_a_stack_of_arrays_is_as_many_pictures(saved, picture_factory):
    pixels = np.stack([picture_factory(seed) for seed in (9, 10)])
    inspector = Inspector.load(saved)
    assert [one.raw_score for one in inspector.inspect(pixels)] == [inspector(each).raw_score for each in pixels]


def test_an_iterator_without_a_picture_is_refused(saved):
    with pytest.raises(InputError, match="At least one picture is needed, got none"):
        Inspector.load(saved).inspect(iter([]))


def test_only_what_a_user_needs_is_public():
    public = {name for name in {*dir(Inspector), *Inspector.__dataclass_fields__} if not name.startswith("_")}
    fields = {"method_name", "backbone_spec", "preprocessing", "calibration", "references", "gate", "digest"}
    assert public == fields | {"load", "inspect", "stream", "workers"}


def test_load_opens_whatever_there_is(saved, good_folder, picture_factory, tmp_path):
    torch_alone = tmp_path / "part.handful"
    fit(good_folder, "patchcore", engine="torch").save(torch_alone)
    pixels = picture_factory(9, defect=True)
    for path, opens in ((saved, Inspector.load), (torch_alone, Detector.load)):
        for source in (path, path.read_bytes()):
            assert handful.load(source)(pixels).raw_score == opens(path)(pixels).raw_score
    assert (
        handful.load(saved, engine="torch")(pixels).raw_score == Detector.load(saved, engine="torch")(pixels).raw_score
    )
    with pytest.raises(SettingError, match="`threads` must be left out where torch inspects, got 2"):
        handful.load(torch_alone, threads=2)
    assert handful.load(saved, threads=1)(pixels).is_defect
