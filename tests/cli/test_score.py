"""The verb `score`."""

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from handful import scale
from handful.cli import score as verb
from handful.scale.progress import Progress


@pytest.fixture
def archive(tmp_path, picture_factory):
    folder = tmp_path / "archive"
    folder.mkdir()
    for number in range(7):
        Image.fromarray(picture_factory(number)).save(folder / f"{number}.png")
    (folder / "notes.txt").write_text("by hand")
    return folder


@pytest.fixture
def score(command_line, archive, saved_with_graph, tmp_path):
    """Score the archive into `out` by one process."""

    def call(*words):
        start = ("score", saved_with_graph, "--pictures", archive, "--out", tmp_path / "out")
        return command_line(*start, "--shard", 3, "--workers", 1, *words)

    return call


def test_a_run_says_in_a_line_what_it_found(score, tmp_path, archive):
    code, out, err = score()
    assert code == 0
    verdicts = Counter(scale.table(str(tmp_path / "out"))["verdict"].to_pylist())
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(verdicts.items()))
    assert out == [f"7 pictures in 3 shards: {said}; {tmp_path / 'out'}"]
    assert err == [f"handful: left out 1 beside 7 pictures: {archive / 'notes.txt'} (no picture)."]


def test_json_has_a_line_a_shard_and_a_last_line(score, tmp_path):
    code, out, _ = score("--json")
    assert code == 0
    *shards, last = map(json.loads, out)
    assert sorted(one["shard"] for one in shards) == [0, 1, 2]
    assert [one["done"] for one in shards][-1] == 7
    assert shards[-1]["left"] == 0
    assert last["pictures"] == last["planned"] == 7
    assert last["out"] == str(tmp_path / "out")
    assert sum(last["verdicts"].values()) == 7
    code, out, _ = score("--json", "--compact")  # nothing is left to score
    assert code == 0
    assert json.loads(out[0])["compacted"] == 1


def test_pictures_with_errors_are_counted_and_the_run_is_whole(score, archive, tmp_path):
    (archive / "3.png").write_bytes(b"")
    code, out, err = score()
    assert code == 0
    assert "1 ERROR" in out[0]
    assert err[-1] == f"handful: pictures with an error: 1; see {tmp_path / 'out'}/failures.parquet."


def test_a_second_try_counts_from_the_pictures_that_it_leaves(score, archive, tmp_path):
    (archive / "3.png").rename(tmp_path / "kept")
    (archive / "3.png").symlink_to(archive / "gone")
    score()
    (archive / "3.png").unlink()
    (tmp_path / "kept").rename(archive / "3.png")
    code, out, _ = score("--json", "--retry-errors")
    assert code == 0
    assert [(one["done"], one["left"]) for one in map(json.loads, out[:-1])] == [(7, 0)]
    assert json.loads(out[-1])["errors"] == {}


def test_a_relative_folder_is_the_same_for_every_worker(command_line, archive, saved_with_graph, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, _, _ = command_line("score", saved_with_graph, "--pictures", "archive", "--out", "out", "--workers", 1)
    assert code == 0
    assert set(scale.table("out")["path"].to_pylist()) == {str(path) for path in archive.glob("*.png")}


def test_a_run_goes_on_without_its_sources(score, command_line, tmp_path, archive):
    score()
    lost = next(Path(tmp_path / "out").glob("parts/*/part-0000001.parquet"))
    lost.unlink()
    code, out, err = command_line("score", "--out", tmp_path / "out", "--json", "--workers", 1)
    assert code == 0
    assert err == ["handful: going on: 4 of 7 pictures are done."]
    assert [json.loads(line).get("shard") for line in out] == [1, None]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--shard", "0"), "A shard must hold at least 1 picture, got 0"),
        (("--engine", "dask"), "`engine` must be local or ray, got dask"),
        (("--workers", "0"), "at least 1, got 0"),
        (("--engine", "ray", "--address", "ray://head:10001"), "must be HOST:PORT of the cluster's head"),
        (("--manifest", "m.parquet"), "got another combination"),
    ],
)
def test_bad_input_is_one_sentence(score, tmp_path, words, sentence):
    code, out, err = score(*words)
    assert (code, out) == (2, [])
    assert len(err) == 1
    assert sentence in err[0]
    assert not (tmp_path / "out").exists()


def test_the_folder_of_the_run_is_needed(command_line):
    code, _, err = command_line("score")
    assert code == 2
    assert err == ["handful: `--out` must name the folder of the run, got none; add --out FOLDER."]


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="the superuser may write everywhere")
def test_a_folder_without_rights_is_refused(score, tmp_path):
    (tmp_path / "out").mkdir(mode=0o500)
    code, _, err = score()
    assert code == 2
    assert "must be writable" in err[-1]


def test_a_place_that_cannot_be_written_is_refused(score, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "plan").write_text("a file where a folder must be")
    code, _, err = score()
    assert code == 2
    assert "must be writable" in err[-1]
    assert not (tmp_path / "out" / "run.json").exists()


@pytest.mark.skipif(os.name == "nt", reason="Windows has no signals of this kind")
def test_an_interrupted_run_leaves_no_process(archive, saved_with_graph, tmp_path):
    for number in range(7, 300):
        os.link(archive / "0.png", archive / f"{number}.png")
    command = [sys.executable, "-m", "handful", "score", saved_with_graph, "--pictures", archive]
    command += ["--out", tmp_path / "out", "--shard", "3", "--workers", "2", "--json"]
    job = subprocess.Popen(
        list(map(str, command)), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    )
    assert job.stdout.readline()
    os.killpg(job.pid, signal.SIGINT)  # as a terminal does: to the workers too
    _, err = job.communicate(timeout=60)
    assert job.returncode == 130
    assert err.splitlines()[-1] == "handful: interrupted."
    with pytest.raises(ProcessLookupError):
        for _ in range(100):  # Python's own helper process ends a moment later
            os.killpg(job.pid, 0)
            time.sleep(0.1)


def test_durations_are_for_people():
    assert [verb._duration(seconds) for seconds in (4.2, 64, 7265)] == ["4 s", "1 min 4 s", "2 h 1 min"]


def test_progress_foretells_from_the_last_shards(monkeypatch):
    now = iter(range(0, 1000, 10))
    monkeypatch.setattr("time.monotonic", lambda: next(now))
    state = Progress([10] * 10, range(2, 10))
    assert state.seconds_left is None
    for shard in range(2, 5):
        state.add(scale.ShardSummary(shard, 10 * (shard > 2), errors={"READ": 1}))
    assert (state.done, state.errors, state.shards_left) == (50, 3, 5)
    assert state.seconds_left == 50  # ten seconds a shard
    assert state.per_second == pytest.approx(30 / 40)
