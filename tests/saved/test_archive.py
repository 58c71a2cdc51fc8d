"""The saved inspector: what was written comes back, and nothing else does."""

import contextlib
import hashlib
import io
import json
import os
import pickle
import re
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from handful.detector import Detector
from handful.errors import InspectorError, OutputError
from handful.inspection.threshold import Calibration
from handful.saved import archive

PARTS = {"method.safetensors": bytes(range(256)), "reference-000.jpg": b"\xff\xd8thumbnail", "empty.bin": b""}
MANIFEST = {"handful": "0.1.0", "method": {"name": "patchcore", "settings": {"share": 0.01, "größe": None}}}
CALIBRATION = {"threshold": 1.25, "typical": 0.5, "references": 4, "rests_on": "4 good pictures"}


@pytest.fixture
def small(tmp_path) -> Path:
    """A small inspector, as far as this module looks into one."""
    path = tmp_path / "small.handful"
    archive.write(path, MANIFEST, CALIBRATION, PARTS)
    return path


def refused(path: Path) -> str:
    """The one sentence of the refusal."""
    with pytest.raises(InspectorError) as error:
        archive.read(path)
    sentence = str(error.value)
    assert str(path) in sentence
    assert "\n" not in sentence
    assert sentence.endswith(".")
    assert not re.search(r"<_io|object at 0x|Traceback|\b[A-Z]\w+Error\b|BadZip", sentence)
    return sentence


def assert_alone(path: Path) -> None:
    """Nothing was left beside the file."""
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]


# --- what is written


def test_what_is_written_comes_back(small):
    manifest, calibration, parts = archive.read(small)
    digest = archive.digest_of(MANIFEST, CALIBRATION, archive.digests_of(PARTS))
    assert manifest == {"format_version": archive.FORMAT_VERSION, **MANIFEST, "digest": digest}
    assert calibration == CALIBRATION
    assert parts == PARTS


def test_the_file_is_a_stored_zip_with_every_digest(small):
    with zipfile.ZipFile(small) as zipped:
        assert {entry.compress_type for entry in zipped.infolist()} == {zipfile.ZIP_STORED}
        manifest = json.loads(zipped.read("manifest.json"))
        assert manifest["sha256"] == {name: hashlib.sha256(part).hexdigest() for name, part in PARTS.items()}
        digest, name = zipped.read("manifest.sha256").decode().split()
        assert name == "manifest.json"
        assert digest == hashlib.sha256(zipped.read(name)).hexdigest()


def test_equal_contents_give_equal_bytes(small, tmp_path):
    archive.write(tmp_path / "again.handful", MANIFEST, CALIBRATION, PARTS)
    assert (tmp_path / "again.handful").read_bytes() == small.read_bytes()


def test_bytes_are_read_as_the_file_is(small):
    assert archive.read(small.read_bytes()) == archive.read(small)
    assert archive.pack(*archive.read(small)) == small.read_bytes()


def test_a_digest_names_contents_and_calibration_but_not_the_graph():
    def digest(manifest=MANIFEST, calibration=CALIBRATION, parts=PARTS):
        return archive.digest_of(manifest, calibration, archive.digests_of(parts))

    alike = [
        digest(),
        digest(MANIFEST | {"handful": "9.9", "graph": {"score": 0.0}}),
        digest(parts=PARTS | {"scoring.xml": b"a graph"}),
    ]
    others = [
        digest(MANIFEST | {"method": "another"}),
        digest(calibration=CALIBRATION | {"threshold": 9.0}),
        digest(parts=PARTS | {"another.bin": b""}),
        digest(parts={name: part + b"." for name, part in PARTS.items()}),
    ]
    assert len(set(alike)) == 1 and len({alike[0], *others}) == 5


def test_only_the_expected_inspector_is_replaced(small):
    expected = archive.read(small)[0]["digest"]
    archive.write(small, MANIFEST, CALIBRATION, {"new.bin": b"new"}, expected=expected)
    before = small.read_bytes()
    with pytest.raises(
        OutputError, match=r"^.* got another inspector, saved meanwhile .* make the correction again\.$"
    ):
        archive.write(small, MANIFEST, CALIBRATION, PARTS, expected=expected)
    assert small.read_bytes() == before
    assert_alone(small)
    small.unlink()
    archive.write(small, MANIFEST, CALIBRATION, PARTS, expected=expected)  # nothing there to be lost
    assert archive.read(small)[0]["digest"] == expected


def test_of_writers_that_replace_the_same_inspector_at_the_same_time_one_wins(small):
    expected, contents = archive.read(small)[0]["digest"], [{"new.bin": bytes([n])} for n in range(8)]

    def replace(parts):
        try:
            archive.write(small, MANIFEST, CALIBRATION, parts, expected=expected)
        except OutputError:
            return None
        return parts

    with ThreadPoolExecutor(8) as pool:
        won = [parts for parts in pool.map(replace, contents) if parts]
    assert won == [archive.read(small)[2]]


def test_names_that_are_no_valid_text_come_back(tmp_path):
    name = os.fsdecode(b"caf\xe9 \xf0\x9f\x94\xa9 \n.png")
    path = tmp_path / "a.handful"
    archive.write(path, {"references": [{"name": name}]}, {"rests_on": name}, {})
    manifest, calibration, _ = archive.read(path)
    assert manifest["references"][0]["name"] == calibration["rests_on"] == name


@pytest.mark.parametrize("name", ["a b.handful", "größe 🔩.handful", "no suffix", "line\nbreak", "x" * 255])
def test_any_file_name_will_do(tmp_path, name):
    path = tmp_path / name
    archive.write(path, MANIFEST, CALIBRATION, PARTS)
    assert archive.read(path)[2] == PARTS
    assert_alone(path)


def test_an_older_file_is_replaced(small):
    archive.write(small, MANIFEST, CALIBRATION, {"new.bin": b"new"})
    assert archive.read(small)[2] == {"new.bin": b"new"}
    assert_alone(small)


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such modes")
@pytest.mark.parametrize(("umask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_the_files_mode_follows_the_umask(tmp_path, umask, mode):
    before = os.umask(umask)
    try:
        archive.write(tmp_path / "a.handful", MANIFEST, CALIBRATION, PARTS)
    finally:
        os.umask(before)
    assert (tmp_path / "a.handful").stat().st_mode & 0o777 == mode


# --- what cannot be written


class PowerCut(BaseException):
    """Stands for Ctrl-C and all else that is no Exception."""


FAILURES = [OSError(28, "No space left on device"), PowerCut(), MemoryError()]


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: type(failure).__name__)
@pytest.mark.parametrize("step", ["open", "write", "close", "rename"])
def test_a_failing_write_leaves_the_old_file_and_nothing_beside_it(small, monkeypatch, step, failure):
    before = small.read_bytes()

    def fail(*_, **__):
        raise failure

    if step == "open":
        monkeypatch.setattr(Path, "open", fail)
    if step == "write":
        kept, written = zipfile.ZipFile.writestr, []

        def fail_at_the_third(zipped, *arguments, **options):
            written.append(arguments)
            return fail() if len(written) == 3 else kept(zipped, *arguments, **options)

        monkeypatch.setattr(zipfile.ZipFile, "writestr", fail_at_the_third)
    if step == "close":
        monkeypatch.setattr(zipfile.ZipFile, "_write_end_record", fail)
    if step == "rename":
        monkeypatch.setattr(Path, "replace", fail)
    with pytest.raises(OutputError if isinstance(failure, OSError) else type(failure)) as error:
        archive.write(small, MANIFEST, CALIBRATION, {"new.bin": b"new"})
    monkeypatch.undo()
    assert small.read_bytes() == before
    assert_alone(small)
    if isinstance(failure, OSError):
        expected = f"{small} must be writable, got: No space left on device; choose another place."
        assert str(error.value) == expected


def test_a_reader_never_sees_half_a_file(small, monkeypatch):
    before, kept, seen = small.read_bytes(), zipfile.ZipFile.writestr, []

    def look(zipped, *arguments, **options):
        kept(zipped, *arguments, **options)
        seen.append(small.read_bytes() == before)

    monkeypatch.setattr(zipfile.ZipFile, "writestr", look)
    archive.write(small, MANIFEST, CALIBRATION, {"new.bin": b"new"})
    assert seen == [True] * 4


@pytest.mark.parametrize("place", ["file/a.handful", "missing/a.handful", "folder", "x" * 256])
def test_an_unwritable_place_is_refused(tmp_path, place):
    (tmp_path / "file").write_bytes(b"a file")
    (tmp_path / "folder").mkdir()
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(OutputError, match=r"^.* must be writable, got: .*; choose another place\.$"):
        archive.write(tmp_path / place, MANIFEST, CALIBRATION, PARTS)
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("place", [".", "/"])
def test_a_place_without_a_name_is_refused(place):
    with pytest.raises(OutputError, match="must be writable, got"):
        archive.write(Path(place), MANIFEST, CALIBRATION, PARTS)


# --- damage


def test_a_flipped_byte_is_refused_or_without_effect(small, tmp_path):
    """Every byte, two flips of each: the contents never change, and nothing but InspectorError is raised."""
    data, expected, path = small.read_bytes(), archive.read(small), tmp_path / "flipped.handful"
    flips = [(place, flip) for place in range(len(data)) for flip in (0x01, 0xFF)]
    assert len(flips) > 2000
    taken = 0
    for place, flip in flips:
        path.write_bytes(data[:place] + bytes([data[place] ^ flip]) + data[place + 1 :])
        try:
            assert archive.read(path) == expected, f"byte {place} ^ {flip:#x} changed the contents"
            taken += 1
        except InspectorError:
            pass
    assert taken < len(flips) / 4  # dates and the like


def test_a_file_cut_anywhere_is_refused(small, tmp_path):
    data, path = small.read_bytes(), tmp_path / "cut.handful"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(InspectorError):
            archive.read(path)


def test_random_damage_is_refused_or_without_effect(small, tmp_path):
    random = np.random.default_rng(0)
    data, expected, path = small.read_bytes(), archive.read(small), tmp_path / "damaged.handful"
    for _ in range(300):
        damaged = bytearray(data)
        for _ in range(random.integers(1, 9)):
            start, length = random.integers(len(data)), random.integers(1, 30)
            damaged[start : start + length] = random.bytes(random.integers(0, 30))
        path.write_bytes(damaged)
        with contextlib.suppress(InspectorError):
            assert archive.read(path) == expected


def test_damage_says_what_to_do(small):
    small.write_bytes(small.read_bytes()[:-100])
    assert refused(small) == f"{small} must be whole, got a damaged inspector; copy or fit it again."


def test_a_cut_real_inspector_is_refused(saved, tmp_path):
    data, path = saved.read_bytes(), tmp_path / "cut.handful"
    for share in (0.1, 0.5, 0.999):
        path.write_bytes(data[: int(share * len(data))])
        with pytest.raises(InspectorError, match="damaged"):
            Detector.load(path)


# --- other files


def test_a_missing_file_and_a_folder_are_refused(tmp_path):
    assert refused(tmp_path / "a.handful").endswith("a.handful: No such file or directory; check the path.")
    assert refused(tmp_path).endswith(": Is a directory; check the path.")


@pytest.mark.parametrize(
    "data", [b"", b"a text\n", b"\x89PNG\r\n\x1a\n", b"\x80\x04N."], ids=["empty", "text", "png", "pickle"]
)
def test_a_file_of_another_kind_is_refused(tmp_path, data):
    path = tmp_path / "a.handful"
    path.write_bytes(data)
    assert "must be an inspector saved by Handful, got a file of another kind" in refused(path)


@pytest.mark.parametrize("contents", [{}, {"word/document.xml": b"<a/>"}, {"manifest.json": b'{"version": 3}'}])
@pytest.mark.parametrize("compression", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_another_kind_of_zip_is_refused(tmp_path, contents, compression):
    path = tmp_path / "a.handful"
    with zipfile.ZipFile(path, "w", compression) as zipped:
        for name, part in contents.items():
            zipped.writestr(name, part)
    assert "must be an inspector saved by Handful" in refused(path)


@pytest.mark.parametrize(
    "manifest", [b"", b"[]", b"null", b"{", b"\xff\xfe", b'{"format_version": NaN}', b"[" * 100_000]
)
def test_a_manifest_that_is_no_object_is_refused(small, rezip, manifest):
    assert "manifest.json" in refused(rezip(small, {"manifest.json": manifest}))


@pytest.mark.parametrize("version", [None, "1", 1.5, 0, -1, [1]])
def test_a_manifest_without_a_format_version_is_refused(small, rezip, version):
    manifest = json.dumps({"format_version": version}).encode()
    assert "another kind of zip" in refused(rezip(small, {"manifest.json": manifest}))


def test_a_newer_format_is_refused_before_anything_else_is_looked_at(small, rezip):
    manifest = json.dumps({"format_version": archive.FORMAT_OF_TILES + 1, "handful": "9.1"}).encode()
    path = rezip(small, {"manifest.json": manifest, "calibration.json": None, "method.safetensors": None})
    assert refused(path) == f"{path} must be of format 2 to 4, got 5, saved by handful 9.1; upgrade handful."


# --- changes


def test_a_zip_made_anew_of_the_same_parts_is_taken(small, rezip):
    path = rezip(small, {})
    assert path.read_bytes() != small.read_bytes()
    assert archive.read(path) == archive.read(small)


@pytest.mark.parametrize("name", PARTS)
def test_a_changed_part_is_named(small, rezip, name):
    path = rezip(small, {name: b"changed"})
    assert refused(path) == f"{path} must be as it was saved, got a changed {name}; copy or fit it again."


@pytest.mark.parametrize("name", PARTS)
def test_a_missing_part_is_named(small, rezip, name):
    assert f"got no {name};" in refused(rezip(small, {name: None}))


@pytest.mark.parametrize("name", ["extra.bin", "../../evil.py", "/etc/evil", "C:\\evil", "folder/"])
def test_an_unknown_part_is_named_and_goes_nowhere(small, rezip, tmp_path, name):
    path = rezip(small, {name: b"" if name.endswith("/") else b"evil"})
    before = sorted(tmp_path.parent.rglob("*"))
    assert f"got an unknown {name};" in refused(path)
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_a_changed_manifest_is_named(small, rezip):
    with zipfile.ZipFile(small) as zipped:
        manifest = zipped.read("manifest.json")
    changed = manifest.replace(b'"share": 0.01', b'"share": 0.02')
    assert changed != manifest
    assert "got a changed manifest.json;" in refused(rezip(small, {"manifest.json": changed}))
    assert "got a changed manifest.json;" in refused(rezip(small, {"manifest.sha256": None}))


def test_a_manifest_without_digests_is_refused(small, rezip):
    manifest = b'{"format_version": 2, "sha256": [1]}'
    check_line = f"{hashlib.sha256(manifest).hexdigest()}  manifest.json\n".encode()
    assert "manifest.json" in refused(rezip(small, {"manifest.json": manifest, "manifest.sha256": check_line}))


def test_a_compressed_part_is_named(small, rezip):
    sentence = refused(rezip(small, {}, compression=zipfile.ZIP_DEFLATED))
    assert "a zip without compression, got a compressed manifest.json; zip it again without." in sentence


def test_one_part_twice_does_not_smuggle_contents_in(small, tmp_path):
    path = tmp_path / "twice.handful"
    path.write_bytes(small.read_bytes())
    with zipfile.ZipFile(path, "a") as zipped, pytest.warns(UserWarning, match="Duplicate name"):
        zipped.writestr("method.safetensors", b"smuggled")
    assert "must hold every entry once, got 'method.safetensors' more than once;" in refused(path)


# --- the calibration, which people may edit


def edited(saved: Path, rezip, **fields) -> Path:
    calibration = archive.read(saved)[1] | fields
    kept = {name: value for name, value in calibration.items() if value is not ...}
    return rezip(saved, {"calibration.json": json.dumps(kept).encode()})


def test_an_edited_threshold_is_loaded_and_used(saved, rezip, picture_factory):
    picture = picture_factory(30)
    (before,) = Detector.load(saved).inspect(picture)
    assert before.verdict == "OK"
    low = before.raw_score * 0.9
    (after,) = Detector.load(edited(saved, rezip, threshold=low, typical=low / 2)).inspect(picture)
    assert after.verdict == "DEFECT"
    assert after.raw_threshold == low
    assert after.raw_score == before.raw_score
    assert after.score == pytest.approx((before.raw_score - low / 2) / (low / 2))


def test_a_calibration_may_be_laid_out_otherwise(saved, rezip):
    calibration = archive.read(saved)[1]
    spaced = json.dumps(dict(reversed(calibration.items())), indent=7).encode() + b"\n\n"
    assert Detector.load(rezip(saved, {"calibration.json": spaced})).calibration.as_dict() == calibration


@pytest.mark.parametrize(
    ("fields", "saying"),
    [
        ({"threshold": float("nan")}, "finite"),
        ({"threshold": float("inf")}, "finite"),
        ({"threshold": 10**400}, "finite"),
        ({"threshold": "0.5"}, "threshold must be a number, got '0.5'"),
        ({"threshold": None}, "threshold must be a number, got None"),
        ({"threshold": True}, "threshold must be a number, got True"),
        ({"threshold": [1]}, "threshold must be a number"),
        ({"threshold": 0.0}, "threshold must be above the typical"),
        ({"map_threshold": -1}, "map_threshold must be above the typical"),
        ({"threshold": ...}, "difference in threshold"),
        ({"rests_on": ...}, "difference in rests_on"),
        ({"treshold": 3}, "difference in treshold"),
    ],
    ids=str,
)
def test_a_broken_calibration_is_refused(saved, rezip, fields, saying):
    with pytest.raises(InspectorError, match=f"{saying}.*; correct it.$"):
        Calibration.from_dict(archive.read(edited(saved, rezip, **fields))[1])


def test_a_broken_calibration_stops_the_inspector_from_loading(saved, rezip):
    with pytest.raises(InspectorError, match="threshold must be a number, got 'high'; correct it."):
        Detector.load(edited(saved, rezip, threshold="high"))


@pytest.mark.parametrize("text", [b"", b"{", b"[1]", b"3", b"\xff", b'{"threshold": 1,}', b'{"a": ' + b"[" * 100_000])
def test_a_calibration_that_is_no_object_is_refused(small, rezip, text):
    sentence = refused(rezip(small, {"calibration.json": text}))
    assert "must hold calibration.json" in sentence
    assert sentence.endswith("; correct it.")


def test_a_missing_calibration_is_named(small, rezip):
    assert "must hold calibration.json, got none;" in refused(rezip(small, {"calibration.json": None}))


# --- nothing in it is run


class Trap:
    """Unpickling it makes a folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self):
        return os.mkdir, (str(self.folder),)


def torch_archive(trap: Trap) -> bytes:
    """A pickle in the zip that `torch.load` reads."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as zipped:
        zipped.writestr("archive/data.pkl", pickle.dumps(trap, protocol=2))
        zipped.writestr("archive/version", "3\n")
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("name", "packed"), [("method.safetensors", pickle.dumps), ("backbone.safetensors", torch_archive)]
)
def test_a_pickle_is_refused_and_never_run(saved, tmp_path, name, packed):
    """Not even where whoever made the file has made its digests fit."""
    sprung = tmp_path / "sprung"
    manifest, calibration, parts = archive.read(saved)
    path = tmp_path / "trap.handful"
    archive.write(path, manifest, calibration, parts | {name: packed(Trap(sprung))})
    with pytest.raises(InspectorError):
        Detector.load(path)
    assert not sprung.exists()


# --- a file that a person made on purpose, its digests right


def forged(saved: Path, rezip, change) -> Path:
    """An inspector whose manifest is changed, with a digest that says so."""
    with zipfile.ZipFile(saved) as zipped:
        manifest = json.loads(zipped.read("manifest.json"))
    change(manifest)
    described = json.dumps(manifest).encode()
    line = f"{hashlib.sha256(described).hexdigest()}  manifest.json\n".encode()
    return rezip(saved, {"manifest.json": described, "manifest.sha256": line})


@pytest.mark.parametrize(
    ("field", "value", "saying"),
    [
        ("method", [], "method must be an object"),
        ("method", {"name": 3}, "method.name must be text"),
        ("references", {"name": "a"}, "references must be a list"),
        ("references", [{"name": "a", "sha256": None}], "references[0].sha256 must be text"),
        ("preprocessing", {"size": [64], "bits": 8}, "preprocessing.size must be a list of 2"),
        ("preprocessing", {"size": [64, 10**9], "bits": 8}, "preprocessing.size must be a whole number from 1 to 8192"),
        (
            "preprocessing",
            {"size": [64, 64], "bits": 8, "side": -1},
            "preprocessing.side must be a whole number from 0 to 8192",
        ),
        (
            "preprocessing",
            {"size": [64, 64], "bits": 8, "keeps_aspect": 1},
            "preprocessing.keeps_aspect must be true or false",
        ),
        (
            "references",
            [{"name": "a", "sha256": "b", "size": [0, 5]}],
            "references[0].size must be a whole number from 1 to 2147483647",
        ),
        ("preprocessing", {"size": [64, 64], "bits": True}, "preprocessing.bits must be a whole number from 1 to 16"),
        ("turning", {"turned": 1, "why": ""}, "turning.turned must be true or false"),
        ("gate", "blank", "gate must be a list"),
        ("graph", {"score": "0", "map": 0}, "graph.score must be a number"),
        ("handful", None, "handful must be text"),
        ("visibility", {"trials": [{"kind": "spot", "clean": "1"}]}, "visibility.trials[0].clean must be a number"),
        ("visibility", {"trials": [], "size": [9], "single": True}, "visibility.size must be a list of 2"),
    ],
)
def test_a_field_of_another_kind_is_named(saved, rezip, field, value, saying):
    sentence = refused(forged(saved, rezip, lambda manifest: manifest.update({field: value})))
    assert f"must hold a manifest.json as Handful writes it, got another: {saying}; fit it again." in sentence


@pytest.mark.parametrize("field", ["method", "backbone", "references"])
def test_info_refuses_an_inspector_without_a_field(saved, rezip, command_line, field):
    code, out, err = command_line("info", forged(saved, rezip, lambda manifest: manifest.pop(field)))
    assert (code, out, len(err)) == (2, [], 1)
    assert f"must hold a whole inspector, got an unreadable inspector ('{field}'); fit it again." in err[0]


def test_info_leaves_synthetic_defects_out_where_none_were_kept_and_refuses_what_cannot_be_read(
    saved, rezip, command_line
):
    old = forged(saved, rezip, lambda manifest: manifest.pop("visibility"))
    code, out, _ = command_line("info", old)
    assert code == 0 and not any(line.startswith(("finds", "sees")) for line in out)
    assert json.loads(command_line("info", old, "--json")[1][0])["visibility"] is None
    assert archive.read(old)[0]["digest"] == archive.read(saved)[0]["digest"]  # every answer is the same
    kept = {"trials": [], "size": [9, 9], "single": True}
    code, out, err = command_line("info", forged(saved, rezip, lambda manifest: manifest.update(visibility=kept)))
    assert (code, out, len(err)) == (2, [], 1) and "must hold a whole inspector" in err[0]


def test_null_stands_for_no_graph_head_or_turning(saved, rezip):
    path = forged(saved, rezip, lambda manifest: manifest.update(graph=None, head=None, turning=None))
    assert archive.read(path)[0]["graph"] is None


def test_a_small_file_that_lists_one_part_ten_thousand_times_is_refused_at_once(small):
    """Read part by part it would be ten thousand times as long."""
    data = small.read_bytes()
    end = data.rfind(b"PK\x05\x06")
    start = int.from_bytes(data[end + 16 : end + 20], "little")
    entry = data[start : data.find(b"PK\x01\x02", start + 4)]
    count, size = 10_000 + int.from_bytes(data[end + 10 : end + 12], "little"), end - start + 10_000 * len(entry)
    numbers = 2 * count.to_bytes(2, "little") + size.to_bytes(4, "little") + start.to_bytes(4, "little")
    small.write_bytes(data[:start] + 10_000 * entry + data[start:end] + data[end : end + 8] + numbers + b"\0\0")
    assert "must hold every entry once, got 'manifest.json' more than once;" in refused(small)


@pytest.mark.parametrize("value", [float("inf"), float("nan")])
def test_a_number_that_it_would_not_read_is_not_written(small, value):
    before = small.read_bytes()
    with pytest.raises(ValueError, match="not JSON compliant"):
        archive.write(small, MANIFEST, {**CALIBRATION, "threshold": value}, PARTS)
    assert small.read_bytes() == before
    assert_alone(small)
