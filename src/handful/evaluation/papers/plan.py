"""The plan of a paper's runs: jobs, cells, and missing data sets, packages and weights. Needs no torch."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path

from handful.data.layouts.registry import LAYOUTS
from handful.errors import SettingError, install_command, number_of
from handful.evaluation.papers import (
    Paper,
    PaperBackbone,
    PaperRun,
    Settings,
    Shots,
    Variant,
    read_datasets,
)
from handful.evaluation.published import OFFICIAL_CATEGORIES
from handful.types import Dataset

HEADS, MADE = "heads", "data"  # folders of trained heads and of made data sets inside the results


@dataclass(frozen=True)
class Overrides:
    """The settings that a person asks for instead of the paper's settings.

    Attributes:
        backbone, levels, size: the values of `handful bench`'s options; None for the paper's.
        weights: the value of `--weights`; None for the paper's weights if they are on this machine, "auto" to download
            them if they are not.
        precision: the value of `--precision`.
        shots, runs: the selected shots and runs of the paper; None for all.
        seeds: any seeds; None for the paper's seeds.
        training: settings for every training of a backbone or a head.
        heads: files of trained heads by DATASET-HEAD; these heads are not trained.
    """

    backbone: str | None = None
    levels: str | None = None
    size: str | None = None
    weights: str | None = None
    precision: str = "f32"
    shots: tuple[Shots, ...] | None = None
    seeds: tuple[int, ...] | None = None
    runs: tuple[str, ...] | None = None
    training: Settings = field(default_factory=dict)
    heads: Mapping[str, Path] = field(default_factory=dict)

    @property
    def changed(self) -> tuple[str, ...]:
        """The kinds of settings that differ from the paper's; with any, no cell is compared with published numbers."""
        found = {
            "other backbone": self.backbone is not None,
            "other levels": self.levels is not None,
            "other weights": self.weights not in (None, "auto"),
            "other size": self.size is not None,
            "other precision": self.precision != "f32",
            "other training": bool(self.training),
        }
        return tuple(name for name, other in found.items() if other)


@dataclass(frozen=True)
class Job:
    """A run on one backbone: a benchmark in a folder of its own.

    Attributes:
        name: the name of the folder inside the results.
        paper: the paper of the run.
        run: the run, with the shots and seeds asked for.
        backbone: the paper's backbone.
        weights_missing: whether the paper's weights are wanted and not on this machine.
        datasets: the data sets for tests, by name; for a made data set its source; None for a data set that was not
            given or cannot be made.
        untrained: the names DATASET-HEAD of the heads that are neither given nor trained already.
        source: the data set on which heads are trained; None if it was not given, or without heads.
    """

    name: str
    paper: Paper
    run: PaperRun
    backbone: PaperBackbone
    weights_missing: bool
    datasets: Mapping[str, Dataset | None]
    untrained: tuple[str, ...]
    source: Dataset | None

    @property
    def variants(self) -> dict[str, Variant]:
        """The variants of the run, by name."""
        return {name: self.paper.variants[name] for name in self.run.variants}

    @property
    def missing_datasets(self) -> tuple[str, ...]:
        """The names of the data sets that the whole job needs and that were not given or cannot be made."""
        named = [name for name, dataset in self.datasets.items() if dataset is None]
        given = [self.paper.made[name].source if name in self.paper.made else name for name in named]
        trained_on = [self.run.trained_on] if self.untrained and self.source is None else []
        return tuple(dict.fromkeys([*trained_on, *given]))

    @property
    def can_run(self) -> bool:
        """Whether the job has weights, trained or trainable heads, and at least one data set for tests."""
        trainable = not self.untrained or self.source is not None
        return not self.weights_missing and trainable and any(self.datasets.values())


def jobs(paper: Paper, given: Mapping[str, Dataset], asked: Overrides, *, out: Path | None) -> list[Job]:
    """A paper's jobs, in the file's order.

    Args:
        paper: the paper whose tables are made again.
        given: the data sets given, by name.
        asked: the settings asked for instead of the paper's settings.
        out: the folder of the results, which may hold heads that were trained before; None without a folder.

    Raises:
        SettingError: for a data set, head or run that the paper does not have, for training settings if the paper
            trains nothing, and if no run asked for has the shots asked for.
    """
    _check(paper, given, asked)
    made = []
    for name, run in paper.runs.items():
        shots = tuple(count for count in run.shots if asked.shots is None or count in asked.shots)
        if not shots:
            continue
        kept = replace(run, shots=shots, seeds=asked.seeds or run.seeds)
        backbones = run.backbones[:1] if asked.backbone else run.backbones  # the other replaces each of them
        for key in backbones:
            backbone = paper.backbones[key]
            folder = name if len(run.backbones) == 1 else f"{name}-{key}"
            if asked.runs is not None and not {name, folder} & {*asked.runs}:
                continue
            missing = asked.backbone is None and asked.weights is None and not on_machine(backbone.repository)
            heads = dict.fromkeys(
                f"{run.trained_on}-{v.head}" for v in map(paper.variants.get, run.variants) if v and v.head
            )
            trained = [head for head in heads if out is not None and head_file(out, head).exists()]
            untrained = [head for head in heads if head not in (*asked.heads, *trained)]
            made.append(
                Job(
                    folder,
                    paper,
                    kept,
                    backbone,
                    missing,
                    {dataset: _given(paper, dataset, given) for dataset in run.datasets},
                    tuple(untrained),
                    given.get(run.trained_on),
                )
            )
    if not made:
        raise SettingError(
            f"`--shots` must be among the shots of the runs asked for, got {_listed(asked.shots or ())}."
        )
    return made


def head_file(out: Path, head: str) -> Path:
    """The path of the file of a head DATASET-HEAD in the folder of the results."""
    return out / HEADS / f"{head}.safetensors"


def on_machine(repository: str) -> bool:
    """Whether the hub's cache on this machine holds files of a repository; uses no network."""
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache", "huggingface"))
    cache = Path(os.environ.get("HF_HUB_CACHE") or home / "hub").expanduser()
    return any((cache / f"models--{repository.replace('/', '--')}" / "snapshots").glob("*/*"))


def missing(of_paper: Sequence[Job]) -> Iterator[str]:
    """A line on each data set, package and weights that the jobs lack, with its source and the way to give it."""
    sources = read_datasets()
    for name in dict.fromkeys(name for job in of_paper for name in job.missing_datasets):
        one = sources[name]
        yield f"data set {name} ({one.title}): {one.source}; give it as --data {name}:FOLDER"
    if any(name in job.paper.made for job in of_paper for name in job.datasets) and find_spec("kornia") is None:
        yield f"package kornia, which makes the corrupted data sets: {install_command('corrupt')}"
    for backbone in dict.fromkeys(job.backbone.name for job in of_paper if job.weights_missing):
        repository = next(job.backbone.repository for job in of_paper if job.backbone.name == backbone)
        yield f"weights {backbone}: {repository} on the hub; --weights auto downloads them"


def incomplete(of_paper: Sequence[Job]) -> Iterator[str]:
    """A line on each data set given that lacks categories or files, or has categories of another data set."""
    given: dict[str, Dataset] = {}
    for job in of_paper:
        made = job.paper.made
        tested = {made[name].source if name in made else name: one for name, one in job.datasets.items()}
        given |= {name: one for name, one in {**tested, job.run.trained_on: job.source}.items() if one is not None}
    for name, dataset in given.items():
        there = [category.name for category in dataset.categories]
        official = OFFICIAL_CATEGORIES.get(name, there)
        absent, foreign = [one for one in official if one not in there], [one for one in there if one not in official]
        lacks = [sentence for sentence in dataset.missing if sentence.partition(":")[0] in there]
        said = [f"{len(absent)} of {len(official)} categories cannot be used: {', '.join(absent)}"] if absent else []
        said += [f"categories of another data set: {', '.join(foreign)}"] if foreign else []
        said += [f"files or counts differ, the first: {lacks[0].rstrip('.')}"] if lacks else []
        if said:
            yield f"data set {name}: {'; '.join(said)}; such figures are marked; handful data check {dataset.root}"


def counts(job: Job, name: str) -> list[tuple[int, int]] | None:
    """For each category of a data set, the numbers of good training pictures and of test pictures.

    For a data set that was not given, the official numbers; None if there are no official numbers.
    """
    found = job.datasets.get(name)
    if name == job.run.trained_on:
        found = job.source
    if found is not None and name not in job.paper.made:
        return [(len(category.train), len(category.test)) for category in found.categories]
    if name in job.paper.made:
        one = job.paper.made[name]
        official = _official(one.source)
        if found is not None:
            official = [(len(c.train), sum(not s.anomalous for s in c.test), 0) for c in found.categories]
        return None if official is None else [(train, good * (1 + len(one.kinds))) for train, good, _ in official]
    numbers = _official(name)
    return None if numbers is None else [(train, good + bad) for train, good, bad in numbers]


def categories(job: Job, name: str) -> int:
    """The number of categories of a data set."""
    known = counts(job, name)
    return read_datasets()[name].categories if known is None else len(known)


def cell_count(job: Job) -> int:
    """The number of cells of a job; 0 shots have cells for a single seed."""
    draws = sum(1 if count == 0 else len(set(job.run.seeds)) for count in set(job.run.shots))
    return sum(categories(job, name) for name in job.run.datasets) * draws * len(job.run.variants)


def describe(job: Job) -> str:
    """A job in words: backbone, data sets, shots, seeds and variants, and the number of cells."""
    run = job.run
    tested = ", ".join(f"{name} ({categories(job, name)})" for name in run.datasets)
    draws = f"shots {_listed(run.shots)} by seeds {_listed(run.seeds)}"
    after = f"trained on {run.trained_on}, " if run.trained_on else ""
    height, width = job.backbone.size
    return (
        f"{job.name}: {after}{job.backbone.name} at {width}x{height}; {tested} categories by {draws} by variants "
        f"{_listed(run.variants)} = {number_of(cell_count(job), 'cell')}"
    )


def _check(paper: Paper, given: Mapping[str, Dataset], asked: Overrides) -> None:
    heads = [f"{run.trained_on}-{head}" for run in paper.runs.values() if run.trained_on for head in paper.heads]
    for option, names, known in (
        ("--data", [*given], [*paper.datasets]),
        ("--runs", [*(asked.runs or ())], _run_names(paper)),
        ("--heads", [*asked.heads], [*dict.fromkeys(heads)]),
    ):
        if unknown := [name for name in names if name not in known]:
            said = f"the names of {paper.name}'s: {', '.join(known) or 'none'}"
            raise SettingError(f"`{option}` must have {said}, got {unknown[0]!r}.")
    if asked.training and not paper.heads and not any(variant.tuning for variant in paper.variants.values()):
        raise SettingError(f"`--set` must be left out where nothing is trained, got it for {paper.name}.")


def _run_names(paper: Paper) -> list[str]:
    """The names that `--runs` takes: the runs, and the jobs RUN-BACKBONE of runs on several backbones."""
    names = list(paper.runs)
    for name, run in paper.runs.items():
        names += [f"{name}-{key}" for key in run.backbones] if len(run.backbones) > 1 else []
    return names


def _given(paper: Paper, name: str, given: Mapping[str, Dataset]) -> Dataset | None:
    """A data set as given, else None; for a made data set its source, None without the source or the package kornia."""
    if name not in paper.made:
        return given.get(name)
    return given.get(paper.made[name].source) if find_spec("kornia") else None


def _official(name: str) -> list[tuple[int, int, int]] | None:
    """For each official category the numbers of good training pictures, good test pictures and defects.

    None if the layout of the data set has no official numbers.
    """
    found: Mapping[str, tuple[int, int, int]] = getattr(LAYOUTS[read_datasets()[name].layout], "OFFICIAL", {})
    return list(found.values()) or None


def _listed(values: Sequence[object]) -> str:
    return ", ".join(map(str, values))
