"""COFT-AD's ablation on every data set below a folder: writes papers/coft.md and papers/coft/.

    python3 scripts/bench coft --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. This is `handful bench` with the
options below: the Gaussian on the backbone as it is, then after fine-tuning with one more term of the loss at a time.
The kind of negatives is chosen here, before any result, and is the same for every category. Killed, it goes on where it
was. A smaller table: --categories, --shots, --seeds, --updates; elsewhere: --out.

--six runs the paper's own protocol instead, four real data sets and two corruption tasks: of the real ones, which are
MVTec AD, BTAD, KolektorSDD2 or MPDD, and the magnetic tiles, those that DIR has by these folders' names, and those of
--beside; the two tasks are made of the good pictures of --clean (`pip install "handful[corrupt]"`).
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _tables import chosen, over_seeds, spread
from handful import backbones
from handful.data.layouts.registry import open_dataset
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.environment import commit
from handful.evaluation.results import Row
from handful.methods import create_tuning, describe
from handful.types import Dataset
from handful.version import __version__

ABLATION: dict[str, dict[str, Any] | None] = {  # the settings of the fine-tuning; None for none
    "frozen features": None,
    "+ L_con": {"lambda_pp": 0.0},
    "+ L_con + L_PP": {},
    "+ L_con + L_PP + L_NP": {"lambda_np": 1.0, "negatives": "defects"},
}
SHOTS, SEEDS = (1, 2, 4, 8), (0, 1, 2)
REAL = ("mvtec_ad", "btad", "kolektorsdd2", "mpdd", "magnetic_tile")
TASKS = ("gaussian_noise", "gaussian_blur")  # at severity 3 of 5
METRICS = {"image_auroc": "Image AUROC", "image_ap": "Image AP", "image_f1_oracle": "Image F1 (oracle)"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", help="only these, by name")
    parser.add_argument("--shots", type=int, nargs="+", default=SHOTS)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--updates", type=int, help="of the fine-tuning, at most; else its default")
    parser.add_argument("--levels", default="-1", help="one module or index, the features that are scored")
    parser.add_argument("--six", action="store_true", help="the six-benchmark protocol")
    parser.add_argument("--beside", nargs="+", default=[], help="data sets of DIR in place of missing ones")
    parser.add_argument("--clean", type=Path, help="the pictures that the corruption tasks are made of")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "papers" / "coft")
    options = parser.parse_args()
    if options.six and options.clean is None:
        parser.error("--six needs --clean")
    methods = {name: method(settings, options.updates) for name, settings in ABLATION.items()}
    level = int(options.levels) if options.levels.lstrip("-").isdigit() else options.levels
    folders = {str(options.data): "DIR", str(options.out): "OUT", str(options.clean): "CLEAN"}
    command = " ".join(["python3 scripts/bench coft", *(folders.get(word, word) for word in sys.argv[1:])])
    benchmark = Benchmark(
        six(options) if options.six else chosen(options.data, options.categories),
        backbones.create(levels=[level]),
        options.out,
        methods=list(methods.values()),
        shots=options.shots,
        seeds=options.seeds,
        command=command,
    )
    for done, row in enumerate(benchmark.run(), 1):
        said = row.error or f"{row.image_auroc:.1f}"
        print(done, row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
    for path in benchmark.write_pages(sheets=False):  # they would show the data sets' pictures
        print(path)
    rows = [row for row in results.read(options.out / results.RESULTS) if row.method in methods.values()]
    spec = benchmark.backbone.spec
    page = [
        "# COFT-AD's ablation",
        f"`{command}`, handful {__version__} at {commit()}, {spec.name} with its weights on board, level "
        f"{spec.levels[0]}, {spec.size[0]} x {spec.size[1]}; image scores are Mahalanobis distances, maps our own "
        f"extension. Means over the categories that have results in every row, then mean ± standard deviation over "
        f"seeds {', '.join(map(str, sorted(options.seeds)))}. Percent.",
        *(table(rows, methods, options.shots, metric, title) for metric, title in METRICS.items()),
        table(rows, methods, options.shots, "fit_s", "Seconds from the references' files to a threshold"),
        *against_frozen(rows, methods, options.shots),
        *by_category(rows, methods, max(options.shots)),
        *failures(rows),
    ]
    options.out.with_suffix(".md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def six(options: argparse.Namespace) -> dict[str, Dataset]:
    """The data sets of the protocol that there are, and the two corruption tasks, made where they are missing."""
    from handful.data.corruption import write_task  # needs the extra

    present = [name for name in (*REAL, *options.beside) if (options.data / name).is_dir()]
    datasets = chosen(options.data, options.categories, names=present)
    for kind in TASKS:
        folder = options.out / "tasks" / kind
        folder.parent.mkdir(parents=True, exist_ok=True)
        if not folder.exists():
            write_task(options.clean, folder, kinds=[kind], severity=3, seed=0)
        datasets[kind] = open_dataset(folder)
    return datasets


def method(settings: dict[str, Any] | None, updates: int | None) -> str:
    """The row's method as `handful bench` takes and writes it."""
    if settings is None:
        return "coft"
    return f"coft@{describe(create_tuning('coft', settings | ({'updates': updates} if updates else {})))}"


def table(rows: Sequence[Row], methods: dict[str, str], shots: Sequence[int], metric: str, title: str) -> str:
    """One metric: a line for each row of the ablation, a column for each number of references."""
    lines = [f"| {title} | {' | '.join(f'{count} shots' for count in shots)} |", "|---|" + "---|" * len(shots)]
    for name, text in methods.items():
        cells = [_over_seeds(rows, methods, text, count, metric) for count in shots]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def against_frozen(rows: Sequence[Row], methods: dict[str, str], shots: Sequence[int]) -> list[str]:
    """What each row of the ablation adds to the frozen features' image AUROC where both have a result."""
    title = "| Image AUROC less frozen |"
    lines = [f"{title} {' | '.join(f'{count} shots' for count in shots)} |", "|---|" + "---|" * len(shots)]
    frozen = {_cell(row): row.image_auroc for row in rows if row.method == methods["frozen features"]}
    for name, text in methods.items():
        if text == methods["frozen features"]:
            continue
        cells = []
        for count in shots:
            here = [row for row in rows if row.method == text and row.shots == count]
            pairs = [(row.image_auroc, frozen.get(_cell(row))) for row in here]
            gains = [tuned - plain for tuned, plain in pairs if tuned is not None and plain is not None]
            better = sum(gain > 0 for gain in gains)
            cells.append(f"{statistics.mean(gains):+.1f} ({statistics.stdev(gains):.1f}); {better} of {len(gains)}")
        lines.append(f"| {name} | {' | '.join(cells)} |")
    said = (
        "Means over all pairs of category and draw for which both have a result; in brackets the standard deviation "
        "over these, then in how many it is better."
    )
    return ["## Against the frozen features", said, "\n".join(lines)]


def _cell(row: Row) -> tuple[str, str, int, int]:
    """All that a row shares with the frozen features' but its method."""
    return row.dataset, row.category, row.shots, row.seed


def by_category(rows: Sequence[Row], methods: dict[str, str], shots: int) -> list[str]:
    """Image AUROC of every category at the most references."""
    lines = [f"| Image AUROC, {shots} shots | {' | '.join(methods)} |", "|---|" + "---|" * len(methods)]
    for dataset, category in sorted({(row.dataset, row.category) for row in rows}):
        of_category = [row for row in rows if (row.dataset, row.category, row.shots) == (dataset, category, shots)]
        cells = [
            spread([r.image_auroc for r in of_category if r.method == text and r.image_auroc is not None])
            for text in methods.values()
        ]
        lines.append(f"| {dataset}/{category} | {' | '.join(cells)} |")
    return ["## By category", "\n".join(lines)]


def failures(rows: Sequence[Row]) -> list[str]:
    """The cells without a result, and why."""
    lines = [
        f"- {row.dataset}/{row.category}, {row.method}, {row.shots} shots, seed {row.seed}: {row.error}"
        for row in rows
        if row.error
    ]
    return ["## Without a result", "\n".join(lines)] if lines else []


def _over_seeds(rows: Sequence[Row], methods: dict[str, str], text: str, shots: int, metric: str) -> str:
    """Mean over categories, then mean and standard deviation over seeds."""
    of_shots = [row for row in rows if row.shots == shots and not row.error]
    found = {(row.dataset, row.category, row.seed, row.method) for row in of_shots}
    return over_seeds(
        (row.seed, getattr(row, metric))
        for row in of_shots
        if row.method == text
        and all((row.dataset, row.category, row.seed, other) in found for other in methods.values())
    )


if __name__ == "__main__":
    main()
