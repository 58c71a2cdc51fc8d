"""ResAD tested on data sets that it was not trained on: writes resad/ and resad/ablation.md beside itself.

    python3 scripts/bench resad --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. Heads are trained on one part of them,
tested on another, and the other way round, at their default schedule; then `handful bench` runs with the heads,
PatchCore and FastRecon at the same references. Killed, it goes on where it was; heads stay in resad/heads. A smaller
table: --directions, --rows, --shots, --seeds, --updates.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from handful import backbones
from handful.auxiliary import AuxiliaryTraining
from handful.backbones.base import Backbone
from handful.benchmark import results
from handful.benchmark.benchmark import Benchmark
from handful.benchmark.results import Row
from handful.data.datasets import open_dataset
from handful.methods import create_head_training

DIRECTIONS = {  # what is trained on, and what is tested on: no data set on both sides
    "piped, magnetic_tile, bsdata → mvtec_ad": (("piped", "magnetic_tile", "bsdata"), ("mvtec_ad",)),
    "mvtec_ad → others": (("mvtec_ad",), ("piped", "magnetic_tile", "bsdata", "elpv", "deeppcb")),
}
ROWS: dict[str, dict[str, Any]] = {  # the settings of the training, as the paper's ablation has them
    "full": {},
    "no residual": {"residual": "none"},
    "no constraintor": {"constraintor": False},
    "no abnormal invariance": {"occ": "normal"},
}
BESIDE = {"PatchCore": "patchcore", "FastRecon, λ 0.5, top 1 %": "fastrecon:lam=0.5,share=0.01"}
METRICS = {"image_auroc": "image AUROC, %", "pixel_auroc": "pixel AUROC, %", "aupro": "AUPRO, %"}
OUT = Path(__file__).with_suffix("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--directions", type=int, nargs="+", default=[0, 1], help="0 and 1 as the table has them")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, help="of each training; else its default")
    options = parser.parse_args()
    backbone = backbones.create()
    page = ["# ResAD on data that it was not trained on"]
    for number in options.directions:
        name, (source, target) = list(DIRECTIONS.items())[number]
        heads = {row: head(options, backbone, row, source) for row in options.rows}
        methods = {**{f"ResAD, {row}": f"resad@{path}" for row, path in heads.items()}, **BESIDE}
        if "full" in heads:
            methods["ResAD, full, as its code evaluates"] = f"resad:paper_compat=true@{heads['full']}"
        benchmark = Benchmark(
            {folder: open_dataset(options.data / folder) for folder in target},
            backbone,
            OUT / f"direction{number}",
            methods=list(methods.values()),
            shots=options.shots,
            seeds=options.seeds,
            command=f"python3 scripts/bench resad --data DIR --directions {number}",
        )
        for row in benchmark.run():
            said = row.error or f"{row.image_auroc:.1f}"
            print(row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
        for path in benchmark.write_pages(sheets=False):  # they would show the data sets' pictures
            print(path)
        rows = [row for row in results.read(benchmark.out / results.RESULTS) if not row.error]
        page += [f"## {name}", *means(rows, methods), *by_category(rows, methods)]
    (OUT / "ablation.md").write_text("\n\n".join(page) + "\n")


def head(options: argparse.Namespace, backbone: Backbone, row: str, source: Sequence[str]) -> str:
    """The file of a head, as seen from the project's folder; trained first where there is none yet."""
    file = OUT / "heads" / f"{'-'.join(source)}-{row.replace(' ', '-')}.safetensors"
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        settings = ROWS[row] | ({"updates": options.updates} if options.updates else {})
        datasets = {name: open_dataset(options.data / name) for name in source}
        checkpoint = file.with_name(f"{file.name}.checkpoint")
        training = AuxiliaryTraining(create_head_training("resad", settings), datasets, backbone, checkpoint=checkpoint)
        for progress in training.run():
            if progress.number % 50 == 0:
                print(file.name, progress.number, f"{progress.loss:.2f}", training.validation, file=sys.stderr)
        training.save(file)
    return str(file.relative_to(OUT.parent.parent))


def means(rows: Sequence[Row], methods: dict[str, str]) -> list[str]:
    """Every method at each number of references, over categories and seeds."""
    lines = [f"| shots | method | protocol | {' | '.join(METRICS.values())} |", "|---|---|---|" + "---|" * len(METRICS)]
    for shots in sorted({row.shots for row in rows}):
        for name, method in methods.items():
            here = [row for row in rows if (row.shots, row.method) == (shots, method)]
            cells = [_over_seeds(here, metric) for metric in METRICS]
            lines.append(f"| {shots} | {name} | {here[0].protocol if here else '-'} | {' | '.join(cells)} |")
    return ["Means over categories, then mean ± standard deviation over draws of references.", "\n".join(lines)]


def by_category(rows: Sequence[Row], methods: dict[str, str]) -> list[str]:
    """Image AUROC of every category at the most references."""
    shots = max(row.shots for row in rows)
    lines = [f"| image AUROC, %, {shots} shots | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for dataset, category in sorted({(row.dataset, row.category) for row in rows}):
        here = [row for row in rows if (row.dataset, row.category, row.shots) == (dataset, category, shots)]
        cells = [
            _over_seeds([row for row in here if row.method == method], "image_auroc") for method in methods.values()
        ]
        lines.append(f"| {dataset}/{category} | {' | '.join(cells)} |")
    return ["\n".join(lines)]


def _over_seeds(rows: Sequence[Row], metric: str) -> str:
    by_seed: dict[int, list[float]] = {}
    for row in rows:
        value = getattr(row, metric)
        if value is not None:
            by_seed.setdefault(row.seed, []).append(value)
    seeds = [statistics.mean(values) for values in by_seed.values()]
    if not seeds:
        return "-"
    return f"{statistics.mean(seeds):.1f}" + (f" ± {statistics.stdev(seeds):.1f}" if len(seeds) > 1 else "")


if __name__ == "__main__":
    main()
