"""FASL's heads beside the plain cosine distance on what they learnt, were chosen by, and never saw: fasl_classes.md.

    python3 scripts/bench fasl_classes --data DIR

The heads are those of `fasl`, which must have run. On every class of both halves, at a few references and at most 30
good and 30 defective test pictures, the same features are judged by each head and by the distance. A class is learnt,
held out (the head was kept as it was best there) or unseen.
"""

import argparse
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from fasl import OUT
from handful import backbones, metrics
from handful.data.depths import bits_of
from handful.data.layouts.registry import open_dataset
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.evaluation.environment import commit
from handful.evaluation.features import CategoryFeatures
from handful.fitting.calibration import join
from handful.methods.base import Method
from handful.methods.fasl import FASL
from handful.training import head_file
from handful.types import Category, Sample
from handful.version import __version__

MOST = 30  # good and as many defective pictures of a class
ROLES = ("learnt", "held out", "unseen")


class Judged(NamedTuple):
    """Percent, by one head or the distance on one class; no pixel AP where no mask marks a defect."""

    image_auroc: float
    pixel_ap: float | None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shots", type=int, default=4)
    options = parser.parse_args()
    trained = {path.stem: head_file.read(path) for path in sorted((OUT / "heads").glob("*.safetensors"))}
    judged: dict[str, dict[str, Judged]] = {}
    for folder in sorted({name.partition("/")[0] for head in trained.values() for name in head.record.classes}):
        for category in open_dataset(options.data / folder).categories:
            judged[f"{folder}/{category.name}"] = judge(category, trained, options.shots)
            print(folder, category.name, judged[f"{folder}/{category.name}"], flush=True)
    page = [
        "# FASL's heads on classes that they learnt, were chosen by, and never saw",
        f"`python3 scripts/bench fasl_classes --data DIR`, handful {__version__} at {commit()}: {options.shots} "
        f"references of seed 0, at most {MOST} good and {MOST} defective pictures of a class. Means over classes; of "
        f"pixel AP over those with masks.",
        *(table(name, head, judged) for name, head in trained.items()),
        *(by_class(trained, judged, number) for number in (0, 1)),
    ]
    (OUT / "classes.md").write_text("\n\n".join(page) + "\n")


def judge(category: Category, trained: Mapping[str, head_file.TrainedHead], shots: int) -> dict[str, Judged]:
    """What each head and the distance, named "", make of one class."""
    features = CategoryFeatures(backbones.create())
    references = draw(category.train, shots=shots, seed=0)
    pictures = [features.picture(path)[0] for path in references]
    preprocessing = Preprocessing(features.backbone.spec.size, bits_of(pictures))
    good = join([features.backbone(torch.from_numpy(preprocessing(picture))[None]) for picture in pictures])
    ways: dict[str, Method] = {name: FASL().take_head(head.module) for name, head in trained.items()}
    ways[""] = FASL(judged_by="cosine").take_head(next(iter(trained.values())).module)
    fitted = {name: way.fit(good) for name, way in ways.items()}
    counts = {name: metrics.PixelCounts() for name in fitted}
    image: dict[str, list[float]] = {name: [] for name in fitted}
    shown, marked = some(category.test), False
    for sample in shown:
        seen = features.see(sample, category, preprocessing, {None})
        marked |= seen.truth is not None and bool(sample.anomalous)
        for name, method in fitted.items():
            scores = method.score(seen.features[None])
            image[name].append(float(scores.image[0]))
            if seen.truth is not None:
                counts[name].add(scores.maps[0].numpy(), seen.truth, name=sample.path)
    truth, names = [bool(sample.anomalous) for sample in shown], [sample.path for sample in shown]
    return {
        name: Judged(
            100 * metrics.image_auroc(truth, image[name], names=names),
            100 * counts[name].average_precision() if marked else None,
        )
        for name in fitted
    }


def some(samples: Sequence[Sample]) -> list[Sample]:
    """At most `MOST` of either kind, evenly from all."""
    chosen: list[Sample] = []
    for anomalous in (False, True):
        those = [sample for sample in samples if sample.anomalous == anomalous]
        chosen += those[:: max(1, math.ceil(len(those) / MOST))]
    return chosen


def table(name: str, head: head_file.TrainedHead, judged: Mapping[str, Mapping[str, Judged]]) -> str:
    """A head beside the distance, by what the head has seen of a class."""
    lines = [
        f"| {name} | classes | image AUROC, % | of the distance | pixel AP, % | of the distance |",
        "|---|---|---|---|---|---|",
    ]
    for role in ROLES:
        here = [of_class for of_class, found in judged.items() if role_of(of_class, head) == role]
        cells = [mean(judged[one][way][metric] for one in here) for metric in (0, 1) for way in (name, "")]
        lines.append(f"| {role} | {len(here)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def by_class(
    trained: Mapping[str, head_file.TrainedHead], judged: Mapping[str, Mapping[str, Judged]], number: int
) -> str:
    """Every class: the distance, each head, and what each has seen of it; of one of the metrics of `Judged`."""
    title = ("image AUROC, %", "pixel AP, %")[number]
    lines = [f"| {title} | distance | {' | '.join(trained)} |", "|---|---|" + "---|" * len(trained)]
    for of_class, found in judged.items():
        cells = [f"{mean([found[name][number]])}, {role_of(of_class, head)}" for name, head in trained.items()]
        lines.append(f"| {of_class} | {mean([found[''][number]])} | {' | '.join(cells)} |")
    return "\n".join(lines)


def role_of(of_class: str, head: head_file.TrainedHead) -> str:
    """What a head has seen of a class."""
    if of_class in head.record.held_out:
        return "held out"
    return "learnt" if of_class in head.record.classes else "unseen"


def mean(values: Iterable[float | None]) -> str:
    """The mean of those that there are."""
    known = [value for value in values if value is not None]
    return f"{statistics.mean(known):.1f}" if known else "-"


if __name__ == "__main__":
    main()
