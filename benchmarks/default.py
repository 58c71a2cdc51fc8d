"""The default inspector beside anomalib's PatchCore: writes default/ and default/table.md beside itself.

    python3 scripts/bench default --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. `handful bench` runs with the default
method, its ablations where wished (--ablations) and PatchCore as shipped; anomalib's PatchCore (its torch model, every
patch kept) sees the same pictures, references, backbone weights and size in the same run, and both are measured by the
same metrics. Killed, it goes on where it was. A smaller table: --categories, --shots, --seeds; without the peer:
--alone, and then on another backbone or at another size too: --backbone, --size. With --leave-out the constants
are chosen again without each data set in turn instead: writes leave_out.md there, or only these parts of it anew. With
--terms further kinds of evidence are tried, and all weighed by synthetic defects: writes terms.md there, of all cells
in terms.jsonl, from which a killed run goes on.
"""

import argparse
import csv
import statistics
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

import _leave_out
import _peer
import _terms
from _peer import PEER
from _tables import chosen, over_seeds, spread
from handful import backbones, metrics
from handful.data.masks import read_regions
from handful.data.shots import draw
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.environment import commit
from handful.evaluation.results import Row
from handful.methods import describe, parse
from handful.types import Category, Dataset, Sample

DEFAULT = "handful"
ABLATIONS = (
    "handful:measures=euclidean",
    "handful:measures=cosine",
    "handful:turn=never,neighbourhood=3",
    "handful:damped=false",
    "handful:wide=false",
    "handful:turn=never",
    "handful:turn=always",
    "patchcore",
)
SIZE = 320
RATE = 0.05
REACH = {  # image AUROC that the default is to reach at 1, 2, 4, 8 references
    "pill": {1: 92.0, 2: 94.0, 4: 95.5, 8: 96.0},
    "screw": {1: 72.0, 2: 78.0, 4: 84.0, 8: 87.0},
    "bottle": {1: 99.5, 2: 99.5, 4: 99.5, 8: 99.5},
}
OUT = Path(__file__).with_suffix("")
Key = tuple[str, str, int, int]  # data set, category, shots, seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", help="only these, by name")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--ablations", action="store_true", help=f"beside it {', '.join(ABLATIONS)}")
    parser.add_argument("--alone", action="store_true", help="without anomalib")
    parser.add_argument("--backbone", default=backbones.DEFAULT_BACKBONE, help="timm's name; default: %(default)s")
    parser.add_argument("--size", type=int, default=SIZE, help="of the input; default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT)
    parser.add_argument(
        "--leave-out", nargs="*", choices=_leave_out.PARTS, help="choose constants without each data set"
    )
    parser.add_argument("--terms", action="store_true", help="try kinds of evidence weighed by synthetic defects")
    options = parser.parse_args()
    if not options.alone and (options.backbone, options.size) != (backbones.DEFAULT_BACKBONE, SIZE):
        parser.error("another backbone or size needs --alone")
    datasets = chosen(options.data, options.categories)
    folders = {str(options.data): "DIR", str(options.out): "OUT"}
    command = " ".join(["python3 scripts/bench default", *(folders.get(word, word) for word in sys.argv[1:])])
    if options.leave_out is not None:
        options.out.mkdir(parents=True, exist_ok=True)
        written = _leave_out.write(
            options.out / "leave_out.md",
            options.leave_out or list(_leave_out.PARTS),
            f"`{command}`, code of {commit()}.",
            data=options.data,
            datasets=datasets,
            shots=options.shots,
            seeds=options.seeds,
        )
        print(written)
        return
    if options.terms:
        file = options.out / "terms.jsonl"
        cells = _terms.measured(datasets, shots=options.shots, seeds=options.seeds, file=file)
        written = "\n\n".join(["# Terms weighed by synthetic defects", *_terms.page(cells)])
        file.with_suffix(".md").write_text(written + "\n")
        print(written)
        return
    backbone = backbones.create(options.backbone, size=(options.size, options.size))
    methods = [describe(parse(text)) for text in (DEFAULT, *(ABLATIONS if options.ablations else ()))]
    peers: dict[Key, tuple[float, float | None]] = {}
    for name, dataset in datasets.items():
        benchmark = Benchmark(
            datasets,
            backbone,
            options.out,
            methods=methods,
            shots=options.shots,
            seeds=options.seeds,
            false_alarm_rate=RATE,
            command=command,
        )
        benchmark.unfinished = [cell for cell in benchmark.unfinished if cell.dataset == name]
        for row in benchmark.run():
            said = row.error or f"{row.image_auroc:.1f}"
            print(row.dataset, row.category, row.method, row.shots, row.seed, said, file=sys.stderr, flush=True)
        if not options.alone:
            peers |= peer_results(options.out / "anomalib.csv", name, dataset, options.shots, options.seeds)
    rows = [row for row in results.read(options.out / results.RESULTS) if not row.error and row.method in methods]
    page = [
        "# The default inspector beside anomalib's PatchCore",
        f"`{command}`, code of {commit()}, {backbone.spec.name} (weights on board) at {options.size} x {options.size}, "
        f"thresholds asked for {100 * RATE:g} % false alarms. Percent; means over categories, then over draws of "
        f"references.",
        *overall(rows, methods, peers),
        *reach(rows),
        *verdicts(rows, options.out),
        *by_category(rows, methods, peers),
    ]
    (options.out / "table.md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def peer_results(
    file: Path, name: str, dataset: Dataset, shots: Sequence[int], seeds: Sequence[int]
) -> dict[Key, tuple[float, float | None]]:
    """Image AUROC and AUPRO of anomalib's PatchCore, kept in a file as they come."""
    found: dict[Key, tuple[float, float | None]] = {}
    if file.exists():
        with file.open(newline="") as lines:
            for line in csv.DictReader(lines):
                aupro = float(line["aupro"]) if line["aupro"] else None
                key = line["dataset"], line["category"], int(line["shots"]), int(line["seed"])
                found[key] = float(line["image_auroc"]), aupro
    for category in dataset.categories:
        wanted = [(count, seed) for count in shots if count <= len(category.train) for seed in seeds]
        missing = [pair for pair in wanted if (name, category.name, *pair) not in found]
        for (count, seed), image, aupro in peer_cells(category, missing):
            found[name, category.name, count, seed] = image, aupro
            print(name, category.name, PEER, count, seed, f"{image:.1f}", file=sys.stderr, flush=True)
            with file.open("w", newline="") as lines:
                writer = csv.writer(lines)
                writer.writerow(["dataset", "category", "shots", "seed", "image_auroc", "aupro"])
                writer.writerows([*key, f"{a:.2f}", "" if p is None else f"{p:.2f}"] for key, (a, p) in found.items())
    return {key: value for key, value in found.items() if key[0] == name and key[2] in shots and key[3] in seeds}


def peer_cells(
    category: Category, pairs: Sequence[tuple[int, int]]
) -> Iterator[tuple[tuple[int, int], float, float | None]]:
    """The peer's torch model at its own preprocessing, cell by cell; its backbone sees each picture once for all."""
    if not pairs:
        return
    model = _peer.patchcore()
    seen = model.feature_extractor = _Once(model.feature_extractor)
    truths = [(sample, _truth(sample, category)) for sample in category.test]
    for count, seed in pairs:
        _peer.teach(model, (seen.about_to_see(path) for path in draw(category.train, shots=count, seed=seed)))
        counts, scores, marked = metrics.PixelCounts(), [], False
        with torch.inference_mode():
            for sample, truth in truths:
                output = model(seen.about_to_see(sample.path))
                scores.append(float(output.pred_score))
                if truth is not None:
                    counts.add(output.anomaly_map[0, 0].numpy(), truth, name=sample.path)
                    marked |= bool(sample.anomalous)
        labels = [bool(sample.anomalous) for sample, _ in truths]
        image = 100 * metrics.image_auroc(labels, scores)
        yield (count, seed), image, 100 * counts.aupro() if marked else None


class _Once(nn.Module):
    """A feature extractor that computes each picture's features once."""

    def __init__(self, extractor: nn.Module) -> None:
        super().__init__()
        self.extractor, self.path = extractor, ""
        self.found: dict[str, dict[str, Tensor]] = {}

    def about_to_see(self, path: str) -> Tensor:
        """The picture of this path as the extractor's next input."""
        self.path = path
        return _input(path)

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """The levels (1, D, h, w) by name."""
        if self.path not in self.found:
            with torch.inference_mode():
                self.found[self.path] = dict(self.extractor(image))
        return self.found[self.path]


def _input(path: str) -> Tensor:
    with Image.open(path) as picture:
        return _peer.model_input(np.asarray(picture.convert("RGB")), SIZE)


def _truth(sample: Sample, category: Category) -> metrics.PixelTruth | None:
    regions = read_regions(sample, (SIZE, SIZE), category.saturation)
    return None if sample.anomalous and not regions else metrics.pixel_truth(regions, (SIZE, SIZE))


def overall(rows: Sequence[Row], methods: Sequence[str], peers: dict[Key, tuple[float, float | None]]) -> list[str]:
    """Means over all categories; of AUPRO, over the categories for which the peer has one too."""
    shots = sorted({row.shots for row in rows})
    lines = _head("image AUROC / AUPRO", shots)
    left_out = {key[:2] for key, (_, aupro) in peers.items() if aupro is None}
    for method in methods:
        cells = []
        for count in shots:
            here = [row for row in rows if (row.method, row.shots) == (method, count)]
            both = [(r.seed, r.aupro) for r in here if (r.dataset, r.category) not in left_out]
            cells.append(_pair([(r.seed, r.image_auroc) for r in here], both))
        lines.append(f"| {method} | {' | '.join(cells)} |")
    if peers:
        cells = []
        for count in shots:
            of_count = {key: value for key, value in peers.items() if key[2] == count}
            pairs = [(key[3], value) for key, value in of_count.items()]
            cells.append(_pair([(seed, a) for seed, (a, _) in pairs], [(seed, p) for seed, (_, p) in pairs]))
        lines.append(f"| {PEER} | {' | '.join(cells)} |")
    return ["## All categories", "\n".join(lines)]


def reach(rows: Sequence[Row]) -> list[str]:
    """The categories for which there is a goal."""
    shots = sorted({row.shots for row in rows})
    lines = _head("image AUROC (goal)", shots)
    for category, goals in REACH.items():
        cells = []
        for count in shots:
            values = [r.image_auroc for r in rows if (r.method, r.category, r.shots) == (DEFAULT, category, count)]
            cells.append(f"{spread([v for v in values if v is not None])} ({goals.get(count, '-')})")
        lines.append(f"| {category} | {' | '.join(cells)} |")
    return ["## Goals", "\n".join(lines)]


def verdicts(rows: Sequence[Row], out: Path) -> list[str]:
    """The shipped threshold, and the misses of the best threshold with as many false alarms as were asked for."""
    lines = [
        "| shots | false alarms | worst category | misses | misses of the best threshold |",
        "|---|---|---|---|---|",
    ]
    for count in sorted({row.shots for row in rows}):
        here = [row for row in rows if (row.method, row.shots) == (DEFAULT, count)]
        alarms: dict[str, list[float]] = {}
        for row in here:
            alarms.setdefault(f"{row.dataset}/{row.category}", []).append(row.false_alarm_rate or 0.0)
        worst, rates = max(alarms.items(), key=lambda one: statistics.mean(one[1]))
        cells = [
            f"{statistics.mean([r.false_alarm_rate or 0.0 for r in here]):.1f} %",
            f"{statistics.mean(rates):.0f} % ({worst})",
            f"{statistics.mean([r.miss_rate or 0.0 for r in here]):.1f} %",
            f"{statistics.mean([least_misses(out, row) for row in here]):.1f} %",
        ]
        lines.append(f"| {count} | {' | '.join(cells)} |")
    return [f"## The shipped threshold, asked for {100 * RATE:g} %", "\n".join(lines)]


def least_misses(out: Path, row: Row) -> float:
    """The misses, in percent, of the threshold that gives the rate asked for on the test pictures themselves."""
    scores = results.read_scores(results.scores_path(out, row))
    good = np.array([one.raw_score for one in scores if not one.anomalous])
    bad = np.array([one.raw_score for one in scores if one.anomalous])
    return 100 * float((bad <= np.quantile(good, 1 - RATE, method="higher")).mean())


def by_category(rows: Sequence[Row], methods: Sequence[str], peers: dict[Key, tuple[float, float | None]]) -> list[str]:
    """Every category at every number of references."""
    shots = sorted({row.shots for row in rows})
    lines = _head("image AUROC / AUPRO | method", shots)
    for dataset, category in sorted({(row.dataset, row.category) for row in rows}):
        for method in methods:
            here = [row for row in rows if (row.dataset, row.category, row.method) == (dataset, category, method)]
            cells = []
            for count in shots:
                of_count = [row for row in here if row.shots == count]
                cells.append(_pair([(r.seed, r.image_auroc) for r in of_count], [(r.seed, r.aupro) for r in of_count]))
            lines.append(f"| {dataset}/{category} | {method} | {' | '.join(cells)} |")
        if peers:
            cells = []
            for count in shots:
                pairs = [(key[3], value) for key, value in peers.items() if key[:3] == (dataset, category, count)]
                cells.append(_pair([(seed, a) for seed, (a, _) in pairs], [(seed, p) for seed, (_, p) in pairs]))
            lines.append(f"| {dataset}/{category} | {PEER} | {' | '.join(cells)} |")
    return ["## By category", "\n".join(lines)]


def _head(title: str, shots: Sequence[int]) -> list[str]:
    columns = [*title.split(" | "), *(f"{count} shots" for count in shots)]
    return [f"| {' | '.join(columns)} |", "|---|" + "---|" * (len(columns) - 1)]


def _pair(image: Sequence[tuple[int, Any]], aupro: Sequence[tuple[int, Any]]) -> str:
    return f"{over_seeds(image)} / {over_seeds(aupro)}"


if __name__ == "__main__":
    main()
