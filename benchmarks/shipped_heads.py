"""The shipped heads on data sets that they have not seen: writes papers/shipped_heads/.

    python3 scripts/bench shipped_heads --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder; the shipped heads learnt `piped` alone.
ResAD and FASL judge by the shipped heads; beside them stand FASL's plain cosine distance, PatchCore and the default
method, all at the same references. Of each category at most `--pictures` good and as many defective test pictures
count, taken evenly from the list. Killed, it goes on where it was; --tables writes tables.md of the categories that are
complete, and measures nothing.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from _heads import by_category, means
from _tables import chosen, evenly
from handful import backbones
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.results import Row
from handful.types import Category, Dataset

TESTED = ("magnetic_tile", "bsdata", "mvtec_loco", "kolektor_sdd", "deeppcb", "elpv", "mvtec_ad")
METHODS = {
    "ResAD, shipped head": "resad",
    "FASL, shipped head": "fasl",
    "FASL, cosine distance": "fasl:judged_by=cosine",
    "PatchCore": "patchcore",
    "default": "handful",
}
METRICS = {
    "image_auroc": "image AUROC, %",
    "pixel_ap": "pixel AP, %",
    "aupro": "AUPRO, %",
    "false_alarm_rate": "false alarms, %",
    "miss_rate": "misses, %",
}
BY_CATEGORY = {metric: METRICS[metric] for metric in ("image_auroc", "aupro")}
OUT = Path(__file__).parent / "papers" / "shipped_heads"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--tables", action="store_true", help="only write tables.md, of the complete categories")
    parser.add_argument("--pictures", type=int, default=20, help="good, and as many defective, of a category")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if not options.tables:
        measure(options)
    write_tables([row for row in results.read(OUT / results.RESULTS) if not row.error])


def measure(options: argparse.Namespace) -> None:
    """Run the cells that are missing."""
    datasets = chosen(options.data, names=TESTED)
    benchmark = Benchmark(
        {name: sampled(dataset, options.pictures) for name, dataset in datasets.items()},
        backbones.create(),
        OUT,
        methods=list(METHODS.values()),
        shots=options.shots,
        seeds=options.seeds,
        command="python3 scripts/bench shipped_heads --data DIR",
    )
    for row in benchmark.run():
        said = row.error or f"{row.image_auroc:.1f}"
        print(row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
    benchmark.write_pages(sheets=False)  # they would show the data sets' pictures


def sampled(dataset: Dataset, pictures: int) -> Dataset:
    """The data set with at most `pictures` good and as many defective test pictures of each category."""

    def smaller(category: Category) -> Category:
        kinds = ([one for one in category.test if bool(one.anomalous) == anomalous] for anomalous in (False, True))
        return replace(category, test=tuple(one for kind in kinds for one in evenly(kind, pictures)))

    return replace(dataset, categories=tuple(map(smaller, dataset.categories)))


def complete(rows: Sequence[Row]) -> list[Row]:
    """The rows of the categories that have every method, number of references and seed."""
    cells: dict[tuple[str, str], set[tuple[str, int, int]]] = {}
    for row in rows:
        cells.setdefault((row.dataset, row.category), set()).add((row.method, row.shots, row.seed))
    every = set().union(*cells.values())
    return [row for row in rows if cells[row.dataset, row.category] == every]


def write_tables(measured: Sequence[Row]) -> None:
    """Write tables.md: the means over all complete categories, over each data set, and two metrics by category."""
    rows = complete(measured)
    page = ["# The shipped heads on data sets that they have not seen", *means(rows, METHODS, METRICS)]
    page += by_category(rows, METHODS, BY_CATEGORY)
    for dataset in (name for name in TESTED if any(row.dataset == name for row in rows)):
        page += [f"## {dataset}", *means([row for row in rows if row.dataset == dataset], METHODS, METRICS)[1:]]
    (OUT / "tables.md").write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
