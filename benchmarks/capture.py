"""What the capture gate doubts, rightly and wrongly, and what it costs: writes capture.md beside itself.

    python3 scripts/bench capture --data DIR

DIR holds DATASET/CATEGORY folders in the MVTec AD layout. Pictures as they are must not be doubted: good ones, and
defects, however large. Good pictures spoilt on purpose, and those of other categories, are to be. Categories are
reported in two halves, every second one in the order of their names apart.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path

import torch

import handful
from _gate_pictures import (
    DAMAGED,
    DEFECTS,
    GOOD,
    MOST_GOOD,
    SPOILERS,
    SPOILT,
    STRANGERS,
    WHOLE,
    WRONG,
    category_of,
    doubt,
    folders_of,
    gate_of,
    strangers_of,
)
from handful import backbones
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.layouts.tree import read_category
from handful.data.preprocessing import Preprocessing
from handful.evaluation.environment import commit
from handful.inspection.gate import CHECKS

LARGE = "large defects"
PICTURES = (
    "Share of pictures that the gate doubts, in percent, mean over seeds: at most "
    f"{MOST_GOOD} good test pictures of each category, evenly drawn, and all defective ones, as they are; {SPOILT} of "
    f"the good ones spoilt in each way; {STRANGERS} good pictures of each other category. Blur in pixels of the 320. "
    "Large defects: a quarter, a half and three quarters of the part, or of the picture where no ground is seen, "
    "broken away, covered, covered by another product, shifted, spilt, melted and smeared, on "
    f"{DAMAGED} good pictures of each category. A doubted picture is a RETAKE where its score is not beyond the "
    "threshold, and a DEFECT with a note elsewhere."
)
COLUMNS = (GOOD, DEFECTS, LARGE, *SPOILERS, WRONG)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    folders = folders_of(options.data)
    backbone = backbones.create()
    counts: Counts = {}
    strangers = strangers_of(folders, backbone)
    for folder in folders:
        category = category_of(folder, backbone, strangers)
        damaged = [one for (_, share), some in category.large.items() if share != WHOLE for one in some]
        for shots in options.shots:
            answers: dict[str, list[str | None]] = defaultdict(list)
            for seed in options.seeds if shots <= len(category.train) else ():
                gate, good = gate_of(category.train, shots, seed, backbone)
                for column, pictures in {**category.seen, LARGE: damaged}.items():
                    answers[column] += [doubt(gate, picture, good) for picture in pictures]
            counts[category.name, shots] = answers
        print(category.name, file=sys.stderr, flush=True)
    halves = {"One half": folders[::2], "The other half": folders[1::2]}
    shots, seeds = (" ".join(map(str, values)) for values in (options.shots, options.seeds))
    page = [
        "# The capture gate",
        f"`python3 scripts/bench capture --data DIR --shots {shots} --seeds {seeds}`, handful {handful.__version__} at "
        f"{commit()}, tf_efficientnet_lite0 with its weights on board, {backbone.spec.engine}, 320 x 320.",
        PICTURES,
    ]
    for title, some in halves.items():
        names = [f"{folder.parent.name}/{folder.name}" for folder in some]
        page += [f"## {title}", _summary(counts, names, options.shots), _by_category(counts, names, options.shots)]
    page += ["## Which check doubted", _by_check(counts), "## What it costs", _cost(folders[0], backbone)]
    print("\n\n".join(page))
    Path(__file__).with_suffix(".md").write_text("\n\n".join(page) + "\n")


def _percent(answers: Sequence[str | None]) -> float:
    return 100 * sum(answer is not None for answer in answers) / len(answers)


Counts = dict[tuple[str, int], dict[str, list[str | None]]]


def _summary(counts: Counts, names: Sequence[str], shots: Sequence[int]) -> str:
    """Means over categories."""
    lines = [f"| pictures | {' | '.join(f'k = {k}' for k in shots)} |", f"|---|{'---|' * len(shots)}"]
    for column in COLUMNS:
        means = [statistics.mean(_percent(counts[name, k][column]) for name in names if counts[name, k]) for k in shots]
        lines.append(f"| {column} | {' | '.join(f'{mean:.1f}' for mean in means)} |")
    return "\n".join(lines)


def _by_category(counts: Counts, names: Sequence[str], shots: Sequence[int]) -> str:
    """Each cell: one share for each number of references."""
    lines = [
        f"| category ({' / '.join(f'k = {k}' for k in shots)}) | {' | '.join(COLUMNS)} |",
        f"|---|{'---|' * len(COLUMNS)}",
    ]
    for name in names:
        cells = [
            " / ".join(f"{_percent(counts[name, k][column]):.0f}" for k in shots if counts[name, k])
            for column in COLUMNS
        ]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def _by_check(counts: Counts) -> str:
    """Of all pictures of a kind, how many each check doubts first."""
    lines = [f"| pictures | doubted / all | {' | '.join(CHECKS)} |", f"|---|---|{'---|' * len(CHECKS)}"]
    for column in COLUMNS:
        answers = [answer for cell in counts.values() for answer in cell.get(column, ())]
        each = [sum(answer == check for answer in answers) for check in CHECKS]
        lines.append(f"| {column} | {sum(each)} / {len(answers)} | {' | '.join(map(str, each))} |")
    return "\n".join(lines)


def _cost(folder: Path, backbone: Backbone) -> str:
    """Milliseconds of the gate and of the backbone, in turns on one picture."""
    category, _ = read_category(folder)
    gate, good = gate_of(category.train, 4, 0, backbone)
    image = Preprocessing(backbone.spec.size)(read_picture(category.test[0].path))
    times: dict[str, list[float]] = {"before": [], "backbone": [], "after": []}
    for _ in range(200):
        starts = [time.perf_counter()]
        gate.refuse_image(image)
        starts.append(time.perf_counter())
        features = backbone(torch.from_numpy(image)[None])
        starts.append(time.perf_counter())
        gate.refuse_features(features.arrays(0), good)
        starts.append(time.perf_counter())
        for name, start, end in zip(times, starts, starts[1:], strict=False):
            times[name].append(1000 * (end - start))
    before, forward, after = (statistics.median(of_step) for of_step in times.values())
    return (
        f"One picture, 4 references, {torch.get_num_threads()} torch threads, median of 200: {before:.2f} ms before "
        f"the backbone, {after:.2f} ms after it; the backbone's own pass in the same run {forward:.2f} ms: the gate is "
        f"{100 * (before + after) / forward:.0f} % of it."
    )


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
