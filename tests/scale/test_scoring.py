"""A run gives every picture the row that `inspect --json` would give, and survives all that ends its processes."""

import json
import os
import shutil
import signal
import struct
import subprocess
import sys
import threading
import time
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import handful
from handful import scale
from handful.errors import InputError, OutputError, SettingError
from handful.scale import planning

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def as_json(row):
    """A row of the table in the form of `Inspection.as_dict`."""

    def place(found):
        at = found and [found["at_x"], found["at_y"]]
        return found and {"picture": found["picture"], "at": at, "distance": found["distance"]}

    answer = {name: row[name] for name in ("path", "verdict", "score", "raw_score", "raw_threshold", "inspector")}
    answer["regions"] = [
        {
            "box": [one[name] for name in ("left", "top", "width", "height")],
            "area": one["area"],
            "peak": one["peak"],
            "peak_at": [one["peak_x"], one["peak_y"]],
            "nearest": place(one["nearest"]),
        }
        for one in row["regions"]
    ]
    answer["missing"] = place(row["missing"])
    answer["size"] = None if row["width"] is None else [row["width"], row["height"]]
    if row["reason"] is not None:
        answer["reason"] = row["reason"]
    if row["notes"]:
        answer["notes"] = row["notes"]
    return answer


def inspected(inspector, folder):
    """The answers of `inspect --json`, by path."""
    opened = handful.load(inspector)
    return {one.path: json.loads(json.dumps(one.as_dict())) for one in opened.inspect(folder)}


def odd_pictures(folder, picture_factory):
    """Pictures of other depths, channels, orientations and sizes, and some that cannot be decoded."""
    pixels = picture_factory(40)
    Image.fromarray(pixels[:, :, 0].astype(np.uint16) * 257).save(folder / "sixteen.png")
    Image.fromarray(np.dstack([pixels, pixels[:, :, :1]])).save(folder / "rgba.png")
    exif = Image.Exif()
    exif[274] = 6
    Image.fromarray(pixels[:, :70]).save(folder / "turned.jpg", exif=exif, quality=95)
    whole = (folder / "rgba.png").read_bytes()
    (folder / "cut.png").write_bytes(whole[: len(whole) // 2])
    (folder / "empty.png").write_bytes(b"")
    (folder / "text.jpg").write_text("no picture")
    Image.fromarray(np.zeros((1, 1, 3), np.uint8)).save(folder / "dot.png")
    for name, side in (("nothing.png", 0), ("bomb.png", 60_000)):
        header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
        chunk = b"IHDR" + header
        length, check = struct.pack(">I", len(header)), struct.pack(">I", zlib.crc32(chunk))
        (folder / name).write_bytes(whole[:8] + length + chunk + check + whole[33:])
    (folder / "leads-nowhere.png").symlink_to(folder / "gone.png")


def test_every_field_is_that_of_inspect(scored, archive_folder, saved_with_graph, picture_factory):
    odd_pictures(archive_folder, picture_factory)
    out, summaries = scored(workers=2)
    rows = scale.table(out).to_pylist()
    expected = inspected(saved_with_graph, archive_folder)
    assert {row["path"]: as_json(row) for row in rows} == expected
    assert len(rows) == len(expected) == 33
    assert {row["error"] for row in rows if row["verdict"] == "ERROR"} == {"READ", "DECODE"}
    assert sum(summary.pictures for summary in summaries) == 33
    assert {row["verdict"] for row in rows} >= {"OK", "ERROR"}


def test_rows_say_where_they_come_from(scored, archive_folder, saved_with_graph):
    import hashlib

    out, _ = scored()
    rows = scale.table(out).to_pylist()
    assert [row["path"] for row in rows] == sorted(row["path"] for row in rows)
    assert [(row["shard"], row["row"]) for row in rows] == [(n // 5, n % 5) for n in range(23)]
    for row in rows:
        content = Path(row["path"]).read_bytes()
        assert row["picture_sha256"] == hashlib.sha256(content).hexdigest()
        assert row["bytes"] == len(content)
        assert row["product"] == "part"
        assert row["version"] == str(Path(row["path"]).stat().st_mtime_ns)
    assert {row["inspector_sha256"] for row in rows} == {hashlib.sha256(saved_with_graph.read_bytes()).hexdigest()}


def test_parts_depend_on_their_inputs_alone(scored, part_bytes):
    one, _ = scored("one", workers=1)
    two, _ = scored("two", workers=2)
    assert part_bytes(one) == part_bytes(two)
    assert len(part_bytes(one)) == 5


def test_a_worker_leaves_the_settings_of_its_process_alone(scored):
    import pyarrow

    out, _ = scored()
    pyarrow.set_cpu_count(7)
    try:
        Path(out, "parts/0/part-0000001.parquet").unlink()
        assert scale.Worker(out)(1).pictures == 5
        assert pyarrow.cpu_count() == 7
    finally:
        pyarrow.set_cpu_count(os.cpu_count())


def test_the_threads_that_read_are_kept_from_shard_to_shard(tmp_path, archive_folder, saved_with_graph, monkeypatch):
    scale.plan(str(tmp_path / "out"), pictures=[str(archive_folder)], inspector=str(saved_with_graph), shard=5)
    worker, threads, read = scale.Worker(str(tmp_path / "out")), set(), scale.Worker._contents
    monkeypatch.setattr(worker, "_contents", lambda span: threads.add(threading.current_thread()) or read(worker, span))
    assert [worker(shard).pictures for shard in range(5)] == [5, 5, 5, 5, 3]
    assert 1 <= len(threads) <= 2  # the C library keeps memory for each thread that ever was


def test_a_finished_run_reads_no_picture_again(scored, archive_folder, part_bytes):
    out, _ = scored()
    before = part_bytes(out)
    shutil.rmtree(archive_folder)
    assert list(scale.score(out)) == []
    assert part_bytes(out) == before
    assert json.loads(Path(out, "summary.json").read_text())["pictures"] == 23


def test_the_end_of_a_run_holds_few_parts_at_once(scored, archive_folder, monkeypatch):
    """A dataset keeps the metadata of every file that was read: 0.1 MB each, for as long as it lives."""
    from pyarrow import parquet

    from handful.scale import results

    opened, made = [], results._dataset
    monkeypatch.setattr(results, "TOGETHER", 2)
    monkeypatch.setattr(results, "_dataset", lambda run, files: opened.append(len(files)) or made(run, files))
    (archive_folder / "day1" / "cut.png").write_bytes(b"")
    (archive_folder / "cut.png").write_bytes(b"")
    out, _ = scored()
    assert opened == [2, 2, 1] * 2  # all rows are counted, then those with an error are copied
    summary = json.loads(Path(out, "summary.json").read_text())
    assert (summary["pictures"], summary["errors"]) == (25, {"DECODE": 2})
    failures = parquet.read_table(Path(out, "failures.parquet")).to_pylist()
    assert [Path(row["path"]).name for row in failures] == ["cut.png", "cut.png"]


def test_a_run_goes_on_where_parts_are_missing(scored, part_bytes):
    out, _ = scored()
    before = part_bytes(out)
    lost = sorted(Path(out).glob("parts/*/*.parquet"))[2]
    lost.unlink()
    assert scale.todo(out) == [2]
    assert [summary.shard for summary in scale.score(out)] == [2]
    assert part_bytes(out) == before


def test_pictures_that_end_their_process_get_a_row_each(scored, archive_folder, stubs):
    clean, _ = scored("clean")
    for name, kind in (("day0/000", "segfault"), ("day1/001", "memory"), ("day2/005", "forever")):
        shutil.copy(archive_folder / f"{name}.png", archive_folder / f"{name}-{kind}.png")
    out, _ = scored("poisoned", opening=stubs.poisoned, seconds=2.0, shard=26)
    rows = {Path(row["path"]).name: row for row in scale.table(out).to_pylist()}
    assert {name: row["error"] for name, row in rows.items() if row["error"]} == {
        "000-segfault.png": "CRASH",
        "001-memory.png": "CRASH",
        "005-forever.png": "TIMEOUT",
    }
    assert "SIGSEGV" in rows["000-segfault.png"]["reason"]
    assert "within 2 s" in rows["005-forever.png"]["reason"]
    healthy = {row["path"]: as_json(row) for row in rows.values() if row["error"] is None}
    assert healthy == {row["path"]: as_json(row) for row in scale.table(clean).to_pylist()}
    assert list(Path(out, "attempts").iterdir()) == []
    failures = json.loads(Path(out, "summary.json").read_text())["errors"]
    assert failures == {"CRASH": 2, "TIMEOUT": 1}


def test_errors_are_tried_again_when_asked(scored, archive_folder, part_bytes):
    away = archive_folder / "day0" / "000.png"
    kept = away.with_suffix(".kept")
    clean, _ = scored("clean")
    out, _ = scored("out")
    stat = away.stat()
    away.rename(kept)
    for path in Path(out).glob("parts/*/*.parquet"):
        path.unlink()
    Path(out, "summary.json").unlink()
    list(scale.score(out))
    assert json.loads(Path(out, "summary.json").read_text())["errors"] == {"READ": 1}
    kept.rename(away)
    os.utime(away, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert [summary.shard for summary in scale.score(out, retry_errors=True)] == [0]
    assert part_bytes(out) == part_bytes(clean)
    assert json.loads(Path(out, "summary.json").read_text())["errors"] == {}


def test_pictures_that_went_away_are_not_taken_for_a_result(scored, archive_folder):
    shutil.move(archive_folder, archive_folder.with_name("moved"))
    archive_folder.mkdir()
    for number in range(50):
        (archive_folder / f"{number}.png").symlink_to(archive_folder / "nothing")
    with pytest.raises(OutputError, match=r"got 25 of 25 that are not.* 0 of 2 shards are done"):
        scored("out", shard=25)
    assert not list((archive_folder.parent / "out").glob("parts/*/*"))


def test_a_few_pictures_that_are_missing_are_results(scored, archive_folder):
    for path in archive_folder.rglob("*.png"):
        path.with_name(f"link-{path.name}").symlink_to(path.parent / "nothing")
        path.unlink()
    out, _ = scored(shard=12)  # 23 at once would be too many
    assert scale.table(out)["error"].to_pylist() == ["READ"] * 23


def test_two_runs_at_once_give_every_row_once(tmp_path, archive_folder, saved_with_graph):
    out = tmp_path / "out"
    command = [sys.executable, "-m", "handful", "score", saved_with_graph, "--pictures", archive_folder, "--out", out]
    command += ["--shard", "4", "--workers", "1"]
    runs = [subprocess.Popen(list(map(str, command)), stderr=subprocess.PIPE, text=True) for _ in range(2)]
    for run in runs:
        said = run.communicate(timeout=120)[1]
        assert run.returncode == 0, said
    rows = scale.table(str(out))
    keys = {(row["inspector_sha256"], row["path"], row["version"]) for row in rows.to_pylist()}
    assert len(rows) == len(keys) == 23


def test_killed_runs_lose_no_finished_shard(tmp_path, saved_with_graph, stubs, part_bytes):
    """The whole job is killed four times at moments in which a worker works; the fifth call ends the run."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(200):
        (pictures / f"{number:03}.png").write_bytes(str(number).encode())
    whole = str(tmp_path / "whole")
    for out in (whole, str(tmp_path / "killed")):
        scale.plan(out, pictures=[str(pictures)], inspector=str(saved_with_graph), shard=10)
    list(scale.score(whole, workers=2, options=scale.Options(opening=stubs.stub)))
    script = (
        f"import sys; sys.path.insert(0, {str(BENCHMARKS)!r})\n"
        "if __name__ == '__main__':\n"
        "    import _scale_stub\nfrom handful import scale\n"
        "if __name__ == '__main__':\n"
        "    for one in scale.score(sys.argv[1], workers=2, options=scale.Options(opening=_scale_stub.slow)):\n"
        "        print(one.shard, flush=True)\n"
    )
    (tmp_path / "job.py").write_text(script)
    done = 0
    for _ in range(4):
        job = subprocess.Popen(
            [sys.executable, tmp_path / "job.py", tmp_path / "killed"], stdout=subprocess.PIPE, start_new_session=True
        )
        job.stdout.readline()
        time.sleep(0.03)
        os.killpg(job.pid, signal.SIGKILL)
        job.communicate()
        now = len(part_bytes(tmp_path / "killed"))
        assert now > done
        done = now
    list(scale.score(str(tmp_path / "killed"), workers=2, options=scale.Options(opening=stubs.stub)))
    assert part_bytes(tmp_path / "killed") == part_bytes(whole)
    assert not list((tmp_path / "killed" / "attempts").iterdir())
    assert len(scale.table(whole, columns=["path"])) == 200


def test_a_worker_that_is_killed_is_replaced(tmp_path, saved_with_graph, stubs, part_bytes):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for number in range(60):
        (pictures / f"{number:03}.png").write_bytes(str(number).encode())
    out = str(tmp_path / "out")
    scale.plan(out, pictures=[str(pictures)], inspector=str(saved_with_graph), shard=20)
    import multiprocessing

    killed = 0
    for _ in scale.score(out, workers=1, options=scale.Options(opening=stubs.slow)):
        for child in multiprocessing.active_children():
            if killed < 2:
                os.kill(child.pid, signal.SIGKILL)
                killed += 1
    assert killed == 2
    assert len(scale.table(out, columns=["path"])) == 60


def test_the_summary_follows_workers_of_another_program(scored, archive_folder, saved_with_graph, picture_factory):
    """An extension is scored by workers alone, as on Spark: the next command writes the summary."""
    out, _ = scored()
    Image.fromarray(picture_factory(70)).save(archive_folder / "later.png")
    scale.plan(out, pictures=[str(archive_folder)], inspector=str(saved_with_graph), shard=5, extend=True)
    worker = scale.Worker(out)
    for shard in scale.todo(out):
        worker(shard)
    assert list(scale.score(out)) == []
    assert json.loads(Path(out, "summary.json").read_text())["pictures"] == 24


def test_a_damaged_part_or_summary_is_one_sentence(scored):
    out, _ = scored()
    part, summary = Path(out, "parts/0/part-0000001.parquet"), Path(out, "summary.json")
    part.write_bytes(part.read_bytes()[:50])
    with pytest.raises(InputError, match=r"must be a run of whole parts that can be read, got: .*"):
        scale.table(out)
    summary.unlink()
    with pytest.raises(InputError, match=r"must be a run of whole parts that can be read, got: .*"):
        list(scale.score(out))
    summary.write_text("half")
    with pytest.raises(InputError, match=r"summary\.json must be the summary of a run, got: .*; remove it"):
        list(scale.score(out))


def test_equal_pictures_may_be_kept_once(scored, archive_folder):
    shutil.copy(archive_folder / "day0" / "000.png", archive_folder / "day1" / "copy.png")
    out, _ = scored()
    assert len(scale.table(out)) == 24
    assert len(scale.table(out, distinct=True)) == 23
    assert scale.table(out, columns=["path"], distinct=True).column_names == ["path"]


def test_a_compacted_run_has_the_same_table(scored, archive_folder, saved_with_graph, picture_factory):
    out, _ = scored()
    before = scale.table(out)
    assert scale.compact(out) == 1
    for path in Path(out).glob("parts/*/*.parquet"):
        path.write_bytes(b"")  # the table now comes from the compacted file
    assert scale.table(out).equals(before)
    Image.fromarray(picture_factory(50)).save(archive_folder / "later.png")
    scale.plan(out, pictures=[str(archive_folder)], inspector=str(saved_with_graph), shard=5, extend=True)
    list(scale.score(out))
    assert len(scale.table(out)) == 24
    assert scale.compact(out) == 2
    assert len(scale.table(out)) == 24


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"engine": "dask"}, "local or ray, got dask"),
        ({"workers": 0}, "at least 1, got 0"),
        ({"address": "auto"}, "cluster of Ray, got auto for local"),
    ],
)
def test_a_wrong_engine_is_refused(scored, changes, message):
    out, _ = scored()
    with pytest.raises(SettingError, match=message):
        scale.score(out, **changes)


def test_the_shards_of_an_inspector_follow_each_other(tmp_path, archive_folder, saved_with_graph):
    import pyarrow as pa
    from pyarrow import parquet

    folder = tmp_path / "inspectors"
    folder.mkdir()
    for product in "ab":
        shutil.copy(saved_with_graph, folder / f"{product}.handful")
    (folder / "b.handful").write_bytes(_other(saved_with_graph))
    paths = sorted(str(path) for path in archive_folder.rglob("*.png"))
    parquet.write_table(pa.table({"path": paths, "product": ["ab"[n % 2] for n in range(23)]}), tmp_path / "m.parquet")
    out = str(tmp_path / "out")
    scale.plan(out, manifest=str(tmp_path / "m.parquet"), inspectors=str(folder), shard=3)
    worker = scale.Worker(out)
    for shard in scale.todo(out):
        assert worker(shard).failed is None
    assert worker.loads == 2
    rows = scale.table(out).to_pylist()
    by_product = planning.record.read(planning.Place.at(out)).plans[0].inspectors
    assert {row["product"]: row["inspector_sha256"] for row in rows} == by_product
    assert len(rows) == 23


def _other(path):
    """Another file of an inspector with the same answers: its calibration has another digest."""
    import io
    import zipfile

    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    calibration = json.loads(contents["calibration.json"])
    calibration["threshold"] *= 1.5
    contents["calibration.json"] = json.dumps(calibration).encode()
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, content)
    return buffer.getvalue()
