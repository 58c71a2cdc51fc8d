"""Printing of the verbs: answers on stdout, everything else on stderr."""

import json
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from handful.errors import OutputError, number_of

if TYPE_CHECKING:
    from handful.data.images import Gathered

OK, DEFECT, FAILED = 0, 1, 2  # exit codes
NAMED = 20  # the most names of files left out that are printed; further files are counted

Item = TypeVar("Item")


def print_json(value: dict[str, Any]) -> None:
    """Print one JSON object as one line of the answer."""
    say(json.dumps(value))  # plain ASCII, which every encoding of stdout can write


def say(line: str) -> None:
    """Print one line of the answer without buffering, because a program may be waiting for the line.

    Raises:
        OutputError: if stdout cannot be written.
    """
    try:
        print(one_line(line), flush=True)
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries again at its end
        raise OutputError(f"Standard output must be writable, got: {error.strerror}; send it elsewhere.") from error


def complain(sentence: str) -> None:
    """Print one sentence on stderr."""
    print(f"handful: {one_line(sentence)}", file=sys.stderr)


def suggest(sentence: str) -> None:
    """Print a suggestion for a next step on stderr, if both stdout and stderr are terminals."""
    if sys.stdout.isatty() and sys.stderr.isatty():
        print(f"next: {one_line(sentence)}", file=sys.stderr)


def command_of(*words: object) -> str:
    """A command line of `handful` to copy into this system's shell."""
    said = ["handful", *(str(word) for word in words)]
    if os.name == "nt":
        from subprocess import list2cmdline

        return list2cmdline(said)
    return shlex.join(said)


def pictures_of(paths: Sequence[Path], *, recursive: bool) -> "Gathered":
    """The pictures at paths and in folders; other files in the folders are counted and named on stderr.

    Raises:
        InputError: see `handful.data.images.find`.
    """
    from handful.data.images import find

    found = find(paths, recursive=recursive)
    if found.left_out:
        named = ", ".join(f"{one.path} ({one.reason})" for one in found.left_out[:NAMED])
        more = f", and {len(found.left_out) - NAMED} more" if len(found.left_out) > NAMED else ""
        complain(f"left out {len(found.left_out)} beside {number_of(len(found.sources), 'picture')}: {named}{more}.")
    return found


def one_line(text: str) -> str:
    """A text with control characters spelled out: names of files may hold line breaks or commands to the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: found[0].encode("unicode_escape").decode(), text)


@contextmanager
def progress(items: Iterable[Item], *, count: int) -> Iterator[Iterable[Item]]:
    """Show a bar with the time left on stderr if stderr is a terminal; lines printed meanwhile stand above the bar."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    quiet = not console.is_terminal or count < 2
    with Progress(console=console, transient=True, disable=quiet, redirect_stdout=sys.stdout.isatty()) as bar:
        yield bar.track(items, total=count, description="inspecting")


def mixed_depths(references: list[tuple[str, int | None]]) -> str | None:
    """The numbers of references by depth, with the names of unusual references, in words; None if all depths agree."""
    from handful.data.layouts.tree import some

    counts = Counter(bits for _, bits in references).most_common()
    if len(counts) < 2 or None in dict(counts):
        return None
    (usual, count), *others = counts
    said = [f"{count} of {usual} bits"]
    for bits, count in others:
        said.append(f"{count} of {bits} ({some([name for name, own in references if own == bits])})")
    return " and ".join(said)
