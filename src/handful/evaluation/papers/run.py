"""Run a paper's jobs: make data sets, train heads, and prepare a benchmark for each job in a folder of its own."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from handful.backbones.base import Backbone
from handful.data.layouts.registry import open_dataset
from handful.data.progress import Track, quietly
from handful.errors import InputError
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.papers import Settings
from handful.evaluation.papers.plan import MADE, Job, Overrides, head_file
from handful.methods import HeadTraining, create, create_head_training, create_tuning, describe
from handful.training import head_file as heads
from handful.training.head import HeadTrainer
from handful.types import Dataset


@dataclass(frozen=True)
class Prepared:
    """A job ready to be run.

    Attributes:
        job: the job.
        benchmark: the benchmark in the job's folder.
        methods: for each variant, by name, the text of its method in the table.
        marks: the reasons why the job's cells must not be compared with the paper's numbers; empty if they may be.
    """

    job: Job
    benchmark: Benchmark
    methods: Mapping[str, str]
    marks: tuple[str, ...]


def untrained_heads(
    job: Job, asked: Overrides, network: Backbone, out: Path, *, track: Track = quietly
) -> Iterator[tuple[HeadTrainer, Path]]:
    """The trainings of the heads that a job still needs, and the path of each head; interrupted trainings go on.

    Each trainer holds the features of a whole data set, so callers should drop a trainer before they ask for the next.

    Raises:
        InputError, ImageError: see `HeadTrainer`.
        SettingError: for an unknown setting among the settings asked for.
    """
    for key in job.untrained:
        assert job.source is not None  # or the job could not run
        path = head_file(out, key)
        path.parent.mkdir(parents=True, exist_ok=True)
        checkpoint = path.with_name(f"{path.name}.checkpoint")
        training, datasets = head_training(job, key, asked), {job.run.trained_on: job.source}
        yield HeadTrainer(training, datasets, network, checkpoint=checkpoint, track=track), path


def head_training(job: Job, key: str, asked: Overrides) -> HeadTraining:
    """The training of a head DATASET-HEAD, by the settings asked for and else by the paper's settings."""
    settings = job.paper.heads[key.removeprefix(f"{job.run.trained_on}-")].training
    return create_head_training(settings["name"], _without_name(settings) | asked.training)


def prepare(
    job: Job,
    asked: Overrides,
    network: Backbone,
    out: Path,
    *,
    false_alarm_rate: float,
    categories: Sequence[str] | None = None,
    command: str = "",
    track: Track = quietly,
) -> Prepared:
    """Prepare the benchmark of a job whose heads are trained; makes missing data sets.

    Args:
        job: a job that can run.
        asked: the settings asked for instead of the paper's settings.
        network: the backbone.
        out: the folder of all results of the paper.
        false_alarm_rate: the share of good parts that the thresholds may reject.
        categories: the names of the categories to test; None for all.
        command: the command line that started the run, for the record.
        track: shows the progress of making data sets.

    Raises:
        InputError: if a head in the folder of the results was trained by other settings, or the folder holds results of
            other code, weights, sizes or data.
        SettingError, OutputError: see `Benchmark`.
    """
    methods, marks = {}, list(asked.changed)
    for name, variant in job.variants.items():
        text = describe(create(variant.method["name"], _without_name(variant.method)))
        if variant.tuning:
            tuning = create_tuning(variant.tuning["name"], _without_name(variant.tuning) | asked.training)
            text += f"@{describe(tuning)}"
        if variant.head:
            key = f"{job.run.trained_on}-{variant.head}"
            path = asked.heads.get(key, head_file(out, key))
            if not _is_trained_so(path, job, key, asked):
                if key not in asked.heads:
                    raise InputError(
                        f"The heads in {path.parent} must be trained by the settings asked for, got {path.name} of "
                        f"others; choose another folder or remove it."
                    )
                marks.append(f"other head {key}")
            text += f"@{path}"
        methods[name] = text
    benchmark = Benchmark(
        _tested(job, out, categories, track),
        network,
        out / job.name,
        methods=list(methods.values()),
        shots=job.run.shots,
        seeds=job.run.seeds,
        false_alarm_rate=false_alarm_rate,
        frames="squeezed",
        command=command,
        weights=asked.weights or "auto",
    )
    return Prepared(job, benchmark, methods, tuple(dict.fromkeys(marks)))


def _is_trained_so(path: Path, job: Job, key: str, asked: Overrides) -> bool:
    """Whether a head was trained on the run's data set by the settings of `head_training`."""
    record = heads.read(path).record
    settings = json.loads(json.dumps(head_training(job, key, asked).settings))
    return settings == record.settings and {one.partition("/")[0] for one in record.classes} == {job.run.trained_on}


def _tested(job: Job, out: Path, categories: Sequence[str] | None, track: Track) -> dict[str, Dataset]:
    """The data sets for tests that were given or can be made, by name, with the categories asked for."""
    found = {}
    for name, given in job.datasets.items():
        if given is None:
            continue
        dataset = _made(job, name, given, out, track) if name in job.paper.made else given
        kept = tuple(one for one in dataset.categories if categories is None or one.name in categories)
        if kept:
            found[name] = replace(dataset, categories=kept)
    return found


def _made(job: Job, name: str, source: Dataset, out: Path, track: Track) -> Dataset:
    """Make a data set from another's good pictures in the folder of the results, or read it if it is there already."""
    from handful.data import corruption  # needs the package kornia, which nothing else needs

    folder, made = out / MADE / name, job.paper.made[name]
    if folder.exists():
        return open_dataset(folder, layout="tree")
    folder.parent.mkdir(parents=True, exist_ok=True)
    return corruption.write_task(
        Path(source.root), folder, kinds=made.kinds, severity=made.severity, seed=0, layout=source.layout, track=track
    )


def _without_name(settings: Settings) -> Settings:
    return {key: value for key, value in settings.items() if key != "name"}
