"""A plan gives every picture one shard and one row, from folders, tar files and manifests."""

import io
import json
import shutil
import tarfile
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from handful import scale
from handful.errors import InputError, InspectorError, SettingError
from handful.scale import planning
from handful.scale.places import Place
from handful.scale.run import Run, read


def planned(out):
    """All rows of a run's plan."""
    run = read(Place.at(str(out)))
    return [row for shard in range(run.shards) for row in run.planned(shard)]


@pytest.fixture
def plan(tmp_path, saved_with_graph):
    """Plan a run of one product."""

    def make(*pictures, name="out", **options):
        out = str(tmp_path / name)
        return scale.plan(out, pictures=[str(one) for one in pictures], inspector=str(saved_with_graph), **options)

    return make


def write_tar(path, files, mode="w"):
    """A tar file of (name, content)."""
    with tarfile.open(path, mode) as archive:
        for name, content in files:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))


def test_a_folder_is_planned_as_inspect_finds_it(tmp_path, plan, archive_folder):
    found = plan(archive_folder, shard=10)
    rows = planned(tmp_path / "out")
    assert [row["path"] for row in rows] == [str(path) for path in sorted(archive_folder.rglob("*.png"))]
    assert [(row["shard"], row["row"]) for row in rows] == [(n // 10, n % 10) for n in range(23)]
    assert (found.pictures, found.run.shards, found.left_out_count) == (23, 3, 1)
    assert found.left_out[0].path.endswith("notes.txt")
    assert all(row["bytes"] == Path(row["path"]).stat().st_size for row in rows)


def test_a_picture_that_is_named_twice_is_planned_once(tmp_path, plan, archive_folder):
    found = plan(archive_folder, archive_folder / "day0", archive_folder / "day1" / "001.png")
    assert (found.pictures, found.twice) == (23, 9)


def test_an_extension_plans_the_new_pictures_alone(tmp_path, plan, archive_folder, picture_factory):
    plan(archive_folder, shard=10)
    before = {path.name: path.read_bytes() for path in (tmp_path / "out" / "plan").iterdir()}
    for number in range(4):
        Image.fromarray(picture_factory(60 + number)).save(archive_folder / f"new{number}.png")
    assert plan(archive_folder, shard=10).pictures == 0
    found = plan(archive_folder, shard=10, extend=True)
    assert (found.pictures, found.run.shards, found.twice) == (4, 4, 0)
    rows = planned(tmp_path / "out")
    assert [Path(row["path"]).name for row in rows[23:]] == [f"new{number}.png" for number in range(4)]
    assert {(row["shard"], row["row"]) for row in rows[23:]} == {(3, number) for number in range(4)}
    assert {name: (tmp_path / "out" / "plan" / name).read_bytes() for name in before} == before
    assert plan(archive_folder, shard=10, extend=True).pictures == 0


def test_members_of_tar_files_are_scored_as_files(tmp_path, plan, archive_folder, scored):
    files = sorted(archive_folder.rglob("*.png"))
    folder = tmp_path / "shards"
    folder.mkdir()
    for part in range(2):
        members = [(f"{path.stem}.png", path.read_bytes()) for path in files[part::2]]
        write_tar(folder / f"{part}.tar", [*members, (f"{part}.json", b"{}")])
    found = plan(folder, name="tar", shard=6)
    assert (found.pictures, found.left_out_count) == (23, 2)
    worker = scale.Worker(str(tmp_path / "tar"))
    for shard in scale.todo(str(tmp_path / "tar")):
        assert worker(shard).failed is None
    out, _ = scored()
    columns = ["verdict", "score", "regions", "picture_sha256", "bytes", "width", "height", "error"]

    def rows(of):
        table = scale.table(of, columns=["path", *columns]).to_pylist()
        return {
            row["path"].replace("#", "/").rpartition("/")[2]: {name: row[name] for name in columns} for row in table
        }

    assert rows(str(tmp_path / "tar")) == rows(out)
    named = scale.table(str(tmp_path / "tar"))["path"].to_pylist()
    assert f"{folder}/0.tar#{files[0].stem}.png" in named


def test_neighbours_in_a_tar_file_are_read_at_once(tmp_path, plan, archive_folder, monkeypatch):
    files = sorted(archive_folder.rglob("*.png"))
    write_tar(tmp_path / "all.tar", [(path.name, path.read_bytes()) for path in files])
    plan(tmp_path / "all.tar", name="tar")
    reads = []
    original = Place.read
    monkeypatch.setattr(Place, "read", lambda self, *range_: (reads.append(self.name), original(self, *range_))[1])
    assert scale.Worker(str(tmp_path / "tar"))(0).verdicts
    assert reads.count("all.tar") == 1


def test_a_manifest_names_members_without_their_offsets(tmp_path, archive_folder, saved_with_graph):
    files = sorted(archive_folder.rglob("*.png"))[:4]
    write_tar(tmp_path / "all.tar", [(path.name, path.read_bytes()) for path in files])
    names = [f"all.tar#{path.name}" for path in files]
    parquet.write_table(pa.table({"path": names, "product": ["part"] * 4}), tmp_path / "m.parquet")
    out = str(tmp_path / "out")
    scale.plan(out, manifest=str(tmp_path / "m.parquet"), inspectors=str(saved_with_graph.parent))
    assert [row["bytes"] for row in planned(out)] == [path.stat().st_size for path in files]
    parquet.write_table(pa.table({"path": ["all.tar#no.png"], "product": ["part"]}), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"none for .*all\.tar#no\.png"):
        scale.plan(f"{out}2", manifest=str(tmp_path / "m.parquet"), inspectors=str(saved_with_graph.parent))


def test_a_manifest_keeps_versions_and_sizes(tmp_path, archive_folder, saved_with_graph):
    paths = [str(path) for path in sorted(archive_folder.rglob("*.png"))[:3]]
    columns = {"path": paths, "version": ["a", "b", None], "bytes": [1, 2, 3], "product": ["part"] * 3}
    parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    out = str(tmp_path / "out")
    scale.plan(out, manifest=str(tmp_path / "m.parquet"), inspectors=str(saved_with_graph.parent))
    assert [(row["version"], row["bytes"]) for row in planned(out)] == [("a", 1), ("b", 2), ("", 3)]


@pytest.mark.parametrize(
    ("columns", "message"),
    [
        ({"file": ["a.png"]}, "must have a column path, got .* with file"),
        ({"path": ["a.png", None], "product": ["part"] * 2}, "must have a path, got none in row 1"),
        ({"path": ["a.png"]}, "must have a product"),
        ({"path": ["a.png"], "product": ["part"], "bytes": ["many"]}, "column bytes must be of type int64"),
        ({"path": ["a.tar#b.png"], "product": ["part"], "offset": [512]}, "must have its bytes too"),
    ],
)
def test_a_wrong_manifest_is_refused(tmp_path, saved_with_graph, columns, message):
    parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    out = tmp_path / "out"
    with pytest.raises(InputError, match=message):
        scale.plan(str(out), manifest=str(tmp_path / "m.parquet"), inspectors=str(saved_with_graph.parent))
    assert not (out / "run.json").exists()


def test_a_product_without_an_inspector_is_refused(tmp_path, saved_with_graph):
    parquet.write_table(pa.table({"path": ["a.png"], "product": ["lid"]}), tmp_path / "m.parquet")
    with pytest.raises(InspectorError, match=r"inspector of lid must exist.*lid\.handful"):
        scale.plan(str(tmp_path / "o"), manifest=str(tmp_path / "m.parquet"), inspectors=str(saved_with_graph.parent))


@pytest.fixture
def two_inspectors(tmp_path, saved_with_graph):
    """A folder with the inspectors a and b, which have other thresholds."""
    folder = tmp_path / "inspectors"
    folder.mkdir()
    for name in "ab":
        shutil.copy(saved_with_graph, folder / f"{name}.handful")
    _teach(folder / "b.handful")
    return folder


def test_a_manifest_may_name_the_inspectors(tmp_path, archive_folder, two_inspectors):
    paths = sorted(map(str, archive_folder.rglob("*.png")))[:6]
    addresses = [str(two_inspectors / f"{name}.handful") for name in "ab"]
    columns = {"path": paths, "product": list("xyxyxy"), "inspector": addresses * 3}
    parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    out, given = str(tmp_path / "out"), {"manifest": str(tmp_path / "m.parquet"), "inspectors": str(tmp_path)}
    assert scale.plan(out, **given).pictures == 6
    for shard in scale.todo(out):
        assert scale.Worker(out)(shard).failed is None
    assert len(set(scale.table(out)["raw_threshold"].to_pylist())) == 2
    assert scale.plan(out, **given).pictures == 0  # the same start of the same run
    _teach(two_inspectors / "a.handful")
    with pytest.raises(SettingError, match="another inspector of x"):
        scale.plan(out, **given)


def test_a_product_with_two_inspectors_is_refused(tmp_path, two_inspectors):
    addresses = [str(two_inspectors / f"{name}.handful") for name in "ab"]
    columns = {"path": ["0.png", "1.png"], "product": ["x", "x"], "inspector": addresses}
    parquet.write_table(pa.table(columns), tmp_path / "m.parquet")
    with pytest.raises(InputError, match=r"one inspector, got two for x, the second at .*b\.handful"):
        scale.plan(str(tmp_path / "out"), manifest=str(tmp_path / "m.parquet"), inspectors=str(tmp_path))


def test_an_inspector_that_changes_meanwhile_is_refused(tmp_path, archive_folder, two_inspectors, monkeypatch):
    own = two_inspectors / "a.handful"
    monkeypatch.setattr(planning, "Sources", _Teaching)
    _Teaching.own = own
    with pytest.raises(InspectorError, match="inspector of a must stay as it is"):
        scale.plan(str(tmp_path / "out"), pictures=[str(archive_folder)], inspector=str(own))
    assert not (tmp_path / "out" / "run.json").exists()


class _Teaching(planning.Sources):
    """Sources after whose last picture somebody teaches the inspector."""

    def tables(self):
        yield from super().tables()
        _teach(self.own)


def test_an_inspector_without_a_graph_is_refused(tmp_path, saved, archive_folder):
    with pytest.raises(InspectorError, match="must hold a graph of its method"):
        scale.plan(str(tmp_path / "out"), pictures=[str(archive_folder)], inspector=str(saved))


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"pictures": ["."]}, SettingError, "one pair"),
        ({"inspector": "x", "pictures": ["."], "manifest": "m", "inspectors": "i"}, SettingError, "one pair"),
        ({"shard": 0}, SettingError, "at least 1 picture, got 0"),
        ({}, InputError, "must have been planned, got none"),
        ({"inspector": "x", "pictures": ["nowhere"]}, InputError, "must exist, got .*nowhere"),
        ({"inspector": "x", "pictures": ["mars://x/y"]}, SettingError, "pyarrow can open"),
        ({"inspector": "x", "pictures": ["s3://key:secret@bucket/x"]}, SettingError, "must not hold credentials"),
    ],
)
def test_arguments_that_do_not_go_together_are_refused(tmp_path, arguments, error, message):
    with pytest.raises(error, match=message):
        scale.plan(str(tmp_path / "out"), **arguments)


def test_a_folder_without_a_picture_is_refused(tmp_path, plan):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="must be a picture, got none"):
        plan(tmp_path / "empty")


def test_another_start_of_a_run_is_refused(tmp_path, plan, archive_folder, saved_with_graph):
    plan(archive_folder)
    with pytest.raises(SettingError, match="--shard 2000, got --shard 7; leave --shard out"):
        plan(archive_folder, shard=7)
    with pytest.raises(SettingError, match="the pictures of its start"):
        plan(archive_folder / "day0")
    with pytest.raises(SettingError, match="without --max-pixels, got --max-pixels 10"):
        plan(archive_folder, max_pixels=10)
    taught = tmp_path / "taught" / "part.handful"
    taught.parent.mkdir()
    taught.write_bytes(saved_with_graph.read_bytes())
    _teach(taught)
    with pytest.raises(SettingError, match=r"another inspector of part.*--extend"):
        scale.plan(str(tmp_path / "out"), pictures=[str(archive_folder)], inspector=str(taught))


def test_a_run_keeps_its_own_inspector(tmp_path, plan, archive_folder, saved_with_graph):
    """The original is taught while the run is on: the run goes on with its copy."""
    own = tmp_path / "part.handful"
    shutil.copy(saved_with_graph, own)
    out = str(tmp_path / "out")
    scale.plan(out, pictures=[str(archive_folder)], inspector=str(own), shard=10)
    worker = scale.Worker(out)
    worker(0)
    _teach(own)
    assert scale.plan(out).pictures == 0
    for shard in scale.todo(out):
        worker(shard)
    assert len(set(scale.table(out)["raw_threshold"].to_pylist())) == 1
    found = scale.plan(out, pictures=[str(archive_folder)], inspector=str(own), shard=10, extend=True)
    assert found.pictures == 23
    for shard in scale.todo(out):
        worker = scale.Worker(out)
        worker(shard)
    assert len(set(scale.table(out)["raw_threshold"].to_pylist())) == 2
    assert len(scale.table(out)) == 46


def _teach(path):
    """Change the threshold of an inspector."""
    import zipfile

    with zipfile.ZipFile(path) as archive:
        contents = {name: archive.read(name) for name in archive.namelist()}
    calibration = json.loads(contents["calibration.json"])
    calibration["threshold"] *= 1.5
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in contents.items():
            archive.writestr(name, json.dumps(calibration) if name == "calibration.json" else content)


def test_a_record_of_another_kind_is_refused(tmp_path, plan, archive_folder):
    plan(archive_folder)
    record = tmp_path / "out" / "run.json"
    record.write_text(json.dumps({**json.loads(record.read_text()), "format": 9}))
    with pytest.raises(InputError, match="format 1, got format 9; upgrade"):
        plan(archive_folder)
    record.write_text("[]")
    with pytest.raises(InputError, match="another file"):
        plan(archive_folder)


def test_two_starts_at_once_go_on_with_one_plan(tmp_path, plan, archive_folder, saved_with_graph, monkeypatch):
    """Another command begins the same run, with a picture less, between this command's look and its record."""
    other = tmp_path / "fewer"
    shutil.copytree(archive_folder, other)
    (other / "day0" / "000.png").unlink()
    finish, met = planning._Writer.finish, []

    def finish_late(writer, known):
        if not met:
            met.append(1)
            plan(other)
        return finish(writer, known)

    monkeypatch.setattr(planning._Writer, "finish", finish_late)
    run = plan(archive_folder).run
    assert run.plans == read(Place.at(str(tmp_path / "out"))).plans
    assert run.pictures == len(planned(tmp_path / "out")) == 22


def test_two_extensions_at_once_are_refused(tmp_path, plan, archive_folder, picture_factory, monkeypatch):
    plan(archive_folder)
    Image.fromarray(picture_factory(60)).save(archive_folder / "new.png")
    finish, met = planning._Writer.finish, []

    def finish_late(writer, known):
        if not met:
            met.append(1)
            plan(archive_folder, extend=True)
        return finish(writer, known)

    monkeypatch.setattr(planning._Writer, "finish", finish_late)
    with pytest.raises(SettingError, match="one command at a time"):
        plan(archive_folder, extend=True)
    assert len(planned(tmp_path / "out")) == 24


def test_half_a_plan_counts_for_nothing(tmp_path, plan, archive_folder):
    """A call that was killed before run.json was written leaves files that no run names."""
    plan(archive_folder)
    (tmp_path / "out" / "run.json").unlink()
    plan(archive_folder / "day0")
    assert len(planned(tmp_path / "out")) == 8


def test_seen_keys_are_told_apart():
    seen = planning._Seen()
    random = np.random.default_rng(0)
    met = set()
    for _ in range(30):
        numbers = random.integers(0, 400, 50)
        new = seen.new(pa.chunked_array([pa.array([str(n) for n in numbers])]))
        for number, first in zip(numbers.tolist(), new.tolist(), strict=True):
            assert first == (number not in met)
            met.add(number)


def test_seen_keys_take_hardly_more_memory_than_their_digests():
    import tracemalloc

    seen, count = planning._Seen(), 64 * 2048
    batches = [pa.chunked_array([pa.array(range(n, n + 2048)).cast(pa.string())]) for n in range(0, count, 2048)]
    tracemalloc.start()
    assert all(seen.new(batch).all() for batch in batches)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 2 * 16 * count


def test_full_shards_are_closed_while_others_wait(tmp_path, saved_with_graph):
    """Products come in turns: every shard holds one inspector, and only the last of each is not full."""
    folder = tmp_path / "inspectors"
    folder.mkdir()
    shutil.copy(saved_with_graph, folder / "a.handful")
    shutil.copy(saved_with_graph, folder / "b.handful")
    _teach(folder / "b.handful")
    products = ["ab"[n % 2] for n in range(25)]
    parquet.write_table(
        pa.table({"path": [f"{n}.png" for n in range(25)], "product": products}), tmp_path / "m.parquet"
    )
    out = str(tmp_path / "out")
    run = scale.plan(out, manifest=str(tmp_path / "m.parquet"), inspectors=str(folder), shard=5).run
    assert isinstance(run, Run)
    shards = [run.planned(shard) for shard in range(run.shards)]
    assert sorted(map(len, shards)) == [2, 3, 5, 5, 5, 5]
    assert all(len({row["inspector_sha256"] for row in rows}) == 1 for rows in shards)
    assert sorted(row["path"] for rows in shards for row in rows) == sorted(f"{tmp_path}/{n}.png" for n in range(25))
    assert run.shard_table()["pictures"].to_pylist() == list(map(len, shards))
