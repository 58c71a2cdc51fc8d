"""Files are written under a temporary name, then renamed: no reader ever sees half a file, and no half file stays.

A killed process cannot remove its temporary file or folder. The next process that writes into the same folder does so:
`sweep` removes each temporary name whose lock it can take. The writing process holds the lock (flock) as long as it
lives, and the kernel releases the lock however the process ends. On Windows, which has no flock, `sweep` removes
temporary names that have not changed for a day. On a drive without locks temporary names stay.
"""

import os
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from handful.errors import OutputError

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

_TEMPORARY = re.compile(r"\.[0-9a-f]{16}\.part")
_ABANDONED = 86_400.0  # seconds without a change, where there are no locks


@contextmanager
def replacing(path: Path, *, make_folder: bool = False, sweeping: bool = True) -> Iterator[BinaryIO]:
    """Open a temporary file that replaces `path` if the block ends without an error, and is removed otherwise.

    The temporary file is flushed to the disk before it replaces `path`, so that a power cut leaves the old file or the
    new file, never half of either.

    Args:
        path: the path of the file; an existing file stays as it is until the end.
        make_folder: whether to make a missing folder.
        sweeping: whether to remove the temporary files that killed processes left in the folder, see `sweep`.

    Raises:
        OutputError: if the file cannot be written.
    """
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        if sweeping:
            sweep(path.parent)
        with aside(path) as temporary:
            with temporary.open("wb") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
    except OutputError:
        raise
    except OSError as error:
        raise output_error(path, error) from error


@contextmanager
def aside(path: Path, *, folder: bool = False) -> Iterator[Path]:
    """Make a temporary file, or folder, beside `path`, which no `sweep` removes; remove it at the end unless renamed.

    Raises:
        OSError: if the temporary file or folder cannot be made.
    """
    temporary, lock = _made(path, folder)
    try:
        yield temporary
    finally:
        _remove(temporary)
        if lock is not None:
            os.close(lock)


def sweep(folder: Path, *, below: bool = False) -> None:
    """Remove the temporary files and folders that killed processes left in a folder, except temporary files in use.

    Args:
        folder: the folder; an absent or unreadable folder is passed over.
        below: whether to look in all subfolders too.
    """
    for place, folders, names in os.walk(folder):
        for name in (*folders, *names):
            if _TEMPORARY.fullmatch(name) and (lock := _abandoned(path := Path(place, name))) is not None:
                _remove(path)
                os.close(lock)
        if not below:
            return
        folders[:] = [name for name in folders if not _TEMPORARY.fullmatch(name)]


def check_place(path: Path, what: str) -> None:
    """Check, before long work, that a file can be written at a path.

    Args:
        path: the path of the file.
        what: the noun for the file's contents in the error message.

    Raises:
        OutputError: if the folder of the file is missing, a folder lies at the path, or the name is too long.
    """
    if not path.parent.is_dir():
        raise OutputError(f"The folder of the {what} must exist, got {path.parent}; create it first.")
    try:
        is_folder = not path.name or path.is_dir()
    except OSError as error:
        raise output_error(path, error) from error
    if is_folder:
        raise OutputError(f"The {what} must go to a file, got the folder {path}; add a name.")


def output_error(path: Path, error: OSError) -> OutputError:
    """An OutputError with a sentence that names the path and the reason."""
    return OutputError(f"{path} must be writable, got: {error.strerror or error}; choose another place.")


def _made(path: Path, folder: bool) -> tuple[Path, int | None]:
    """A new temporary file or folder, and the descriptor that holds its lock, None where there are no locks."""
    while True:
        temporary = path.parent / f".{secrets.token_hex(8)}.part"
        temporary.mkdir() if folder else temporary.touch(exist_ok=False)
        try:
            lock = _locked(temporary, wait=True)
            if lock is None or os.path.samestat(os.fstat(lock), temporary.stat()):
                return temporary, lock
        except FileNotFoundError:
            continue  # another process's `sweep` removed the file before it was locked
        os.close(lock)


def _abandoned(path: Path) -> int | None:
    """A descriptor that holds the lock of an abandoned temporary file or folder; None while a process writes to it."""
    with suppress(OSError):
        if fcntl is not None:
            return _locked(path, wait=False)
        if time.time() - path.stat().st_mtime > _ABANDONED:
            return os.open(os.devnull, os.O_RDONLY)
    return None


def _locked(path: Path, *, wait: bool) -> int | None:
    """A descriptor that holds the lock; None if another process holds the lock, or where there are no locks."""
    if fcntl is None:
        return None
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def _remove(path: Path) -> None:
    with suppress(OSError):
        if path.is_dir():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)
