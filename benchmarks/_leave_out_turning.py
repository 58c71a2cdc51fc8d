"""The constants of turning, chosen again without each data set in turn, and what they give on the one left out."""

import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np
import torch

from _tables import evenly
from handful import metrics
from handful.data.images import MAX_PIXELS, gather, read_picture
from handful.data.shots import draw
from handful.detector import Detector
from handful.fitting import calibration, rotation
from handful.fitting.references import Reader
from handful.methods import Turn
from handful.methods.handful import Handful
from handful.types import Category, Dataset, Features

KEPTS = (0.25, 0.5, 1.0)
TURN = ("screw",)
ELSEWHERE = ("group20085", "group77000")  # crops that show another place each: they neither turn nor lie still
PICTURES = 25  # good, and as many defective, of a category
LOWEST = 1.005  # factors below turn nothing by any bound, and no picture is scored


@dataclass(frozen=True)
class Cell:
    """A draw of references.

    Attributes:
        dataset, category: names.
        apart: whether oblong parts lie apart, which makes them turn whatever the factor.
        factor: how many times as near the first reference is to the others turned as it is upright.
        never, always: image AUROC in percent without turned copies, and with, by `KEPTS`; None where `factor` and
            `apart` say that no bound would turn them.
    """

    dataset: str
    category: str
    apart: bool
    factor: float
    never: float | None
    always: dict[float, float] | None

    def turned(self, nearer: float) -> bool:
        """Whether they are learnt in turned copies with a bound of `rotation.NEARER`."""
        return self.apart or self.factor >= nearer

    def auroc(self, nearer: float, kept: float = rotation.KEPT) -> float | None:
        """Image AUROC in percent."""
        return self.always[kept] if self.always and self.turned(nearer) else self.never


def page(datasets: dict[str, Dataset], *, shots: Sequence[int], seeds: Sequence[int]) -> list[str]:
    """The part of the page as Markdown lines."""
    cells = []
    for name, dataset in datasets.items():
        for category, count, seed in product(dataset.categories, shots, seeds):
            if 1 < count <= len(category.train):
                cells.append(_cell(name, category, shots=count, seed=seed))
                print(*vars(cells[-1]).values(), file=sys.stderr, flush=True)
    names = dict.fromkeys(cell.dataset for cell in cells)
    return [*_nearer(cells, list(names), shots, seeds), *_kept(cells, list(names))]


def _nearer(cells: Sequence[Cell], names: Sequence[str], shots: Sequence[int], seeds: Sequence[int]) -> list[str]:
    rows = [
        "| left out | bound | its draws that turn by it | as shipped | image AUROC of draws that turn by either | as "
        "shipped |",
        "|---|---|---|---|---|---|",
    ]
    for name in names:
        here = [cell for cell in cells if cell.dataset == name]
        bound = _bound([cell for cell in cells if cell.dataset != name])
        both = [cell for cell in here if cell.turned(bound) or cell.turned(rotation.NEARER)]
        said = [_mean([cell.auroc(at) for cell in both]) for at in (bound, rotation.NEARER)]
        turned = [sum(cell.turned(at) for cell in here) for at in (bound, rotation.NEARER)]
        rows.append(f"| {name} | {bound:g} | {turned[0]} of {len(here)} | {turned[1]} | {' | '.join(said)} |")
    factors = {
        name: [cell.factor for cell in cells if cell.category == name]
        for name in dict.fromkeys(cell.category for cell in cells)
    }
    order = sorted(factors.items(), key=lambda item: max(item[1]))
    return [
        f"At {' and '.join(str(count) for count in shots if count > 1)} references, seeds {', '.join(map(str, seeds))}."
        f" `NEARER` by its rule: the least bound, in hundredths, below which all draws of parts that lie still are, in "
        f"the other data sets ({', '.join(TURN)}, which turns, and {', '.join(ELSEWHERE)}, whose crops show other "
        f"places each, do not count); shipped {rotation.NEARER:g}. At most {PICTURES} good and as many defective "
        "pictures of each category.",
        "\n".join(rows),
        "How many times as near the first reference is turned, by category, from the least to the most: "
        + "; ".join(f"{name} {min(some):.3f} to {max(some):.3f}" for name, some in order)
        + ".",
    ]


def _kept(cells: Sequence[Cell], names: Sequence[str]) -> list[str]:
    turned = [cell for cell in cells if cell.turned(rotation.NEARER)]
    rows = [
        f"| left out | draws that turn | chosen | image AUROC there | {' | '.join(f'{one:g}' for one in KEPTS)} |",
        "|---|---|---|---|" + "---|" * len(KEPTS),
    ]
    for name in names:
        here, others = ([cell for cell in turned if (cell.dataset == name) is own] for own in (True, False))
        if here and others:
            best = max(KEPTS, key=lambda kept, others=others: _auroc(others, kept))  # type: ignore[misc]
            each = " | ".join(f"{_auroc(here, kept):.1f}" for kept in KEPTS)
            rows.append(f"| {name} | {len(here)} | {best:g} | {_auroc(here, best):.1f} | {each} |")
    return [
        "`KEPT`, the share of a turned copy's patches that is learnt, by the highest mean image AUROC on the draws "
        f"that turn in other data sets; shipped {rotation.KEPT:g}, which costs half of the time and memory of 1.",
        "\n".join(rows),
    ]


def _auroc(cells: Sequence[Cell], kept: float) -> float:
    return float(np.mean([cell.always[kept] for cell in cells if cell.always]))


def _bound(cells: Sequence[Cell]) -> float:
    largest = max(cell.factor for cell in cells if cell.category not in (*TURN, *ELSEWHERE))
    return math.floor(100 * largest + 1) / 100


def _mean(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return f"{np.mean(known):.1f}" if known else "-"


def _cell(name: str, category: Category, *, shots: int, seed: int) -> Cell:
    references = list(draw(category.train, shots=shots, seed=seed))
    reader = Reader({**Detector()._backbone_options, "size": None}, None, False, False, MAX_PIXELS)
    good = reader.read(gather(references, recursive=False), Handful())
    backbone, pictures, preprocessing = good.backbone, good.pictures, good.preprocessing
    images = [torch.from_numpy(preprocessing(picture)) for picture in pictures]
    aspects = [preprocessing.aspect(picture) for picture in pictures]
    learnt = [backbone(image[None]) for image in images]
    axes = [rotation.axis(rotation._pixels(image), aspect=one) for image, one in zip(images, aspects, strict=True)]
    oblong = [one for one in axes if one is not None]
    widest = max((rotation.angle_between(one, other, 180) for one in oblong for other in oblong), default=0.0)
    apart = len(oblong) == len(images) and widest > rotation.ASKEW
    factor, _ = rotation.nearer_turned(images[0], learnt, backbone, aspect=aspects[0])
    if not apart and factor < LOWEST:
        return Cell(name, category.name, apart, factor, None, None)
    truth, queries = [], []
    for kind in (False, True):
        some = evenly([one.path for one in category.test if bool(one.anomalous) is kind], PICTURES)
        truth += [kind] * len(some)
        queries += [backbone(torch.from_numpy(preprocessing(read_picture(path)))[None]) for path in some]
    kepts = KEPTS if apart or factor >= rotation.NEARER else (rotation.KEPT,)
    always, shipped = {}, rotation.KEPT
    try:
        for rotation.KEPT in kepts:
            turned = [
                rotation.turned_patches(image, one, backbone, aspect=aspect)
                for image, one, aspect in zip(images, learnt, aspects, strict=True)
            ]
            always[rotation.KEPT] = _auroc_of("always", learnt, turned, queries, truth)
    finally:
        rotation.KEPT = shipped
    return Cell(name, category.name, apart, factor, _auroc_of("never", learnt, [], queries, truth), always)


@torch.inference_mode()
def _auroc_of(
    turn: Turn,
    learnt: Sequence[Features],
    turned: Sequence[Features],
    queries: Sequence[Features],
    truth: Sequence[bool],
) -> float:
    """Image AUROC in percent; wide patches count as if no defects were planted."""
    method = Handful(turn=turn)
    calibration.fit_and_try(method, [[features] for features in learnt], turned=turned)
    return 100 * metrics.image_auroc(truth, [float(method.score(query).image[0]) for query in queries])
