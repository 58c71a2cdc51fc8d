"""Killed jobs and workers of `handful score` lose nothing; `scripts/bench scale_kills` ends many more, on Ray too."""

import importlib
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
MODULES = ("scale_kills", "_scale_killing", "_scale_kill_job", "_scale_stub", "_fuzz_seeds")
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="knows processes by /proc")


@pytest.fixture
def scale_kills(monkeypatch):
    """benchmarks/scale_kills.py."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("scale_kills")
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.fixture
def setting(scale_kills, saved_with_graph, tmp_path):
    return scale_kills.prepared(tmp_path / "kills", saved_with_graph, pictures=600, shard=20, seed=0)


@pytest.mark.parametrize("victim", ["job", "worker"])
def test_two_kills_lose_nothing(scale_kills, setting, victim):
    found = scale_kills.killed(setting, "local", victim, 2)
    assert scale_kills.findings(found) == []
    assert [one["working"] for one in found["rounds"]] == [True, True]
    assert found["rows"] == 600
    assert found["marks"] == 0


def test_harm_is_found(scale_kills, setting):
    """A part that is lost, other bytes, a mark of a job that nothing ended, a half-written file in use."""
    import shutil

    out = setting.folder / "out"
    shutil.copytree(setting.whole, out)
    first, second = sorted(out.glob("parts/*/*.parquet"))[:2]
    first.unlink()
    shutil.copy(sorted(out.glob("parts/*/*.parquet"))[1], second)
    (out / "attempts").mkdir(exist_ok=True)
    (out / "attempts" / "0000000-other-01").touch()
    (out / "attempts" / ".1a2b3c.part").touch()  # of a mark that a kill cut off: the next command removes it
    facts = {"engine": "local", "victim": "job", "count": 1, "code": 0, "said": ""}
    rounds = [{"working": True, "progress": 0, "left": 0}]
    found = {**facts, "rounds": rounds, "last": {"progress": 1, "left": 0}, **scale_kills.looked(setting, out, ["a"])}
    said = "\n".join(scale_kills.findings({**found, "seconds": 1.0}))
    assert "28 of 30 parts are equal" in said
    assert "of 580 rows are those of the plan of 600" in said
    assert "560 of 580 keys are distinct" in said
    assert "the least progress was 0 shards" in said
    assert "0000000-other-01" in said
