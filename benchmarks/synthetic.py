"""Whether synthetic defects foretell real ones, and what they cost: writes threshold/synthetic.md.

    python3 scripts/bench synthetic --data DIR [--time]

DIR holds data sets in any layout that `handful data check` knows, one a folder. For each category an inspector is
fitted to one draw of references; what `Detector.visibility` says of it from the references alone is laid beside the
share of real defects that it finds at the same threshold. Labels measure, and choose nothing. Killed, it goes on
where it was, or writes the page of what it has (`--page`); after a change of the code remove synthetic/. `--time` times
fits with synthetic defects and without too, on a computer that does nothing else.
"""

import argparse
import json
import math
import statistics
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import torch
from scipy import stats

from _tables import chosen
from handful import backbones
from handful.backbones.base import DEFAULT_SIDE, Backbone
from handful.data.masks import read_regions
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation.environment import commit
from handful.types import Category, Sample

GOOD, DEFECTIVE = 8, 24  # pictures of a category, at most
OUT = Path(__file__).parent / "threshold" / "synthetic"
RUNS = 5  # of each fit that is timed
TIMED = """
import sys, time
begin = time.perf_counter()
from handful.detector import Detector
imported = time.perf_counter()
detector = Detector().fit(sys.argv[3:], accept_odd=True, try_defects=sys.argv[2] == "with")
fitted = time.perf_counter()
detector.save(sys.argv[1])
print(fitted - imported, time.perf_counter() - begin)
"""


@dataclass(frozen=True)
class Cell:
    """One category and number of references.

    Attributes:
        commit: of the code that measured it.
        category: data set and category.
        shots: references.
        found, counted: synthetic defects.
        spots_from: the diameter of spots from which on half of them are found, as a share of the picture's shorter
            side; None where there is none.
        alarms: of each good picture whether it is rejected.
        real: of each defective picture whether it is, and how far the defect is across, as `spots_from`; None without
            a mask.
    """

    commit: str
    category: str
    shots: int
    found: int
    counted: int
    spots_from: float | None
    alarms: list[bool]
    real: list[tuple[bool, float | None]]

    @property
    def synthetic_share(self) -> float:
        """Of the synthetic defects that count, the share found, in percent."""
        return 100 * self.found / self.counted if self.counted else math.nan

    @property
    def real_share(self) -> float:
        """Of the real defects, likewise."""
        return 100 * statistics.mean(found for found, _ in self.real)

    def by_size(self) -> tuple[list[bool], list[bool]]:
        """Whether each real defect is found: those of the size of spots that are seen or larger, and smaller ones."""
        least = math.inf if self.spots_from is None else self.spots_from
        sized = [(found, size) for found, size in self.real if size is not None]
        return [found for found, size in sized if size >= least], [found for found, size in sized if size < least]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", help="only these, by name")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--time", action="store_true", help="time fits too")
    parser.add_argument("--page", action="store_true", help="write the page of what was measured so far, and no more")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    folders = {str(options.data): "DIR", str(options.out): "OUT"}
    command = " ".join(["python3 scripts/bench synthetic", *(folders.get(word, word) for word in sys.argv[1:])])
    categories = [
        (f"{name}/{category.name}", category)
        for name, dataset in chosen(options.data, options.categories).items()
        for category in dataset.categories
    ]
    file = options.out / "cells.jsonl"
    cells = measured([] if options.page else categories, options.shots, options.seed, file)
    page = [
        "# Do synthetic defects foretell real ones?",
        f"`{command}`, code of {', '.join(sorted({cell.commit for cell in cells}))}, the default method and backbone, "
        f"one draw of references; at most {GOOD} good and {DEFECTIVE} defective pictures of each of "
        f"{len({cell.category for cell in cells})} categories. Percent.",
        *summary(cells, options.shots),
    ]
    for shots in options.shots:
        page += [f"## {shots} reference{'s' if shots > 1 else ''}", table([c for c in cells if c.shots == shots])]
    times = options.out / "times.md"
    if options.time:
        times.write_text(time_table(next(c for _, c in categories if len(c.train) >= 8), options.out))
    if times.exists():
        page += ["## The time", times.read_text()]
    text = "\n\n".join(page) + "\n"
    options.out.with_suffix(".md").write_text(text)
    print(text)


def measured(categories: Sequence[tuple[str, Category]], shots: Sequence[int], seed: int, file: Path) -> list[Cell]:
    """Every cell, those that a killed run has measured read back."""
    file.parent.mkdir(exist_ok=True)
    kept = [Cell(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(cell.category, cell.shots) for cell in kept}
    backbone, here = (backbones.create(), commit()) if categories else (None, "")
    for count in shots:
        for name, category in categories:
            if (name, count) in done or count > len(category.train):
                continue
            assert backbone is not None
            cell = measure(here, name, category, backbone, shots=count, seed=seed)
            with file.open("a") as lines:
                lines.write(json.dumps(asdict(cell)) + "\n")
            kept.append(cell)
            print(name, count, f"{cell.synthetic_share:.0f} {cell.real_share:.0f}", file=sys.stderr, flush=True)
    return kept


def measure(here: str, name: str, category: Category, backbone: Backbone, *, shots: int, seed: int) -> Cell:
    """Fit one inspector and inspect real pictures by it."""
    detector = Detector(backbone=backbone, size=DEFAULT_SIDE, gate=())
    detector.fit(list(draw(category.train, shots=shots, seed=seed)), accept_odd=True)
    seen = detector.visibility
    assert seen is not None
    alarms, real = [], []
    for sample in _some(category):
        (inspection,) = detector.inspect(sample.path)
        rejected = inspection.verdict == "DEFECT"
        if not sample.anomalous:
            alarms.append(rejected)
        else:
            assert inspection.size is not None
            real.append((rejected, _across(sample, category, inspection.size)))
    spots = None if seen.spots_from is None else seen.spots_from / min(seen.size)
    return Cell(here, name, shots, seen.found, seen.counted, spots, alarms, real)


def _some(category: Category) -> Iterator[Sample]:
    """At most `GOOD` good and `DEFECTIVE` defective pictures, from all over the list."""
    for kind, most in ((False, GOOD), (True, DEFECTIVE)):
        samples = [sample for sample in category.test if sample.anomalous is kind]
        places = np.linspace(0, len(samples) - 1, min(most, len(samples))).round().astype(int)
        yield from (samples[place] for place in np.unique(places))


def _across(sample: Sample, category: Category, size: tuple[int, int]) -> float | None:
    """The diameter of a disc of the defect's area, as a share of the picture's shorter side; None without a mask."""
    regions = read_regions(sample, size[::-1], category.saturation)
    area = int(np.any([region.mask for region in regions], 0).sum()) if regions else 0
    return 2 * math.sqrt(area / math.pi) / min(size) if area else None


def summary(cells: Sequence[Cell], shots: Sequence[int]) -> list[str]:
    """How well the shares go together."""
    lines = [
        "| references | categories | synthetic found, mean | real found, mean | rank correlation of the two | chance "
        "of one as large | apart, mean | rank correlation of spots' size with real found |",
        "|---|---|---|---|---|---|---|---|",
    ]
    sized = ["| references | as large as spots that are seen, or larger | smaller |", "|---|---|---|"]
    for count in shots:
        here = [cell for cell in cells if cell.shots == count and cell.counted and cell.real]
        synthetic, real = ([getattr(cell, name) for cell in here] for name in ("synthetic_share", "real_share"))
        found = stats.spearmanr(synthetic, real)
        spots = [1.0 if cell.spots_from is None else cell.spots_from for cell in here]
        apart = statistics.mean(abs(one - other) for one, other in zip(synthetic, real, strict=True))
        lines.append(
            f"| {count} | {len(here)} | {statistics.mean(synthetic):.0f} | {statistics.mean(real):.0f} | "
            f"{found.statistic:.2f} | {found.pvalue:.2g} | {apart:.0f} | {stats.spearmanr(spots, real).statistic:.2f} |"
        )
        sizes = [cell.by_size() for cell in here]
        large, small = ([found for of_cell in sizes for found in of_cell[number]] for number in range(2))
        sized.append(f"| {count} | {_share(large)} | {_share(small)} |")
    return [
        "Spearman's rank correlation over categories, with the chance that shares without any relation correlate so "
        "far from 0 either way.",
        "\n".join(lines),
        "Real defects with a mask that are found, by size, all categories as one. A defect is as large as a disc of "
        "its area.",
        "\n".join(sized),
    ]


def table(cells: Sequence[Cell]) -> str:
    """One line for each category."""
    lines = [
        "| category | synthetic found | real found | false alarms | spots seen from, of the shorter side | real at "
        "least as large found | smaller found |",
        "|---|---|---|---|---|---|---|",
    ]
    for cell in sorted(cells, key=lambda cell: cell.synthetic_share):
        large, small = cell.by_size()
        spots = "none" if cell.spots_from is None else f"{100 * cell.spots_from:.1f}"
        lines.append(
            f"| {cell.category} | {cell.synthetic_share:.0f} ({cell.found} of {cell.counted}) | "
            f"{_share([found for found, _ in cell.real])} | {_share(cell.alarms)} | {spots} | {_share(large)} | "
            f"{_share(small)} |"
        )
    return "\n".join(lines)


def _share(found: Sequence[bool]) -> str:
    return f"{100 * statistics.mean(found):.0f} ({len(found)})" if found else "-"


def time_table(category: Category, out: Path) -> str:
    """Seconds of a fit in a program of its own, with synthetic defects and without, in turns."""
    lines = [
        f"Seconds, medians of {RUNS} runs in turns, each a program of its own, on {category.name}'s pictures; code of "
        f"{commit()}.",
        "",
        "| references | fit without | with | ratio | from start to saved without | with | ratio |",
        "|---|---|---|---|---|---|---|",
    ]
    for count in (1, 4, 8):
        times: dict[str, list[list[float]]] = {"without": [], "with": []}
        for _ in range(RUNS):
            for way, taken in times.items():
                words = [sys.executable, "-c", TIMED, str(out / "timed.handful"), way, *category.train[:count]]
                done = subprocess.run(words, capture_output=True, text=True, check=True)
                taken.append([float(seconds) for seconds in done.stdout.split()])
        (fit, whole), (fit_with, whole_with) = (np.median(times[way], axis=0) for way in ("without", "with"))
        lines.append(
            f"| {count} | {fit:.2f} | {fit_with:.2f} | {fit_with / fit:.2f} | {whole:.2f} | {whole_with:.2f} | "
            f"{whole_with / whole:.2f} |"
        )
    (out / "timed.handful").unlink(missing_ok=True)
    return "\n".join(lines)


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
