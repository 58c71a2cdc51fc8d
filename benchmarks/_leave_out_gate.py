"""The gate's bounds, chosen again without each data set in turn, and what they doubt on the one left out."""

import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from _gate_pictures import DEFECTS, GOOD, WHOLE, Category, GatePicture, category_of, folders_of, gate_of, strangers_of
from handful import backbones
from handful.backbones.base import Backbone
from handful.inspection import gate as gate_module
from handful.inspection.gate import Gate, Levels

SEED = 0
EVERY = 3  # of the gate's pictures, the one that is taken
# The check of each bound, and its values: each doubts no picture that the one before does not.
GRID: dict[str, tuple[str, tuple[float, ...]]] = {
    "BLANK": ("blank", (0.3, 0.2, 0.1, 0.05)),
    "DARKER": ("exposure", (1.25, 1.5, 2.0, 3.0)),
    "DARKER_ALONE": ("exposure", (2.0, 3.0, 4.0)),
    "DARKER_ANYWHERE": ("exposure", (3.0, 5.0, 8.0, 12.0)),
    "BRIGHTER": ("exposure", (1.25, 1.5, 2.0)),
    "BRIGHTER_ALONE": ("exposure", (2.0, 3.0, 4.0)),
    "BRIGHTER_ANYWHERE": ("exposure", (2.0, 3.0, 4.0)),
    "STAYED": ("exposure", (1.0, 0.2, 0.1, 0.05)),
    "BLUR": ("blur", (0.3, 0.5, 0.7, 0.9)),
    "BLUR_UNKNOWN": ("blur", (0.0, 0.25, 0.5, 0.75)),
    "FINE": ("blur", (0, 3, 6)),
    "FAR": ("shift", (0.04, 0.08, 0.12)),
    "EXPLAINED": ("shift", (0.5, 0.25, 0.15)),
    "MATCH": ("shift", (0.7, 0.8, 0.9)),
    "PRODUCT": ("product", (0.2, 0.3, 0.4, 0.6)),
    "PRODUCT_ANYWHERE": ("product", (0.4, 0.6, 0.8, 1.0)),
    "PRODUCT_ALONE": ("product", (0.8, 1.0, 1.3, 1.6)),
    "PRODUCT_FACTOR": ("product", (1.5, 2.0, 3.0)),
    "EVENLY": ("product", (0.0, 0.5, 0.75, 0.9)),
}
KINDS = ("good", "defective", "others")

Counts = NDArray[np.int64]  # of pictures, by kind
Pictures = list[tuple[int, GatePicture]]  # number in `KINDS` and picture


@dataclass(frozen=True)
class Cell:
    """A category's pictures and the gate of a draw of references.

    Attributes:
        dataset: name.
        pictures: all of the category.
        gate, good: of the references.
        doubted: by bound and value, how many pictures its check doubts, the other bounds as shipped.
    """

    dataset: str
    pictures: Pictures
    gate: Gate
    good: list[Levels]
    doubted: dict[str, list[Counts]]

    def whole(self) -> Counts:
        """How many pictures all checks together doubt with the bounds of now."""
        return _counted(_doubted(gate_module.CHECKS, self.gate, self.pictures, self.good))


def page(data: Path, *, shots: Sequence[int]) -> list[str]:
    """The part of the page as Markdown lines."""
    folders, backbone = folders_of(data), backbones.create()
    strangers = strangers_of(folders, backbone)
    cells: list[Cell] = []
    for folder in folders:
        category = category_of(folder, backbone, strangers, every=EVERY)
        cells += _cells(folder.parent.name, category, backbone, shots)
        print(category.name, *cells[-1].whole(), file=sys.stderr, flush=True)
    names = [name for name in GRID if 1 in shots or not name.endswith("_ALONE")]  # these count with one reference
    everywhere = {name: _best(name, cells) for name in names}
    rows = ["| left out | bounds chosen otherwise than on all | good | defective | spoilt and others |"]
    rows += ["|---|---|---|---|---|"]
    sums = np.zeros((3, len(KINDS)), np.int64)  # chosen elsewhere, shipped, all pictures
    for dataset in dict.fromkeys(cell.dataset for cell in cells):
        here = [cell for cell in cells if cell.dataset == dataset]
        chosen = {name: _best(name, [cell for cell in cells if cell.dataset != dataset]) for name in names}
        with _set(chosen):
            found = sum((cell.whole() for cell in here), np.zeros(len(KINDS), np.int64))
        before = sum((cell.whole() for cell in here), np.zeros(len(KINDS), np.int64))
        every = sum((_counted(cell.pictures) for cell in here), np.zeros(len(KINDS), np.int64))
        sums += np.stack([found, before, every])
        differ = ", ".join(f"{name} {value:g}" for name, value in chosen.items() if value != everywhere[name])
        shares = [_share(*counts) for counts in zip(found, before, every, strict=True)]
        rows.append(f"| {dataset} | {differ or 'none'} | {' | '.join(shares)} |")
    rows.append(f"| all | | {' | '.join(_share(*counts) for counts in sums.T)} |")
    bounds = "; ".join(
        f"{name} {value:g} of {', '.join(f'{one:g}' for one in GRID[name][1])} (shipped {getattr(gate_module, name):g})"
        for name, value in everywhere.items()
    )
    return [
        f"Every third of the pictures of [the gate's page](../capture.md) at {', '.join(map(str, shots))} references "
        f"of seed {SEED}. The shipped bounds are priors, argued from photography and widened until no good or "
        "defective picture was "
        "doubted. So each bound by itself, the others as shipped, is here the one of its values by which its check "
        "doubts the fewest good and defective pictures (large defects made from good ones too) of the other data "
        "sets, of these the most spoilt pictures and ones of other categories, of these the widest. In percent of the "
        "data set's pictures, what all checks then doubt of it, in brackets with the bounds as shipped:",
        "\n".join(rows),
        f"Chosen on all data sets: {bounds}.",
    ]


def _share(found: int, before: int, every: int) -> str:
    return f"{100 * found / max(1, every):.2f} ({100 * before / max(1, every):.2f})"


def _cells(dataset: str, category: Category, backbone: Backbone, shots: Sequence[int]) -> Iterator[Cell]:
    pictures: Pictures = []
    for column, some in category.seen.items():
        pictures += [({GOOD: 0, DEFECTS: 1}.get(column, 2), _small(one)) for one in some]
    for (_, share), some in category.large.items():
        pictures += [(1, _small(one)) for one in some if share != WHOLE]
    for count in shots:
        if count <= len(category.train):
            gate, good = gate_of(category.train, count, SEED, backbone)
            with _set({name: values[0] for name, (_, values) in GRID.items()}):
                near = {check: _doubted((check,), gate, pictures, good) for check in gate_module.CHECKS}
            doubted = {name: _tried(name, gate, near[check], good) for name, (check, _) in GRID.items()}
            yield Cell(dataset, pictures, gate, good, doubted)


def _small(picture: GatePicture) -> GatePicture:
    """The same in a quarter of the memory: of 8 bits."""
    return GatePicture((255 * picture.image).round().byte(), picture.levels, picture.name)


def _tried(name: str, gate: Gate, pictures: Pictures, good: Sequence[Levels]) -> list[Counts]:
    """How many pictures a bound's check doubts, for each of its values.

    Args:
        name: of the bound.
        gate, good: of the references.
        pictures: at least all that the check doubts with any values of its bounds.
    """
    check, values = GRID[name]
    counts, left = [], pictures
    for value in values:
        with _set({name: value}):
            left = _doubted((check,), gate, left, good)
        counts.append(_counted(left))
    return counts


def _doubted(checks: Sequence[str], gate: Gate, pictures: Pictures, good: Sequence[Levels]) -> Pictures:
    gate = Gate(tuple(checks), gate.statistics)  # anew: it keeps what it derives from bounds
    found = []
    for kind, picture in pictures:
        image = picture.image.numpy().astype(np.float32) / np.float32(255)
        if gate.refuse_image(image) or gate.refuse_features(picture.levels, good):
            found.append((kind, picture))
    return found


def _counted(pictures: Pictures) -> Counts:
    return np.bincount([kind for kind, _ in pictures], minlength=len(KINDS))


def _best(name: str, cells: Sequence[Cell]) -> float:
    """The value of a bound that its rule chooses on some cells."""
    values = GRID[name][1]
    sums = [sum(cell.doubted[name][number] for cell in cells) for number in range(len(values))]
    ranks = [(int(one[0] + one[1]), -int(one[2]), -number) for number, one in enumerate(map(np.asarray, sums))]
    return values[ranks.index(min(ranks))]


@contextmanager
def _set(bounds: Mapping[str, float]) -> Iterator[None]:
    kept = {name: getattr(gate_module, name) for name in bounds}
    try:
        for name, value in bounds.items():
            setattr(gate_module, name, value)
        yield
    finally:
        for name, value in kept.items():
            setattr(gate_module, name, value)
