"""The built wheel in a fresh environment, which grows from the base installation by one extra after another to `all`.

For each extra a verb says before that it needs the extra, and does its work after. `tests/test_extras.py` hides
packages for every verb and class.
"""

import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from PIL import Image

from handful.saved import archive

pytestmark = pytest.mark.install
ROOT = Path(__file__).parents[1]


def _module(name):
    spec = spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    module = module_from_spec(spec)
    sys.modules[name] = module  # where a dataclass looks for its module
    spec.loader.exec_module(module)
    return module


install = _module("install")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Wheel and source distribution, as for a release."""
    return install.build(tmp_path_factory.mktemp("dist"))


@pytest.fixture(scope="module")
def environment(built, tmp_path_factory):
    """A fresh environment; give it an extra: the python that then has it. Extras are asked for from small to large."""
    python = install.new_environment(tmp_path_factory.mktemp("environment"))
    done = []

    def having(extra):
        if extra not in done:
            install.install(python, built[0], extra, "--no-compile")
            done.append(extra)
            subprocess.run([python, "-I", "-m", "pip", "check"], check=True, capture_output=True)
        return python

    return having


@pytest.fixture
def place(saved_with_graph, good_folder, picture_factory, tmp_path):
    """A folder with an inspector, good pictures and a labelled data set."""
    shutil.copy(saved_with_graph, tmp_path / "own.handful")
    for folder, seeds, defect in (
        ("train/good", (0, 1), False),
        ("test/good", (2, 3), False),
        ("test/bad", (4, 5), True),
    ):
        (tmp_path / "data" / "disc" / folder).mkdir(parents=True)
        for seed in seeds:
            picture = Image.fromarray(picture_factory(seed, defect=defect))
            picture.save(tmp_path / "data" / "disc" / folder / f"{seed}.png")
    return tmp_path


def called(python, place, *words):
    """Exit code, stdout and the last line of stderr of the environment's command line, outside the checkout."""
    program = python.with_name(f"handful{python.suffix}")
    path = os.pathsep.join([str(python.parent), "/usr/bin", "/bin"])  # Ray starts its workers by bash
    environment = {"PATH": path, "HOME": str(place), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [program, *map(str, words)], cwd=place, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    return run.returncode, run.stdout, (run.stderr.splitlines() or [""])[-1]


def refuses(python, place, extra, *words):
    code, out, said = called(python, place, *words)
    assert (code, out) == (2, "") and said.endswith(f'pip install "handful[{extra}]".'), said


def installed(python):
    """The names of an environment's packages, in lower case with hyphens."""
    listed = subprocess.run([python, "-I", "-m", "pip", "list", "--format=json"], check=True, capture_output=True)
    return {re.sub("[-_.]+", "-", one["name"]).lower() for one in json.loads(listed.stdout)}


TINY = ("--backbone", "test_efficientnet", "--weights", "random", "--size", "64")
CLIP = ("--backbone", "clip:ViT-S-32-alt", "--weights", "random", "--size", "64", "--levels", "patches", "--accept-odd")
SHORT = ("--set", "updates=2", "--set", "size=64", "--set", "sources=1", "--device", "cpu")
COMPARED = ("--methods", "patchcore", "--shots", "1", "2", "--seeds", "0")
SCORED = ("score", "own.handful", "--pictures", "good", "--out", "table")
# Of extras that add to `fit`, from small to large: a verb that needs the extra, and the files that the verb writes.
WRITES = {
    "train": (("train", "reb", "good", "-o", "new.safetensors", *SHORT), "new.safetensors"),
    "bench": (("bench", "--data", "data:data", "--out", "out", *COMPARED, *TINY), "out/plots/*.png"),
    "corrupt": (("data", "corrupt", "data", "-o", "made", "--kinds", "contrast"), "made/disc/test/contrast/2.png"),
    "export": (("export", "own.handful", "-o", "graphs", "--format", "onnx"), "graphs/model.onnx"),
    "clip": (("fit", "good", "-o", "new.handful", *CLIP), "new.handful"),
    "ray": ((*SCORED, "--engine", "ray"), "table/summary.json"),
}
OTHERS = {"scale", "fit", "sklearn", "demo", "all"}  # extras with a test of their own


def test_the_distributions_pass_twine_and_hold_what_they_must(built):
    said = subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *map(str, built)], capture_output=True)
    assert said.returncode == 0, said.stdout + said.stderr
    with zipfile.ZipFile(built[0]) as wheel:
        names = wheel.namelist()
    with tarfile.open(built[1]) as source:
        sources = {name.partition("/")[2] for name in source.getnames()}
    modules = {str(file.relative_to(ROOT / "src")) for file in (ROOT / "src" / "handful").rglob("*.py")}
    wanted = modules | {"handful/py.typed", "handful/report/template.html", "handful/evaluation/published.csv"}
    wanted |= {f"handful/training/heads/{name}" for name in ("LICENSE.txt", "fasl.safetensors", "resad.safetensors")}
    assert wanted <= set(names) and not any(name.startswith(("tests", "benchmarks")) for name in names)
    assert {"README.md", "LICENSE", "pyproject.toml", *(f"src/{name}" for name in wanted)} <= sources


def test_every_extra_of_users_is_installed():
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    assert {*WRITES, *OTHERS} == set(extras) - {"dev", "docs", "peers"}


def test_the_base_installation_inspects_and_sets_thresholds(environment, place):
    python = environment("base")
    files, _, _ = install.size(python)
    assert files <= install.MOST_MEGABYTES, f"{files:.0f} MB"
    assert not installed(python) & {"torch", "scipy", "timm", "scikit-learn", "polars"}
    code, out, _ = called(python, place, "inspect", "own.handful", "good", "data/disc/test/bad", "--report", "page")
    assert code == 1 and out.count("DEFECT") >= 1 and (place / "page" / "index.html").is_file()
    assert called(python, place, "info", "own.handful")[0] == 0
    assert called(python, place, "threshold", "own.handful", "--rate", "0.01")[0] == 0
    assert archive.read(place / "own.handful")[1]["false_alarm_rate"] == 0.01
    refuses(python, place, "fit", "fit", "good", "-o", "new.handful")
    refuses(python, place, "fit", "teach", "own.handful", "--good", "good/0.png")
    refuses(python, place, "fit", "demo")
    refuses(python, place, "bench", "bench", "--data", "data:data", "--out", "out")
    refuses(python, place, "train", "train", "reb", "good", "-o", "new.safetensors")


def test_scale_brings_what_scores_without_torch(environment, place):
    refuses(environment("base"), place, "scale", *SCORED)
    python = environment("scale")
    code, out, said = called(python, place, *SCORED)
    assert code == 0 and out.startswith("4 pictures in 1 shard:") and "torch" not in installed(python), said


def test_fit_brings_what_teaches_with_its_weights(environment, place):
    python = environment("fit")
    code, out, said = called(python, place, "fit", "good", "-o", "new.handful", "--size", "64")
    assert code == 0 and "tf_efficientnet_lite0" in out, said
    assert called(python, place, "inspect", "new.handful", "good")[0] == 0
    assert called(python, place, "threshold", "new.handful", "--rate", "0.01")[0] == 0


ESTIMATOR = """
import sys
from handful.sklearn import AnomalyDetector
detector = AnomalyDetector(backbone="test_efficientnet", weights="random", size=64, accept_odd=True)
print(detector.fit(sys.argv[1]).predict(sys.argv[1]).shape)
"""


def test_sklearn_brings_the_estimator(environment, place):
    words = ["-I", "-c", ESTIMATOR, place / "good"]
    run = subprocess.run([environment("fit"), *words], capture_output=True, text=True)
    assert run.stderr.endswith('handful.sklearn needs scikit-learn: pip install "handful[sklearn]".\n')
    run = subprocess.run([environment("sklearn"), *words], capture_output=True, text=True)
    assert run.stdout == "(4,)\n", run.stderr


@pytest.mark.parametrize("extra", WRITES)
def test_an_extra_brings_its_verb(environment, place, extra):
    words, written = WRITES[extra]
    python = environment("fit")
    if extra != "train":  # whose scikit-learn is here by now; the base installation has refused it
        refuses(python, place, extra, *words)
    code, _, said = called(environment(extra), place, *words)
    assert code == 0 and list(place.glob(written)), said


def test_demo_brings_pictures_of_solar_cells(environment, place):
    code, out, said = called(environment("demo"), place, "demo", "--json")
    assert code == 0 and json.loads(out)["pictures"] == "solar cells", said


def test_all_brings_what_the_extras_bring_and_no_more(environment):
    for extra in (*WRITES, *OTHERS - {"all"}):
        python = environment(extra)
    before = installed(python)
    assert installed(environment("all")) == before
