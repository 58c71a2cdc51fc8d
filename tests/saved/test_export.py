"""An exported graph answers as its inspector, or is not written."""

import copy
import hashlib
import json
import math
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from PIL import Image

from handful import Detector
from handful.data.images import read_picture
from handful.errors import ImageError, InputError, OutputError, PackageError, SettingError
from handful.graphs.openvino import openvino
from handful.methods import METHODS, create
from handful.ops.frames import ALIKE
from handful.ops.maps import _enlargement
from handful.saved import export, scoring_graph
from handful.saved.scoring_graph import TOLERANCE
from handful.version import __version__

EXAMPLE = Path(__file__).parents[2] / "examples" / "run_exported.py"
BOTH = ("openvino", "onnx")
SMALL = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "engine": "torch", "device": "cpu"}
TRACEABLE = [name for name, method in METHODS.items() if method.traceable]
VARIANTS = [
    ("handful", {"turn": "always"}, {}),
    ("handful", {"turn": "never", "neighbourhood": 3, "measures": "cosine"}, {"size": (64, 96)}),
    ("patchcore", {}, {}),
    ("patchcore", {"image_score": "reweighted", "neighbours": 3, "dimensions": 40, "level_weights": "raw"}, {}),
    ("fastrecon", {"gate": True, "share": 0.01}, {}),
    ("coft", {"views": 3}, {}),
    ("handful", {"turn": "always"}, {"backbone": "test_vit"}),
]
VARIANTS += [(name, {}, {}) for name in TRACEABLE if name not in {variant[0] for variant in VARIANTS}]


def fit(good_folder, method="handful", settings=None, **options):
    torch.manual_seed(0)  # of the random weights
    return Detector(method, settings=settings, **SMALL | options).fit(good_folder)


@pytest.fixture(scope="module")
def small(_good_pictures):
    """An inspector on a small random network; do not change it."""
    return fit(_good_pictures, settings={"turn": "never"})


@pytest.fixture(scope="module")
def exported(small, tmp_path_factory):
    folder = tmp_path_factory.mktemp("exported") / "graphs"
    return small.export(folder, formats=BOTH)


def run_files(folder, image):
    """What both graphs in a folder answer, opened without Handful: [(map, score), …]."""
    model = openvino.Core().compile_model(folder / "model.xml", "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
    session = onnxruntime.InferenceSession(folder / "model.onnx", providers=["CPUExecutionProvider"])
    answer = model({"image": image})
    return [(answer["raw_map"], answer["raw_score"]), session.run(["raw_map", "raw_score"], {"image": image})]


def raw_map(detector, inspection):
    calibration = detector.calibration
    return inspection.heatmap * (calibration.map_threshold - calibration.map_typical) + calibration.map_typical


def assert_agrees(detector, folder, pixels):
    (inspection,) = detector.inspect(pixels)
    preprocessing, picture = detector._needed.preprocessing, read_picture(pixels)
    image = preprocessing(picture)[None]
    for found_map, found in run_files(folder, image):
        # Sums of float32 in another order; inputs and networks of this size lie within 1e-5.
        assert found.shape == (1,) and found_map.shape == (1, *detector.backbone_spec.size)
        assert found.dtype == found_map.dtype == np.float32
        assert found[0] == pytest.approx(inspection.raw_score, rel=1e-4)
        found_map = preprocessing.placement(picture.size).cut(found_map[0])
        assert np.abs(found_map - raw_map(detector, inspection)).max() < 1e-4 * found_map.max()


@pytest.mark.parametrize(
    ("method", "settings", "options"),
    VARIANTS,
    ids=lambda value: ",".join(map(str, value.values())) if isinstance(value, dict) else value,
)
def test_a_graph_answers_as_its_inspector(method, settings, options, good_folder, picture_factory, tmp_path):
    detector = fit(good_folder, method, settings, **options)
    defect, good = picture_factory(9, defect=True), picture_factory(10)
    written = detector.export(tmp_path / "out", formats=BOTH, check=[defect])
    assert [(one.format, one.pictures) for one in written.agreements] == [("openvino", 5), ("onnx", 5)]
    assert all(max(one.score, one.map) < TOLERANCE / 10 for one in written.agreements)
    for pixels in (defect, good):
        assert_agrees(detector, tmp_path / "out", pixels)


def test_an_ignored_region_is_part_of_the_graph(good_folder, picture_factory, tmp_path):
    mask = np.zeros((96, 96), dtype=np.uint8)
    mask[40:75, 45:85] = 255
    Image.fromarray(mask).save(tmp_path / "mask.png")
    detector = fit(good_folder)
    defect = picture_factory(9, defect=True)
    before = detector.inspect(defect)[0].raw_score
    detector.ignore(tmp_path / "mask.png")
    detector.export(tmp_path / "out", formats=BOTH)
    assert detector.inspect(defect)[0].raw_score != before
    assert_agrees(detector, tmp_path / "out", defect)
    assert json.loads((tmp_path / "out" / "inspector.json").read_text())["ignores_a_region"] is True


def test_a_saved_inspector_exports_the_same(small, exported, tmp_path, picture_factory):
    small.save(tmp_path / "part.handful")
    Detector.load(tmp_path / "part.handful", device="cpu").export(tmp_path / "out", formats=["onnx"])
    image = small._needed.preprocessing(read_picture(picture_factory(9)))[None]
    one, other = (
        onnxruntime.InferenceSession(folder / "model.onnx").run(None, {"image": image})
        for folder in (exported.folder, tmp_path / "out")
    )
    assert all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def test_exporting_leaves_the_inspector_as_it_was(small, picture_factory, tmp_path):
    (before,) = small.inspect(picture_factory(9))
    _enlargement.cache_clear()  # what is remembered must not be what torch.export computes with
    small.export(tmp_path / "out")
    (after,) = small.inspect(picture_factory(9))
    assert after.raw_score == before.raw_score and np.array_equal(after.heatmap, before.heatmap)


def test_the_default_is_openvino_and_nothing_else(small, tmp_path):
    written = small.export(tmp_path / "out")
    assert sorted(written.files) == ["inspector.json", "model.bin", "model.xml"]
    assert {path.name: path.stat().st_size for path in (tmp_path / "out").iterdir()} == written.files


def shapes_of_other_inputs():
    """Model inputs of 64 x 64 pixels turn into these: two pictures, none, other sides, channels as pictures."""
    image = np.random.default_rng(0).random((2, 3, 64, 64), dtype=np.float32)
    one = image[:1]
    return [image, image[:0], one.reshape(1, 3, 32, 128), one.transpose(1, 0, 2, 3), one[:, :, :32, :32], one[:, :1]]


OTHER_INPUTS = pytest.mark.parametrize(
    "other", shapes_of_other_inputs(), ids=lambda other: "x".join(map(str, other.shape))
)


@OTHER_INPUTS
def test_a_graph_for_openvino_refuses_another_shape_however_it_was_reshaped(exported, other):
    core, image = openvino.Core(), np.full((1, 3, 64, 64), 0.5, np.float32)
    model = core.read_model(exported.folder / "model.xml")
    with pytest.raises(RuntimeError, match="takes_pictures_of_1x3x64x64_alone"):
        model.reshape(list(other.shape))
    shapes = [
        [-1, -1, -1, -1],
        [-1, *other.shape[1:]],
        [*other.shape[:2], -1, -1],
        [(0, 9), (1, 9), (8, 256), (8, 256)],
    ]
    for shape in shapes:
        model = core.read_model(exported.folder / "model.xml")
        if not model.get_parameters()[0].get_partial_shape().compatible(openvino.PartialShape(shape)):
            continue  # no input of the right shape would fit either
        model.reshape(shape)
        compiled = core.compile_model(model, "CPU", {"INFERENCE_PRECISION_HINT": "f32"})
        own = run_files(exported.folder, image)[0][1]
        assert compiled({"image": image})["raw_score"][0] == pytest.approx(own[0], rel=1e-5)
        with pytest.raises(RuntimeError):
            compiled({"image": other})


def test_a_graph_for_openvino_refuses_to_be_given_a_batch(exported):
    model = openvino.Core().read_model(exported.folder / "model.xml")
    model.get_parameters()[0].set_layout(openvino.Layout("NCHW"))
    with pytest.raises(RuntimeError, match="takes_pictures_of_1x3x64x64_alone"):
        openvino.set_batch(model, 2)


@OTHER_INPUTS
@pytest.mark.parametrize("level", ["ORT_ENABLE_ALL", "ORT_DISABLE_ALL"])
def test_a_graph_for_onnx_refuses_another_shape_however_it_was_edited(exported, other, level):
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = getattr(onnxruntime.GraphOptimizationLevel, level)
    options.log_severity_level = 4
    image = np.full((1, 3, 64, 64), 0.5, np.float32)
    for sides in (other.shape, ("B", 3, 64, 64), ("B", "C", "H", "W")):
        model = onnx.load(exported.folder / "model.onnx")
        for dimension, side in zip(model.graph.input[0].type.tensor_type.shape.dim, sides, strict=True):
            dimension.ParseFromString(b"")
            setattr(dimension, "dim_param" if isinstance(side, str) else "dim_value", side)
        edited = model.SerializeToString()
        if isinstance(sides[0], str):
            session = onnxruntime.InferenceSession(edited, options, providers=["CPUExecutionProvider"])
            own = run_files(exported.folder, image)[1][1]
            assert session.run(["raw_score"], {"image": image})[0] == pytest.approx(own, rel=1e-5)
        with pytest.raises(Exception, match=r"image_of_1x3x64x64_alone|invalid dimensions|Incompatible dimensions"):
            onnxruntime.InferenceSession(edited, options, providers=["CPUExecutionProvider"]).run(
                None, {"image": other}
            )


def test_inspector_json_says_what_a_program_needs(small, exported):
    described = json.loads((exported.folder / "inspector.json").read_text())
    calibration = small.calibration
    for name in ("threshold", "typical", "map_threshold", "map_typical", "false_alarm_rate", "rests_on"):
        assert described[name] == getattr(calibration, name)
    assert described["handful"] == __version__
    assert described["method"] == {"name": "handful", "settings": small.method.settings}
    assert described["backbone"]["weights_sha256"] == small.backbone_spec.weights_sha256
    assert described["input"] == {"name": "image", "shape": [1, 3, 64, 64], "type": "float32", "range": [0, 1]}
    assert [output["shape"] for output in described["outputs"].values()] == [[1, 64, 64], [1]]
    assert described["batch"].startswith("one picture at a time")
    steps = described["preprocessing"]
    assert (steps["size"], steps["divide_8_bit_by"], steps["divide_16_bit_by"]) == ([64, 64], 255, 65535)
    assert (steps["keeps_aspect_beyond"], steps["jpeg_draft"]) == (ALIKE, 128)
    assert [one["sha256"] for one in described["references"]] == [one.sha256 for one in small.references]
    left_out = " ".join(described["left_out"])
    assert "capture gate (blank, exposure, blur, shift, product)" in left_out and "regions" in left_out
    assert described["ignores_a_region"] is False
    assert set(described["files"]) == {"model.bin", "model.onnx", "model.xml"}
    for name, file in described["files"].items():
        assert hashlib.sha256((exported.folder / name).read_bytes()).hexdigest() == file["sha256"]


def test_a_graph_names_no_place_on_this_computer(exported):
    for name in ("model.onnx", "model.xml", "model.bin"):
        written = (exported.folder / name).read_bytes()
        assert b".py" not in written and str(Path.cwd()).encode() not in written


@pytest.mark.parametrize("factor", [1.02, math.nan])
@pytest.mark.parametrize("output", [0, 1], ids=["map", "score"])
def test_a_graph_that_answers_otherwise_is_refused_and_nothing_is_left(small, tmp_path, monkeypatch, factor, output):
    kept = export.Whole.forward

    def otherwise(self, image):
        answer = list(kept(self, image))
        answer[output] = answer[output] * factor
        return tuple(answer)

    monkeypatch.setattr(export.Whole, "forward", otherwise)
    with pytest.raises(OutputError, match=r"within 0.001 of the calibrated score, got openvino off by \S+ in a score"):
        small.export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_differences_are_measured_from_a_typical_good_part_to_the_threshold():
    own = np.float32([5.0, 9.0])  # 0.5 and 4.5 on the calibrated scale
    assert scoring_graph.relative_difference(np.float32([5.5, 9.0]), own, typical=4.5, threshold=5.5) == pytest.approx(
        0.5
    )
    assert scoring_graph.relative_difference(np.float32([5.0, 9.45]), own, typical=4.5, threshold=5.5) == pytest.approx(
        0.1
    )


def test_an_unreadable_check_picture_is_refused_and_nothing_is_left(small, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    with pytest.raises(ImageError, match="a.png"):
        small.export(tmp_path / "out", check=tmp_path / "a.png")
    with pytest.raises(InputError, match="At least one picture"):
        small.export(tmp_path / "out", check=[])
    assert [path.name for path in tmp_path.iterdir()] == ["a.png"]


def test_a_folder_that_holds_something_stays_as_it_is(small, tmp_path):
    (tmp_path / "kept.txt").write_text("kept")
    with pytest.raises(OutputError, match="must be new, or an empty folder"):
        small.export(tmp_path)
    with pytest.raises(OutputError, match="must be writable"):
        small.export(tmp_path / "missing" / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["kept.txt"]


@pytest.mark.parametrize("method", sorted(set(METHODS) - set(TRACEABLE)))
def test_other_methods_are_refused_with_those_that_can_be_exported(method, small, tmp_path):
    other = copy.copy(small)
    other._state = replace(other._needed, method=create(method, {}))
    with pytest.raises(SettingError, match=f"as {', '.join(TRACEABLE)} are, got {method}"):
        other.export(tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


def test_a_clip_backbone_is_refused(good_folder, tiny_clip, tmp_path):
    detector = Detector("patchcore", backbone=tiny_clip, levels=[1, 3], weights="random", device="cpu")
    with pytest.raises(SettingError, match="must be one of timm's, got clip:tiny-clip"):
        detector.fit(good_folder).export(tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "saying"),
    [
        (
            lambda b: setattr(b, "spec", replace(b.spec, precision="bf16")),
            "must compute in f32 .*, got bf16; fit it again",
        ),
        (
            lambda b: setattr(b, "device", "cuda"),
            "must be on the CPU .*, got cuda; save it and load it with `device` cpu",
        ),
    ],
    ids=["bf16", "cuda"],
)
def test_what_does_not_compute_as_the_graph_is_refused(small, tmp_path, change, saying):
    backbone, other = copy.copy(small._needed.backbone), copy.copy(small)
    change(backbone)
    other._state = replace(small._needed, backbone=backbone)
    with pytest.raises(SettingError, match=saying):
        other.export(tmp_path / "out")


def test_an_unknown_format_is_refused(small, tmp_path):
    with pytest.raises(SettingError, match="`format` must be one of openvino, onnx, got 'tflite'"):
        small.export(tmp_path / "out", formats=["openvino", "tflite"])
    with pytest.raises(SettingError, match="`format` must be one of openvino, onnx, got None"):
        small.export(tmp_path / "out", formats=[])


@pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
def test_without_the_extra_onnx_is_refused_with_its_name_and_openvino_is_not(package, small, tmp_path, monkeypatch):
    from handful import graphs

    monkeypatch.delitem(sys.modules, "handful.graphs.onnx_writer", raising=False)
    monkeypatch.delattr(graphs, "onnx_writer", raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PackageError, match=rf'needs {package}: pip install "handful\[export\]"\.'):
        small.export(tmp_path / "out", formats=BOTH)
    assert list(tmp_path.iterdir()) == []
    assert export._writer("openvino")


@pytest.mark.parametrize("kind", ["openvino", "onnx"])
def test_an_operation_that_a_format_lacks_is_one_sentence_with_its_name(kind, small, tmp_path, monkeypatch):
    kept = export.Whole.forward

    def beyond(self, image):
        found, score = kept(self, image)
        return found + torch.linalg.eigvals(image[0, 0, :8, :8]).abs().sum(), score

    monkeypatch.setattr(export.Whole, "forward", beyond)
    with pytest.raises(SettingError, match=rf"of operations that {kind} knows, got: .*aten.*eig.*; fit it") as caught:
        small.export(tmp_path / "out", formats=[kind])
    assert "\n" not in str(caught.value) and "\x1b" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []


def test_the_command_line_exports_in_words_and_in_json(small, tmp_path, command_line, good_folder):
    small.save(tmp_path / "part.handful")
    code, out, err = command_line("export", tmp_path / "part.handful", "-o", tmp_path / "out", "--check", good_folder)
    assert (code, err) == (0, [])
    assert out[0].startswith(f"{tmp_path / 'out'}: handful on test_efficientnet, model.bin ")
    assert out[1].startswith("openvino: within ") and out[1].endswith(" of its heatmaps on 8 pictures")
    assert "inspector.json" in out[2] and len(out) == 3
    formats = ("--format", "onnx", "openvino", "--json")
    code, out, err = command_line("export", tmp_path / "part.handful", "-o", tmp_path / "both", *formats)
    assert (code, err) == (0, [])
    (answer,) = map(json.loads, out)
    assert sorted(answer["files"]) == ["inspector.json", "model.bin", "model.onnx", "model.xml"]
    assert [(one["format"], one["pictures"]) for one in answer["agreements"]] == [("onnx", 4), ("openvino", 4)]


def test_the_command_line_refuses_in_one_sentence(small, tmp_path, command_line):
    small.save(tmp_path / "part.handful")
    code, out, err = command_line("export", tmp_path / "part.handful", "-o", tmp_path / "out", "--format", "tflite")
    assert (code, out) == (2, [])
    assert err == ["handful: `format` must be one of openvino, onnx, got 'tflite'."]


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_the_example_judges_as_handful_without_handful_and_torch(small, exported, picture_factory, tmp_path, suffix):
    code = "import runpy, sys; sys.modules['handful'] = sys.modules['torch'] = None; runpy.run_path(sys.argv[1])"
    code = code.replace("runpy.run_path(sys.argv[1])", "del sys.argv[0]; runpy.run_path(sys.argv[0])")
    for seed, defect, rows in ((9, True, 400), (10, False, 400), (11, True, 160)):  # the last one of another shape
        path = tmp_path / f"{seed}.{suffix}"
        Image.fromarray(picture_factory(seed, side=400, defect=defect)[-rows:]).save(path)  # JPEGs of 400 are drafted
        (inspection,) = small.inspect(path)
        command = [sys.executable, "-c", code, EXAMPLE, exported.folder, path]
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": ""})
        assert done.returncode == 0, done.stderr
        verdict, calibrated = done.stdout.split()
        assert verdict == inspection.verdict
        assert float(calibrated) == pytest.approx(inspection.score, abs=1e-3)  # printed with four digits


def test_the_example_refuses_what_it_cannot_read_as_handful(exported, tmp_path):
    Image.fromarray(np.zeros((64, 64), dtype=np.uint16)).save(tmp_path / "deep.png")
    command = [sys.executable, EXAMPLE, exported.folder, tmp_path / "deep.png"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 1 and "must be grey or RGB of 8 bits, got I;16" in done.stderr
