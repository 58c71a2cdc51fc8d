"""Run a benchmark's cells and show the progress."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from handful.cli.output import print_json, say
from handful.errors import number_of

if TYPE_CHECKING:
    from handful.evaluation.benchmark import Benchmark
    from handful.evaluation.results import Row

SAY_EVERY = 30  # seconds between two lines on the time left, where no terminal can show a bar


def run_cells(benchmark: "Benchmark", *, as_json: bool) -> int:
    """Run the unfinished cells and print each row; returns the number of failed cells."""
    done = len(benchmark.cells) - len(benchmark.unfinished)
    print(f"{number_of(len(benchmark.cells), 'cell')}{f', {done} done before' if done else ''}", file=sys.stderr)
    failed = 0
    for row in _with_time_left(benchmark.run(), len(benchmark.unfinished)):
        failed += bool(row.error)
        print_json(asdict(row)) if as_json else say(_line(row))
    return failed


def _with_time_left(rows: "Iterator[Row]", total: int) -> "Iterator[Row]":
    """Pass rows on; show on stderr the progress in cells and an estimate of the time left."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    console = Console(stderr=True)
    columns = (TextColumn("cells"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    quiet, redirected = not console.is_terminal, sys.stdout.isatty()
    begin = said = time.monotonic()
    with Progress(*columns, console=console, transient=True, disable=quiet, redirect_stdout=redirected) as bar:
        task = bar.add_task("cells", total=total)
        for done, row in enumerate(rows, 1):
            bar.advance(task)
            yield row
            now = time.monotonic()
            if quiet and now - said > SAY_EVERY:
                said = now
                minutes = (now - begin) / done * (total - done) / 60
                print(f"{done} of {total} cells, about {minutes:.0f} min left", file=sys.stderr, flush=True)


def _line(row: "Row") -> str:
    cell = f"{row.dataset} {row.category}  {row.method}  {row.shots} shots  seed {row.seed}"
    if row.error:
        return f"{cell}  FAILED: {row.error}"
    aupro = "" if row.aupro is None else f"  AUPRO {row.aupro:.1f}"
    return f"{cell}  image AUROC {row.image_auroc:.1f}{aupro}"
