"""The programs in examples/ that read the table of `handful score`, and that score on Spark, run and are right."""

import os
import runpy
import shutil
import statistics
import subprocess
import sys
from datetime import UTC, date, datetime
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from handful import scale

EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def days(tmp_path, picture_factory, monkeypatch):
    """An archive of four days that grow darker, a picture whose file tells the day, and a file that is no picture."""
    monkeypatch.chdir(tmp_path)
    for number in range(20):
        day = number // 5
        pixels = (picture_factory(number, defect=number == 7) * (1 - 0.1 * day)).astype(np.uint8)
        path = Path(f"archive/2026-03-{day + 1:02}/{number:03}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    Path("archive/2026-03-02/cut.png").write_bytes(b"cut")
    shutil.copy("archive/2026-03-01/000.png", "archive/late.png")
    noon = datetime(2026, 3, 9, 12, tzinfo=UTC).timestamp()
    os.utime("archive/late.png", (noon, noon))


@pytest.fixture
def planned(days, saved_with_graph):
    """Plan a run of the archive; the numbers of its shards."""

    def plan(out):
        scale.plan(out, pictures=["archive"], inspector=str(saved_with_graph), shard=6)
        return scale.todo(out)

    return plan


def test_the_table_is_read_and_the_drift_plotted(planned, monkeypatch, capsys):
    for package in ("polars", "duckdb", "matplotlib"):
        pytest.importorskip(package, reason=f"{package} is missing")
    monkeypatch.setenv("MPLBACKEND", "agg")
    shards = planned("scores")
    worker = scale.Worker("scores")
    assert not any(worker(shard).failed for shard in shards)
    found = runpy.run_path(str(EXAMPLES / "read_scores.py"))
    rows = scale.table("scores").to_pylist()
    by_day = {}
    for row in rows:
        if row["score"] is not None:
            day = Path(row["path"]).parent.name
            by_day.setdefault("2026-03-09" if day == "archive" else day, []).append(row)
    assert {name: len(rows) for name, rows in by_day.items()} == {
        **{f"2026-03-{day:02}": 5 for day in range(1, 5)},
        "2026-03-09": 1,
    }
    for row in found["days"].to_dicts():
        scored = by_day[str(row["day"])]
        scores = [one["score"] for one in scored]
        assert isinstance(row["day"], date) and row["pictures"] == len(scores)
        assert row["median"] == pytest.approx(statistics.median(scores))
        assert min(scores) <= row["low"] <= row["median"] <= row["high"] <= max(scores)
        assert row["defects"] == pytest.approx(np.mean([one["verdict"] == "DEFECT" for one in scored]))
    printed = capsys.readouterr().out
    assert "Pictures with DECODE: 1, for example: " in printed and "cut.png" in printed
    with Image.open("drift.png") as plot:
        assert plot.size == (1200, 750) and len(plot.convert("RGB").getcolors(1 << 20)) > 10


@pytest.mark.skipif(shutil.which("java") is None, reason="Java, which Spark runs in, is missing")
def test_spark_writes_the_parts_of_one_worker(planned, part_bytes):
    pytest.importorskip("pyspark", reason="pyspark is missing")
    shards = planned("alone")
    worker = scale.Worker("alone")
    assert not any(worker(shard).failed for shard in shards)
    planned("spark")
    environment = os.environ | {
        "PYSPARK_PYTHON": sys.executable,
        "PYSPARK_SUBMIT_ARGS": "--master local[2,4] --conf spark.ui.enabled=false pyspark-shell",
        "SPARK_LOCAL_IP": "127.0.0.1",
        "PYTHONPATH": os.pathsep.join(sys.path),
    }
    command = [sys.executable, str(EXAMPLES / "score_on_spark.py"), "spark"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert part_bytes("spark") == part_bytes("alone") and len(part_bytes("spark")) == len(shards)
    assert Path("spark/summary.json").is_file() and Path("spark/failures.parquet").is_file()
