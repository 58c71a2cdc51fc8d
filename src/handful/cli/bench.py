"""The verb bench: compare methods on labelled data sets."""

import sys
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.options import (
    DEFAULT_RATE,
    BackboneOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    LevelsOption,
    PrecisionOption,
    RateOption,
    SizeOption,
    SqueezeOption,
    WeightsOption,
    create_backbone,
    open_datasets,
    parse_size,
)
from handful.cli.output import FAILED, complain, print_json, say
from handful.errors import needing

if TYPE_CHECKING:
    from handful.evaluation.results import Row

SAY_EVERY = 30  # seconds between two words on the time left, where there is no terminal to show a bar


def bench(
    data: Annotated[list[str], typer.Option(help="A labelled data set, NAME:FOLDER; several may follow.")],
    out: Annotated[Path, typer.Option(help="The folder of the results; a run that was killed goes on there.")],
    methods: Annotated[
        list[str],
        typer.Option(
            help="patchcore; with settings fastrecon:lam=0.5,share=0.01; on a trained backbone patchcore@reb; with a "
            "trained head resad@HEAD.safetensors."
        ),
    ] = ["patchcore", "fastrecon"],  # noqa: B006 - typer copies it
    shots: Annotated[list[int], typer.Option(help="How many references; 0 for a method that needs none.")] = [1, 2, 4],  # noqa: B006
    seeds: Annotated[list[int], typer.Option(help="Of the draws.")] = [0, 1, 2],  # noqa: B006
    categories: Annotated[list[str] | None, typer.Option(help="Only these, by name; default: all.")] = None,
    layout: Annotated[str, typer.Option(help="How the data sets are laid out; default: found out.")] = "auto",
    backbone: BackboneOption = "tf_efficientnet_lite0",
    levels: LevelsOption = None,
    weights: WeightsOption = "auto",
    size: SizeOption = None,
    squeeze: SqueezeOption = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "f32",
    device: DeviceOption = "auto",
    rate: RateOption = DEFAULT_RATE,
    sheets: Annotated[bool, typer.Option(help="Write the sheets of pictures.")] = True,
    as_json: JsonOption = False,
) -> None:
    """Compare methods: every data set, category, method, number of references and seed.

    Writes results.csv, summary.md, environment.json, plots/, sheets/ and scores/. Called again after a stop it goes on
    where it was, and tries cells that failed again.
    """
    with needing("`handful bench`", "bench"):
        from handful.evaluation.benchmark import Benchmark

    datasets = open_datasets(data, categories, layout)
    network = create_backbone(
        backbone, levels=levels, size=size, weights=weights, engine=engine, device=device, precision=precision
    )
    benchmark = Benchmark(
        datasets,
        network,
        out,
        methods=methods,
        shots=shots,
        seeds=seeds,
        false_alarm_rate=rate,
        frames="squeezed" if squeeze else "exact" if isinstance(parse_size(size), tuple) else "references",
        command=" ".join(["handful", *sys.argv[1:]]),
        weights=weights,
    )
    done = len(benchmark.cells) - len(benchmark.unfinished)
    print(f"{len(benchmark.cells)} cells{f', {done} done before' if done else ''}", file=sys.stderr)
    failed = 0
    for row in _with_time_left(benchmark.run(), len(benchmark.unfinished)):
        failed += bool(row.error)
        print_json(asdict(row)) if as_json else say(_line(row))
    pages = [path for path in benchmark.write_pages(sheets=sheets) if path.suffix == ".md"]
    print(f"summary: {pages[0]}", file=sys.stderr)
    if failed:
        complain(f"{failed} of {len(benchmark.cells)} cells failed; their column error says why.")
        raise typer.Exit(FAILED)


def _with_time_left(rows: "Iterator[Row]", total: int) -> "Iterator[Row]":
    """Pass rows on, telling on stderr how many are left and how long they may take."""
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
