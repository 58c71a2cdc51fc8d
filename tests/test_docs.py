"""The documentation site builds strictly: every link and every name of the reference leads somewhere."""

import os
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture
def docs(monkeypatch):
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    script = runpy.run_path(str(ROOT / "scripts" / "docs"))
    script["copy_pages"]()
    return script["STAGE"]


def built(site):
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(site)]
    return subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, env={**os.environ, "NO_MKDOCS_2_WARNING": "1"}
    )


def test_the_site_builds_strictly_and_a_dead_link_ends_the_build(docs, tmp_path):
    whole = built(tmp_path / "whole")
    assert whole.returncode == 0, whole.stderr
    assert "Detector" in (tmp_path / "whole" / "docs" / "reference.html").read_text()
    with (docs / "docs" / "teach.md").open("a") as page:
        page.write("\n[nowhere](nothing.md)\n")
    dead = built(tmp_path / "dead")
    assert dead.returncode and "nothing.md" in dead.stderr
