"""Hostile inputs of every kind are taken or refused in one sentence; `scripts/fuzz` puts many more."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).parents[1] / "benchmarks" / "fuzz.py"
LINUX = pytest.mark.skipif(sys.platform != "linux", reason="memory and limits are told in Linux's way")


@LINUX
def test_two_thousand_hostile_inputs_are_taken_or_refused_in_one_sentence():
    done = subprocess.run([sys.executable, FUZZ, "--count", "2000"], capture_output=True, text=True, env=os.environ)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert "0 findings." in done.stdout
