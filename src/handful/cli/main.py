"""The command line: parse, call, print. Results go to stdout, everything else to stderr.

torch takes seconds to import, so the verbs' functions import torch, not their modules.
"""

import gc
import io
import os
import signal
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Annotated, NoReturn

import typer

from handful.cli import bench, correct, data, papers, train
from handful.cli.demo import demo
from handful.cli.doctor import doctor
from handful.cli.export import export
from handful.cli.fit import fit
from handful.cli.info import info
from handful.cli.inspect import inspect
from handful.cli.options import ManyValues
from handful.cli.output import FAILED, complain, say
from handful.cli.score import score
from handful.errors import HandfulError, install_command, missing_packages
from handful.version import __version__

app = typer.Typer(
    invoke_without_command=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"handful {__version__}")
        raise typer.Exit


FIRST = """\
Handful teaches a visual inspector from a handful of good pictures.

See it work             handful demo
Teach your own part     handful fit GOOD_PICTURES -o part.handful
Inspect other pictures  handful inspect part.handful PICTURES --report report
Correct a false alarm   handful teach part.handful --good PICTURE
Look for what is wrong  handful doctor
See all commands        handful --help

GOOD_PICTURES are 1 to 8 pictures of good parts, or a folder of them."""


@app.callback()
def _handful(
    context: typer.Context,
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    """Handful teaches a visual inspector from a handful of good pictures.

    Exit codes: 0 every picture is OK, 1 at least one is a DEFECT, 2 an error, or a picture that could not be judged;
    130 and 143 where it was interrupted (SIGINT, SIGTERM).
    """
    if context.invoked_subcommand is None:
        for line in FIRST.splitlines():
            say(line)
        if missing_packages("fit"):
            say(f"This installation inspects; teaching, correcting and the demo need more: {install_command('fit')}")


for verb in (fit, inspect, info, papers.papers, demo):
    app.command()(verb)
for repeating in (doctor, export, score, correct.threshold, correct.teach, bench.bench):
    app.command(cls=ManyValues)(repeating)
app.add_typer(data.app, name="data")
app.add_typer(train.app, name="train")


def main() -> None:
    """Run the command line; an error gives one sentence on stderr and exit code 2."""
    # Waiting threads should sleep, not spin: beside another busy program spinning slows everything several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read at the first import of torch
    # NumPy's waiting threads would spin for tens of ms after a defect's evidence, beside the next picture's graph.
    os.environ.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")  # read when NumPy is first imported; 2⁴ cycles
    # torch's imports and torch.export create hundreds of thousands of objects that stay. At Python's default threshold
    # the garbage collector would look through all of them again and again.
    gc.set_threshold(100_000)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # file names may exceed the terminal's encoding
    with _interruptible() as received:
        try:
            code = _run(received)
        finally:
            if received:  # versions of typer turn the interruption into different exceptions
                complain("interrupted.")
                sys.exit(128 + received[0])
    sys.exit(code)


def _run(received: list[int]) -> int:
    """Parse the command line and call the verb; returns the exit code, and exits with 2 after an error."""
    try:
        code = app(prog_name="handful", standalone_mode=False)  # else typer exits with 1, DEFECT, for some errors
    except typer.TyperException as error:
        _fail(_usage(error))
    except HandfulError as error:
        _fail("" if isinstance(error.__cause__, BrokenPipeError) else str(error))
    except typer.Abort:
        _fail("" if received else "interrupted.")
    except OSError as error:
        got = f"{error.strerror or error} ({error.filename})"
        _fail(f"Files must be readable and writable, got: {got}; check the path.")
    except Exception as error:
        _fail(f"this should not have happened: {type(error).__name__}: {error}; run `handful --debug …` and report it.")
    return int(code or 0)


@contextmanager
def _interruptible() -> Iterator[list[int]]:
    """Let SIGTERM interrupt like Ctrl-C, so that half-written files are removed; a second signal ends the process.

    Yields:
        The list of the signals received so far.
    """
    received: list[int] = []

    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        received.append(number)
        signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    if threading.current_thread() is not threading.main_thread():
        yield received  # Python lets the main thread alone handle signals
        return
    before = {number: signal.signal(number, interrupt) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield received
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _fail(sentence: str) -> NoReturn:
    if "--debug" in sys.argv:
        traceback.print_exc()
    if sentence:
        complain(sentence)
    sys.exit(FAILED)


def _usage(error: typer.TyperException) -> str:
    """The message of typer about a wrong command line, as one sentence; empty if typer has printed its help."""
    said, context = error.format_message(), getattr(error, "ctx", None)
    verb = context.command_path if context else "handful"
    return f"{said.rstrip('.')}; see `{verb} --help`." if said else ""
