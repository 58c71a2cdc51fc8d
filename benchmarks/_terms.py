"""Kinds of evidence that the default might join, weighed by the synthetic defects that each sees on the references.

Pictures are scored once, by each term, and kept in a file; how terms are joined is tried on the scores that were kept.
"""

import json
import sys
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property, partial, reduce
from itertools import product
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from _tables import evenly
from handful import metrics
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation.environment import commit
from handful.fitting.calibration import join, view_count
from handful.methods import handful
from handful.methods.fastrecon import reconstruction_solver
from handful.ops.coreset import greedy_coreset
from handful.ops.maps import resize_grid, top_share
from handful.ops.neighbors import neighbourhoods
from handful.ops.planting import plan
from handful.ops.views import mild_views
from handful.types import Category, Dataset, Features

PICTURES = 40  # good, and as many defective, of a category
LAM = 0.5  # how strongly a reconstruction is held to the mean of its place, as in FastRecon
CELLS = 5  # cells a side that the whole picture's parts are averaged over
FRESH = 2  # the first seed of draws that no choice was made on
SLACKS = (0.0, 0.01, 0.05)  # shares of a measure that do not count as a difference
RISE = 0.02  # of a measure, that a further term must bring
GAINS = ((0.0, 1.0), (0.95, 1.0, 1.04), handful.GAINS)  # how many times as much as shipped wide patches count
SHIPPED = ("pooled", "placed")
ADDED = {
    "residual": "distance of wide patches from their reconstruction out of good ones, held to the mean of their place",
    "residual, loose": "the same, held to nothing",
    "missing": "distance of a reference's wide patches to the nearest near their place in the picture",
    "cells": f"distance of the mean patches of {CELLS} x {CELLS} cells to those of the same cell, the largest",
    "means": "distance of the picture's mean patch",
    "covariance": "distance of the covariance of the picture's channels",
}
TERMS = ("single", *SHIPPED, *ADDED)

Reals = NDArray[np.float64]


@dataclass(frozen=True)
class Cell:
    """A draw of references and what each term makes of pictures; N numbers of `TERMS` for each.

    Attributes:
        commit: of the code that measured it.
        dataset, category, shots, seed: of the references.
        anomalous: of each test picture.
        test: of each test picture.
        good: of each reference, by a method that has learnt the others; its mild variations, the picture first.
        planted: of each synthetic defect that is no spot, likewise; before these the reference's row.
        turned: whether the part is learnt in turned copies: then single patches count alone, and only `test` is filled.
    """

    commit: str
    dataset: str
    category: str
    shots: int
    seed: int
    anomalous: list[bool]
    test: list[list[float]]
    good: list[list[list[float]]]
    planted: list[tuple[int, list[float]]]
    turned: bool

    @property
    def shipped(self) -> tuple[int, ...]:
        """The numbers of the terms that count beside single patches without synthetic defects."""
        if self.turned:
            return ()
        return (1, 2) if self.usual[2] <= handful.STILL * self.usual[1] else ()

    @cached_property
    def usual(self) -> Reals:
        """The typical score of each term, by references left out: (T,)."""
        means: Reals = np.exp(np.log(np.maximum(np.array(self.good)[:, 0], 1e-9)).mean(0))
        return means

    def joined(self, scores: Reals, terms: Sequence[int], gain: float = 1.0) -> Reals:
        """The scores (…) of pictures (…, T) by single patches and these terms, counted as the default counts its."""
        joined: Reals = scores[..., 0]
        for term in terms:
            weighed = self.usual[0] * (scores[..., term] / self.usual[term]) ** handful.STEEP
            joined = np.maximum(joined, gain * handful.LEAD * weighed)
        return joined

    def auroc(self, terms: Sequence[int], gain: float = 1.0) -> float:
        """Image AUROC in percent on the test pictures."""
        scores = self.joined(np.array(self.test), terms, gain) if terms else np.array(self.test)[:, 0]
        return 100 * metrics.image_auroc(self.anomalous, scores.tolist())

    def seen(self, measure: str, terms: Sequence[int], gain: float = 1.0) -> float:
        """What is seen of the synthetic defects by one of `MEASURES`, higher is more."""
        good = np.log(self.joined(np.array(self.good), terms, gain))  # (k, V)
        planted = np.log(self.joined(np.array([scores for _, scores in self.planted]), terms, gain))
        rows = [row for row, _ in self.planted]
        if measure == "AUROC":
            labels = [False] * good.size + [True] * len(planted)
            return metrics.image_auroc(labels, [*good.ravel().tolist(), *planted.tolist()])
        if measure == "found":
            return float((planted > good.max()).mean())
        return float((planted - good[rows, 0]).mean())


MEASURES = {
    "AUROC": "of defects against references left out and their mild variations",
    "found": "the share of defects that score higher than each of these",
    "lift": "how many times as high a reference left out scores with a defect as without, a logarithm, the mean",
}


class Terms:
    """All terms of a picture by what some references show."""

    def __init__(self, references: Features, turned: Features | None) -> None:
        self.method = handful.Handful().fit(references, turned=turned)
        wide = handful._wide_patches(references)  # (B, h, w, D)
        rows = wide.flatten(0, 2)
        self.coreset = rows[greedy_coreset(rows, rows.shape[1] // 2)]
        self.solver = reconstruction_solver(self.coreset)
        self.wide, self.mean = wide, wide.mean(0).flatten(0, 1)
        height, width = wide.shape[1:3]
        self.near = neighbourhoods(1, height, width, radius=max(1, round(handful.NEAR * min(height, width))))
        self.weights = handful.edge_weights(height, width)
        self.whole = [_whole(references[[row]]) for row in range(len(references))]

    @torch.inference_mode()
    def __call__(self, query: Features) -> list[float]:
        """The scores of one picture, of each of `TERMS`; of single patches alone where the part turns."""
        single = top_share(self.method._score_one(query)[None], share=self.method.share)
        if len(self.method.turned_[0]):
            return [round(float(single), 6)]
        pooled, placed = self.method._wide_one(query)
        wide = handful._wide_patches(query)[0].flatten(0, 1)
        places = [pooled, placed, *(self._residual(wide, lam) for lam in (LAM, 0.0))]
        whole = _whole(query)
        scores = [
            single,
            *(top_share(one[None], share=handful.WIDE_SHARE) for one in places),
            self._missing(wide),
            *(reduce(torch.minimum, (_apart(one[kind], whole[kind]) for one in self.whole)) for kind in range(3)),
        ]
        return [float(f"{float(score):.5g}") for score in scores]

    def _residual(self, wide: Tensor, lam: float) -> Tensor:
        made = (wide + lam * self.mean) / (1 + lam) @ self.solver @ self.coreset
        lengths: Tensor = torch.linalg.vector_norm(wide - made, dim=1).reshape(self.weights.shape)
        return lengths * self.weights

    def _missing(self, wide: Tensor) -> Tensor:
        """The least, over references, of how far their patches lie from the picture's near the same place."""
        found = []
        for one in self.wide:
            cosines = (one.flatten(0, 1) @ wide.T).gather(1, self.near).amax(1)
            distances = (2 - 2 * cosines).clamp_min(1e-6).sqrt().reshape(self.weights.shape)
            found.append(top_share((distances * self.weights)[None], share=handful.WIDE_SHARE))
        return reduce(torch.minimum, found)


def _whole(features: Features) -> tuple[list[Tensor], list[Tensor], list[Tensor]]:
    """Of one picture's levels: mean patches of cells, (CELLS², D); the mean patch; the covariance of channels."""
    levels = [level[0] for level in features.levels]
    cells = [resize_grid(level[None], (CELLS, CELLS), mode="area")[0].flatten(0, 1) for level in levels]
    rows = [level.flatten(0, 1) for level in levels]
    return cells, [one.mean(0, keepdim=True) for one in rows], [one.T.cov().flatten()[None] for one in rows]


def _apart(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """The largest distance of two pictures' rows at length 1, the mean of levels."""
    pairs = zip(one, other, strict=True)
    return torch.stack(
        [torch.linalg.vector_norm(F.normalize(a, dim=1) - F.normalize(b, dim=1), dim=1).max() for a, b in pairs]
    ).mean()


def measured(datasets: Mapping[str, Dataset], *, shots: Sequence[int], seeds: Sequence[int], file: Path) -> list[Cell]:
    """Every cell, those that a killed run has measured read back."""
    kept = [Cell(**json.loads(line)) for line in file.read_text().splitlines()] if file.exists() else []
    done = {(cell.dataset, cell.category, cell.shots, cell.seed) for cell in kept}
    here = commit()
    for name, dataset in datasets.items():
        for category in dataset.categories:
            seen: dict[tuple[str, tuple[int, int]], Features] = {}
            for count, seed in product(shots, seeds):
                if (name, category.name, count, seed) in done or count > len(category.train):
                    continue
                cell = _measure(here, name, category, count, seed, seen)
                with file.open("a") as lines:
                    lines.write(json.dumps(asdict(cell)) + "\n")
                kept.append(cell)
                print(name, category.name, count, seed, file=sys.stderr, flush=True)
    return kept


def _measure(
    here: str,
    name: str,
    category: Category,
    shots: int,
    seed: int,
    seen: dict[tuple[str, tuple[int, int]], Features],
) -> Cell:
    references = draw(category.train, shots=shots, seed=seed)
    detector = Detector(gate=()).fit(list(references), accept_odd=True, try_defects=False)
    fitted = detector._needed
    assert fitted.features is not None
    backbone, preprocessing = fitted.backbone, fitted.preprocessing
    learnt, turned = fitted.features.learnt, fitted.features.turned
    of_all = Terms(join(learnt), join(turned) if turned else None)
    samples = list(_spread(category))
    test = []
    for path, _ in samples:
        key = path, backbone.spec.size
        if key not in seen:
            seen[key] = backbone(torch.from_numpy(preprocessing(read_picture(path)))[None])
        test.append(of_all(seen[key]))
    labels = [anomalous for _, anomalous in samples]
    if turned:
        return Cell(here, name, category.name, shots, seed, labels, test, [], [], True)
    blind = [Terms(join([one for other, one in enumerate(learnt) if other != row]), None) for row in range(shots)]
    pictures = [read_picture(path) for path in references]
    views = [mild_views(torch.from_numpy(preprocessing(one)), view_count(shots)) for one in pictures]
    good = [[blind[row](backbone(view[None])) for view in views[row]] for row in range(shots)]
    planned = plan(
        [of_one[0] for of_one in views],
        sorted(range(shots), key=lambda row: fitted.references[row].sha256),
        [preprocessing.placement(one.size) for one in pictures],
        [one.size for one in pictures],
        views=len(views[0]),
        patch=views[0][0].shape[1] / learnt[0].levels[0].shape[1],
    )
    planted = [
        (one.row, _planted(one.draw(views[one.row][0]), backbone, blind[one.row]))
        for one in planned
        if one.diameter is None
    ]
    return Cell(here, name, category.name, shots, seed, labels, test, good, planted, False)


def _planted(image: Tensor, backbone: Backbone, terms: Terms) -> list[float]:
    return terms(backbone(image[None]))


def _spread(category: Category) -> Iterator[tuple[str, bool]]:
    """At most `PICTURES` good and as many defective pictures, from all over the list."""
    for kind in (False, True):
        paths = [sample.path for sample in category.test if bool(sample.anomalous) is kind]
        for path in evenly(paths, PICTURES):
            yield path, kind


@dataclass(frozen=True)
class Way:
    """A way of joining terms.

    Attributes:
        name: for people.
        family: ways of which one is chosen without each data set in turn.
        choose: the terms of a cell that counts more than single patches, and how much they count.
    """

    name: str
    family: str
    choose: Callable[[Cell], tuple[tuple[int, ...], float]]


def _ways() -> Iterator[Way]:
    yield Way("single patches alone", "", lambda cell: ((), 1.0))
    yield Way("wide patches as if no defects were planted", "", lambda cell: (cell.shipped, 1.0))
    for measure, slack in product(MEASURES, SLACKS):
        said = f"each dropped where {measure} falls by more than {100 * slack:g} %"
        yield Way(said, f"dropped, {measure}", partial(_dropped, measure=measure, slack=slack))
    for measure, gains, slack in product(MEASURES, GAINS, SLACKS):
        said = f"{', '.join(f'{gain:g}' for gain in gains)} times as much, the highest {measure} to {100 * slack:g} %"
        yield Way(said, f"weighed, {measure}", partial(_weighed, measure=measure, gains=gains, slack=slack))
    for term in range(1 + len(SHIPPED), len(TERMS)):
        yield Way(f"+ {TERMS[term]}", "", partial(_added, term=term, measure=None, slack=0.0))
        for measure in MEASURES:
            said = f"+ {TERMS[term]} where {measure} rises by {100 * RISE:g} % or more"
            yield Way(said, "", partial(_added, term=term, measure=measure, slack=RISE))


def _weighed_as_shipped() -> Way:
    choose = partial(_weighed, measure="lift", gains=handful.GAINS, slack=handful.ALIKE)
    return Way("as shipped", "", choose)


def _dropped(cell: Cell, *, measure: str, slack: float) -> tuple[tuple[int, ...], float]:
    least = (1 - slack) * cell.seen(measure, ())
    return tuple(term for term in cell.shipped if cell.seen(measure, (term,)) >= least), 1.0


def _weighed(cell: Cell, *, measure: str, gains: Sequence[float], slack: float) -> tuple[tuple[int, ...], float]:
    found = {gain: cell.seen(measure, cell.shipped, gain) for gain in gains}
    enough = (1 - slack) * max(found.values())
    return cell.shipped, min((gain for gain in gains if found[gain] >= enough), key=lambda gain: abs(gain - 1))


def _added(cell: Cell, *, term: int, measure: str | None, slack: float) -> tuple[tuple[int, ...], float]:
    more = (*cell.shipped, term)
    if measure and cell.seen(measure, more) < (1 + slack) * cell.seen(measure, cell.shipped):
        more = cell.shipped
    return more, 1.0


def page(cells: Sequence[Cell]) -> list[str]:
    """The tables as Markdown lines, those of `FRESH` draws apart."""
    measures = ", ".join(f"*{name}*, {said}" for name, said in MEASURES.items())
    added = "; ".join(f"*{name}*, {said}" for name, said in ADDED.items())
    lines = [
        f"Image AUROC on at most {PICTURES} good and as many defective pictures of each category, by what is seen of "
        f"the 18 synthetic defects that `fit` plants, on references left out: {measures}. Terms besides pooled and "
        f"placed wide patches, brought to one scale as these are: {added}. Where the part turns or does not lie still, "
        "single patches count alone.",
    ]
    for title, some in (
        ("Draws that the way was chosen on", [cell for cell in cells if cell.seed < FRESH]),
        ("Fresh draws", [cell for cell in cells if cell.seed >= FRESH]),
    ):
        if some:
            lines += [f"## {title}", *_tables(some)]
    return lines


def _tables(cells: Sequence[Cell]) -> list[str]:
    ways = list(_ways())
    found = {way.name: np.array([_auroc(cell, way) for cell in cells]) for way in ways}
    before = found[ways[1].name]
    names, categories = (np.array([getattr(cell, name) for cell in cells]) for name in ("dataset", "category"))
    rows = ["| way | image AUROC | by category where it changes by 0.3 or more |", "|---|---|---|"]
    for way in ways:
        changes = {
            one: float((found[way.name] - before)[categories == one].mean()) for one in dict.fromkeys(categories)
        }
        order = sorted(changes.items(), key=lambda item: item[1])
        told = [f"{one} {change:+.1f}" for one, change in order if abs(change) >= 0.3]
        rows.append(f"| {way.name} | {found[way.name].mean():.2f} | {', '.join(told)} |")
    left = ["| ways | chosen on other data sets | the best of all | chosen most often |", "|---|---|---|---|"]
    for family in dict.fromkeys(way.family for way in ways if way.family):
        some = [way.name for way in ways if way.family == family or way is ways[1]]
        picks = {
            one: max(some, key=lambda name, one=one: found[name][names != one].mean())  # type: ignore[misc]
            for one in dict.fromkeys(names)
        }
        outside = np.concatenate([found[pick][names == one] for one, pick in picks.items()])
        often, times = Counter(picks.values()).most_common(1)[0]
        best = found[max(some, key=lambda name: found[name].mean())].mean()
        left.append(f"| {family} | {outside.mean():.2f} | {best:.2f} | {often}, {times} of {len(picks)} |")
    shipped = _weighed_as_shipped()
    by_category = {
        one: sorted({shipped.choose(cell)[1] for cell in cells if cell.category == one and cell.shipped})
        for one in dict.fromkeys(categories)
    }
    told = [f"{one} {' to '.join(f'{gain:g}' for gain in {g[0]: 0, g[-1]: 0})}" for one, g in by_category.items() if g]
    return [
        f"Code of {', '.join(sorted({cell.commit for cell in cells}))}; means over "
        f"{len(set(zip(names, categories, strict=True)))} categories at "
        f"{' and '.join(map(str, sorted({cell.shots for cell in cells})))} references, seeds "
        f"{', '.join(map(str, sorted({cell.seed for cell in cells})))}.",
        "\n".join(rows),
        "One way of a kind, or none, chosen without each data set in turn:",
        "\n".join(left),
        f"How many times as much wide patches count as shipped, by category: {'; '.join(told)}.",
    ]


def _auroc(cell: Cell, way: Way) -> float:
    return cell.auroc(*way.choose(cell)) if cell.shipped else cell.auroc(())
