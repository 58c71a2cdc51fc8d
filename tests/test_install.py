"""The built wheel in a fresh environment, which grows from the base installation by `fit` to `bench`.

`tests/test_extras.py` hides packages for the other extras.
"""

import json
import shutil
import subprocess
import sys
import tarfile
import zipfile
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest
from PIL import Image

from handful.saved import archive

pytestmark = pytest.mark.install
ROOT = Path(__file__).parents[1]
MOST_MEGABYTES = 300  # of the base installation's files


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
    environment = {"PATH": str(python.parent), "HOME": str(place), "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [program, *map(str, words)], cwd=place, env=environment, capture_output=True, text=True, encoding="utf-8"
    )
    return run.returncode, run.stdout, (run.stderr.splitlines() or [""])[-1]


def refuses(python, place, extra, *words):
    code, out, said = called(python, place, *words)
    assert (code, out) == (2, "") and said.endswith(f'pip install "handful[{extra}]".'), said


TINY = ("--backbone", "test_efficientnet", "--weights", "random", "--size", "64")


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


def test_the_base_installation_inspects_and_sets_thresholds(environment, place):
    python = environment("base")
    files, _, _ = install.size(python)
    assert files <= MOST_MEGABYTES, f"{files:.0f} MB"
    found = json.loads(subprocess.run([python, "-I", "-m", "pip", "list", "--format=json"], capture_output=True).stdout)
    assert not {one["name"].lower() for one in found} & {"torch", "scipy", "timm", "scikit-learn", "polars"}
    code, out, _ = called(python, place, "inspect", "own.handful", "good", "data/disc/test/bad", "--report", "page")
    assert code == 1 and out.count("DEFECT") >= 1 and (place / "page" / "index.html").is_file()
    assert called(python, place, "info", "own.handful")[0] == 0
    assert called(python, place, "threshold", "own.handful", "--rate", "0.01")[0] == 0
    assert archive.read(place / "own.handful")[1]["false_alarm_rate"] == 0.01
    refuses(python, place, "fit", "fit", "good", "-o", "new.handful")
    refuses(python, place, "fit", "teach", "own.handful", "--good", "good/0.png")
    refuses(python, place, "bench", "bench", "--data", "data:data", "--out", "out")
    refuses(python, place, "train", "train", "reb", "good", "-o", "new.safetensors")


def test_fit_brings_what_teaches_with_its_weights(environment, place):
    python = environment("fit")
    code, out, said = called(python, place, "fit", "good", "-o", "new.handful", "--size", "64")
    assert code == 0 and "tf_efficientnet_lite0" in out, said
    assert called(python, place, "inspect", "new.handful", "good")[0] == 0
    assert called(python, place, "threshold", "new.handful", "--rate", "0.01")[0] == 0
    refuses(python, place, "bench", "bench", "--data", "data:data", "--out", "out")
    refuses(python, place, "train", "train", "resad", "--data", "data:data", "-o", "new.safetensors")


def test_bench_brings_what_compares(environment, place):
    python = environment("bench")
    words = (
        "--data",
        "data:data",
        "--out",
        "out",
        "--methods",
        "patchcore",
        "--shots",
        "1",
        "2",
        "--seeds",
        "0",
        *TINY,
    )
    code, out, said = called(python, place, "bench", *words)
    assert code == 0 and "image AUROC" in out, said
    assert (place / "out" / "summary.md").is_file() and list((place / "out" / "plots").iterdir())
    refuses(python, place, "train", "train", "reb", "good", "-o", "new.safetensors")
