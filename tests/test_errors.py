"""The words of messages; each error is tested where it is raised."""

import sys

import pytest

from handful import errors
from handful.errors import install_command, number_of, repair_command


@pytest.mark.parametrize(("count", "said"), [(0, "0 good pictures"), (1, "1 good picture"), (12, "12 good pictures")])
def test_a_number_stands_with_its_noun(count, said):
    assert number_of(count, "good picture") == said


@pytest.fixture
def installed_by(tmp_path, monkeypatch):
    """Run as if a program had made the environment, by the file that the program leaves in it."""

    def made(mark):
        monkeypatch.setattr(sys, "prefix", str(tmp_path / "handful"))
        (tmp_path / "handful").mkdir()
        (tmp_path / "handful" / mark).touch()

    return made


def test_an_extra_is_added_by_the_program_that_installed_handful(installed_by):
    assert install_command("fit") == 'pip install "handful[fit]"'
    assert repair_command("--upgrade", "handful") == "pip install --upgrade handful"
    installed_by("pipx_metadata.json")
    assert install_command("fit") == 'pipx runpip handful install "handful[fit]"'
    assert repair_command("--upgrade", "handful") == "pipx runpip handful install --upgrade handful"


def test_a_tool_of_uv_keeps_the_extras_that_it_has(installed_by, monkeypatch):
    find = errors.find_spec
    lacking = {"pyarrow", "ray", "sklearn", "open_clip", "kornia", "onnx", "matplotlib"}
    monkeypatch.setattr(errors, "find_spec", lambda name: None if name in lacking else find(name))
    installed_by("uv-receipt.toml")
    assert install_command("scale") == 'uv tool install "handful[fit,scale]"'
    assert repair_command("--upgrade", "handful") == "uv tool upgrade --reinstall handful"
