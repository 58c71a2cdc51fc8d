"""Hostile command lines for `fuzz`, drawn by Hypothesis from what the verbs say of themselves, and how one is asked."""

import io
import sys
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import typer
from hypothesis import strategies as st

from _fuzz_mutations import NUMBERS, TEXTS
from handful.cli.main import app, main
from handful.errors import HandfulError

HERE = "{here}"  # stands for the folder of an input's files
PATHS = (
    "rgb.png",
    "grey16.tiff",
    "broken.png",
    "good",
    "empty",
    "list.csv",
    "part.handful",
    "broken.handful",
    "absent",
)
# Verbs that compute for seconds where all is well: they get pictures and inspectors that are absent or broken alone.
SLOW = ("fit", "bench", "export", "corrupt", "defects", "reb", "coft", "resad", "fasl", "teach", "threshold")
REFUSED_PATHS = ("broken.png", "empty", "list.csv", "broken.handful", "absent")
WORDS = (
    "patchcore",
    "handful",
    "auto",
    "cpu",
    "torch",
    "openvino",
    "all",
    "none",
    "blank",
    "64",
    "0.01",
    "lam=2",
    "nut:good",
)


class RefusedError(HandfulError):
    """A command line that was refused in sentences, as it should be."""


class BrokenError(Exception):
    """A command line that was answered in another way than it should be."""


@dataclass(frozen=True)
class Command:
    """The arguments of a command line, `HERE` standing for the folder of its files."""

    words: tuple[str, ...]

    def inside(self, folder: Path) -> list[str]:
        """The arguments for files in a folder."""
        return [word.replace(HERE, str(folder)) for word in self.words]


@cache
def arguments() -> st.SearchStrategy[Command]:
    """Command lines: a verb, and some of its own options and arguments with values that may be right or not."""
    verbs = [_of_verb(names) for names in _verbs()]
    loose = st.lists(_values(PATHS), max_size=6).map(lambda words: Command(tuple(words)))
    return st.one_of(*verbs, loose)


def _verbs() -> list[tuple[str, ...]]:
    group = typer.main.get_command(app)
    found: list[tuple[str, ...]] = []
    for name, command in group.commands.items():  # type: ignore[attr-defined]
        inside = getattr(command, "commands", None)
        found += [(name, verb) for verb in inside] if inside else [(name,)]
    return found


def _of_verb(names: tuple[str, ...]) -> st.SearchStrategy[Command]:
    command = typer.main.get_command(app)
    for name in names:
        command = command.commands[name]  # type: ignore[attr-defined]
    paths = REFUSED_PATHS if names[-1] in SLOW else PATHS
    flags = [p.opts[-1] for p in command.params if getattr(p, "is_flag", False)] + ["--help", "--debug", "--nonsense"]
    named = [p.opts[0] for p in command.params if p.param_type_name == "option" and not getattr(p, "is_flag", False)]
    wanted = sum(p.param_type_name == "argument" for p in command.params)
    option = st.tuples(st.sampled_from(named or ["--nonsense"]), _values(paths)) | st.tuples(st.sampled_from(flags))
    places = st.lists(_values(paths), min_size=0, max_size=wanted + 1)
    begin = st.just(names) | st.sampled_from([("--debug", *names), ("--version", *names), (*names, names[0])])
    return st.tuples(st.just(names) | begin, places, st.lists(option, max_size=4), _needed(command, paths)).map(
        lambda drawn: Command((*drawn[0], *drawn[1], *(word for pair in drawn[2] for word in pair), *drawn[3]))
    )


def _needed(command: object, paths: tuple[str, ...]) -> st.SearchStrategy[list[str]]:
    """The options that a verb insists on, most of the time."""
    required = [p.opts[0] for p in command.params if p.required and p.param_type_name == "option"]  # type: ignore[attr-defined]
    pairs = [st.tuples(st.just(name), _values((*paths, "new"))) for name in required]
    return st.just([]) | st.tuples(*pairs).map(lambda drawn: [word for pair in drawn for word in pair])


def _values(paths: tuple[str, ...]) -> st.SearchStrategy[str]:
    """A path, a word that means something to some option, a number, or any text."""
    files = st.sampled_from(paths).map(lambda name: f"{HERE}/{name}")
    return files | files | st.sampled_from(WORDS) | NUMBERS.map(str) | TEXTS


def ask(words: list[str]) -> None:
    """Put a command line to Handful in this process.

    Raises:
        RefusedError: if it ends with exit code 2 and one sentence or more.
        BrokenError: if it ends in another way than the command line promises.
    """
    out, err, before = io.StringIO(), io.StringIO(), sys.argv
    sys.argv = ["handful", *words]
    code: object = 0
    try:
        with redirect_stdout(out), redirect_stderr(err):
            main()
    except SystemExit as end:
        code = end.code or 0
    finally:
        sys.argv = before
    said = err.getvalue()
    if "this should not have happened" in said or ("Traceback" in said and "--debug" not in words):
        raise BrokenError(said.strip().splitlines()[-1])
    sentences = [line for line in said.splitlines() if line.startswith("handful: ")]
    if code not in (0, 1, 2) or any(not line.endswith(".") for line in sentences):
        raise BrokenError(f"exit code {code}: {said.strip()[-300:]}")
    if code == 2:
        if not (said + out.getvalue()).strip():  # a group of verbs alone prints its help on stdout
            raise BrokenError("exit code 2 without a word")
        raise RefusedError((said + out.getvalue()).strip().splitlines()[-1])
