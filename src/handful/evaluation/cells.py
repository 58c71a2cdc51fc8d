"""The cells of a benchmark: data set × category × method × shots × seed."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from handful.errors import SettingError
from handful.evaluation import results
from handful.methods import describe, parse, parse_tuning
from handful.types import Category, Dataset

HEAD_SUFFIX = ".safetensors"
# The inputs' frames. "references": at the aspect of each cell's references, as `handful fit` makes them, with about as
# many pixels as a square of the backbone's longer side. "exact": the backbone's own. In both, pictures of another shape
# keep their aspect. "squeezed": the backbone's own, to which every picture is squeezed, as papers do; always so with a
# head or without references.
Frames = Literal["references", "exact", "squeezed"]


class Cell(NamedTuple):
    """The cell of one row of the table."""

    dataset: str
    category: Category
    method: str
    shots: int
    seed: int

    @property
    def scoring(self) -> str:
        """The scoring method, without the backbone's training or the head."""
        return self.method.partition("@")[0]

    @property
    def tuning(self) -> str:
        """The training of the backbone on the references; empty without any."""
        return "" if self.head else self.method.partition("@")[2]

    @property
    def head(self) -> str:
        """The file of a trained head; empty without one."""
        return head_of(self.method)

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """As `Row.key`."""
        return self.dataset, self.category.name, self.method, self.shots, self.seed


def head_of(method: str) -> str:
    """The file of a trained head in METHOD@HEAD.safetensors; empty without one."""
    after = method.partition("@")[2]
    return after if after.endswith(HEAD_SUFFIX) else ""


def plan(
    datasets: Mapping[str, Dataset], *, methods: Sequence[str], shots: Sequence[int], seeds: Sequence[int]
) -> list[Cell]:
    """Every cell, category by category.

    Without references nothing is drawn: 0 shots have the first seed alone.

    Raises:
        SettingError: for an unknown method or setting, a number of shots below what a method needs, or a seed below 0.
    """
    names = dict.fromkeys(_canonical(text) for text in methods)
    for name in names:
        least = 1 if "@" in name else parse(name).min_references
        if min(shots) < least or min(seeds) < 0:
            got = f"{min(shots)} and {min(seeds)}"
            raise SettingError(f"`shots` must be at least {least} for {name} and `seeds` at least 0, got {got}.")
    return [
        Cell(name, category, method, count, seed)
        for name, dataset in datasets.items()
        for category in dataset.categories
        for seed, count, method in product(sorted(set(seeds)), sorted(set(shots)), names)
        if count or seed == min(seeds)
    ]


def _canonical(text: str) -> str:
    """METHOD, METHOD@TRAINING or METHOD@HEAD.safetensors, each with the settings that differ from the default."""
    method, _, tuning = text.partition("@")
    if head := head_of(text):
        return f"{describe(parse(method))}@{head}"
    return describe(parse(method)) + (f"@{describe(parse_tuning(tuning))}" if tuning else "")


def unfinished(cells: Sequence[Cell], out: Path) -> list[Cell]:
    """The cells that have no result yet; one that failed is tried again."""
    done = {row.key for row in results.read(out / results.RESULTS) if not row.error}
    return [cell for cell in cells if cell.key not in done]


def spoken(category: Category) -> str:
    """A category's name as text prototypes speak of it."""
    return category.name.replace("_", " ")
