"""`handful doctor`: the computer, an inspector tested on its own references, and a block that may be made public."""

import getpass
import json
import os
import platform
import re
import socket
import subprocess
import sys
import textwrap
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handful
from handful import Detector, backbones
from handful.cli.doctor import BEGIN, END
from handful.evaluation import selftest
from handful.saved import scoring_graph


@pytest.fixture(scope="module")
def part(tmp_path_factory, picture_factory):
    """A folder of an inspector with its own graph, and of its references."""
    folder = tmp_path_factory.mktemp("part")
    tiny = backbones.create("test_efficientnet", weights="random", size=64, engine="openvino", device="cpu")
    (folder / "good").mkdir()
    for number in range(3):
        Image.fromarray(picture_factory(number)).save(folder / "good" / f"{number}.png")
    Detector(backbone=tiny).fit(folder / "good").save(folder / "jane.handful")
    return folder


def rows(lines):
    """The block's rows by label."""
    assert lines[0] == BEGIN
    assert lines[-1] == END
    return {line[:11].strip(): line[12:] for line in lines[1:-1]}


def test_a_computer_that_runs_the_tests_is_well(command_line):
    code, said, errors = command_line("doctor")
    assert (code, errors) == (0, [])
    found = rows(said)
    assert found["handful"] == handful.__version__
    assert found["python"].startswith(platform.python_version())
    assert re.search(r"\d+ of \d+ cores usable", found["cpu"])
    assert "f32" in found["openvino"]
    assert "tf_efficientnet_lite0" in found["weights"]
    assert found["problems"] == "none"


def test_an_inspector_is_tested_on_its_thumbnails(part, command_line):
    code, said, errors = command_line("doctor", part / "jane.handful")
    assert (code, errors) == (0, [])
    found = rows(said)
    assert found["inspector"].startswith(f"digest {handful.load(part / 'jane.handful').digest}, ")
    for number in (1, 2, 3):
        assert "by its thumbnail" in found[f"reference {number}"]
    assert re.search(r": by \d[\d.e-]* here, by \d[\d.e-]* where it was fitted$", found["graph"])


def test_an_inspector_is_tested_on_its_original_pictures(part, command_line):
    code, (line,), errors = command_line("doctor", part / "jane.handful", "--references", part / "good", "--json")
    assert (code, errors) == (0, [])
    said = json.loads(line)
    assert said["well"] is True
    tested = said["inspector"]["references"]
    assert [(one["number"], one["picture"]) for one in tested] == [(1, "original"), (2, "original"), (3, "original")]
    assert max(one["difference"] for one in tested) < 1e-5  # the same pictures by the same graph on the same computer
    picture = handful.load(part / "jane.handful")(part / "good" / "0.png")
    assert (tested[0]["verdict"], tested[0]["score"]) == (picture.verdict, picture.score)


def test_a_reference_that_is_not_there_is_a_problem(part, command_line, tmp_path):
    for name in ("0.png", "2.png"):
        (tmp_path / name).write_bytes((part / "good" / name).read_bytes())
    (tmp_path / "1.png").write_bytes((part / "good" / "1.png").read_bytes() + b"\0")
    code, said, (sentence,) = command_line("doctor", part / "jane.handful", "--references", tmp_path)
    assert code == 2
    assert sentence.startswith("handful: Reference 2 must be among the pictures, got none with its digest ")
    found = rows(said)
    assert "reference 2" not in found
    assert "Reference 2 must be" in found["problem"]


def changed(part, monkeypatch, by):
    """Let inspectors compute other features than those that were saved, by a share of them."""
    inspector = handful.load(part / "jane.handful")

    def forward(image):
        seen = inspector._forward(image)
        return replace(seen, levels=tuple(level * np.float32(1 + by) for level in seen.levels), score=seen.score + by)

    monkeypatch.setattr(handful, "load", lambda path: replace(inspector, _forward=forward))


@pytest.mark.parametrize(("by", "code"), [(5e-4, 0), (2e-3, 2)])
def test_features_off_by_more_than_rounding_are_a_problem(by, code, part, command_line, monkeypatch):
    changed(part, monkeypatch, by)
    monkeypatch.setattr(selftest, "_against_torch", lambda *_: (0.0, 0.0))
    came, _, errors = command_line("doctor", part / "jane.handful", "--references", part / "good")
    assert came == code
    assert len(errors) == (3 if code else 0)
    assert all("must be within 0.001 of those in the file" in sentence for sentence in errors)


def test_thumbnails_tell_a_broken_graph(part, command_line, monkeypatch):
    changed(part, monkeypatch, -2.5)
    monkeypatch.setattr(selftest, "_against_torch", lambda *_: (0.0, 0.0))
    code, _, errors = command_line("doctor", part / "jane.handful")
    assert code == 2
    assert len(errors) == 3


def test_a_graph_that_is_not_its_method_is_a_problem(part, command_line, monkeypatch):
    changed(part, monkeypatch, 0.1)
    code, said, errors = command_line("doctor", part / "jane.handful")
    assert code == 2
    (sentence,) = errors
    assert "must answer as its method in torch within 0.001 of the score" in sentence
    assert rows(said)["graph"].split(": by ")[1].startswith("0.")


def test_the_tolerance_of_graphs_is_that_of_saving():
    assert selftest.GRAPH_TOLERANCE == scoring_graph.TOLERANCE


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_nothing_printed_names_a_person_a_place_or_a_computer(flags, part, command_line, monkeypatch):
    home = part / "home" / "jane.doe"
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("USER", "jane.doe")
    monkeypatch.setenv("OMP_WAIT_POLICY", str(home))
    code, said, _ = command_line("doctor", part / "jane.handful", "--references", part / "good", *flags)
    assert code == 0
    text = "\n".join(said)
    names = {"jane", "0.png", str(part), str(home), str(Path.cwd()), sys.prefix, socket.gethostname(), platform.node()}
    names.add(f"/{getpass.getuser()}")
    for name in names - {""}:
        assert name not in text
    assert not re.search(r"(?<![\w.])/(home|root|Users|tmp|work|usr)/", text)


@pytest.mark.parametrize("flags", [(), ("--json",)])
def test_an_inspector_that_is_damaged_is_a_problem_without_its_path(flags, part, command_line, tmp_path):
    path = tmp_path / "secret.handful"
    content = bytearray((part / "jane.handful").read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    code, said, (sentence,) = command_line("doctor", path, *flags)
    assert code == 2
    assert str(path) in sentence
    text = "\n".join(said)
    assert "InspectorError" in text
    assert "secret" not in text
    if flags:
        assert json.loads(said[0])["well"] is False


def test_references_must_come_with_an_inspector(part, command_line):
    code, said, (sentence,) = command_line("doctor", "--references", part / "good")
    assert (code, said) == (2, [])
    assert "must come with the inspector" in sentence


WITHOUT_TORCH = """
    import importlib.machinery as machinery, sys
    found = machinery.PathFinder.find_spec
    def find(name, path=None, target=None):
        return None if name.split(".")[0] in ("torch", "timm") else found(name, path, target)
    machinery.PathFinder.find_spec = find
    sys.argv = ["handful", "doctor", *sys.argv[1:]]
    from handful.cli.main import main
    main()
"""


def doctor_without_torch(*arguments):
    command = [sys.executable, "-c", textwrap.dedent(WITHOUT_TORCH), *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, env=os.environ)


def test_without_torch_an_inspector_with_its_graph_is_well(part):
    done = doctor_without_torch(part / "jane.handful", "--references", part / "good")
    found = rows(done.stdout.splitlines())
    assert done.returncode == 0, done.stderr
    assert found["torch"].startswith("not installed")
    assert "not compared here" in found["graph"]


def test_without_torch_an_inspector_that_needs_it_is_a_problem(saved):
    done = doctor_without_torch(saved)  # fitted with torch's engine
    assert done.returncode == 2
    assert 'pip install "handful[fit]"' in done.stderr
    assert str(saved) not in done.stdout
