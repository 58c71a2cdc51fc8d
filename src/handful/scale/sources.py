"""The pictures that a run shall score: folders, prefixes of a bucket, tar shards, and manifests in Parquet.

Every source yields tables of the columns `FOUND`, at most `BATCH` rows each, so that memory does not grow with the
number of pictures.
"""

import io
import re
import tarfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import fs, parquet

from handful.data.formats import SUFFIXES
from handful.data.listing import LeftOut, list_all
from handful.errors import InputError
from handful.scale.places import Entry, Place, Stores, reading

BATCH = 65_536  # rows
FOUND = pa.schema(
    [
        ("path", pa.string()),  # an absolute path or a URI; TAR#MEMBER for a member of a tar file
        ("bytes", pa.int64()),  # null if the source does not say
        ("version", pa.string()),  # the time of the last change or an ETag; empty if the source does not say
        ("offset", pa.int64()),  # of a member's first byte in its tar file; null for a file
        ("product", pa.string()),  # null for the product of the run's one inspector
        ("inspector", pa.string()),  # null for INSPECTORS/PRODUCT.handful
    ]
)
_MEMBER = re.compile(r"(.*?\.tar)#", re.IGNORECASE | re.DOTALL)
_HEADERS = 1 << 16  # bytes that are read at once to find the headers in a tar file


@dataclass
class Sources:
    """The pictures of folders, prefixes, tar files and manifests, and a note of the other files there.

    Attributes:
        uris: the addresses of the sources.
        stores: opens the tar files that a manifest names.
        left_out: other files in folders on this machine; the first of the other files in stores and tar files.
        left_out_count: the number of files left out.
    """

    uris: Sequence[str]
    stores: Stores = field(default_factory=lambda: Stores({}))
    left_out: list[LeftOut] = field(default_factory=list)
    left_out_count: int = 0

    def tables(self) -> Iterator[pa.Table]:
        """Yield the pictures in turn.

        Raises:
            InputError: if a source is missing or cannot be read, or a manifest lacks a column or a value.
            SettingError: if an address is unknown to pyarrow.
        """
        for uri in self.uris:
            place = Place.at(uri)
            with reading(place, "a folder, a tar file, a picture or a manifest"):
                kind = place.kind()
            if kind == fs.FileType.NotFound:
                raise InputError(f"Pictures must exist, got {place.uri}, which does not; check the path.")
            if place.uri.lower().endswith((".parquet", ".pq")):
                yield from manifest(place, self.stores)
            elif kind == fs.FileType.File:
                yield from _in_batches(self._file(place, place.entry()))
            else:
                yield from _in_batches(self._local(place) if place.is_local else self._prefix(place))

    def _local(self, folder: Place) -> Iterator[dict[str, Any]]:
        """The pictures of a folder on this machine: those that `handful inspect` finds there, and tar files."""
        listed = list_all(folder.path, recursive=True)
        for one in listed.left_out:
            if one.path.lower().endswith(".tar") and Path(one.path).is_file():
                yield from self._file(Place.at(one.path), Place.at(one.path).entry())
            else:
                self._leave_out(one)
        for path in listed.pictures:
            if not _is_text(str(path)):
                self._leave_out(LeftOut(str(path), "a name that is not UTF-8, which a table cannot hold: rename it"))
                continue
            try:
                status = path.stat()
                yield _row(str(path), status.st_size, str(status.st_mtime_ns))
            except OSError:  # a broken link, say: reading the picture says so in its row
                yield _row(str(path), None, "")

    def _prefix(self, folder: Place) -> Iterator[dict[str, Any]]:
        """The pictures below a prefix of a store, by their suffix."""
        left = [folder]
        while left:
            place = left.pop()
            with reading(place, "a folder"):
                entries = place.entries()
            left += [place / entry.name for entry in reversed(entries) if entry.is_folder]
            for entry in entries:
                if not entry.is_folder:
                    yield from self._file(place / entry.name, entry)

    def _file(self, place: Place, entry: Entry) -> Iterator[dict[str, Any]]:
        if entry.name.lower().endswith(".tar"):
            yield from self._members(place, entry.version)
        elif place.is_local or _is_picture(entry.name):
            yield _row(place.uri, entry.bytes, entry.version)
        else:
            self._leave_out(LeftOut(place.uri, "hidden" if entry.name.startswith(".") else "no picture"))

    def _members(self, place: Place, version: str) -> Iterator[dict[str, Any]]:
        """The pictures in a tar file without compression, by suffix; only the headers are read."""
        try:
            with (
                reading(place, "a tar file"),
                place.store.open_input_file(place.path) as raw,
                io.BufferedReader(_Raw(raw), _HEADERS) as file,
                tarfile.open(fileobj=file, mode="r:") as archive,
            ):
                for member in archive:
                    path = f"{place.uri}#{member.name}"
                    if member.isfile() and _is_picture(member.name.rpartition("/")[2]):
                        yield {**_row(path, member.size, version), "offset": member.offset_data}
                    elif member.isfile():
                        self._leave_out(LeftOut(path, "no picture"))
                    archive.members = []  # type: ignore[attr-defined]  # else the archive keeps every member
        except tarfile.TarError as error:
            raise InputError(
                f"{place.uri} must be a tar file without compression, got: {error}; pack it again."
            ) from error

    def _leave_out(self, one: LeftOut) -> None:
        self.left_out_count += 1
        if len(self.left_out) < BATCH:
            self.left_out.append(one)


def manifest(place: Place, stores: Stores) -> Iterator[pa.Table]:
    """The pictures that a Parquet file names.

    Columns: `path`; `product` and `inspector` where a run has many products; `bytes`, `version` and `offset` if known.
    A path that is neither absolute nor a URI begins at the manifest's folder. A member of a tar file, TAR#MEMBER, whose
    offset is not given is looked up in its tar file.

    Args:
        place: of the Parquet file.
        stores: opens the tar files.

    Raises:
        InputError: if the file cannot be read, has no column `path`, a row has no path, or a tar file lacks a member.
    """
    folder, count = place.parent, 0
    with reading(place, "a manifest in Parquet"), place.store.open_input_file(place.path) as file:
        source = parquet.ParquetFile(file)
        names = set(source.schema_arrow.names)
        if "path" not in names:
            raise InputError(
                f"A manifest must have a column path, got {place.uri} with {', '.join(sorted(names)) or 'none'}; "
                f"rename the column."
            )
        wanted = [column for column in FOUND.names if column in names]
        archives: dict[str, dict[str, tuple[int, int]]] = {}
        for batch in source.iter_batches(BATCH, columns=wanted, use_threads=False):
            yield _located(_of_manifest(pa.Table.from_batches([batch]), place, folder, count), archives, stores)
            count += len(batch)


def _of_manifest(table: pa.Table, place: Place, folder: Place, before: int) -> pa.Table:
    """A batch of a manifest with all columns of `FOUND`."""
    columns = {}
    for wanted in FOUND:
        if wanted.name in table.column_names:
            try:
                columns[wanted.name] = table[wanted.name].cast(wanted.type)
            except pa.ArrowInvalid as error:
                raise InputError(
                    f"A manifest's column {wanted.name} must be of type {wanted.type}, got "
                    f"{table[wanted.name].type} in {place.uri}; write the column in that type."
                ) from error
        else:
            columns[wanted.name] = pa.nulls(len(table), wanted.type)
    path = columns["path"]
    if path.null_count:
        row = before + pc.index(pc.is_null(path), True).as_py()
        raise InputError(f"Every row of a manifest must have a path, got none in row {row} of {place.uri}; add it.")
    relative = pc.invert(pc.match_substring_regex(path, r"^(/|[A-Za-z][A-Za-z0-9+.-]*:)"))
    if pc.any(pc.and_(pc.is_valid(columns["offset"]), pc.is_null(columns["bytes"]))).as_py():
        raise InputError(
            f"A row of a manifest with an offset must have its bytes too, got a row without in {place.uri}; add them, "
            f"or leave the offset out."
        )
    columns["path"] = pc.if_else(relative, pc.binary_join_element_wise(folder.uri, path, "/"), path)
    columns["version"] = pc.fill_null(columns["version"], "")
    return pa.table(columns, schema=FOUND)


def _located(table: pa.Table, archives: dict[str, dict[str, tuple[int, int]]], stores: Stores) -> pa.Table:
    """A batch of a manifest with the offset and size of every member of a tar file.

    Args:
        table: of the columns `FOUND`.
        archives: offset and size of each member by path, by tar file; only those of the last tar file are kept.
        stores: opens the tar files.
    """
    offsets = table["offset"]
    if not pc.any(pc.and_(pc.match_substring_regex(table["path"], r"(?i)\.tar#"), pc.is_null(offsets))).as_py():
        return table
    rows = table.to_pylist()
    for row in rows:
        archive = archive_of(row["path"])
        if archive and row["offset"] is None:
            if archive not in archives:
                archives.clear()
                found = Sources([])._members(stores.place(archive), "")
                archives[archive] = {one["path"]: (one["offset"], one["bytes"]) for one in found}
            if row["path"] not in archives[archive]:
                raise InputError(f"A tar file must hold the members that a manifest names, got none for {row['path']}.")
            row["offset"], row["bytes"] = archives[archive][row["path"]]
    return pa.Table.from_pylist(rows, schema=FOUND)


def archive_of(path: str) -> str:
    """The tar file of a member's path, TAR#MEMBER; empty for another path."""
    found = _MEMBER.match(path)
    return found[1] if found else ""


class _Raw(io.RawIOBase):
    """A file of pyarrow as a raw file of Python, to be buffered."""

    def __init__(self, file: Any) -> None:
        self._file = file

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())


def _is_picture(name: str) -> bool:
    return not name.startswith(".") and name.lower().endswith(tuple(SUFFIXES))


def _is_text(name: str) -> bool:
    """Whether a name can be written as UTF-8."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def _row(path: str, size: int | None, version: str) -> dict[str, Any]:
    return {"path": path, "bytes": size, "version": version, "offset": None, "product": None, "inspector": None}


def _in_batches(rows: Iterable[dict[str, Any]]) -> Iterator[pa.Table]:
    batch: list[dict[str, Any]] = []
    for row in rows:
        batch.append(row)
        if len(batch) == BATCH:
            yield pa.Table.from_pylist(batch, schema=FOUND)
            batch = []
    if batch:
        yield pa.Table.from_pylist(batch, schema=FOUND)
