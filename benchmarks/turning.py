"""When parts are taken to turn, and what turned copies cost and bring: writes default/turning.md.

    python3 scripts/bench turning --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. The first table rests on references
alone. The second looks into 1, 2, 4, … turned copies (`copies` of the default method) on the test pictures of one
category, all on this thread one after the other. The third takes good test pictures at less light.
"""

import argparse
import statistics
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

from _tables import chosen
from handful import backbones, methods
from handful.backbones.base import Backbone
from handful.data.images import Picture, read_picture
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation.environment import commit
from handful.fitting import rotation
from handful.fitting.calibration import join
from handful.metrics import image_auroc
from handful.types import Category, Features

SEEDS, SHOTS, COPIES = (0, 1, 2), (1, 2, 4), (1, 2, 4, 8, 1000)
LIGHT = (1.0, 0.6, 0.4, 0.2, 0.1)
DARKENED = ("mono", "leather", "brg01_rl", "pill")
JUDGES = ("handful", "patchcore")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="screw", help="that turns")
    options = parser.parse_args()
    torch.set_num_threads(1)
    backbone = backbones.create()
    categories = {c.name: c for dataset in chosen(options.data).values() for c in dataset.categories}
    page = [
        "# Parts that turn, and parts in the dark",
        f"`python3 scripts/bench turning --data DIR`, code of {commit()}, {backbone.spec.name} (weights on board), "
        f"{backbone.spec.size[0]} x {backbone.spec.size[1]}, one thread, seeds 0 to 2.",
        *decisions(list(categories.values()), backbone),
        *copies(categories[options.category], backbone),
        *darkness([categories[name] for name in DARKENED if name in categories], backbone),
    ]
    (Path(__file__).parent / "default" / "turning.md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def seen(paths: Sequence[str], backbone: Backbone) -> tuple[list[Picture], list[torch.Tensor], list[Features]]:
    """Pictures, as they go into the backbone, and what comes out."""
    preprocessing = Preprocessing(backbone.spec.size)
    pictures = [read_picture(path, detail=max(backbone.spec.size)) for path in paths]
    images = [torch.from_numpy(preprocessing(picture)) for picture in pictures]
    return pictures, images, [backbone(image[None]) for image in images]


def decisions(categories: Sequence[Category], backbone: Backbone) -> list[str]:
    """How near turned references are, and what "auto" decides, by category."""
    lines = [
        f"| category | nearer at {SHOTS[-1]} | {' | '.join(f'turned at {count}' for count in SHOTS)} |",
        "|---|---|" + "---|" * len(SHOTS),
    ]
    for category in categories:
        decided: dict[int, list[str]] = {count: [] for count in SHOTS}
        factors = []
        for seed in SEEDS:
            paths = draw(category.train, shots=SHOTS[-1], seed=seed)
            pictures, images, features = seen(paths, backbone)
            aspects = [picture.aspect for picture in pictures]
            for count in SHOTS:
                found = rotation.decide(
                    "auto", images[:count], features[:count], backbone, aspects=aspects[:count]
                )  # a draw of fewer is the first ones of one of more
                decided[count].append("yes" if found.turned else "no")
            factors.append(rotation.nearer_turned(images[0], features, backbone, aspect=aspects[0])[0])
        cells = [" ".join(decided[count]) for count in SHOTS]
        lines.append(f"| {category.name} | {' '.join(f'{f:.2f}' for f in factors)} | {' | '.join(cells)} |")
    note = (
        f"How many times as near the first reference is to the others at its best of {rotation.TURNS} angles as it is "
        f"upright (parts turn from {rotation.NEARER:g} on), and what is decided, for each seed."
    )
    return ["## When parts are taken to turn", note, "\n".join(lines)]


def copies(category: Category, backbone: Backbone) -> list[str]:
    """What looking into more turned copies costs and brings: medians over pictures, means over seeds."""
    _, _, queries = seen([sample.path for sample in category.test], backbone)
    truth = [bool(sample.anomalous) for sample in category.test]
    found: dict[tuple[int, int], list[tuple[float, float]]] = {}
    for seed in SEEDS:
        pictures, images, features = seen(draw(category.train, shots=SHOTS[-1], seed=seed), backbone)
        turned = [
            rotation.turned_patches(image, one, backbone, aspect=picture.aspect)
            for picture, image, one in zip(pictures, images, features, strict=True)
        ]
        for shots in (SHOTS[0], SHOTS[-1]):
            for count in COPIES:
                method = methods.create("handful", {"copies": count})
                method.fit(join(features[:shots]), turned=join(turned[:shots]))
                scores, seconds = [], []
                for query in queries:
                    begin = time.process_time()
                    scores.append(float(method.score(query).image[0]))
                    seconds.append(time.process_time() - begin)
                result = 100 * image_auroc(truth, scores), 1000 * statistics.median(seconds)
                found.setdefault((shots, count), []).append(result)
    lines = [
        "| references | turned copies looked into | image AUROC | time of the search, all copies = 1 |",
        "|---|---|---|---|",
    ]
    for (shots, count), results in found.items():
        auroc, cost = (statistics.mean(column) for column in zip(*results, strict=True))
        whole = statistics.mean(cost for _, cost in found[shots, COPIES[-1]])
        name = "all" if count == COPIES[-1] else count
        lines.append(f"| {shots} | {name} | {auroc:.1f} | {cost / whole:.2f} |")
    return [f"## Turned copies, {category.name}", "\n".join(lines)]


def darkness(categories: Sequence[Category], backbone: Backbone) -> list[str]:
    """The calibrated scores of good test pictures at less light, the threshold asked for 5 %."""
    lines = [
        f"| category | method | {' | '.join(f'{100 * light:g} % of the light' for light in LIGHT)} |",
        "|---|---|" + "---|" * len(LIGHT),
    ]
    for category in categories:
        good = [sample.path for sample in category.test if not sample.anomalous][:10]
        pixels = [read_picture(path, detail=max(backbone.spec.size)).pixels for path in good]
        for judge in JUDGES:
            detector = Detector(judge, backbone=backbone, gate=(), false_alarm_rate=0.05)
            detector.fit(draw(category.train, shots=4, seed=0))
            medians = []
            for light in LIGHT:
                found = detector.inspect([(light * one).astype(one.dtype) for one in pixels])
                medians.append(float(np.median([one.score for one in found if one.score is not None])))
            lines.append(f"| {category.name} | {judge} | {' | '.join(f'{value:.1f}' for value in medians)} |")
    note = (
        "Calibrated scores (0 a typical good part, above 1 a defect): the median of ten good pictures; 4 references, "
        "seed 0."
    )
    return ["## Light all over", note, "\n".join(lines)]


if __name__ == "__main__":
    main()
