"""Completion in a shell, through bash itself, and through what zsh asks."""

import os
import shutil
import subprocess
import sys

import pytest

from handful.methods import METHODS

BASH = shutil.which("bash")


@pytest.fixture
def program(tmp_path):
    """A folder with a program `handful`, as pip would install it."""
    folder = tmp_path / "bin"
    folder.mkdir()
    script = folder / "handful"
    script.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m handful "$@"\n')
    script.chmod(0o755)
    return {**os.environ, "PATH": f"{folder}{os.pathsep}{os.environ['PATH']}", "HOME": str(tmp_path), "SHELL": "bash"}


def completed(program, *words):
    """What bash offers for the last of some words."""
    asked = """
        source ~/.bash_completions/handful.sh
        COMP_WORDS=("$@"); COMP_CWORD=$((${#COMP_WORDS[@]} - 1))
        _handful_completion handful
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    command = [BASH, "-c", asked, "bash", "handful", *words]
    done = subprocess.run(command, capture_output=True, text=True, env=program, check=True)
    return done.stdout.split()


@pytest.mark.skipif(BASH is None, reason="needs bash")
def test_bash_completes_verbs_methods_and_categories(program, picture_factory, tmp_path):
    installed = subprocess.run(
        [BASH, "-c", "handful --install-completion; true"], capture_output=True, text=True, env=program
    )
    assert "bash completion installed" in installed.stdout, installed.stderr
    assert ".bash_completions/handful.sh" in (tmp_path / ".bashrc").read_text()

    assert completed(program, "ins") == ["inspect"]
    assert completed(program, "fit", "--method", "") == sorted(METHODS)
    assert completed(program, "fit", "--method", "fa") == ["fasl", "fastrecon"]
    assert completed(program, "inspect", "--engine", "o") == ["openvino"]
    for category in ("bolt", "nut"):
        for place in ("train/good", "test/good"):
            (tmp_path / "set" / category / place).mkdir(parents=True)
            (tmp_path / "set" / category / place / "1.png").write_bytes(b"")
    data = f"mine:{tmp_path / 'set'}"
    assert completed(program, "bench", "--data", data, "--categories", "") == ["bolt", "nut"]
    # bash takes a word apart at each colon
    assert completed(program, "bench", "--data", "mine", ":", str(tmp_path / "set"), "--categories", "n") == ["nut"]
    assert completed(program, "bench", "--data", "mine:nowhere", "--categories", "") == []


def test_zsh_gets_the_methods_too(program):
    asked = {"_HANDFUL_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "handful fit --method pa"}
    done = subprocess.run(["handful"], capture_output=True, text=True, env=program | asked)
    assert "patchcore" in done.stdout
    assert "fastrecon" not in done.stdout
