"""Write aside, then rename: nobody ever sees half a file."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from handful.errors import OutputError


@contextmanager
def replacing(path: Path, *, make_folder: bool = False) -> Iterator[BinaryIO]:
    """A file beside `path` to write to, which takes its place when the block ends well and vanishes when it raises.

    Args:
        path: of the file; one that was there before stays as it was until the end.
        make_folder: whether to make its folder where that is missing.

    Raises:
        OutputError: if it cannot be written.
    """
    temporary = beside(path)
    try:
        if make_folder:
            path.parent.mkdir(parents=True, exist_ok=True)
        with temporary.open("xb") as file:
            yield file
        temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise output_error(path, error) from error
        raise


def beside(path: Path) -> Path:
    """A hidden temporary name in the same folder."""
    return path.parent / f".{secrets.token_hex(8)}.part"


def output_error(path: Path, error: OSError) -> OutputError:
    """What cannot be written, and why, in one sentence."""
    return OutputError(f"{path} must be writable, got: {error.strerror or error}; choose another place.")
