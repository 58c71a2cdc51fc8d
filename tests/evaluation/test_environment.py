import subprocess
from pathlib import Path

import pytest

from handful.evaluation import environment

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not (ROOT / ".git").exists(), reason="needs a checkout")
def test_the_commit_is_the_checkouts():
    head = subprocess.run(["git", "rev-parse", "HEAD"], capture_output=True, text=True, cwd=ROOT).stdout.strip()
    assert head.startswith(environment.commit().removesuffix("-dirty").rpartition("-g")[2])
    assert environment.commit()


def test_an_installed_package_does_not_take_the_commit_of_a_checkout_around_it(tmp_path, monkeypatch):
    subprocess.run(["git", "init", "-q", tmp_path], check=True)
    (tmp_path / "file").touch()
    identity = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for command in (("add", "."), (*identity, "commit", "-qm", "theirs")):
        subprocess.run(["git", *command], cwd=tmp_path, check=True)
    installed = tmp_path / ".venv/lib/site-packages/handful/evaluation"
    installed.mkdir(parents=True)
    monkeypatch.setattr(environment, "__file__", str(installed / "environment.py"))
    assert environment.commit() == ""
