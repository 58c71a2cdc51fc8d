"""PatchCore and FastRecon on every data set below a folder, with FastRecon's ablation; writes papers/few_shot/.

    python3 scripts/bench few_shot --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. This is `handful bench` with the
options below, and few_shot/ablation.md from its table. What was learnt from it: few_shot.md.
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

ABLATION = {  # each row's difference from FastRecon as its code: λ 2, coreset 1 %, maximum
    "as its code": "fastrecon",
    "λ 0": "fastrecon:lam=0",
    "λ 0.1": "fastrecon:lam=0.1",
    "λ 0.5": "fastrecon:lam=0.5",
    "coreset 0.1 %": "fastrecon:coreset_ratio=0.001",
    "coreset 5 %": "fastrecon:coreset_ratio=0.05",
    "gate": "fastrecon:gate=true",
    "top 1 %": "fastrecon:share=0.01",
    "top 1 %, λ 0": "fastrecon:lam=0,share=0.01",
    "top 1 %, λ 0.5": "fastrecon:lam=0.5,share=0.01",
    "top 1 %, gate": "fastrecon:share=0.01,gate=true",
}
SHOTS, SEEDS = (1, 2, 4, 8), (0, 1, 2)
OUT = Path(__file__).parent / "papers" / "few_shot"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    datasets = {path.name: open_dataset(path) for path in sorted(options.data.iterdir()) if path.is_dir()}
    benchmark = Benchmark(
        datasets,
        backbones.create(),
        OUT,
        methods=["patchcore", *ABLATION.values()],
        shots=SHOTS,
        seeds=SEEDS,
        command="python3 scripts/bench few_shot --data DIR",
    )
    for done, row in enumerate(benchmark.run(), 1):
        said = row.error or f"{row.image_auroc:.1f}"
        print(done, row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
    for path in benchmark.write_pages(sheets=False):  # they would show the data sets' pictures
        print(path)
    rows = [row for row in results.read(OUT / results.RESULTS) if not row.error]
    page = "\n\n".join(["# FastRecon's ablation", *ablation(rows), *by_category(rows)])
    (OUT / "ablation.md").write_text(page + "\n")


def ablation(rows: Sequence[Row]) -> list[str]:
    """Means over categories and seeds, each setting beside the authors' own."""
    whole = {category for _, category in _categories(rows)}
    sections = [
        f"Means over the {len(whole)} categories with results at every number of references, and over seeds "
        f"{', '.join(map(str, SEEDS))}. Pixel metrics over those with masks."
    ]
    for metric, title in (("image_auroc", "Image AUROC"), ("pixel_ap", "Pixel AP"), ("aupro", "AUPRO")):
        lines = [f"| {title}, %, at shots | {' | '.join(map(str, SHOTS))} |", "|---|" + "---|" * len(SHOTS)]
        for name, method in {"PatchCore": "patchcore", **ABLATION}.items():
            lines.append(f"| {name} | {' | '.join(_mean(rows, method, shots, metric) for shots in SHOTS)} |")
        sections.append("\n".join(lines))
    return sections


def by_category(rows: Sequence[Row]) -> list[str]:
    """Image AUROC at 4 shots of the settings that tell most."""
    shown = {"as its code": "fastrecon", **{n: ABLATION[n] for n in ("gate", "top 1 %", "top 1 %, λ 0.5")}}
    methods = {"PatchCore": "patchcore", **shown}
    lines = [f"| image AUROC, %, 4 shots | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for dataset, category in sorted({(row.dataset, row.category) for row in rows if row.shots == 4}):
        of_category = [row for row in rows if (row.dataset, row.category, row.shots) == (dataset, category, 4)]
        values = [
            [row.image_auroc for row in of_category if row.method == method and row.image_auroc is not None]
            for method in methods.values()
        ]
        cells = " | ".join(f"{statistics.mean(v):.1f} ± {statistics.stdev(v):.1f}" for v in values)
        lines.append(f"| {dataset}/{category} | {cells} |")
    return ["## By category", "\n".join(lines)]


def _categories(rows: Sequence[Row]) -> set[tuple[str, str]]:
    """Those that have results at every number of references."""
    return set.intersection(*({(r.dataset, r.category) for r in rows if r.shots == shots} for shots in SHOTS))


def _mean(rows: Sequence[Row], method: str, shots: int, metric: str) -> str:
    whole = _categories(rows)
    found = [
        getattr(row, metric)
        for row in rows
        if row.method == method and row.shots == shots and (row.dataset, row.category) in whole
    ]
    return f"{statistics.mean(value for value in found if value is not None):.1f}"


if __name__ == "__main__":
    main()
