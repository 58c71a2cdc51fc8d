"""The verb `bench --paper NAME`: list the papers, print the plan of a paper, and make a paper's table again."""

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from handful.cli.cells import run_cells
from handful.cli.options import JsonOption, check_categories, create_backbone, open_datasets
from handful.cli.output import FAILED, complain, print_json, say
from handful.cli.train import shown
from handful.data.progress import bar
from handful.errors import SettingError, number_of

if TYPE_CHECKING:
    from handful.evaluation.cells import Shots
    from handful.evaluation.papers import Paper
    from handful.evaluation.papers.plan import Job, Overrides
    from handful.types import Dataset


@dataclass(frozen=True)
class Planned:
    """A paper and its jobs, by the settings that a person asks for.

    Attributes:
        paper: the paper whose table is made again.
        asked: the settings asked for instead of the paper's settings.
        jobs: the jobs, in the order of the paper's file.
        given: the data sets given, by name.
        out: the folder of the results; None if `--out` was left out.
    """

    paper: "Paper"
    asked: "Overrides"
    jobs: "list[Job]"
    given: "dict[str, Dataset]"
    out: Path | None


def papers(as_json: JsonOption = False) -> None:
    """List the papers whose tables can be made again: protocol, data sets, shots, backbones and command."""
    from handful.evaluation.papers import PAPERS, read_paper

    for name in PAPERS:
        paper = read_paper(name)
        shots = list(dict.fromkeys(str(count) for run in paper.runs.values() for count in run.shots))
        folders = " ".join(f"{dataset}:FOLDER" for dataset in paper.datasets)
        facts = {
            "title": paper.title,
            "venue": f"{paper.authors}, {paper.venue}, {paper.year}",
            "protocol": paper.protocol,
            "datasets": list(dict.fromkeys(name for run in paper.runs.values() for name in run.datasets)),
            "shots": shots,
            "backbones": [backbone.name for backbone in paper.backbones.values()],
            "command": f"handful bench --paper {name} --data {folders} --out OUT",
        }
        if as_json:
            print_json({"name": name, **facts})
        else:
            say(f"{name}: {paper.title}, {facts['venue']}")
            for key in ("protocol", "datasets", "shots", "backbones", "command"):
                value = facts[key]
                say(f"  {key}: {value if isinstance(value, str) else ', '.join(value)}")


def overrides(
    *,
    backbone: str | None,
    levels: str | None,
    size: str | None,
    weights: str | None,
    precision: str,
    shots: "Sequence[Shots] | None",
    seeds: Sequence[int] | None,
    runs: Sequence[str] | None,
    training: Sequence[str],
    heads: Sequence[str],
) -> "Overrides":
    """The settings that the options ask for instead of the paper's settings.

    Raises:
        SettingError: if a value of `--set` or `--heads` has the wrong form.
    """
    from handful.evaluation.papers.plan import Overrides

    settings = {}
    if training:
        from handful.methods import parse_setting  # imports torch, which takes a second

        settings = dict(parse_setting(text) for text in training)
    files = {}
    for text in heads:
        name, colon, file = text.partition(":")
        if not colon or not Path(file).is_file():
            raise SettingError(f"`--heads` must be DATASET-HEAD:FILE, of a file that exists, got {text!r}.")
        files[name] = Path(file)
    return Overrides(
        backbone,
        levels,
        size,
        weights,
        precision,
        None if shots is None else tuple(shots),
        None if seeds is None else tuple(seeds),
        None if runs is None else tuple(runs),
        settings,
        files,
    )


def open_paper(name: str, data: Sequence[str], asked: "Overrides", *, out: Path | None, layout: str) -> Planned:
    """Read a paper, open the data sets given, and plan the jobs.

    Raises:
        SettingError, InputError: see `open_datasets`, `handful.evaluation.papers.read_paper` and
            `handful.evaluation.papers.plan.jobs`.
    """
    from handful.evaluation.papers import read_paper
    from handful.evaluation.papers.plan import jobs

    paper = read_paper(name)
    given = open_datasets(data, None, layout)
    return Planned(paper, asked, jobs(paper, given, asked, out=out), given, out)


def print_plan(planned: Planned, *, as_json: bool) -> None:
    """Print the plan: jobs, estimated time on this machine, missing data and weights, what is assumed."""
    from handful.evaluation.papers.estimate import EFFICIENCY, estimate, measured_rate
    from handful.evaluation.papers.plan import cell_count, describe, incomplete, missing

    rate = measured_rate()
    paper, estimates = planned.paper, [estimate(job) for job in planned.jobs]
    lacking, differing = list(missing(planned.jobs)), list(incomplete(planned.jobs))
    if as_json:
        for job, one in zip(planned.jobs, estimates, strict=True):
            facts = {"run": job.name, "cells": cell_count(job), "can_run": job.can_run, "heads": list(job.untrained)}
            print_json({**facts, "hours": round(one.hours(rate), 1), "gigabytes": round(one.gigabytes, 1)})
        print_json(
            {
                "missing": lacking,
                "incomplete": differing,
                "assumed": paper.assumed,
                "departures": list(paper.departures),
            }
        )
        return
    say(f"{paper.name}: {paper.title}, {paper.authors}, {paper.venue}, {paper.year}")
    say(f"protocol: {paper.protocol}")
    for job, one in zip(planned.jobs, estimates, strict=True):
        say(f"run {describe(job)}, about {_hours(one.hours(rate))}")
        if one.unknown:
            say(f"  left out of the hours, as the number of pictures is not known: {', '.join(one.unknown)}")
        if job.untrained:
            said = f"with about {one.gigabytes:.0f} GB of features in memory"
            say(f"  trains the heads {', '.join(job.untrained)}, {said}")
    for sentence in lacking:
        say(f"missing: {sentence}")
    for sentence in differing:
        say(f"incomplete: {sentence}")
    for place, reason in paper.assumed.items():
        say(f"assumed: {place}: {reason}")
    for sentence in paper.departures:
        say(f"departure: {sentence}")
    if planned.asked.changed:
        changed = ", ".join(planned.asked.changed)
        say(f"not to be compared with the paper's numbers: {changed}; the hours are still those of the paper's own")
    total = sum(one.hours(rate) for one in estimates)
    say(
        f"{number_of(sum(map(cell_count, planned.jobs)), 'cell')}, about {_hours(total)} on this machine's processor, "
        f"roughly: "
        f"operations counted by hand, at {EFFICIENCY:.0%} of the {rate:.0f} · 10⁹ a second that NumPy makes here now; "
        f"without decoding, metrics and figures, and not for a GPU"
    )


def run(
    planned: Planned,
    *,
    categories: Sequence[str] | None,
    engine: str | None,
    device: str,
    rate: float,
    sheets: bool,
    available: bool,
    as_json: bool,
) -> None:
    """Run a paper's jobs and write its table.

    Raises:
        SettingError: if the folder of the results was left out or holds the table of another paper, or data or weights
            are missing, unless `available` is set and at least one job can run.
        HandfulError: see `handful.evaluation.papers.run` and `handful.evaluation.benchmark.Benchmark`.
        typer.Exit: with exit code 2 if cells have failed.
    """
    out, paper, asked = planned.out, planned.paper, planned.asked
    if out is None:
        raise SettingError("`--out` must be given, got none; see `handful bench --help`.")
    _check_missing(planned, available)
    if categories:
        check_categories(planned.given, categories)

    from handful.evaluation.papers import run as papers_run
    from handful.evaluation.papers import tables
    from handful.evaluation.papers.figure import write_figure

    tables.check_folder(paper, out)
    prepared, failed, cells = [], 0, 0
    for job in planned.jobs:
        if not job.can_run:
            continue
        print(f"run {job.name}", file=sys.stderr)
        height, width = job.backbone.size
        network = create_backbone(
            asked.backbone or job.backbone.name,
            levels=asked.levels or (None if asked.backbone else ",".join(job.backbone.levels) or None),
            size=asked.size or f"{width}x{height}",
            weights=asked.weights or "auto",
            engine=engine,
            device=device,
            precision=asked.precision,
        )
        for trainer, path in papers_run.untrained_heads(job, asked, network, out, track=bar):
            for _ in shown(trainer.run(), trainer.training.updates):
                pass
            trainer.save(path)
            del trainer  # frees the features of a data set
        one = papers_run.prepare(
            job,
            asked,
            network,
            out,
            false_alarm_rate=rate,
            categories=categories,
            command=" ".join(["handful", *sys.argv[1:]]),
            track=bar,
        )
        failed += run_cells(one.benchmark, as_json=as_json)
        cells += len(one.benchmark.cells)
        for _ in one.benchmark.write_pages(sheets=sheets):
            pass
        write_figure(one, network)
        prepared.append(one)
        page = tables.write(paper, prepared, _skipped(planned), out)
    print(f"table: {page}", file=sys.stderr)
    if failed:
        complain(f"{failed} of {cells} cells failed; their column error says why.")
        raise typer.Exit(FAILED)


def _check_missing(planned: Planned, available: bool) -> None:
    """Raise SettingError if data, weights or packages are missing, unless `available` is set and a job can run."""
    lacking = _lacking(planned)
    if lacking and not (available and any(job.can_run for job in planned.jobs)):
        remedy = "nothing can run without" if available else "--plan says where from, --available runs the rest"
        raise SettingError(
            f"{planned.paper.name} needs all of its data and weights, got no {', no '.join(lacking)}; {remedy}."
        )


def _lacking(planned: Planned) -> list[str]:
    datasets = [name for job in planned.jobs for name in job.missing_datasets]
    weights = [f"weights of {job.backbone.name}" for job in planned.jobs if job.weights_missing]
    unmade = [
        f"package kornia for {name}"
        for job in planned.jobs
        for name, dataset in job.datasets.items()
        if dataset is None
        and name not in datasets
        and job.paper.made.get(name)
        and job.paper.made[name].source in planned.given
    ]
    return list(dict.fromkeys([*datasets, *weights, *unmade]))


def _skipped(planned: Planned) -> list[str]:
    """A sentence on each run and job that was not run, and on each data set that a job left out."""
    names = [job.name for job in planned.jobs]
    said = [
        f"{run}: not asked for."
        for run in planned.paper.runs
        if not any(name == run or name.startswith(f"{run}-") for name in names)
    ]
    for job in planned.jobs:
        if not job.can_run:
            said.append(f"{job.name}: data or weights are missing.")
        else:
            said += [
                f"{job.name}, {name}: the data set was not given." for name, d in job.datasets.items() if d is None
            ]
    return said


def _hours(hours: float) -> str:
    return f"{hours * 60:.0f} min" if hours < 1 else f"{hours:.0f} h" if hours < 48 else f"{hours / 24:.0f} days"
