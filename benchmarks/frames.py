"""What frames that keep the aspect and wide patches change: writes default/frames.md and default/frames/.

    python3 scripts/bench frames --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. The default runs in four ways on the
same pictures and references: squeezed to a square or at the references' aspect, by single patches alone or with wide
ones. maps.png shows the heatmaps of large and middling defects before (squeezed, single patches) and after.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from _tables import chosen, over_seeds
from handful import backbones
from handful.data.images import read_picture
from handful.data.masks import read_regions
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation import results
from handful.evaluation.benchmark import Benchmark
from handful.evaluation.cells import Frames
from handful.evaluation.environment import commit
from handful.evaluation.results import Row
from handful.methods import describe, parse
from handful.report.overlay import overlay
from handful.types import Category, Dataset, Sample

SHOTS, SEEDS, RATE = 4, (0, 1, 2), 0.05
SINGLE, WIDE = (describe(parse(text)) for text in ("handful:wide=false", "handful"))
FRAMES: tuple[Frames, Frames] = ("squeezed", "references")
WAYS = [(frames, method) for frames in FRAMES for method in (SINGLE, WIDE)]
SHOWN = ("mono", "poly", "transistor", "juice_bottle", "commutator", "tile", "pill")
TALL, NARROW = 150, 130  # pixels of a picture in the sheet, and of its column at least
TRUTHS = ("truth", "no mask")
GROUND = 236  # its grey, as pictures themselves are not shown
OUT = Path(__file__).parent / "default" / "frames"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", help="only these, by name")
    options = parser.parse_args()
    datasets = chosen(options.data, options.categories)
    rows: dict[Frames, list[Row]] = {}
    for frames in FRAMES:
        wanted = datasets if frames == "references" else _oblong(datasets)
        benchmark = Benchmark(
            wanted,
            backbones.create(),
            OUT / frames,
            methods=[SINGLE, WIDE],
            shots=[SHOTS],
            seeds=SEEDS,
            false_alarm_rate=RATE,
            frames=frames,
            command="python3 scripts/bench frames",
        )
        for row in benchmark.run():
            print(row.dataset, row.category, frames, row.method, row.seed, row.image_auroc, file=sys.stderr, flush=True)
        rows[frames] = [row for row in results.read(OUT / frames / results.RESULTS) if not row.error]
    categories = {c.name: c for dataset in datasets.values() for c in dataset.categories}
    sheet([categories[name] for name in SHOWN if name in categories]).save(OUT / "maps.png", optimize=True)
    page = [
        "# Before and after: frames that keep the aspect, and wide patches",
        f"`python3 scripts/bench frames --data DIR`, code of {commit()}, EfficientNet-Lite0 (weights on board) at "
        f"about 320² pixels, {SHOTS} references, seeds {', '.join(map(str, SEEDS))}. Image AUROC / AUPRO, percent, "
        f"mean ± standard deviation over draws. Single patches squeezed to a square are the default as it was.",
        "\n".join(table(rows)),
        "Heatmaps of the largest and a middling defect of some categories (truth; before; after), references of seed "
        "0, in the reports' colours. The pictures themselves are not the project's to show.",
        "![heatmaps before and after](frames/maps.png)",
    ]
    OUT.with_suffix(".md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def _oblong(datasets: dict[str, Dataset]) -> dict[str, Dataset]:
    """The categories with pictures that are not square."""
    found = {}
    for name, dataset in datasets.items():
        oblong = [one for one in dataset.categories if not all(map(_is_square, _paths(one)))]
        if oblong:
            found[name] = replace(dataset, categories=tuple(oblong))
    return found


def _paths(category: Category) -> list[str]:
    return [*category.train, *(sample.path for sample in category.test)]


def _is_square(path: str) -> bool:
    with Image.open(path) as picture:
        return picture.width == picture.height


def table(rows: dict[Frames, list[Row]]) -> list[str]:
    """By category and over data sets and all, as Markdown lines."""
    lines = [
        "| | squeezed, single | squeezed, wide too | aspect kept, single | aspect kept, wide too |",
        "|---|---|---|---|---|",
    ]
    first = rows["references"]
    for dataset in dict.fromkeys(row.dataset for row in first):
        names = list(dict.fromkeys(row.category for row in first if row.dataset == dataset))
        lines += [_line(f"{dataset}/{name}", rows, {(dataset, name)}) for name in names]
        if len(names) > 1:
            lines.append(_line(f"**{dataset}**", rows, {(dataset, name) for name in names}))
    return [*lines, _line("**all categories**", rows, {(row.dataset, row.category) for row in first})]


def _line(title: str, rows: dict[Frames, list[Row]], wanted: set[tuple[str, str]]) -> str:
    cells = []
    for frames, method in WAYS:
        apart = {(row.dataset, row.category) for row in rows["squeezed"]} if frames == "squeezed" else set()
        found = [row for row in rows["references"] if (row.dataset, row.category) in wanted - apart]
        found += [row for row in rows[frames] if (row.dataset, row.category) in wanted & apart]
        found = [row for row in found if row.method == method]
        auroc, aupro = (
            over_seeds((row.seed, getattr(row, name)) for row in found) for name in ("image_auroc", "aupro")
        )
        cells.append(f"{auroc} / {aupro}")
    return f"| {title} | {' | '.join(cells)} |"


def sheet(categories: Sequence[Category]) -> Image.Image:
    """Truth, map before and map after of two defects of each category, a category a row."""
    strips = [_strip(category) for category in categories]
    width = max(strip.width for strip in strips)
    page = Image.new("RGB", (width, sum(strip.height for strip in strips)), "white")
    top = 0
    for strip in strips:
        page.paste(strip, (0, top))
        top += strip.height
    return page


def _strip(category: Category) -> Image.Image:
    references = draw(category.train, shots=SHOTS, seed=0)
    before = Detector(settings={"wide": False}, squeeze=True, gate=()).fit(
        list(references), accept_odd=True, try_defects=False
    )
    after = Detector(gate=()).fit(list(references), accept_odd=True, try_defects=False)
    tiles: list[tuple[str, NDArray[np.uint8]]] = []
    for sample in _defects(category):
        picture = read_picture(sample.path)
        size = (TALL, max(1, round(TALL * picture.size[0] / picture.size[1])))
        ground = np.full((*size, 3), GROUND, np.uint8)
        marked = ground.copy()
        for region in read_regions(sample, size):
            marked[region.mask] = 0
        tiles += [(TRUTHS[not sample.masks], marked)]
        tiles += [
            (name, overlay(ground, detector(picture))) for name, detector in (("before", before), ("after", after))
        ]
    gap, head = 6, 18
    strip = Image.new(
        "RGB", (sum(max(NARROW, tile.shape[1]) + gap for _, tile in tiles) + gap, TALL + head + gap), "white"
    )
    pen, left = ImageDraw.Draw(strip), gap
    for name, tile in tiles:
        pen.text(
            (left, 2),
            f"{category.name}: {name}" if name in TRUTHS else name,
            fill="black",
            font=ImageFont.load_default(12),
        )
        strip.paste(Image.fromarray(tile), (left, head))
        left += max(NARROW, tile.shape[1]) + gap
    return strip


def _defects(category: Category) -> list[Sample]:
    """The defect whose masks cover most of its picture, and the middling one; by name where there are no masks."""
    sized: list[tuple[float, Any]] = []
    for sample in category.test:
        if sample.anomalous:
            covered = sum(region.mask.mean() for region in read_regions(sample, (64, 64)))
            sized.append((float(covered), sample))
    ordered = [sample for _, sample in sorted(sized, key=lambda pair: (-pair[0], pair[1].path))]
    return [ordered[0], ordered[len(ordered) // 2]]


if __name__ == "__main__":
    main()
