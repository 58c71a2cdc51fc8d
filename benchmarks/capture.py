"""What the capture gate takes for a RETAKE, rightly and wrongly, and what it costs: writes capture.md beside itself.

    python3 scripts/bench capture --data DIR

DIR holds DATASET/CATEGORY folders in the MVTec AD layout. Pictures as they are must pass: good ones, and defects, which
the gate must not hide. Good pictures spoilt on purpose, and those of other categories, must not. The gate's factors
were set on every second category, in the order of their names from the first; the others are reported apart.
"""

import argparse
import math
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

import handful
from handful import backbones, capture
from handful.backbones.base import Backbone
from handful.benchmark.environment import commit
from handful.data.images import read_picture
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.data.tree import read_category
from handful.learning import view_count
from handful.ops.views import mild_views

MOST_TESTED = 60  # pictures of either kind in a category
SPOILT = 8  # good pictures that are spoilt in every way
STRANGERS = 2  # pictures of each other category
AS_THEY_ARE = ("good", "defects")


def _blurred(image: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(image[None], [len(offsets) // 2] * 4, mode="reflect")[0][:, None]
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]


def _shifted(image: Tensor, share: float) -> Tensor:
    """Moved right and down, the border repeated."""
    rows, columns = ((torch.arange(side) - round(share * side)).clamp(0) for side in image.shape[1:])
    return image[:, rows][:, :, columns]


SPOILERS: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"blur, sigma {sigma} px": partial(_blurred, sigma=sigma) for sigma in (1, 2, 3, 4, 8)},
    **{f"light x {gain}": partial(torch.mul, other=gain) for gain in (0.25, 0.35, 0.5, 1.5, 2, 4)},
    **{f"shift by {share} %": partial(_shifted, share=share / 100) for share in (10, 25)},
}
WRONG = "another category"
COLUMNS = (*AS_THEY_ARE, *SPOILERS, WRONG)


@dataclass(frozen=True)
class Seen:
    """A picture as the gate sees it; its features are computed when the backbone has to run anyway."""

    image: Tensor
    levels: tuple[NDArray[np.float32], ...]


@dataclass(frozen=True)
class Category:
    """A category's pictures by column, and its good training pictures' paths."""

    name: str
    train: tuple[str, ...]
    seen: dict[str, list[Seen]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--design", action="store_true", help="print the half that the factors were set on, and end")
    options = parser.parse_args()
    folders = sorted(path.parent for path in options.data.glob("*/*/test"))
    backbone = backbones.create()
    counts: dict[tuple[str, int], dict[str, list[str | None]]] = {}
    strangers = {folder: _strangers(folder, backbone) for folder in (folders[::2] if options.design else folders)}
    for folder in strangers:
        category = _category(
            folder, backbone, [s for other, some in strangers.items() if other != folder for s in some]
        )
        for shots in options.shots:
            answers: dict[str, list[str | None]] = defaultdict(list)
            for seed in options.seeds if shots <= len(category.train) else ():
                gate, learnt = _gate(category.train, shots, seed, backbone)
                for column, pictures in category.seen.items():
                    answers[column] += [_refused(gate, learnt, picture) for picture in pictures]
            counts[category.name, shots] = answers
        print(category.name, file=sys.stderr, flush=True)
    halves = {"The half that the factors were set on": folders[::2], "The other half": folders[1::2]}
    shots, seeds = (" ".join(map(str, values)) for values in (options.shots, options.seeds))
    page = [
        "# The capture gate",
        f"`python3 scripts/bench capture --data DIR --shots {shots} --seeds {seeds}`, handful {handful.__version__} at "
        f"{commit()}, tf_efficientnet_lite0 with its weights on board, {backbone.spec.engine}, 320 x 320.",
        f"Share of pictures that become a RETAKE, in percent, mean over seeds: at most {MOST_TESTED} good and "
        f"{MOST_TESTED} defective test pictures of each category, evenly drawn, as they are; {SPOILT} of the good ones "
        f"spoilt in each way; {STRANGERS} good pictures of each other category. Blur in pixels of the 320.",
    ]
    for title, some in halves.items():
        names = [f"{folder.parent.name}/{folder.name}" for folder in some]
        if names[0] in {name for name, _ in counts}:
            page += [f"## {title}", _summary(counts, names, options.shots), _by_category(counts, names, options.shots)]
    page += ["## Which check refused", _by_check(counts), "## What it costs", _cost(folders[0], backbone)]
    print("\n\n".join(page))
    if not options.design:
        Path(__file__).with_suffix(".md").write_text("\n\n".join(page) + "\n")


def _spread(items: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly drawn."""
    count = min(most, len(items))
    return [items[round(number * (len(items) - 1) / max(1, count - 1))] for number in range(count)]


def _seen(image: Tensor, backbone: Backbone) -> Seen:
    image = (image.clamp(0, 1) * 255).round() / 255  # a picture on file has 8 bits
    return Seen(image, tuple(level.copy() for level in backbone(image[None]).arrays(0)))


def _strangers(folder: Path, backbone: Backbone) -> list[Seen]:
    category, _ = read_category(folder)
    paths = _spread([sample.path for sample in category.test if sample.anomalous is False], STRANGERS)
    preprocessing = Preprocessing(backbone.spec.size)
    return [_seen(torch.from_numpy(preprocessing(read_picture(path))), backbone) for path in paths]


def _category(folder: Path, backbone: Backbone, strangers: list[Seen]) -> Category:
    category, _ = read_category(folder)
    preprocessing = Preprocessing(backbone.spec.size)
    seen = {}
    for column, kind in zip(AS_THEY_ARE, (False, True), strict=True):
        paths = _spread([sample.path for sample in category.test if sample.anomalous is kind], MOST_TESTED)
        seen[column] = [_seen(torch.from_numpy(preprocessing(read_picture(path))), backbone) for path in paths]
    numbers = _spread([str(number) for number in range(len(seen["good"]))], SPOILT)
    good = [seen["good"][int(number)].image for number in numbers]
    for column, spoil in SPOILERS.items():
        seen[column] = [_seen(spoil(image), backbone) for image in good]
    return Category(f"{folder.parent.name}/{folder.name}", category.train, {**seen, WRONG: strangers})


def _gate(
    train: Sequence[str], shots: int, seed: int, backbone: Backbone
) -> tuple[capture.Gate, list[tuple[NDArray[np.float32], ...]]]:
    """A gate, and the levels of the references that it was learnt from."""
    preprocessing = Preprocessing(backbone.spec.size)
    images = [torch.from_numpy(preprocessing(read_picture(path))) for path in draw(train, shots=shots, seed=seed)]
    views = [mild_views(image, view_count(shots)) for image in images]
    taken = [[view.numpy() for view in of_image] for of_image in views]
    learnt = [backbone(image[None]).arrays(0) for image in images]
    return capture.Gate(capture.CHECKS, capture.learn(taken, learnt)), learnt


def _refused(gate: capture.Gate, learnt: Sequence[tuple[NDArray[np.float32], ...]], picture: Seen) -> str | None:
    """The check that refuses the picture, None where it passes."""
    image, levels = picture.image.numpy(), picture.levels
    if not (gate.refuse_image(image) or gate.refuse_features(levels, learnt)):
        return None
    for check in gate.checks:
        only = capture.Gate((check,), gate.learnt)
        if only.refuse_image(image) or only.refuse_features(levels, learnt):
            return check
    return None


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
    """Each cell: k = 1 / 2 / 4."""
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
    """Of all pictures of a kind, how many each check refuses first."""
    lines = [f"| pictures | refused / all | {' | '.join(capture.CHECKS)} |", f"|---|---|{'---|' * len(capture.CHECKS)}"]
    for column in COLUMNS:
        answers = [answer for cell in counts.values() for answer in cell.get(column, ())]
        each = [sum(answer == check for answer in answers) for check in capture.CHECKS]
        lines.append(f"| {column} | {sum(each)} / {len(answers)} | {' | '.join(map(str, each))} |")
    return "\n".join(lines)


def _cost(folder: Path, backbone: Backbone) -> str:
    """Milliseconds of the gate and of the backbone, in turns on one picture."""
    category, _ = read_category(folder)
    gate, learnt = _gate(category.train, 4, 0, backbone)
    image = Preprocessing(backbone.spec.size)(read_picture(category.test[0].path))
    times: dict[str, list[float]] = {"before": [], "backbone": [], "after": []}
    for _ in range(200):
        starts = [time.perf_counter()]
        gate.refuse_image(image)
        starts.append(time.perf_counter())
        features = backbone(torch.from_numpy(image)[None])
        starts.append(time.perf_counter())
        gate.refuse_features(features.arrays(0), learnt)
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
