"""The default's constants, chosen again without each data set in turn, and what they give on the one left out.

The page has a part for each group of constants; each part names the command and the code that made it.
"""

import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

import _leave_out_gate
import _leave_out_turning
from _tables import evenly
from handful import metrics
from handful.data.images import read_picture
from handful.data.shots import draw
from handful.detector import Detector
from handful.fitting.calibration import join, view_count
from handful.methods import handful
from handful.ops.maps import top_share
from handful.ops.views import mild_views
from handful.saved.state import InspectorState
from handful.types import Category, Dataset, Features

SHARES, WIDE_SHARES, NEARS = (0.0025, 0.005, 0.01), (0.01, 0.02, 0.04), (0.05, 0.1, 0.15)
STEEPS, LEADS, STILLS = (0.6, 0.75, 0.9), (0.88, 0.93, 0.97, 1.0), (1.1, 1.2, 1.3, math.inf)
ALONES, DISTINCTS = (0.93, 1.0, 1.075, 1.15, 1.25), (0.0, 3.4, 3.8, 4.2, 4.6, 5.0, math.inf)
PICTURES = 60  # good, and as many defective, of a category
PARTS = {"evidence": "Kinds of evidence", "gate": "The gate", "turning": "Turning"}
HEAD = """# The default's constants, each data set left out in turn

Every group of constants that was read off data, chosen by its rule without each data set in turn, and what comes of
it there. Two groups have pages of their own: what thresholds assume of good parts' scores is on
[the page about these](../threshold/handful.md), bounds for odd references on [the one about trust](../trust.md)."""

Reals = NDArray[np.float64]
Choice = TypeVar("Choice", bound=tuple[float, ...])


class Constants(NamedTuple):
    """Those of `handful.methods.handful` that were chosen on labelled pictures; `share` is its setting."""

    share: float
    wide_share: float
    near: float
    steep: float
    lead: float
    still: float


SHIPPED = Constants(
    handful.Handful().share, handful.WIDE_SHARE, handful.NEAR, handful.STEEP, handful.LEAD, handful.STILL
)
SINGLE_GRID = list(product(ALONES, DISTINCTS))
GRID = [Constants(*values) for values in product(SHARES, WIDE_SHARES, NEARS, STEEPS, LEADS, STILLS)]


@dataclass(frozen=True)
class Cell:
    """A category's pictures by what each constant would make of them.

    Attributes:
        dataset, category: names.
        anomalous: (N,) bool.
        single: (N, S) scores of single patches by share.
        wide: (N, R, W, 2) of wide patches by reach and share, pooled and placed; None where they do not count.
        usual: the same of the references that were left out, or of a single one's mild variations, (S,) and (R, W, 2),
            as geometric means.
        apart: of a single reference, how many times as strange to the rest of the picture as to its mild variations its
            places are; else None.
    """

    dataset: str
    category: str
    anomalous: NDArray[np.bool_]
    single: Reals
    wide: Reals | None
    usual: tuple[Reals, Reals | None]
    apart: float | None = None

    @property
    def shipped(self) -> float:
        """Image AUROC in percent as shipped."""
        return self.auroc(SHIPPED) if self.apart is None else self.auroc_single(handful.ALONE, handful.DISTINCT)

    def auroc_single(self, alone: float, distinct: float) -> float:
        """Image AUROC in percent with the constants of one reference, the others as shipped."""
        counts = self.apart is not None and self.apart >= distinct
        return self.auroc(SHIPPED._replace(lead=SHIPPED.lead * alone, still=math.inf if counts else 0.0))

    def auroc(self, at: Constants) -> float:
        """Image AUROC in percent."""
        share = SHARES.index(at.share)
        scores = self.single[:, share]
        if self.wide is not None and self.usual[1] is not None:
            place = NEARS.index(at.near), WIDE_SHARES.index(at.wide_share)
            usual = self.usual[0][share], self.usual[1][place]
            if usual[1][1] > at.still * usual[1][0]:
                return 100 * metrics.image_auroc(self.anomalous.tolist(), scores.tolist())
            terms = at.lead * usual[0] * (self.wide[:, place[0], place[1]] / usual[1]) ** at.steep  # (N, 2)
            scores = np.maximum(scores, terms.max(1))
        return 100 * metrics.image_auroc(self.anomalous.tolist(), scores.tolist())


def write(
    file: Path,
    parts: Sequence[str],
    head: str,
    *,
    data: Path,
    datasets: dict[str, Dataset],
    shots: Sequence[int],
    seeds: Sequence[int],
) -> str:
    """Write the page with these parts made anew, and the others as they stand there.

    Args:
        file: the page.
        parts: names in `PARTS`.
        head: the command and the code, for each part that is made.
        data: the folder of the data sets.
        datasets, shots, seeds: what is measured; the gate has a draw of its own.
    """
    _, *sections = (file.read_text() if file.exists() else "").split("\n## ")
    texts = dict(section.rstrip().split("\n\n", 1) for section in sections)
    for part in parts:
        if part == "gate":
            lines = _leave_out_gate.page(data, shots=shots)
        else:
            lines = (evidence if part == "evidence" else _leave_out_turning.page)(datasets, shots=shots, seeds=seeds)
        texts[PARTS[part]] = "\n\n".join([head, *lines])
        made = [f"## {title}\n\n{texts[title]}" for title in PARTS.values() if title in texts]
        file.write_text("\n\n".join([HEAD, *made]) + "\n")
    return file.read_text()


def evidence(datasets: dict[str, Dataset], *, shots: Sequence[int], seeds: Sequence[int]) -> list[str]:
    """The part about the kinds of evidence as Markdown lines, over all numbers of references and draws."""
    cells = []
    for name, dataset in datasets.items():
        for category in dataset.categories:
            for count, seed in product(shots, seeds):
                if count <= len(category.train):
                    cells.append(_cell(name, category, shots=count, seed=seed))
                    said = f"{cells[-1].shipped:.1f}"
                    print(name, category.name, count, seed, said, file=sys.stderr, flush=True)
    several, single = ([cell for cell in cells if (cell.apart is None) is more] for more in (True, False))
    several_shots = " and ".join(str(count) for count in shots if count > 1)
    lines = _several(several, f"at {several_shots} references", seeds) if several else []
    return [*lines, *(_single(single, seeds) if single else [])]


def _several(cells: Sequence[Cell], where: str, seeds: Sequence[int]) -> list[str]:
    """The part of two references and more."""
    found = {at: np.array([cell.auroc(at) for cell in cells]) for at in GRID}
    rows, outside = _left_out(cells, found, SHIPPED, ["share", "wide share", "reach", "power", "lead", "still"])
    tuned = max(GRID, key=lambda at: found[at].mean())
    means = sorted((values.mean() for values in found.values()), reverse=True)
    return [
        f"{_means_over(cells, where, seeds)}: **{outside:.2f}** with constants chosen on other data sets, "
        f"{found[SHIPPED].mean():.2f} as shipped, {found[tuned].mean():.2f} with the best of all {len(GRID)} choices "
        f"({', '.join(f'{name} {value:g}' for name, value in tuned._asdict().items())}), "
        f"{means[len(means) // 2]:.2f} with the median choice, {means[-1]:.2f} with the worst; single patches alone "
        f"{np.mean([_alone(cell) for cell in cells]):.2f}.",
        "\n".join(rows),
        "How many times as far from good patches as anywhere the references left out are in their place, by category, "
        f"from the least to the most (wide patches count up to {SHIPPED.still:g}): "
        + "; ".join(f"{name} {low:.2f} to {high:.2f}" for name, (low, high) in _ratios(cells).items())
        + ".",
    ]


def _single(cells: Sequence[Cell], seeds: Sequence[int]) -> list[str]:
    """The part of one reference."""
    found = {at: np.array([cell.auroc_single(*at) for cell in cells]) for at in SINGLE_GRID}
    shipped = (handful.ALONE, handful.DISTINCT)
    rows, outside = _left_out(cells, found, shipped, ["alone", "distinct"])
    tuned = max(SINGLE_GRID, key=lambda at: found[at].mean())
    distinct: dict[str, list[float]] = {}
    for cell in cells:
        if cell.apart:
            distinct.setdefault(cell.category, []).append(cell.apart)
    ranges = sorted(((max(values), min(values), name) for name, values in distinct.items()))
    return [
        "### One reference",
        f"{_means_over(cells, 'at 1 reference', seeds)}: **{outside:.2f}** with constants chosen on other data sets, "
        f"{found[shipped].mean():.2f} as shipped, {found[tuned].mean():.2f} with the best of all {len(SINGLE_GRID)} "
        f"choices (alone {tuned[0]:g}, distinct {tuned[1]:g}); single patches alone "
        f"{np.mean([_alone(cell) for cell in cells]):.2f}.",
        "\n".join(rows),
        "How many times as strange to the rest of the picture as to its mild variations the places of the reference "
        f"are, by category (wide patches count from {handful.DISTINCT:g}): "
        + "; ".join(f"{name} {low:.1f} to {high:.1f}" for high, low, name in ranges)
        + ".",
    ]


def _means_over(cells: Sequence[Cell], where: str, seeds: Sequence[int]) -> str:
    return (
        f"Means over {len({(cell.dataset, cell.category) for cell in cells})} categories {where}, seeds "
        f"{', '.join(map(str, seeds))}, at most {PICTURES} good and as many defective pictures of each"
    )


def _left_out(
    cells: Sequence[Cell], found: Mapping[Choice, Reals], shipped: Choice, constants: Sequence[str]
) -> tuple[list[str], float]:
    """A row for each data set left out, as Markdown lines, and the mean of what the choices give there."""
    names = np.array([cell.dataset for cell in cells])
    rows = [f"| left out | {' | '.join(constants)} | AUROC | as shipped | single patches alone |"]
    rows += ["|---" * (len(constants) + 4) + "|"]
    outside: list[float] = []
    for name in dict.fromkeys(names):
        others = names != name
        best = max(found, key=lambda at, others=others: found[at][others].mean())  # type: ignore[misc]
        outside += found[best][~others].tolist()
        alone = [_alone(cell) for cell in cells if cell.dataset == name]
        rows.append(
            f"| {name} | {' | '.join(f'{value:g}' for value in best)} | {found[best][~others].mean():.1f} | "
            f"{found[shipped][~others].mean():.1f} | {np.mean(alone):.1f} |"
        )
    return rows, float(np.mean(outside))


def _ratios(cells: Sequence[Cell]) -> dict[str, tuple[float, float]]:
    """By category the least and the largest of what `STILL` bounds, in ascending order of the largest."""
    place = NEARS.index(SHIPPED.near), WIDE_SHARES.index(SHIPPED.wide_share)
    found: dict[str, list[float]] = {}
    for cell in cells:
        if cell.usual[1] is not None:
            pooled, placed = cell.usual[1][place]
            found.setdefault(cell.category, []).append(float(placed / pooled))
    return dict(sorted(((name, (min(one), max(one))) for name, one in found.items()), key=lambda pair: pair[1][1]))


def _alone(cell: Cell) -> float:
    return 100 * metrics.image_auroc(cell.anomalous.tolist(), cell.single[:, SHARES.index(SHIPPED.share)].tolist())


def _cell(name: str, category: Category, *, shots: int, seed: int) -> Cell:
    references = draw(category.train, shots=shots, seed=seed)
    detector = Detector(gate=()).fit(list(references), accept_odd=True, try_defects=False)
    fitted = detector._needed
    learnt, turned = fitted.features.learnt, fitted.features.turned
    method = handful.Handful().fit(join(learnt), turned=join(turned) if turned else None)  # all wide patches kept
    usual, apart = [], None
    if shots == 1:
        usual = [_terms(method, view) for view in _variations(fitted, references[0])]
        if len(method.wide_):
            place = NEARS.index(SHIPPED.near), WIDE_SHARES.index(SHIPPED.wide_share)
            varied = [one[place][0] for _, one in usual if one is not None]
            apart = float(method._wide_apart()) / math.exp(np.log(varied).mean())
    for row, left_out in enumerate(learnt if shots > 1 else ()):
        others = [number for number in range(len(learnt)) if number != row]
        blind = handful.Handful().fit(
            join([learnt[number] for number in others]),
            turned=join([turned[number] for number in others]) if turned else None,
        )
        usual.append(_terms(blind, left_out))
    samples = list(_spread(category))
    found = [
        _terms(method, fitted.backbone(torch.from_numpy(fitted.preprocessing(read_picture(sample)))[None]))
        for sample, _ in samples
    ]
    wide = [one for _, one in found if one is not None]
    usual_wide = [one for _, one in usual if one is not None]
    return Cell(
        name,
        category.name,
        np.array([anomalous for _, anomalous in samples]),
        np.array([single for single, _ in found]),
        np.array(wide) if wide else None,
        (
            np.exp(np.log(np.array([single for single, _ in usual])).mean(0)),
            np.exp(np.log(np.array(usual_wide)).mean(0)) if usual_wide else None,
        ),
        apart if shots > 1 or apart is not None else 0.0,
    )


def _variations(fitted: InspectorState, path: str) -> Iterator[Features]:
    """The features of a picture's mild variations, the picture itself left aside."""
    image = torch.from_numpy(fitted.preprocessing(read_picture(path)))
    for view in mild_views(image, view_count(1))[1:]:
        yield fitted.backbone(view[None])


@torch.inference_mode()
def _terms(method: handful.Handful, features: Features) -> tuple[Reals, Reals | None]:
    """Of one picture: (S,) and (R, W, 2), see `Cell`."""
    single = _tops(method._score_one(features), SHARES)
    if not len(method.wide_):
        return single, None
    by_reach, kept = [], handful.NEAR
    try:
        for handful.NEAR in NEARS:
            by_reach.append([_tops(one, WIDE_SHARES) for one in method._wide_one(features)])  # (2, W)
    finally:
        handful.NEAR = kept
    return single, np.array(by_reach).transpose(0, 2, 1)


def _tops(scores: Tensor, shares: Sequence[float]) -> Reals:
    return np.array([float(top_share(scores[None], share=share)) for share in shares])


def _spread(category: Category) -> Iterator[tuple[str, bool]]:
    """At most `PICTURES` good and as many defective pictures, from all over the list."""
    for kind in (False, True):
        paths = [sample.path for sample in category.test if bool(sample.anomalous) is kind]
        for path in evenly(paths, PICTURES):
            yield path, kind
