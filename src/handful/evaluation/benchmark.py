"""A benchmark from its options to its folder: results.csv, environment.json, summary.md, plots and sheets."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from handful.errors import needing

with needing("handful.evaluation.benchmark.Benchmark", "bench"):
    from handful.evaluation.run import backbone_label, run

from handful.backbones.base import Backbone
from handful.evaluation import environment, results
from handful.evaluation.cells import Frames, Shots, plan, unfinished
from handful.evaluation.results import Row
from handful.files import replacing, sweep
from handful.inspection import threshold
from handful.methods import Method
from handful.types import Dataset

SUMMARY = "summary.md"


class Benchmark:
    """The benchmark of every data set × category × method × shots × seed on one backbone, in one folder.

    The constructor writes environment.json. `run` adds the results; if an earlier run of the folder was stopped or
    killed, `run` goes on where the earlier run ended. `write_pages` then writes the pages for people.

    Args:
        datasets: the data sets, by their names in the table.
        backbone: the backbone that computes every feature, once.
        out: the folder of the results.
        methods: texts for `handful.methods.parse`, or objects of any class derived from `handful.methods.Method`.
            METHOD@TRAINING scores on the backbone after a training on the references, see
            `handful.methods.parse_tuning`; METHOD@HEAD.safetensors scores by a trained head, not
            by the shipped head.
        shots, seeds: the numbers of references and the seeds of their draws; "all" shots for every good training
            picture of a category.
        false_alarm_rate: the share of good parts that the shipped thresholds may reject.
        frames: the frames of the model's inputs, see `handful.evaluation.cells.Frames`.
        command: the command line that started the benchmark, for the record.
        weights: the source of the backbone's weights, see `handful.backbones.create`; trainings begin with these
            weights.

    Raises:
        SettingError: for an unknown method or setting, or shots or seeds out of bounds.
        InputError: if the folder holds results of other code, weights, sizes or data.
        OutputError: if the folder cannot be written.
    """

    def __init__(
        self,
        datasets: Mapping[str, Dataset],
        backbone: Backbone,
        out: Path,
        *,
        methods: Sequence[str | Method],
        shots: Sequence[Shots],
        seeds: Sequence[int],
        false_alarm_rate: float = threshold.DEFAULT_RATE,
        frames: Frames = "references",
        command: str = "",
        weights: str = "auto",
    ) -> None:
        self.frames: Frames = frames
        self.datasets, self.backbone, self.out = datasets, backbone, out
        self.false_alarm_rate, self.weights = false_alarm_rate, weights
        self.cells = plan(datasets, methods=methods, shots=shots, seeds=seeds)
        facts = {
            "backbone": {**asdict(backbone.spec), "name": backbone_label(backbone.spec), "frames": frames},
            "false_alarm_rate": false_alarm_rate,
            "missing": {name: list(dataset.missing) for name, dataset in datasets.items()},
            "test_sets": {name: environment.test_sets(dataset) for name, dataset in datasets.items()},
        }
        described = environment.describe(command=command, device=backbone.device, facts=facts)
        sweep(out, below=True)  # a killed run may have left temporary files in any folder
        self.environment = environment.joined(out, described)
        environment.write(out, self.environment)
        self.unfinished = unfinished(self.cells, out)

    def run(self) -> Iterator[Row]:
        """Run the unfinished cells.

        Yields:
            Each row, once the row is in the table.

        Raises:
            OutputError: if the results cannot be written.
        """
        rate, frames, weights = self.false_alarm_rate, self.frames, self.weights
        yield from run(self.unfinished, self.backbone, self.out, false_alarm_rate=rate, weights=weights, frames=frames)

    def write_pages(self, *, sheets: bool = True) -> Iterator[Path]:
        """Write summary.md, the plots and, if wished, the sheets of pictures.

        Yields:
            The path of each file, once the file is written.

        Raises:
            OutputError: if a file cannot be written.
        """
        from handful.evaluation.plots import plot_shots  # matplotlib and polars take a second to import
        from handful.evaluation.tables import read_results, summary

        table = read_results(self.out / results.RESULTS)
        with replacing(self.out / SUMMARY) as file:
            file.write(summary(table, self.environment).encode())
        yield self.out / SUMMARY
        yield from plot_shots(table, self.out / "plots")
        if sheets:
            from handful.evaluation.sheets import write_sheets

            rows = results.read(self.out / results.RESULTS)
            categories = {(name, c.name): c for name, dataset in self.datasets.items() for c in dataset.categories}
            yield from write_sheets(
                rows,
                categories,
                self.backbone,
                self.out,
                false_alarm_rate=self.false_alarm_rate,
                frames=self.frames,
                scorers={cell.method: cell.scorer for cell in self.cells},
            )
