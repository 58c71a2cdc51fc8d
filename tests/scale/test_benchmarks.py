"""The benchmarks of `handful score` run from end to end at tiny sizes, and their pages say which bounds are missed."""

import importlib
import json
import sys
from pathlib import Path

import pytest

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")
MODULES = (
    *("scale", "scale_folder", "scale_simulation", "_scale_cluster", "_scale_events", "_scale_page", "_scale_parts"),
    *("_scale_pictures", "_scale_simulation_page", "_scale_stub", "_scale_watch"),
)


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
    monkeypatch.setattr(benchmark("_scale_watch"), "EVERY", 0.02)  # seconds; so few rows take a part of a second
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
    common = {"round": 0, "pictures": 480, "first": 20.0, "cpu": 40.0}
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


@pytest.fixture
def events(benchmark):
    return benchmark("_scale_events")


def test_a_simulation_without_trouble_takes_the_ideal_time(events):
    cluster = events.Cluster(workers=10, losses=0, slow=0, limit=1e9)
    work = events.Work(100_000, 1_000, 0.04, load=2.0, requests=0.0)
    outcome = events.simulate(cluster, work)
    assert outcome.ideal == pytest.approx(400)
    assert outcome.seconds == pytest.approx(402)  # ten shards a worker, and a load
    assert outcome.tail == pytest.approx(40) and outcome.lost == 0


def test_a_simulated_store_gives_no_more_than_its_limit(events):
    cluster = events.Cluster(workers=10, losses=0, slow=0, prefixes=1, limit=50.0)
    outcome = events.simulate(cluster, events.Work(100_000, 1_000, 0.04, load=0.0, requests=0.0))
    assert outcome.seconds == pytest.approx(100_000 / 50)


def test_neighbours_that_lie_apart_use_all_prefixes(events):
    work = events.Work(100_000, 100, 0.04, load=0.0, requests=0.0)
    common = {"workers": 10, "losses": 0, "slow": 0, "prefixes": 10, "limit": 50.0}
    apart, in_order = (events.simulate(events.Cluster(**common, spread=spread), work) for spread in (True, False))
    assert in_order.seconds == pytest.approx(2_000)  # one prefix after the other
    assert apart.seconds < 0.6 * in_order.seconds


def test_simulated_shards_of_lost_machines_are_scored_again(events):
    cluster = events.Cluster(workers=8, per_machine=2, losses=10.0, back=60.0, slow=0)
    outcome = events.simulate(cluster, events.Work(200_000, 1_000, 0.04), seed=3)
    assert outcome.machines_lost > 0
    assert 0 < outcome.lost <= outcome.machines_lost * 2 * 42
    assert outcome.seconds > outcome.ideal + outcome.lost / 8


def test_simulated_queue_has_the_order_of_todo(events):
    from handful.scale import scoring

    assert events.SPREAD == scoring._SPREAD


def test_hollow_runs_are_resumed_and_scored_by_sleepers(benchmark, tmp_path):
    from handful import scale

    jobs, out = benchmark("_scale_cluster"), str(tmp_path / "out")
    assert jobs.hollow(out, 2_500, 4, parts=0.5)["done"] == 1_250
    assert jobs.left(out)["left"] == 1_250
    few = str(tmp_path / "few")
    jobs.hollow(few, 3, 4, parts=0)
    sleeper = jobs.sleeper((0.001,))(few, scale.Options())
    summaries = [json.loads(one) for one in sleeper({"id": [0, 1, 2]})["summary"]]
    assert [one["pictures"] for one in summaries] == [4, 4, 4]
    assert list(scale.score(few)) == []
    assert json.loads((tmp_path / "few/summary.json").read_text())["verdicts"] == {"OK": 12}


def test_simulates_and_writes_its_page(benchmark, miniatures, tmp_path, monkeypatch):
    data, out = miniatures["mvtec_ad"].parent, tmp_path / "simulation"
    out.mkdir()
    found = {"picture": 0.04, "load": 2.0, "variation": [0.9, 1.1], "pictures": 50}
    record = dict.fromkeys(
        ("command", "commit", "category", "handful", "openvino", "platform", "cpu", "cpu_cores"), "-"
    )
    (out / "measured.json").write_text(json.dumps({**record, "seconds": 1, "load": [1, 2], "rows": [found]}))
    sizes = "--workers 50 --many 200000 --shards 500 2000 --seeds 1 --planned 3000 5000 --resumed 40000"
    words = f"--data {data} --category mvtec_ad/bottle --parts events plans --out {out} {sizes}"
    monkeypatch.setattr(sys, "argv", ["scale_simulation", *words.split()])
    simulation = benchmark("scale_simulation")
    simulation.main()
    rows = json.loads((out / "plans.json").read_text())["rows"]
    assert [row["rows"] for row in rows] == [3_000, 5_000, 40_000]
    page = out.with_suffix(".md").read_text()
    assert "So 10^9 rows would take" in page and "| 40,000 | 20 | 10 |" in page
    assert len(json.loads((out / "events.json").read_text())["rows"]) == 2 * len(simulation.FORMS)


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="memory is read from /proc")
def test_a_folder_by_processes_has_the_answers_of_threads(benchmark, miniatures, tmp_path, monkeypatch):
    data, out = miniatures["mvtec_ad"].parent, tmp_path / "folder"
    words = f"--data {data} --category mvtec_ad/bottle --pictures 6 --rounds 1 --size 64 --out {out}"
    monkeypatch.setattr(sys, "argv", ["scale_folder", *words.split()])
    benchmark("scale_folder").main()
    page = out.with_suffix(".md").read_text()
    assert "| 6 | " in page and "bound of 1.5" in page
    rows = json.loads(out.with_suffix(".json").read_text())["rows"]
    assert [row["form"] for row in rows] == ["threads", "processes"]
    assert all(row["peak_mb"] > 50 for row in rows)
