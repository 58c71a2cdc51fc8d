"""`inspect` by processes gives the answers of one process, to the bit and in order."""

import importlib
import os
import sys

import numpy as np
import pytest
from PIL import Image

import handful
from handful.data import images
from handful.errors import ProcessError
from handful.scale import inspecting, pool


@pytest.fixture
def many(archive_folder, picture_factory):
    """Twice as many pictures as a few, some of them spoilt."""
    for number in range(20):
        Image.fromarray(picture_factory(100 + number, side=120)).save(archive_folder / f"{number}.png")
    (archive_folder / "5.png").write_bytes(b"")
    (archive_folder / "6.png").write_text("no picture")
    return archive_folder


def same(one, other):
    assert one.as_dict() == other.as_dict()
    if one.heatmap is None:
        return other.heatmap is None
    return np.array_equal(one.heatmap, other.heatmap)


@pytest.mark.parametrize("keep", [True, False])
def test_answers_are_those_of_one_process(many, saved_with_graph, monkeypatch, keep):
    monkeypatch.setattr(inspecting, "usable_cores", lambda: 2)
    monkeypatch.setattr(inspecting, "EACH", 5)
    sources = images.gather(many, recursive=True)
    found = list(inspecting.by_processes(saved_with_graph.read_bytes(), sources, max_pixels=None, keep_pictures=keep))
    expected = list(handful.load(saved_with_graph)._stream(sources))
    assert [one.path for one, _ in found] == [name for _, name in sources]
    for (one, picture), (other, read) in zip(found, expected, strict=True):
        assert same(one, other)
        if keep and read is not None:
            assert np.array_equal(picture.pixels, read.pixels)
        else:
            assert picture is None


def test_the_command_uses_processes_for_many_pictures(many, saved_with_graph, tmp_path, command_line, monkeypatch):
    few = command_line("inspect", saved_with_graph, many, "--json")
    monkeypatch.setattr("handful.inspector.MANY", 10)
    monkeypatch.setattr(inspecting, "EACH", 5)
    monkeypatch.setattr(inspecting, "usable_cores", lambda: 2)
    started = []
    original = pool.Pool._start
    monkeypatch.setattr(pool.Pool, "_start", lambda self: (started.append(1), original(self))[1])
    assert command_line("inspect", saved_with_graph, many, "--json") == few
    assert len(started) == 2
    command = ["inspect", saved_with_graph, many, "--json", "--max-pixels", "10000"]
    code, out, _ = command_line(*command, "--report", tmp_path / "report", "--heatmaps", tmp_path / "maps")
    assert code == 2
    assert sum('"ERROR"' in line for line in out[:-1]) == 20  # those of 120 x 120, and the spoilt ones among them
    assert len(list((tmp_path / "maps").rglob("*.png"))) == 23


def test_few_pictures_one_core_and_tiles_stay_in_this_process(saved_with_graph, monkeypatch):
    opened = handful.load(saved_with_graph)
    monkeypatch.setattr(inspecting, "usable_cores", lambda: 2)
    assert inspecting.is_quicker(opened, 200)
    assert not inspecting.is_quicker(opened, 199)
    monkeypatch.setattr(inspecting, "usable_cores", lambda: 1)
    assert not inspecting.is_quicker(opened, 200)


def test_a_computer_of_many_cores_starts_as_many_processes_as_the_pictures_repay(saved_with_graph, monkeypatch):
    """64 processes for 250 pictures would take longer to start than they save, and 13 GB."""
    asked = []

    class Counting(pool.Pool):
        def __init__(self, make, count, **options):
            asked.append(count)
            raise KeyboardInterrupt

    monkeypatch.setattr(inspecting, "Pool", Counting)
    monkeypatch.setattr(inspecting, "usable_cores", lambda: 64)
    for pictures in (250, 100_000):
        sources = [(f"{number}.png", f"{number}.png") for number in range(pictures)]
        with pytest.raises(KeyboardInterrupt):
            next(inspecting.by_processes(b"", sources, max_pixels=None, keep_pictures=False))
    assert asked == [2, 64]


TASKS = """
import os

def dying():
    return lambda task: os._exit(3)

def never():
    os._exit(4)

def failing():
    def fail(task):
        raise ValueError(f"no {task}")
    return fail

def doubling():
    return lambda task: 2 * task

def environment():
    return os.environ.get
"""


@pytest.fixture
def tasks(tmp_path, monkeypatch):
    """Functions that processes can import."""
    (tmp_path / "pool_tasks.py").write_text(TASKS)
    monkeypatch.syspath_prepend(tmp_path)
    yield importlib.import_module("pool_tasks")
    sys.modules.pop("pool_tasks")


def test_processes_that_cannot_start_are_an_error(tasks):
    sentence = "must start and answer, got 4 that ended at once, the last by exit code 4"
    with pool.Pool(tasks.never, 1) as processes, pytest.raises(ProcessError, match=sentence):
        for _ in range(5):
            list(processes.answers([1]))


def test_a_pool_answers_raises_and_replaces(tasks):
    with pool.Pool(tasks.doubling, 2) as processes:
        assert sorted(processes.answers(range(20))) == [(n, 2 * n) for n in range(20)]
        assert list(processes.in_order(range(20), ahead=3)) == [(n, 2 * n) for n in range(20)]
    with pool.Pool(tasks.failing, 1) as processes, pytest.raises(ValueError, match="no 7"):
        list(processes.answers([7]))
    with pool.Pool(tasks.dying, 1) as processes:
        died = [answer for _, answer in processes.answers(range(6))]
        assert [answer.code for answer in died] == [3] * 6
        assert str(died[0]) == "exit code 3"
    assert str(pool.Died(-11, 0.0)) == "SIGSEGV"


def test_the_threads_of_processes_are_limited_and_ours_are_not(tasks, monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.delenv("MKL_NUM_THREADS", raising=False)
    with pool.Pool(tasks.environment, 1, threads=3) as processes:
        assert next(processes.answers(["OMP_NUM_THREADS"]))[1] == "3"
        assert next(processes.answers(["MKL_NUM_THREADS"]))[1] == "3"
    assert os.environ["OMP_NUM_THREADS"] == "7"
    assert "MKL_NUM_THREADS" not in os.environ
