"""The file of a saved inspector: a zip without compression, whose entries are checked when read.

    manifest.json      format version, package version, the description of the inspector, sha256 of every other entry
    manifest.sha256    the manifest's own digest, in the format of `sha256sum --check`
    calibration.json   the threshold and its basis; may be edited by hand, so the manifest holds no digest of it
    all other entries  safetensors, graphs, thumbnails, revisions.json

This module knows no method and no backbone. Nothing is unpickled or run, and nothing is unpacked to disk.
"""

import hashlib
import io
import json
import os
import struct
import sys
import zipfile
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from handful.errors import InspectorError, OutputError
from handful.files import replacing

try:
    import fcntl
except ImportError:  # on Windows two corrections within the same millisecond may still overwrite each other
    fcntl = None  # type: ignore[assignment]

Source = str | os.PathLike[str] | bytes  # a saved inspector: the path or the bytes of its file

# Format 1, never released, held no features of references and no revisions; in format 2 every picture was squeezed to
# the input; format 3 has no tiles. An inspector without tiles is written in format 3, so that older versions read it.
OLDEST_FORMAT, FORMAT_VERSION, FORMAT_OF_TILES = 2, 3, 4
MANIFEST, MANIFEST_DIGEST, CALIBRATION = "manifest.json", "manifest.sha256", "calibration.json"
# Entries that are read both with torch and without torch.
STATE_ENTRY, GATE_ENTRY = "method.safetensors", "capture.safetensors"
LEARNT_ENTRY, IGNORED_ENTRY = "features.safetensors", "ignored.safetensors"

# Fields and entries that change no answer and so do not count in the digest: the graph follows from the other entries,
# the version that saved the file does not matter, and the scores of synthetic defects are only shown to people.
_UNNAMED_FIELDS, _UNNAMED_ENTRIES = ("digest", "format_version", "graph", "handful", "visibility"), "scoring."
# The types of the manifest's fields, checked if the fields are present. A list stands for any number of items of its
# type, a tuple for a fixed number of items, a range for a whole number within the range. A missing field raises an
# error where the field is used.
_SIDE, _LENGTH = range(1, 8193), range(1, 2**31)
_FORM: dict[str, Any] = {
    "handful": str,
    "method": {"name": str, "settings": dict},
    "backbone": {
        "name": str,
        "levels": [str],
        "size": (_SIDE, _SIDE),
        "weights": str,
        "weights_sha256": str,
        "engine": str,
        "precision": str,
    },
    "preprocessing": {
        "size": (_SIDE, _SIDE),
        "bits": range(1, 17),
        "keeps_aspect": bool,
        "side": range(8193),
        "fine": (_SIDE, _SIDE),
    },
    "contrast": float,
    "gate": [str],
    "references": [{"name": str, "sha256": str, "bits": range(1, 17), "size": (_LENGTH, _LENGTH)}],
    "turning": {"turned": bool, "why": str},
    "evidence": str,
    "sizing": str,
    "graph": {"why": str, "score": float, "map": float},
    "head": {"name": str, "sha256": str},
    "visibility": {
        "trials": [{"kind": str, "clean": float, "planted": float, "diameter": float}],
        "size": (_LENGTH, _LENGTH),
        "single": bool,
    },
}
_OPTIONAL = ("turning", "evidence", "graph", "head")  # fields that may be null
_KINDS = {str: "text", dict: "an object", bool: "true or false", float: "a number"}

_ZIP = b"PK\x03\x04"  # the first bytes of a zip
# Errors that a damaged zip raises; OSError for a position outside of the file, which has been opened by then.
_DAMAGED = (zipfile.BadZipFile, RuntimeError, ValueError, EOFError, OverflowError, struct.error, MemoryError, OSError)


def pack(manifest: Mapping[str, Any], calibration: Mapping[str, Any], entries: Mapping[str, bytes]) -> bytes:
    """The bytes of an inspector's file; equal contents give equal bytes."""
    file = io.BytesIO()
    _pack_into(file, manifest, calibration, entries)
    return file.getvalue()


def _pack_into(
    file: BinaryIO, manifest: Mapping[str, Any], calibration: Mapping[str, Any], entries: Mapping[str, bytes]
) -> None:
    kept = {name: value for name, value in manifest.items() if name != "digest"}
    version = FORMAT_OF_TILES if manifest.get("preprocessing", {}).get("fine") else FORMAT_VERSION
    described = _json({"format_version": version, **kept, "sha256": digests_of(entries)})
    contents = {
        MANIFEST: described,
        MANIFEST_DIGEST: _check_line(described),
        CALIBRATION: _json(calibration),
        **entries,
    }
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        for name, entry in contents.items():
            archive.writestr(zipfile.ZipInfo(name), entry)  # ZipInfo has a fixed date, so that equal contents agree


def write(
    path: Path,
    manifest: Mapping[str, Any],
    calibration: Mapping[str, Any],
    entries: Mapping[str, bytes],
    *,
    expected: str | None = None,
) -> None:
    """Write an inspector, see `pack`, under a temporary name beside `path`, then rename it.

    Args:
        path: the path of the file.
        manifest, calibration, entries: the contents of the file.
        expected: the digest that an existing inspector at `path` must have to be replaced; None to replace any file. On
            systems with file locks, a program waits while another program replaces the inspector.

    Raises:
        OutputError: if the file cannot be written, or holds another inspector; the file then stays as it is.
        InspectorError: if the existing inspector cannot be read.
    """
    with _held(path, expected is not None) as there:
        if there and (found := read(path)[0]["digest"]) != expected:
            raise OutputError(
                f"{path} must be the inspector that was read before, got another inspector, saved meanwhile (digest "
                f"{found[:12]} instead of {str(expected)[:12]}); load it and make the correction again."
            )
        with replacing(path) as file:
            _pack_into(file, manifest, calibration, entries)


@contextmanager
def _held(path: Path, wanted: bool) -> Iterator[bool]:
    """Lock an existing file at `path` against other programs, if `wanted`; yield whether there is a file to replace."""
    while wanted and path.exists():
        with path.open("rb") as file:
            if fcntl is not None:
                fcntl.flock(file, fcntl.LOCK_EX)
            if path.exists() and os.path.samestat(os.fstat(file.fileno()), path.stat()):  # not replaced meanwhile
                yield True
                return
    yield False


def digests_of(entries: Mapping[str, bytes]) -> dict[str, str]:
    """The sha256 of each entry, in hex, by name."""
    return {name: hashlib.sha256(entry).hexdigest() for name, entry in sorted(entries.items())}


def digest_of(manifest: Mapping[str, Any], calibration: Mapping[str, Any], digests: Mapping[str, str]) -> str:
    """The identity of an inspector with its calibration: a sha256 in hex that differs if any answer may differ.

    Args:
        manifest: of the inspector.
        calibration: of the inspector.
        digests: the digests of the other entries, see `digests_of`.
    """
    described = {name: value for name, value in manifest.items() if name not in _UNNAMED_FIELDS}
    entries = {name: digest for name, digest in digests.items() if not name.startswith(_UNNAMED_ENTRIES)}
    named = json.dumps([described, dict(calibration), entries], sort_keys=True)
    return hashlib.sha256(named.encode()).hexdigest()


def content_of(source: Source) -> tuple[bytes, str]:
    """The bytes of a saved inspector, and its name for error messages.

    Raises:
        InspectorError: if the file cannot be read.
    """
    if isinstance(source, bytes):
        return source, "An inspector in memory"
    try:
        return Path(source).read_bytes(), str(source)
    except OSError as error:
        raise InspectorError(
            f"An inspector must exist and be readable, got {source}: {error.strerror or error}; check the path."
        ) from error


def read(source: Source, *, name: str | None = None) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Read and check an inspector.

    Args:
        source: the path or the bytes of the file.
        name: the name of the source in error messages; None for the path.

    Returns:
        The manifest, with a field `digest` (see `digest_of`) that the file does not hold; the calibration; the other
        entries by name.

    Raises:
        InspectorError: if the file is missing, no inspector, written by a newer version, damaged or altered.
    """
    content, path = content_of(source)
    path = name or path
    contents = _contents(content, path)
    described, check_line = contents.pop(MANIFEST), contents.pop(MANIFEST_DIGEST, None)
    manifest = _object(path, MANIFEST, described, remedy="copy or fit it again")
    _check_version(path, manifest)
    digests = manifest.pop("sha256", None)
    if check_line != _check_line(described) or not isinstance(digests, dict):
        raise InspectorError(f"{path} must be as it was saved, got a changed {MANIFEST}; copy or fit it again.")
    given = {name: value for name, value in manifest.items() if value is not None or name not in _OPTIONAL}
    if wrong := _misfit(given, _FORM, ""):
        raise InspectorError(f"{path} must hold a {MANIFEST} as Handful writes it, got another: {wrong}; fit it again.")
    if CALIBRATION not in contents:
        raise InspectorError(f"{path} must hold {CALIBRATION}, got none; copy or fit it again.")
    calibration = _object(path, CALIBRATION, contents.pop(CALIBRATION), remedy="correct it")
    found = digests_of(contents)
    for name in sorted(digests.keys() | found.keys()):
        if digests.get(name) != found.get(name):
            what = "no" if name not in found else "a changed" if name in digests else "an unknown"
            raise InspectorError(f"{path} must be as it was saved, got {what} {name}; copy or fit it again.")
    return manifest | {"digest": digest_of(manifest, calibration, found)}, calibration, contents


def _contents(content: bytes, path: str) -> dict[str, bytes]:
    """Every entry of the zip by name, the manifest surely among them."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            names = archive.namelist()
            _check_once(path, archive, len(content))
            compressed = [e.filename for e in archive.infolist() if e.compress_type != zipfile.ZIP_STORED]
            ours = MANIFEST in names and not compressed
            contents = {name: archive.read(name) for name in names} if ours else {}
    except InspectorError:
        raise
    except _DAMAGED as error:
        if content.startswith(_ZIP):
            raise InspectorError(f"{path} must be whole, got a damaged inspector; copy or fit it again.") from error
        raise InspectorError(
            f"{path} must be an inspector saved by Handful, got a file of another kind; name a .handful file."
        ) from error
    if MANIFEST not in names:
        raise _foreign(path)
    if compressed:
        raise InspectorError(
            f"{path} must be an inspector saved by Handful, a zip without compression, got a compressed "
            f"{compressed[0]}; zip it again without."
        )
    return contents


def _check_once(path: str, archive: zipfile.ZipFile, size: int) -> None:
    """Check that a zip holds no entry twice, and that its entries do not overlap, so that a small file is read quickly.

    Raises:
        InspectorError: if the zip holds an entry twice.
        BadZipFile: if entries overlap.
    """
    names = archive.namelist()
    if len(set(names)) < len(names):
        twice = next(name for name, count in Counter(names).items() if count > 1)
        raise InspectorError(f"{path} must hold every entry once, got {twice!r} more than once; copy or fit it again.")
    stored = [entry for entry in archive.infolist() if entry.compress_type == zipfile.ZIP_STORED]
    if sum(entry.file_size for entry in stored) > size:
        raise zipfile.BadZipFile("entries that lie over each other")


def _foreign(path: str) -> InspectorError:
    return InspectorError(
        f"{path} must be an inspector saved by Handful, got another kind of zip; name a .handful file."
    )


def _check_version(path: str, manifest: Mapping[str, Any]) -> None:
    version = manifest.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise _foreign(path)
    if not OLDEST_FORMAT <= version <= FORMAT_OF_TILES:
        remedy = "fit it again" if version < OLDEST_FORMAT else "upgrade handful"
        raise InspectorError(
            f"{path} must be of format {OLDEST_FORMAT} to {FORMAT_OF_TILES}, got {version}, saved by handful "
            f"{manifest.get('handful', 'of another version')}; {remedy}."
        )


def _object(path: str, name: str, entry: bytes, *, remedy: str) -> dict[str, Any]:
    try:
        value: dict[str, Any] = json.loads(entry)
        whole = isinstance(value, dict) and _finite(value)
    except (ValueError, RecursionError) as error:
        raise InspectorError(f"{path} must hold {name} as JSON, got: {error}; {remedy}.") from error
    if not whole:
        raise InspectorError(f"{path} must hold {name} as an object of finite numbers, got something else; {remedy}.")
    return value


def _misfit(value: object, form: Any, name: str) -> str | None:
    """The first field whose type differs from the form, in words; None if all fields fit."""
    if isinstance(form, dict):
        if not isinstance(value, dict):
            return f"{name} must be an object"
        found = (_misfit(value[key], kind, f"{name}.{key}".lstrip(".")) for key, kind in form.items() if key in value)
        return next(filter(None, found), None)
    if isinstance(form, list):
        if not isinstance(value, list):
            return f"{name} must be a list"
        return next(filter(None, (_misfit(item, form[0], f"{name}[{n}]") for n, item in enumerate(value))), None)
    if isinstance(form, tuple):
        if not isinstance(value, list) or len(value) != len(form):
            return f"{name} must be a list of {len(form)}"
        return next(filter(None, (_misfit(item, kind, name) for item, kind in zip(value, form, strict=True))), None)
    if isinstance(form, range):
        fits = isinstance(value, int) and not isinstance(value, bool) and value in form
        return None if fits else f"{name} must be a whole number from {form.start} to {form.stop - 1}"
    kinds, odd = ((int, float), bool) if form is float else (form, ())
    return None if isinstance(value, kinds) and not isinstance(value, odd) else f"{name} must be {_KINDS[form]}"


def _finite(value: object) -> bool:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return not isinstance(value, (int, float)) or abs(value) <= sys.float_info.max


def _json(value: Mapping[str, Any]) -> bytes:
    """The value as JSON in UTF-8; invalid bytes of a file's name are kept as JSON escapes.

    Raises:
        ValueError: for a number that is not finite, which `read` would refuse.
    """
    return json.dumps(value, indent=1, ensure_ascii=False, allow_nan=False).encode("utf-8", "backslashreplace")


def _check_line(described: bytes) -> bytes:
    return f"{hashlib.sha256(described).hexdigest()}  {MANIFEST}\n".encode()
