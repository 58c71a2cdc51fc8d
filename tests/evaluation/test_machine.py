"""The description of a computer: what is installed, which extras are whole, and no names of people or places."""

import os
from importlib import metadata
from pathlib import Path

import pytest

from handful.evaluation import machine
from handful.evaluation.machine import requirements

STATED = [
    "numpy>=2.0",
    "openvino<2027,>=2026.0",
    'torch>=2.6; extra == "fit"',
    'kornia (>=0.9) ; extra == "corrupt"',
    'handful[corrupt,fit]; extra == "all"',
    'handful[all]; extra == "more"',
    'pywin32>=1; sys_platform == "win32"',
]


def test_requirements_are_read_by_extra():
    found = requirements(STATED)
    assert [(one.package, one.extra) for one in found] == [
        ("numpy", None),
        ("openvino", None),
        ("torch", "fit"),
        ("kornia", "corrupt"),
        ("handful", "all"),
        ("handful", "more"),
    ]
    assert found[1].limits == (("<", "2027"), (">=", "2026.0"))
    assert found[4].extras == ("corrupt", "fit")


@pytest.mark.parametrize(
    ("version", "met"), [("2026.0.0", True), ("2026.4.1", True), ("2025.9", False), ("2027.0", False), (None, False)]
)
def test_a_version_must_be_within_the_limits(version, met):
    assert requirements(STATED)[1].met(version) is met


def test_a_build_of_a_version_meets_it():
    assert requirements(["torch>=2.6"])[0].met("2.6.0+cpu")
    assert requirements(["anomalib==2.7.0"])[0].met("2.7.0")


@pytest.fixture
def installed(monkeypatch):
    """Let Handful's metadata be `STATED`, and these packages be installed."""
    versions = {"numpy": "2.1.0", "openvino": "2026.1", "kornia": "0.9.1"}

    def version(name):
        if name not in versions:
            raise metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(metadata, "requires", lambda name: STATED)
    monkeypatch.setattr(metadata, "version", version)
    return versions


class Headers(dict):
    """The headers of a distribution."""

    get_all = dict.get


def packages_of(monkeypatch):
    headers = Headers({"Provides-Extra": ["fit", "corrupt", "all", "more", "dev"]})
    monkeypatch.setattr(metadata, "metadata", lambda name: headers)
    described = machine._Described()
    machine._describe_packages(described)
    return described


def test_extras_are_whole_or_name_what_they_lack(installed, monkeypatch):
    described = packages_of(monkeypatch)
    assert described.problems == []
    extras = described.facts["extras"]
    assert set(extras) == {"fit", "corrupt", "all", "more"}  # none that is for developers
    assert extras["corrupt"] == {"whole": True, "packages": {"kornia": "0.9.1"}}
    assert extras["fit"] == {"whole": False, "packages": {"torch": None}}
    assert extras["all"]["packages"] == extras["more"]["packages"] == {"kornia": "0.9.1", "torch": None}
    installed["torch"] = "2.6"
    assert packages_of(monkeypatch).facts["extras"]["more"]["whole"]


@pytest.mark.parametrize(("version", "said"), [("1.9", "got 1.9"), (None, "got none")])
def test_a_package_that_is_needed_and_absent_or_old_is_a_problem(version, said, installed, monkeypatch):
    del installed["numpy"]
    if version:
        installed["numpy"] = version
    (problem,) = packages_of(monkeypatch).problems
    assert problem.startswith("numpy>=2.0 must be installed, ")
    assert said in problem
    assert "pip install" in problem


def test_weights_of_other_owners_are_not_told(monkeypatch, tmp_path):
    for name in ("models--timm--resnet18.a1_in1k", "models--jane--secret"):
        (tmp_path / "hub" / name / "snapshots" / "1").mkdir(parents=True)
        (tmp_path / "hub" / name / "snapshots" / "1" / "model.safetensors").touch()
    (tmp_path / "hub" / "models--timm--empty").mkdir()
    monkeypatch.delenv("HF_HUB_CACHE", raising=False)
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    assert machine._cached() == ["resnet18.a1_in1k"]


def test_the_default_backbone_is_on_board():
    assert "tf_efficientnet_lite0" in machine._on_board()


def test_a_setting_that_could_be_a_path_is_not_shown(monkeypatch):
    assert [machine._harmless(value) for value in ("4", "PASSIVE", "/home/jane")] == [
        "4",
        "PASSIVE",
        "set to something else",
    ]


def test_the_cores_are_those_of_the_process():
    found = machine.cores()
    assert found["there"] == os.cpu_count()
    assert 1 <= found["usable"] <= found["there"]


def test_openvino_that_does_not_run_is_a_problem(monkeypatch):
    from handful.graphs.openvino import openvino

    def fail():
        raise RuntimeError("/home/jane/lib.so: cannot open")

    monkeypatch.setattr(openvino, "Core", fail)
    described = machine._Described()
    assert machine._openvino(described)["precisions"] == []
    (problem,) = described.problems
    assert "RuntimeError" in problem
    assert "jane" not in problem


def test_the_cpu_has_a_name():
    name = machine.cpu_name()
    assert name
    if Path("/proc/cpuinfo").exists() and "model name" in Path("/proc/cpuinfo").read_text():
        assert name in Path("/proc/cpuinfo").read_text()
