"""Pictures, runs and stubs for the tests of `handful.scale`."""

import importlib
import sys
from pathlib import Path

import pytest
from PIL import Image

from handful import scale

BENCHMARKS = str(Path(__file__).parents[2] / "benchmarks")


@pytest.fixture
def stubs(monkeypatch):
    """benchmarks/_scale_stub.py, which worker processes can import too."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("_scale_stub")
    sys.modules.pop("_scale_stub", None)


@pytest.fixture
def archive_folder(tmp_path, picture_factory):
    """A folder of 23 pictures in subfolders, each third with a defect, and a file that is none."""
    folder = tmp_path / "archive"
    for number in range(23):
        path = folder / f"day{number % 3}" / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture_factory(number, defect=number % 3 == 0)).save(path)
    (folder / "notes.txt").write_text("by hand")
    return folder


@pytest.fixture
def scored(tmp_path, archive_folder, saved_with_graph):
    """Score the archive by the local engine; the folder of the run and the summaries."""

    def score(name="out", *, shard=5, workers=1, engine="local", **options):
        out = str(tmp_path / name)
        scale.plan(out, pictures=[str(archive_folder)], inspector=str(saved_with_graph), shard=shard)
        return out, list(scale.score(out, engine=engine, workers=workers, options=scale.Options(**options)))

    return score


def part_bytes(out):
    """The parts of a run by name."""
    return {path.name: path.read_bytes() for path in sorted(Path(out).glob("parts/*/*.parquet"))}


@pytest.fixture(name="part_bytes")
def _part_bytes():
    return part_bytes
