"""The verb `bench`: compare methods on labelled data sets, or make a paper's table again."""

import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli import papers
from handful.cli.cells import run_cells
from handful.cli.options import (
    DEFAULT_RATE,
    CategoriesOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    LevelsOption,
    PrecisionOption,
    RateOption,
    SizeOption,
    SqueezeOption,
    complete_method,
    create_backbone,
    open_datasets,
    parse_size,
)
from handful.cli.output import FAILED, complain
from handful.errors import SettingError, needing

if TYPE_CHECKING:
    from handful.evaluation.cells import Shots


def bench(
    data: Annotated[
        list[str] | None, typer.Option(help="A labelled data set, NAME:FOLDER; several may follow.")
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder of the results; a run that was killed goes on there.")
    ] = None,
    methods: Annotated[
        list[str] | None,
        typer.Option(
            help="patchcore; with settings fastrecon:lam=0.5,share=0.01; on a trained backbone patchcore@reb; with a "
            "trained head resad@HEAD.safetensors, without it the shipped head; default: patchcore fastrecon.",
            autocompletion=complete_method,
        ),
    ] = None,
    shots: Annotated[
        list[str] | None,
        typer.Option(
            help="How many references; 0 for a method that needs none, all for all good pictures; default: 1 2 4, of a "
            "paper its own."
        ),
    ] = None,
    seeds: Annotated[list[int] | None, typer.Option(help="Of the draws; default: 0 1 2, of a paper its own.")] = None,
    categories: CategoriesOption = None,
    layout: Annotated[str, typer.Option(help="How the data sets are laid out; default: found out.")] = "auto",
    backbone: Annotated[
        str | None,
        typer.Option(
            help="Any timm name, or clip:MODEL with a name of open_clip's; default: tf_efficientnet_lite0, of a paper "
            "its own."
        ),
    ] = None,
    levels: LevelsOption = None,
    weights: Annotated[
        str | None,
        typer.Option(
            help="auto (on board, else from the hub), random, or a file; default: auto, of a paper those here already."
        ),
    ] = None,
    size: SizeOption = None,
    squeeze: SqueezeOption = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "f32",
    device: DeviceOption = "auto",
    rate: RateOption = DEFAULT_RATE,
    sheets: Annotated[bool, typer.Option(help="Write the sheets of pictures.")] = True,
    paper: Annotated[
        str | None, typer.Option(help="Make the tables of a paper again; `handful papers` lists the names.")
    ] = None,
    plan: Annotated[
        bool,
        typer.Option("--plan", help="Of a paper: only say the cells, what is missing, and about how long it takes."),
    ] = False,
    available: Annotated[
        bool, typer.Option("--available", help="Of a paper: run what can be run where data or weights are missing.")
    ] = False,
    runs: Annotated[list[str] | None, typer.Option(help="Of a paper: only these runs, as --plan names them.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set", metavar="NAME=VALUE", help="Of a paper: a setting of its trainings, in place of its own."
        ),
    ] = None,
    heads: Annotated[
        list[str] | None,
        typer.Option(help="Of a paper: test only, with trained heads, DATASET-HEAD:FILE as --plan names them."),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Compare methods: every data set, category, method, number of references and seed; or make a paper's table again.

    Writes results.csv, summary.md, environment.json, plots/, sheets/ and scores/; of a paper these for each of its
    runs, and paper.md and paper.csv beside them. Called again after a stop it goes on where it was, and tries cells
    that failed again.
    """
    counts = _parse_shots(shots)
    if paper is not None:
        if methods or squeeze:
            given = "--methods" if methods else "--squeeze"
            raise SettingError(f"`{given}` must be left out with --paper, which has its own; leave it out.")
        asked = papers.overrides(
            backbone=backbone,
            levels=levels,
            size=size,
            weights=weights,
            precision=precision,
            shots=counts,
            seeds=seeds,
            runs=runs,
            training=set_ or [],
            heads=heads or [],
        )
        planned = papers.open_paper(paper, data or [], asked, out=out, layout=layout)
        if plan:
            papers.print_plan(planned, as_json=as_json)
        else:
            papers.run(
                planned,
                categories=categories,
                engine=engine,
                device=device,
                rate=rate,
                sheets=sheets,
                available=available,
                as_json=as_json,
            )
        return
    for option, value in (
        ("--plan", plan),
        ("--available", available),
        ("--runs", runs),
        ("--set", set_),
        ("--heads", heads),
    ):
        if value:
            raise SettingError(f"`{option}` must be left out without --paper, got it; name a paper.")
    if not data or out is None:
        raise SettingError(f"`{'--out' if data else '--data'}` must be given, got none; see `handful bench --help`.")

    with needing("`handful bench`", "bench"):
        from handful.evaluation.benchmark import Benchmark

    datasets = open_datasets(data, categories, layout)
    network = create_backbone(
        backbone or "tf_efficientnet_lite0",
        levels=levels,
        size=size,
        weights=weights or "auto",
        engine=engine,
        device=device,
        precision=precision,
    )
    benchmark = Benchmark(
        datasets,
        network,
        out,
        methods=methods or ["patchcore", "fastrecon"],
        shots=counts or [1, 2, 4],
        seeds=seeds or [0, 1, 2],
        false_alarm_rate=rate,
        frames="squeezed" if squeeze else "exact" if isinstance(parse_size(size), tuple) else "references",
        command=" ".join(["handful", *sys.argv[1:]]),
        weights=weights or "auto",
    )
    failed = run_cells(benchmark, as_json=as_json)
    pages = [path for path in benchmark.write_pages(sheets=sheets) if path.suffix == ".md"]
    print(f"summary: {pages[0]}", file=sys.stderr)
    if failed:
        complain(f"{failed} of {len(benchmark.cells)} cells failed; their column error says why.")
        raise typer.Exit(FAILED)


def _parse_shots(texts: list[str] | None) -> "list[Shots] | None":
    """The value of `--shots`; None if `--shots` was left out."""
    if texts is None:
        return None
    for text in texts:
        if text != "all" and not re.fullmatch("[0-9]{1,9}", text):
            raise SettingError(f"`--shots` must be whole numbers from 0, or all, got {text!r}.")
    return ["all" if text == "all" else int(text) for text in texts]
