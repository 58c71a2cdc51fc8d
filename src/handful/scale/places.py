"""Folders and buckets: where pictures, manifests and a run's own files lie.

A place is a path on this machine, or a URI that `pyarrow.fs` knows: s3://, gs://, abfs://, hdfs://, file://. A query
such as s3://bucket/prefix?region=eu-west-1&endpoint_override=http://host:9000 sets the options of the store.
"""

import errno
import os
import random
import re
import shutil
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import pyarrow
from pyarrow import fs

from handful.errors import InputError, OutputError, SettingError
from handful.files import aside, output_error, replacing, sweep

PAUSES = (0.5, 2.0, 8.0, 30.0)  # seconds before each further try, each up to a quarter longer or shorter
# Errors that the same request would get again: no such file, no right, no room.
_FINAL = {errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOSPC, errno.EROFS, errno.EISDIR, errno.ENOTDIR, errno.EDQUOT}
_FINAL_SAID = re.compile(r"AWS Error (ACCESS_DENIED|NO_SUCH_BUCKET|INVALID_ACCESS_KEY_ID|SIGNATURE_DOES_NOT_MATCH)")
_NO_LINKS = {errno.EPERM, errno.ENOTSUP, errno.ENOSYS}  # of a drive that has no hard links

Result = TypeVar("Result")


@dataclass(frozen=True)
class Entry:
    """A file or folder in a place.

    Attributes:
        name: without its folder.
        is_folder: whether the entry is a folder.
        bytes: the size of a file; None if the store does not say.
        version: the time of the last change in ns since 1970, as a text; empty if the store does not say.
    """

    name: str
    is_folder: bool
    bytes: int | None
    version: str


@dataclass(frozen=True)
class Place:
    """A file or folder, on this machine or in a store.

    Attributes:
        store: the file system.
        path: within the file system.
        uri: the name for people and for tables: an absolute path, or a URI without its query.
        query: of the URI; empty on this machine.
    """

    store: fs.FileSystem
    path: str
    uri: str
    query: str = ""

    @classmethod
    def at(cls, uri: str) -> "Place":
        """The place of a path or a URI.

        Raises:
            SettingError: if `pyarrow.fs` does not know the URI's scheme, or misses an option or credentials.
        """
        if "://" not in uri or uri.startswith("file://"):
            path = str(Path(uri.removeprefix("file://")).absolute())
            return cls(fs.LocalFileSystem(), path, path)
        address, _, query = uri.partition("?")
        if "@" in address and address.startswith("s3://"):
            raise SettingError(
                "An address must not hold credentials, which a run would write down, got an address with @; set "
                "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
            )
        try:
            if address.startswith("s3://") and "allow_delayed_open" not in query:
                query = "&".join(filter(None, (query, "allow_delayed_open=true")))  # a small file is one request
            store, path = fs.FileSystem.from_uri(f"{address}?{query}" if query else address)
        except (OSError, ValueError, pyarrow.ArrowException) as error:
            raise SettingError(
                f"{address} must be a place that pyarrow can open, got: {said(error)}; check the address and its "
                f"options."
            ) from error
        return cls(store, path.rstrip("/"), address.rstrip("/"), query)

    @property
    def address(self) -> str:
        """The path or URI that leads here from any machine and folder."""
        return f"{self.uri}?{self.query}" if self.query else self.uri

    @property
    def is_local(self) -> bool:
        """Whether the place lies in this machine's file system."""
        return isinstance(self.store, fs.LocalFileSystem)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition("/")[2] if not self.is_local else Path(self.path).name

    @property
    def parent(self) -> "Place":
        """The folder that the place lies in."""
        if self.is_local:
            folder = str(Path(self.path).parent)
            return replace(self, path=folder, uri=folder)
        return replace(self, path=self.path.rpartition("/")[0], uri=self.uri.rpartition("/")[0])

    def __truediv__(self, name: str) -> "Place":
        """A place below this one."""
        return replace(self, path=f"{self.path.rstrip('/')}/{name}", uri=f"{self.uri.rstrip('/')}/{name}")

    def kind(self) -> fs.FileType:
        """Whether there is a file, a folder, or nothing; tries once, so that a wrong address is known at once."""
        return self.store.get_file_info(self.path).type

    def is_file(self) -> bool:
        """Whether there is a file; tries once."""
        return bool(self.kind() == fs.FileType.File)

    def read(self, offset: int = 0, length: int | None = None) -> bytes:
        """The bytes of a file, or a range of them; tries once.

        Raises:
            OSError: if the file cannot be read.
        """
        if self.is_local:
            if length is None:
                return Path(self.path).read_bytes()
            with Path(self.path).open("rb") as local:
                local.seek(offset)
                return local.read(length)
        with self.store.open_input_file(self.path) as file:
            size = file.size() if length is None else length
            return bytes(file.read_at(size, offset))

    def entry(self) -> Entry:
        """The entry of a file."""
        return _entry(patiently(lambda: self.store.get_file_info(self.path)))

    def put(self, content: bytes | Path) -> None:
        """Write a file that appears whole or not at all, with its folder; tries again where a store fails.

        Args:
            content: the bytes, or a file of this machine that is copied.

        Raises:
            OutputError: if the file cannot be written.
        """
        if self.is_local:
            with replacing(Path(self.path), make_folder=True, sweeping=False) as file:
                _write(content, file)
            return

        def once() -> None:
            with self.store.open_output_stream(self.path) as file:
                _write(content, file)

        try:
            patiently(once)
        except (OSError, pyarrow.ArrowException) as error:
            raise OutputError(
                f"{self.uri} must be writable, got: {said(error)}; check the store and your rights there."
            ) from error

    def put_first(self, content: bytes) -> bool:
        """Write a file unless there is one; whether this call wrote the file.

        On this machine no other process can come between, but on a drive without links. Of two processes that write to
        a store at once the later wins; read the file to know.

        Raises:
            OutputError: if the file cannot be written.
        """
        if self.is_local:
            path = Path(self.path)
            try:
                path.parent.mkdir(parents=True, exist_ok=True)
                with aside(path) as temporary:
                    temporary.write_bytes(content)
                    os.link(temporary, path)
                return True
            except FileExistsError:
                return False
            except OSError as error:
                if error.errno not in _NO_LINKS:
                    raise output_error(path, error) from error
        if self.is_file():
            return False
        self.put(content)
        return True

    def remove(self) -> None:
        """Remove a file; a missing file is passed over."""

        def once() -> None:
            try:
                self.store.delete_file(self.path)
            except FileNotFoundError:
                return

        patiently(once)

    def entries(self) -> list[Entry]:
        """The files and folders directly in a folder, sorted by name; none for a missing folder."""
        chosen = fs.FileSelector(self.path, recursive=False, allow_not_found=True)
        found = patiently(lambda: self.store.get_file_info(chosen))
        return sorted((_entry(info) for info in found), key=lambda entry: entry.name)

    def sweep(self) -> None:
        """Remove the temporary files that killed processes have left below a local folder."""
        if self.is_local:
            sweep(Path(self.path), below=True)


def _write(content: bytes | Path, file: Any) -> None:
    if isinstance(content, Path):
        with content.open("rb") as source:
            shutil.copyfileobj(source, file, 1 << 20)
    else:
        file.write(content)


def _entry(info: fs.FileInfo) -> Entry:
    return Entry(info.base_name, info.type == fs.FileType.Directory, info.size, str(info.mtime_ns or ""))


class Stores:
    """The file systems of a run's pictures, each opened once.

    Args:
        queries: the query of each scheme, such as {"s3": "endpoint_override=http://host:9000"}.
    """

    def __init__(self, queries: Mapping[str, str]) -> None:
        self._queries = queries
        self._roots: dict[str, Place] = {}

    def place(self, uri: str) -> Place:
        """The place of an absolute path or a URI without a query; the rest of a URI is taken as it is written.

        Raises:
            SettingError: see `Place.at`.
        """
        scheme, separator, rest = uri.partition("://")
        if not separator or scheme == "file":
            return Place.at(uri)
        authority, _, path = rest.partition("/")
        address = f"{scheme}://{authority}"
        if address not in self._roots:
            query = self._queries.get(scheme, "")
            self._roots[address] = Place.at(f"{address}?{query}" if query else address)
        return self._roots[address] / path if path else self._roots[address]


class Patience:
    """Tries a request to a store again after growing pauses, and less often while the store stays away.

    After a request has failed in spite of all pauses, further requests are tried once each, until a request succeeds:
    the pauses are for a store that comes back, and need not be spent on every picture.

    Args:
        pauses: seconds before each further try; None for `PAUSES`.
    """

    def __init__(self, pauses: tuple[float, ...] | None = None) -> None:
        self._pauses, self._worn_out = PAUSES if pauses is None else pauses, False

    def __call__(self, request: Callable[[], Result]) -> Result:
        """The result of a request.

        Raises:
            OSError, pyarrow.ArrowException: of the last try.
        """
        for pause in () if self._worn_out else self._pauses:
            try:
                result = request()
                self._worn_out = False
                return result
            except (OSError, pyarrow.ArrowException) as error:
                if is_final(error):
                    raise
                time.sleep(pause * random.uniform(0.75, 1.25))
        try:
            result = request()
        except (OSError, pyarrow.ArrowException) as error:
            self._worn_out = self._worn_out or not is_final(error)
            raise
        self._worn_out = False
        return result


def patiently(request: Callable[[], Result]) -> Result:
    """The result of a request, see `Patience`."""
    return Patience()(request)


def is_final(error: BaseException) -> bool:
    """Whether the same request would fail again."""
    if isinstance(error, OSError) and (error.errno in _FINAL or isinstance(error, FileNotFoundError)):
        return True
    return _FINAL_SAID.search(str(error)) is not None


def said(error: BaseException) -> str:
    """The reason that an error of a store or of this machine's file system gives, without its last full stop."""
    strerror = getattr(error, "strerror", None)
    lines = str(strerror or error).strip().splitlines() or [type(error).__name__]
    return lines[0].rstrip(".")[:400]


@contextmanager
def reading(place: Place, noun: str) -> Iterator[None]:
    """Turn an error of reading in the block into an InputError that names the place.

    Args:
        place: the place that is read.
        noun: the noun for its contents, with an article.
    """
    try:
        yield
    except (OSError, pyarrow.ArrowException) as error:
        if isinstance(error, OutputError):
            raise
        raise InputError(f"{place.uri} must be {noun} that can be read, got: {said(error)}; check the path.") from error
