"""How good and defective pictures score beside the references, as raw numbers: a line of JSON for each cell."""

import json
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch

from _tables import evenly
from handful import methods
from handful.data.preprocessing import Preprocessing
from handful.data.progress import quietly
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation.environment import commit
from handful.fitting import calibration
from handful.inspection.threshold import Prior
from handful.saved.state import InspectorState
from handful.types import Category, Dataset, Features

GOOD, DEFECTIVE, SPARE = 60, 40, 20  # at most, of a category's test pictures, and of training ones that are not learnt

Rows = tuple[tuple[float, ...], ...]


@dataclass(frozen=True)
class Cell:
    """One category, number of references k and draw; scores in the method's unit.

    Attributes:
        dataset, category, shots, seed: which.
        commit: of the code.
        turned: whether the references were learnt in turned copies.
        prior: that the shipped threshold rests on.
        image, peaks: (k, V) of the references' views, see `handful.fitting.calibration.good_scores`.
        apart: (k, 3) of every reference by itself, see `Method.score_against_itself`: image score, mean and highest
            value of the map; empty for a method that cannot.
        terms: (k, T) of every reference, left out, see `Method.terms`; empty where there are none.
        means: (k,) of every reference's map, left out; empty at one reference.
        pairs: (k, k) score of each reference (row) by a method that has learnt one other alone; 0 on the diagonal.
        good, bad: of the test pictures.
        whole: of the good test pictures, whether they fill the frame.
        spare: of good training pictures that no draw of 8 or fewer of this seed learns.
    """

    dataset: str
    category: str
    shots: int
    seed: int
    commit: str
    turned: bool
    prior: Prior
    image: Rows
    peaks: Rows
    apart: Rows
    terms: Rows
    means: tuple[float, ...]
    pairs: Rows
    good: tuple[float, ...]
    bad: tuple[float, ...]
    whole: tuple[bool, ...]
    spare: tuple[float, ...]

    @property
    def key(self) -> tuple[str, str, int, int]:
        """What there is one cell of."""
        return self.dataset, self.category, self.shots, self.seed

    def line(self) -> str:
        """As JSON, numbers to six digits."""
        return json.dumps({name: _rounded(value) for name, value in asdict(self).items()})

    @classmethod
    def from_line(cls, line: str) -> "Cell":
        """Read back what `line` gave."""
        values = json.loads(line)
        return cls(**{name: _tuples(value) for name, value in values.items()} | {"prior": Prior(**values["prior"])})


def read(file: Path) -> list[Cell]:
    """The cells of a file; a last line that was not finished does not count."""
    if not file.exists():
        return []
    return [Cell.from_line(line) for line in file.read_text().splitlines() if line.endswith("}")]


def measure(
    datasets: dict[str, Dataset], file: Path, *, method: str, shots: Sequence[int], seeds: Sequence[int]
) -> list[Cell]:
    """All cells, those that are not yet in the file appended to it one by one."""
    done = {cell.key: cell for cell in read(file)}
    file.write_text("".join(f"{cell.line()}\n" for cell in done.values()))
    wanted = [
        (name, category.name, count, seed)
        for name, dataset in datasets.items()
        for category in dataset.categories
        for count in shots
        for seed in seeds
        if count <= len(category.train)
    ]
    asked = methods.parse(method)
    detector = Detector(asked.name, settings=asked.settings, gate=())  # one for all: its backbone is made once
    for name, dataset in datasets.items():
        for category in dataset.categories:
            missing = [key for key in wanted if key not in done and key[:2] == (name, category.name)]
            for cell in _cells(name, category, detector, [key[2:] for key in missing]):
                done[cell.key] = cell
                with file.open("a") as lines:
                    lines.write(f"{cell.line()}\n")
                print(*cell.key, file=sys.stderr, flush=True)
    return [done[key] for key in wanted]


def _cells(name: str, category: Category, detector: Detector, draws: Iterable[tuple[int, int]]) -> Iterator[Cell]:
    """Every cell of one category; the test pictures' features are computed once for each frame."""
    good, bad = (evenly(paths, most) for paths, most in zip(_by_kind(category), (GOOD, DEFECTIVE), strict=True))
    known: dict[tuple[Preprocessing, str], tuple[Features, bool]] = {}
    for count, seed in draws:
        references = draw(category.train, shots=count, seed=seed)
        fitted = detector.fit(references, accept_odd=True, try_defects=False)._needed
        frame = replace(fitted.preprocessing, bright=None)  # 8-bit pictures: brightness says nothing of their depth
        most = min(max(count, 8), len(category.train))
        rest = set(category.train) - set(draw(category.train, shots=most, seed=seed))
        spare = evenly(sorted(rest), SPARE)
        for path in (*good, *bad, *spare):
            if (frame, path) not in known:
                known[frame, path] = _seen(fitted, path)
        rows = [[known[frame, path] for path in some] for some in (good, bad, spare)]
        scores = [tuple(_score(fitted.method, features) for features, _ in some) for some in rows]

        yield Cell(
            name,
            category.name,
            count,
            seed,
            commit(),
            bool(fitted.features.turned),
            fitted.history.prior,
            fitted.history.image_scores,
            fitted.history.map_peaks,
            **_among_references(fitted),
            good=scores[0],
            bad=scores[1],
            whole=tuple(whole for _, whole in rows[0]),
            spare=scores[2],
        )


def _by_kind(category: Category) -> list[list[str]]:
    """The paths of the good test pictures, and of the defective ones."""
    return [[sample.path for sample in category.test if bool(sample.anomalous) is kind] for kind in (False, True)]


def _seen(fitted: InspectorState, path: str) -> tuple[Features, bool]:
    """A picture's features, and whether it fills the frame."""
    picture = fitted.preprocessing.read(path)
    features = fitted.backbone(torch.from_numpy(fitted.preprocessing(picture))[None])
    return features, fitted.preprocessing.placement(picture.size).is_whole


def _score(method: methods.Method, features: Features) -> float:
    return float(method.score(features).image[0])


def _among_references(fitted: InspectorState) -> dict[str, Any]:
    """What the references say of each other."""
    learnt, turned = fitted.features.learnt, fitted.features.turned
    found: dict[str, Any] = {"apart": [], "terms": [], "means": [], "pairs": []}
    alone = [
        fitted.method.unfitted().fit(features, turned=turned[row] if turned else None)
        for row, features in enumerate(learnt)
    ]
    for own, features in zip(alone, learnt, strict=True):
        if (scores := own.score_against_itself(features)) is not None:
            found["apart"].append([float(scores.image[0]), float(scores.maps.mean()), float(scores.maps.max())])
    if len(learnt) > 1:
        found["pairs"] = [
            [0.0 if one is own else _score(one, features) for one in alone]
            for own, features in zip(alone, learnt, strict=True)
        ]
        views = [[features] for features in learnt]
        for rows, blind in calibration.blind_methods(fitted.method, views, (), turned, track=quietly):
            for row in rows:
                found["means"].append(float(blind.score(learnt[row]).maps.mean()))
                if (terms := blind.terms(learnt[row])) is not None:
                    found["terms"].append(terms[0].tolist())
    return {name: _tuples(value) for name, value in found.items()}


def _tuples(value: Any) -> Any:
    return tuple(map(_tuples, value)) if isinstance(value, list) else value


def _rounded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _rounded(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_rounded(one) for one in value]
    return float(f"{value:.6g}") if isinstance(value, float) else value
