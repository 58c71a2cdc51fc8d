"""REB's two halves, alone and together, on every data set below a folder; writes papers/reb/ and papers/reb/halves.md.

    python3 scripts/bench reb --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. This is `handful bench` with the four
methods below, and reb/halves.md from its table. What was learnt from it: reb.md.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from handful import backbones
from handful.data.layouts.registry import open_dataset
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.results import Row

HALVES = {
    "plain kNN": "reb:alpha=0",
    "+ LDKNN": "reb",
    "+ adaptation": "reb:alpha=0@reb",
    "both": "reb@reb",
}
METRICS = {"image_auroc": "image AUROC, %", "pixel_auroc": "pixel AUROC, %", "aupro": "AUPRO, %"}
OUT = Path(__file__).parent / "papers" / "reb"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    datasets = {path.name: open_dataset(path) for path in sorted(options.data.iterdir()) if path.is_dir()}
    numbers = f"--shots {' '.join(map(str, options.shots))} --seeds {' '.join(map(str, options.seeds))}"
    benchmark = Benchmark(
        datasets,
        backbones.create(),
        OUT,
        methods=list(HALVES.values()),
        shots=options.shots,
        seeds=options.seeds,
        command=f"python3 scripts/bench reb --data DIR {numbers}",
    )
    for row in benchmark.run():
        said = row.error or f"{row.image_auroc:.1f}"
        print(row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
    for path in benchmark.write_pages(sheets=False):  # they would show the data sets' pictures
        print(path)
    rows = whole([row for row in results.read(OUT / results.RESULTS) if not row.error])
    page = ["# REB's two halves", *means(rows), *by_category(rows)]
    (OUT / "halves.md").write_text("\n\n".join(page) + "\n")


def whole(rows: Sequence[Row]) -> list[Row]:
    """The rows of categories that have the same references for every method: a run that was stopped leaves others."""
    cells: dict[tuple[str, str], dict[str, set[tuple[int, int]]]] = {}
    for row in rows:
        methods = cells.setdefault((row.dataset, row.category), {method: set() for method in HALVES.values()})
        methods[row.method].add((row.shots, row.seed))
    return [row for row in rows if len(set(map(frozenset, cells[row.dataset, row.category].values()))) == 1]


def means(rows: Sequence[Row]) -> list[str]:
    """The four rows at each number of references, over categories and seeds; training seconds beside them."""
    head = f"| shots | method | {' | '.join(METRICS.values())} | training, s |"
    lines = [head, "|---|---|" + "---|" * (len(METRICS) + 1)]
    for shots in sorted({row.shots for row in rows}):
        for name, method in HALVES.items():
            here = [row for row in rows if (row.shots, row.method) == (shots, method)]
            cells = [_mean(here, metric) for metric in METRICS]
            lines.append(f"| {shots} | {name} | {' | '.join(cells)} | {_training(rows, shots, method)} |")
    categories = len({(row.dataset, row.category) for row in rows})
    seeds = ", ".join(map(str, sorted({row.seed for row in rows})))
    said = f"Means over {categories} categories (pixel metrics over those with masks) and seeds {seeds}."
    return [said, "\n".join(lines)]


def by_category(rows: Sequence[Row]) -> list[str]:
    """What each half adds to plain kNN's image AUROC, by category, over shots and seeds."""
    lines = [f"| image AUROC, % | {' | '.join(HALVES)} |", "|---|" + "---|" * len(HALVES)]
    for dataset, category in sorted({(row.dataset, row.category) for row in rows}):
        here = [row for row in rows if (row.dataset, row.category) == (dataset, category)]
        values = {name: _values(here, method, "image_auroc") for name, method in HALVES.items()}
        plain = statistics.mean(values["plain kNN"])
        cells = [f"{plain:.1f}"] + [f"{statistics.mean(v) - plain:+.1f}" for v in list(values.values())[1:] if v]
        lines.append(f"| {dataset}/{category} | {' | '.join(cells)} |")
    return [
        "## By category",
        "The mean over shots and seeds, and how far the others stand from plain kNN.",
        "\n".join(lines),
    ]


def _values(rows: Sequence[Row], method: str, metric: str) -> list[float]:
    found = [getattr(row, metric) for row in rows if row.method == method]
    return [value for value in found if value is not None]


def _mean(rows: Sequence[Row], metric: str) -> str:
    """Mean over all, ± the spread between the seeds' means."""
    by_seed = {
        seed: [getattr(row, metric) for row in rows if row.seed == seed and getattr(row, metric) is not None]
        for seed in sorted({row.seed for row in rows})
    }
    seeds = [statistics.mean(values) for values in by_seed.values() if values]
    if not seeds:
        return "-"
    spread = f" ± {statistics.stdev(seeds):.1f}" if len(seeds) > 1 else ""
    return f"{statistics.mean(seeds):.1f}{spread}"


def _training(rows: Sequence[Row], shots: int, method: str) -> str:
    """The median seconds by which a fit with training takes longer than the same without."""
    if "@" not in method:
        return "0"
    without = {row.key[:2] + row.key[3:]: row.fit_s for row in rows if row.method == method.partition("@")[0]}
    longer = [
        (row.fit_s or 0) - (without[row.key[:2] + row.key[3:]] or 0)
        for row in rows
        if (row.method, row.shots) == (method, shots)
    ]
    return f"{statistics.median(longer):.0f}"


if __name__ == "__main__":
    main()
