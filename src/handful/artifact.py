"""The saved inspector: one stored zip of named parts, checked on the way in; knows no method and no backbone.

    manifest.json      format version, package version, whatever the detector describes itself by, sha256 of every part
    calibration.json   the threshold and what it rests on; may be edited by hand, so it has no digest here
    everything else    safetensors, graphs, thumbnails

The zip's comment carries the manifest's own sha256. Nothing is unpickled or run.
"""

import hashlib
import json
import math
import os
import tempfile
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handful.errors import InspectorError, OutputError

FORMAT_VERSION = 1
MANIFEST, CALIBRATION = "manifest.json", "calibration.json"
_COMMENT = "handful manifest sha256 "


def write(path: Path, manifest: Mapping[str, Any], calibration: Mapping[str, Any], parts: Mapping[str, bytes]) -> None:
    """Write an inspector under a temporary name beside `path`, then rename it.

    Raises:
        OutputError: if it cannot be written; a file that was there before is then left as it was.
    """
    digests = {name: hashlib.sha256(part).hexdigest() for name, part in sorted(parts.items())}
    described = _json({"format_version": FORMAT_VERSION, **manifest, "sha256": digests})
    contents = {MANIFEST: described, CALIBRATION: _json(calibration), **parts}
    try:
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=f".{path.name}.", delete=False) as file:
            temporary = Path(file.name)
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                archive.comment = (_COMMENT + hashlib.sha256(described).hexdigest()).encode()
                for name, part in contents.items():
                    archive.writestr(zipfile.ZipInfo(name), part)  # ZipInfo's fixed date: equal contents, equal bytes
    except OSError as error:
        raise OutputError(f"The inspector must be writable as {path}, got: {error.strerror}; choose another place.") from error
    try:
        temporary.chmod(0o666 & ~_umask())
        temporary.replace(path)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OutputError(f"The inspector must be writable as {path}, got: {error.strerror}; choose another place.") from error


def read(path: Path) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
    """Read and check an inspector: its manifest, its calibration and its other parts.

    Raises:
        InspectorError: if it is missing, no inspector, written by a newer version, damaged or altered.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            stored = all(entry.compress_type == zipfile.ZIP_STORED for entry in archive.infolist())
            if not stored or MANIFEST not in archive.namelist():
                raise InspectorError(f"{path} must be an inspector saved by Handful, got another kind of zip; name a .handful file.")
            contents = {entry.filename: archive.read(entry) for entry in archive.infolist()}
            comment = archive.comment.decode("ascii", "replace")
    except zipfile.BadZipFile as error:
        # A file that begins as a zip does, but does not read as one, was one.
        damaged = _begins_as_zip(path)
        what = f"a damaged one ({error})" if damaged else "a file of another kind"
        raise InspectorError(f"{path} must be an inspector saved by Handful, got {what}; copy or fit it again.") from error
    except OSError as error:
        raise InspectorError(f"An inspector must exist and be readable, got {path}: {error.strerror}; check the path.") from error
    except (NotImplementedError, RuntimeError, ValueError, EOFError, zlib.error, MemoryError, OverflowError) as error:
        raise InspectorError(f"{path} must be whole, got a damaged inspector; copy or fit it again.") from error
    manifest = _object(path, MANIFEST, contents.pop(MANIFEST))
    _check_version(path, manifest)
    if comment != _COMMENT + hashlib.sha256(_json(manifest)).hexdigest():
        raise InspectorError(f"{path} must be as it was saved, got a changed {MANIFEST}; copy or fit it again.")
    calibration = _object(path, CALIBRATION, contents.pop(CALIBRATION, b""))
    digests = manifest.pop("sha256")
    for name in sorted(set(digests) | set(contents)):
        if name not in contents or hashlib.sha256(contents[name]).hexdigest() != digests.get(name):
            raise InspectorError(f"{path} must be as it was saved, got a changed {name}; copy or fit it again.")
    return manifest, calibration, contents


def _check_version(path: Path, manifest: Mapping[str, Any]) -> None:
    version = manifest.get("format_version")
    if not isinstance(version, int) or version < 1:
        raise InspectorError(f"{path} must be an inspector saved by Handful, got another kind of zip; name a .handful file.")
    if version > FORMAT_VERSION:
        raise InspectorError(
            f"{path} must be of format {FORMAT_VERSION} or older, got {version}, saved by handful "
            f"{manifest.get('handful', 'of a later version')}; upgrade handful."
        )


def _object(path: Path, name: str, part: bytes) -> dict[str, Any]:
    try:
        value = json.loads(part)
        if not isinstance(value, dict) or not _finite(value):
            raise ValueError("no object of finite numbers")
    except ValueError as error:
        raise InspectorError(f"{path} must hold {name} as a JSON object, got: {error}; copy or fit it again.") from error
    return value


def _finite(value: object) -> bool:
    if isinstance(value, dict):
        return all(_finite(item) for item in value.values())
    if isinstance(value, list):
        return all(_finite(item) for item in value)
    return not isinstance(value, float) or math.isfinite(value)


def _json(value: Mapping[str, Any]) -> bytes:
    return json.dumps(value, indent=1, ensure_ascii=False).encode()


def _begins_as_zip(path: Path) -> bool:
    with path.open("rb") as file:
        return file.read(4) == b"PK\x03\x04"


def _umask() -> int:
    current = os.umask(0)
    os.umask(current)
    return current
