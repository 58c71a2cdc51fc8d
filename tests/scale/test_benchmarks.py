"""The benchmarks of `handful score` run from end to end at tiny sizes, and their pages say which bounds are missed."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
MODULES = ("scale", "_scale_page", "_scale_pictures", "_scale_stub", "_scale_watch")


@pytest.fixture
def benchmark(monkeypatch):
    """A module of benchmarks/ by its name."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in MODULES:
        sys.modules.pop(name, None)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_measures_and_writes_its_page(benchmark, miniatures, tmp_path, monkeypatch):
    data, out = miniatures["mvtec_ad"].parent, tmp_path / "scale"
    sizes = "--stub 3000 --rows 50 100 --planned 5000 --rounds 1 --workers 1 --engines local"
    words = f"--data {data} --category mvtec_ad/bottle --parts machinery memory plan --out {out} {sizes}"
    monkeypatch.setattr(sys, "argv", ["scale", *words.split()])
    benchmark("scale").main()
    page = out.with_suffix(".md").read_text()
    assert all(f"| {check}: " in page for check in ("4", "5", "11", "15"))
    assert "--data DIR" in page and str(tmp_path) not in page
    rows = json.loads((out / "memory.json").read_text())["rows"]
    assert [row["rows"] for row in rows if row["name"] == "local"] == [50, 100]
    assert all(row["worker_mb"] > 50 for row in rows if row["name"] == "local")
    assert [row["shards"] for row in rows if row["name"] == "resume"] == [0, 0]
    machinery = json.loads((out / "machinery.json").read_text())["rows"]
    assert machinery[0]["pictures"] == 3000 and machinery[0]["first"] < machinery[0]["seconds"]


def engine_rows(ratio):
    """A round of each contestant, local as many times as fast as two inspections at once."""
    common = {"round": 0, "pictures": 480, "first": 20.0}
    return [
        {**common, "name": "inspect", "workers": 2, "seconds": 100.0},
        {**common, "name": "local", "workers": 2, "seconds": 100 / ratio, "rate": 40.0},
        {**common, "name": "ray", "workers": 2, "seconds": 100.0, "rate": 40.0},
        {**common, "name": "local", "workers": 1, "seconds": 200 / ratio, "rate": 20.0},
    ]


@pytest.mark.parametrize(("ratio", "said"), [(1.4, "1.40 x | yes |"), (1.2, "1.20 x | **no** |")])
def test_a_bound_that_is_missed_is_said(benchmark, ratio, said):
    checks = benchmark("_scale_page").engines(engine_rows(ratio))[1]
    assert said in str(checks[0])
    assert [str(check)[-5:] for check in checks[1:]] == ["yes |"] * 4


def test_a_bound_that_holds_of_too_few_pictures_is_said(benchmark):
    few = [{**row, "pictures": 100} for row in engine_rows(1.4)]
    assert str(benchmark("_scale_page").engines(few)[1][0]).endswith("| yes, of a smaller run |")
