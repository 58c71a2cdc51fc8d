"""What the benchmarks of trained heads share: training one once, running a table, and its means as a page."""

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _tables import chosen, over_seeds
from handful.backbones.base import Backbone
from handful.data.layouts.registry import open_dataset
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.results import Row
from handful.methods import create_head_training
from handful.training.head import HeadTrainer

IMAGE_AUROC = {"image_auroc": "image AUROC, %"}


def head(
    file: Path, method: str, settings: Mapping[str, Any], backbone: Backbone, data: Path, names: Sequence[str]
) -> str:
    """The file of a head, as seen from the project's folder; trained without made products where there is none yet."""
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        datasets = {name: open_dataset(data / name) for name in names}
        checkpoint = file.with_name(f"{file.name}.checkpoint")
        training = HeadTrainer(
            create_head_training(method, {**settings, "products": 0}), datasets, backbone, checkpoint=checkpoint
        )
        for progress in training.run():
            if progress.number % 50 == 0:
                print(file.name, progress.number, f"{progress.loss:.2f}", training.validation, file=sys.stderr)
        training.save(file)
    return str(file.relative_to(Path(__file__).parents[1]))


def table(
    options: argparse.Namespace,
    backbone: Backbone,
    out: Path,
    *,
    target: Sequence[str],
    methods: Sequence[str],
    command: str,
) -> list[Row]:
    """Every method on every category of the target's data sets, in a folder; the rows without an error."""
    datasets = chosen(options.data, getattr(options, "categories", None), names=target)
    numbers = {"shots": options.shots, "seeds": options.seeds}
    benchmark = Benchmark(datasets, backbone, out, methods=methods, command=command, **numbers)
    for row in benchmark.run():
        said = row.error or f"{row.image_auroc:.1f}"
        print(row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
    for path in benchmark.write_pages(sheets=False):  # they would show the data sets' pictures
        print(path)
    return [row for row in results.read(out / results.RESULTS) if not row.error]


def means(rows: Sequence[Row], methods: Mapping[str, str], metrics: Mapping[str, str]) -> list[str]:
    """Every method at each number of references, over categories and seeds."""
    lines = [f"| shots | method | protocol | {' | '.join(metrics.values())} |", "|---|---|---|" + "---|" * len(metrics)]
    for shots in sorted({row.shots for row in rows}):
        for name, method in methods.items():
            here = [row for row in rows if (row.shots, row.method) == (shots, method)]
            cells = [_over_seeds(here, metric) for metric in metrics]
            lines.append(f"| {shots} | {name} | {here[0].protocol if here else '-'} | {' | '.join(cells)} |")
    return ["Means over categories, then mean ± standard deviation over draws of references.", "\n".join(lines)]


def by_category(
    rows: Sequence[Row],
    methods: Mapping[str, str],
    metrics: Mapping[str, str] = IMAGE_AUROC,
) -> list[str]:
    """A metric of every category at the most references, a table for each metric."""
    shots = max(row.shots for row in rows)
    tables = []
    for metric, title in metrics.items():
        lines = [f"| {title}, {shots} shots | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
        for dataset, category in sorted({(row.dataset, row.category) for row in rows}):
            here = [row for row in rows if (row.dataset, row.category, row.shots) == (dataset, category, shots)]
            cells = [_over_seeds([row for row in here if row.method == method], metric) for method in methods.values()]
            lines.append(f"| {dataset}/{category} | {' | '.join(cells)} |")
        tables.append("\n".join(lines))
    return tables


def _over_seeds(rows: Sequence[Row], metric: str) -> str:
    return over_seeds((row.seed, getattr(row, metric)) for row in rows)
