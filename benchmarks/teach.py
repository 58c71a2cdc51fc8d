"""What teaching false alarms, and further good pictures, do to false alarms and misses: writes teach.md beside itself.

    python3 scripts/bench teach --data DIR

DIR holds DATASET/CATEGORY folders in the MVTec AD layout. Half of the good test pictures (drawn by seed) come by first,
and a person says what is good: labels stand for the person there, and measure the rest. All figures are from the other
half and from the defective pictures.
"""

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

import handful
from handful import backbones, methods
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.layouts.tree import read_category
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.evaluation.environment import commit
from handful.fitting import calibration
from handful.fitting.calibration import MAX_VIEWS
from handful.fitting.reference_features import ReferenceFeatures
from handful.inspection.threshold import predict
from handful.ops.views import mild_views
from handful.types import Features

MOST_TESTED = 60  # pictures of either kind in a category
SHOTS, RATE = 4, 0.01
MOST_TAUGHT = 3
WAYS = {
    "before": "as fitted",
    "alone": "false alarms learnt, threshold left alone (`teach --good`)",
    "blind": "false alarms learnt, their scores before that taken as further good ones",
    "further": "all of the first half as further good pictures, none learnt (`threshold --normals`)",
    "both": "the same, and the false alarms learnt",
}


@dataclass(frozen=True)
class Outcome:
    """One category, seed and way: pictures rejected or missed, of how many."""

    category: str
    way: str
    threshold: float
    alarms: int
    good: int
    misses: int
    bad: int
    taught: int


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument(
        "--categories", nargs="+", default=["elpv/mono", "elpv/poly", "magnetic_tile/tile", "mvtec_ad/screw"]
    )
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    backbone = backbones.create()
    outcomes: list[Outcome] = []
    for name in options.categories:
        outcomes += of_category(options.data / name, name, backbone, options.seeds)
        print(name, file=sys.stderr, flush=True)
    command = f"python3 scripts/bench teach --data DIR --seeds {' '.join(map(str, options.seeds))}"
    page = [
        "# What teaching does to false alarms and misses",
        f"`{command}`, handful {handful.__version__} at {commit()}, PatchCore as shipped, tf_efficientnet_lite0 with "
        f"its weights on board, 320 x 320; {SHOTS} references, asked for {RATE:.0%}; at most {MOST_TESTED} good and "
        f"{MOST_TESTED} defective test pictures of each category. Half of the good ones come by first, and the first "
        f"{MOST_TAUGHT} false alarms among them are taught; counted are the other half and the defective ones, summed "
        f"over seeds.",
        *(f"- {way}: {words}." for way, words in WAYS.items()),
        table(outcomes),
    ]
    text = "\n\n".join(page).replace("\n\n- ", "\n- ").replace("\n- ", "\n\n- ", 1)
    Path(__file__).with_suffix(".md").write_text(f"{text}\n")
    print(text)


def of_category(folder: Path, name: str, backbone: Backbone, seeds: Sequence[int]) -> list[Outcome]:
    """Every seed and way; the test pictures' features are computed once."""
    category, _ = read_category(folder)
    preprocessing = Preprocessing(backbone.spec.size)
    kinds = [[s.path for s in category.test if s.anomalous is kind][:MOST_TESTED] for kind in (False, True)]
    good, bad = (
        [backbone(torch.from_numpy(preprocessing(read_picture(path)))[None]) for path in paths] for paths in kinds
    )
    outcomes = []
    for seed in seeds:
        drawn = draw(category.train, shots=SHOTS, seed=seed)
        images = [torch.from_numpy(preprocessing(read_picture(path))) for path in drawn]
        views = [[backbone(view[None]) for view in mild_views(image, MAX_VIEWS)] for image in images]
        order = np.random.default_rng(seed).permutation(len(good))
        first, rest = ([good[row] for row in half] for half in np.array_split(order, 2))
        outcomes += of_seed(name, views, first, rest, bad)
    return outcomes


def of_seed(
    name: str, views: list[list[Features]], first: list[Features], rest: list[Features], bad: list[Features]
) -> list[Outcome]:
    """Every way of one draw of references."""
    method = methods.create("patchcore", {})
    references, *_ = calibration.fit_and_try(method, views)
    blind = scores(method, first)
    threshold = predict(references).threshold(RATE)
    alarms = [row for row, score in enumerate(blind) if score > threshold][:MOST_TAUGHT]
    taught = (
        ReferenceFeatures(tuple(view[0] for view in views))
        .with_learnt([first[row] for row in alarms], [], [])
        .fitted(method)
    )
    with_alarms = predict(references, [blind[row] for row in alarms]).threshold(RATE)
    further = predict(references, blind).threshold(RATE)
    tried = {
        "before": (method, threshold),
        "alone": (taught, threshold),
        "blind": (taught, with_alarms),
        "further": (method, further),
        "both": (taught, further),
    }
    outcomes = []
    for way, (one, bound) in tried.items():
        rejected = [sum(score > bound for score in scores(one, pictures)) for pictures in (rest, bad)]
        counts = (rejected[0], len(rest), len(bad) - rejected[1], len(bad), len(alarms))
        outcomes.append(Outcome(name, way, bound / threshold, *counts))
    return outcomes


def scores(method: methods.Method, features: list[Features]) -> list[float]:
    """The image scores of some pictures."""
    return [float(method.score(picture).image[0]) for picture in features]


def table(outcomes: Sequence[Outcome]) -> str:
    """A row for each category and way."""
    lines = [
        "| category | way | taught | threshold, of that before | false alarms | misses |",
        "|---|---|---|---|---|---|",
    ]
    categories = list(dict.fromkeys(one.category for one in outcomes))
    for category in [*categories, "all"]:
        for way in WAYS:
            rows = [one for one in outcomes if one.way == way and category in (one.category, "all")]
            alarms, good, misses, bad, taught = (
                sum(getattr(one, name) for one in rows) for name in ("alarms", "good", "misses", "bad", "taught")
            )
            factor = float(np.exp(np.mean([np.log(one.threshold) for one in rows])))
            taught = taught if way in ("alone", "blind", "both") else 0
            said = f"{alarms} of {good} ({alarms / good:.1%}) | {misses} of {bad} ({misses / bad:.1%})"
            lines.append(f"| {category} | {way} | {taught} | {factor:.2f} | {said} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
