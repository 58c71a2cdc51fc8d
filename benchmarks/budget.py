"""What a smaller bank of good patches costs and saves: writes default/budget.md and default/budget/.

    python3 scripts/bench budget --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. `handful bench` runs with the default
method and shares of the good patches kept in its bank, on the same references; killed, it goes on where it was. Then
inspectors are fitted and saved for their size, and take turns at inspecting the same pictures.
"""

import argparse
import statistics
import sys
import tempfile
import time
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch

from _tables import chosen, over_seeds
from handful import backbones
from handful.backbones.base import Backbone
from handful.data import images
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.environment import commit
from handful.evaluation.results import Row
from handful.inspector import Inspector
from handful.methods import describe, parse
from handful.saved.archive import LEARNT_ENTRY, STATE_ENTRY
from handful.types import Category, Dataset

CATEGORIES = ("pill", "screw", "bottle", "tile", "ballscrew", "btn01_rl", "mono")
WEIGHED = ("pill", "screw")  # whose inspectors are weighed and timed: one lies still, one turns
SHARES = (1.0, 0.5, 0.25, 0.1)
METHODS = {describe(parse(f"handful:coreset_ratio={share}")): share for share in SHARES}
SIZE = 320
RATE = 0.05
PICTURES, ROUNDS = 6, 7
OUT = Path(__file__).parent / "default" / "budget"
Item = TypeVar("Item")
COLUMNS = {
    "image AUROC": "image_auroc",
    "pixel AUROC": "pixel_auroc",
    "AUPRO": "aupro",
    "false alarms": "false_alarm_rate",
    "misses": "miss_rate",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", default=CATEGORIES, help="only these, by name")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    datasets = chosen(options.data, options.categories)
    backbone = backbones.create(size=(SIZE, SIZE))
    folders = {str(options.data): "DIR", str(options.out): "OUT"}
    command = " ".join(["python3 scripts/bench budget", *(folders.get(word, word) for word in sys.argv[1:])])
    rows = measured(datasets, backbone, options.out, options.shots, options.seeds, command)
    page = [
        "# What a smaller bank costs and saves",
        f"`{command}`, code of {commit()}, {backbone.spec.name} (weights on board) at {SIZE} x {SIZE}: the default "
        f"method with shares of the good patches kept (`coreset_ratio`), thresholds asked for {100 * RATE:g} % false "
        f"alarms. Percent.",
    ]
    for shots in options.shots:
        of_shots = [row for row in rows if row.shots == shots]
        page += [
            f"## {shots} reference{'s' if shots > 1 else ''}",
            "Means over categories; ± over draws of references.",
            means(of_shots),
            "Image AUROC less that of the whole bank on the same references, a category and draw each.",
            differences(of_shots),
            "Image AUROC / AUPRO / false alarms by category, means over draws.",
            by_category(of_shots),
        ]
    weighed = [c for dataset in datasets.values() for c in dataset.categories if c.name in WEIGHED]
    page += weights([weigh(category, backbone, max(options.shots)) for category in weighed], max(options.shots))
    text = "\n\n".join(page) + "\n"
    options.out.with_suffix(".md").write_text(text)
    print(text)


def measured(
    datasets: dict[str, Dataset],
    backbone: Backbone,
    out: Path,
    shots: Sequence[int],
    seeds: Sequence[int],
    command: str,
) -> list[Row]:
    """The rows of every category, share, number of references and draw."""
    benchmark = Benchmark(
        datasets,
        backbone,
        out,
        methods=list(METHODS),
        shots=shots,
        seeds=seeds,
        false_alarm_rate=RATE,
        command=command,
    )
    for row in benchmark.run():
        said = row.error or f"{row.image_auroc:.1f}"
        print(row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
    return [row for row in results.read(out / results.RESULTS) if not row.error and row.method in METHODS]


def means(rows: Sequence[Row]) -> str:
    """One line for each share."""
    lines = [f"| kept | {' | '.join(COLUMNS)} |", "|---|" + "---|" * len(COLUMNS)]
    for method, share in METHODS.items():
        here = [row for row in rows if row.method == method]
        cells = [over_seeds((row.seed, getattr(row, name)) for row in here) for name in COLUMNS.values()]
        lines.append(f"| {100 * share:g} % | {' | '.join(cells)} |")
    return "\n".join(lines)


def differences(rows: Sequence[Row]) -> str:
    """How far each share's image AUROC lies from the whole bank's, cell by cell."""
    whole, *thinned = METHODS
    base = {_cell(row): row for row in rows if row.method == whole}
    lines = ["| kept | mean | standard deviation | lowest | highest |", "|---|---|---|---|---|"]
    for method in thinned:
        pairs = [(row, base[_cell(row)]) for row in rows if row.method == method]
        apart = [((row.image_auroc or 0) - (other.image_auroc or 0), row.category) for row, other in pairs]
        values, lowest, highest = [value for value, _ in apart], min(apart), max(apart)
        spread = statistics.stdev(values) if len(values) > 1 else 0.0
        lines.append(
            f"| {100 * METHODS[method]:g} % | {statistics.mean(values):+.2f} | {spread:.2f} | "
            f"{lowest[0]:+.1f} ({lowest[1]}) | {highest[0]:+.1f} ({highest[1]}) |"
        )
    return "\n".join(lines)


def _cell(row: Row) -> tuple[str, str, int, int]:
    return row.dataset, row.category, row.shots, row.seed


def by_category(rows: Sequence[Row]) -> str:
    """One line for each category, a column for each share."""
    lines = [f"| category | {' | '.join(f'{100 * share:g} %' for share in SHARES)} |", "|---|" + "---|" * len(SHARES)]
    for dataset, category in sorted({(row.dataset, row.category) for row in rows}):
        cells = []
        for method in METHODS:
            here = [row for row in rows if (row.dataset, row.category, row.method) == (dataset, category, method)]
            cells.append(
                " / ".join(
                    _mean([getattr(row, COLUMNS[name]) for row in here])
                    for name in ("image AUROC", "AUPRO", "false alarms")
                )
            )
        lines.append(f"| {dataset}/{category} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.1f}" if known else "-"


Weighed = tuple[str, dict[float, dict[str, float]], dict[float, float], float]


def weigh(category: Category, backbone: Backbone, shots: int) -> Weighed:
    """The category's name; by share the sizes in MB and the median seconds of an inspection; those of the backbone."""
    references = draw(category.train, shots=shots, seed=0)
    detectors = {
        share: Detector(settings={"coreset_ratio": share}, backbone=backbone).fit(references) for share in SHARES
    }
    good = [sample.path for sample in category.test if not sample.anomalous][: PICTURES // 2]
    bad = [sample.path for sample in category.test if sample.anomalous][: PICTURES // 2]
    pictures = [images.read_picture(path, detail=SIZE) for path in (*good, *bad)]
    seconds: dict[float, list[float]] = {share: [] for share in SHARES}
    bare: list[float] = []
    saved = {share: as_saved(detector) for share, detector in detectors.items()}
    for _ in range(ROUNDS):
        for picture in pictures:
            for share, (inspector, _) in saved.items():
                seconds[share].append(timed(inspector, picture))
            image = torch.from_numpy(saved[1.0][0].preprocessing(picture))[None]
            bare.append(timed(backbone, image))
    medians = {share: statistics.median(those) for share, those in seconds.items()}
    return category.name, {share: sizes for share, (_, sizes) in saved.items()}, medians, statistics.median(bare)


def timed(does: Callable[[Item], object], item: Item) -> float:
    """The seconds that it takes."""
    begin = time.perf_counter()
    does(item)
    return time.perf_counter() - begin


def as_saved(detector: Detector) -> tuple[Inspector, dict[str, float]]:
    """A saved inspector, and its megabytes by what fills it."""
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch, "part.handful")
        detector.save(path)
        with zipfile.ZipFile(path) as archive:
            parts = {entry.filename: entry.file_size / 1e6 for entry in archive.infolist()}
        return Inspector.load(path), {
            "all": path.stat().st_size / 1e6,
            "backbone": sum(size for name, size in parts.items() if name.startswith("backbone.")),
            "patches": parts[STATE_ENTRY],
            "features": parts[LEARNT_ENTRY],
        }


def weights(weighed: Sequence[Weighed], shots: int) -> list[str]:
    """What is saved: the file by what fills it, and an inspection's time."""
    lines = [
        "| | kept | the file, MB | backbone | patches | features for teaching | time of an inspection |",
        "|---|---|---|---|---|---|---|",
    ]
    for name, by_share, seconds, bare in weighed:
        for share in SHARES:
            of_share = [f"{by_share[share][part]:.1f}" for part in ("all", "backbone", "patches", "features")]
            lines.append(
                f"| {name} | {100 * share:g} % | {' | '.join(of_share)} | {100 * seconds[share] / seconds[1.0]:.0f} % |"
            )
        lines.append(f"| {name} | the backbone alone | | | | | {100 * bare / seconds[1.0]:.0f} % |")
    return [
        f"## What it saves, at {shots} references",
        f"Screws are learnt in turned copies. Features are kept of every picture as the backbone gave them, so that an "
        f"inspector can be taught anew. Times are medians of {ROUNDS} rounds over {PICTURES} pictures, half of them "
        f"defective, in which inspectors take turns: a picture's pixels to verdict, map and regions, in percent of the "
        f"whole bank's.",
        "\n".join(lines),
    ]


if __name__ == "__main__":
    main()
