"""The cells of a benchmark: data set × category × method × shots × seed."""

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Literal, NamedTuple

from handful.errors import SettingError
from handful.evaluation import results
from handful.methods import Method, describe, made, parse, parse_tuning
from handful.training import head_file
from handful.types import Category, Dataset

HEAD_SUFFIX = ".safetensors"
# The frames of the model's inputs. "references": a frame with the aspect of each cell's references, as `handful fit`
# makes it, of about as many pixels as a square of the backbone's longer side. "exact": the frame of the backbone's
# size. In both frames pictures of another shape keep their aspect. "squeezed": the frame of the backbone's size, to
# which every picture is squeezed, as papers do; cells with a head or without references always use this frame.
Frames = Literal["references", "exact", "squeezed"]
Shots = int | Literal["all"]


class Cell(NamedTuple):
    """A cell of a benchmark, which gives a row of the table.

    Attributes:
        dataset: the name of the data set.
        category: the category of the data set.
        method: the text of the method in the table, with the backbone's training, or the file of a head, after an @.
        shots: the number of references.
        seed: the seed of the references' draw.
        scorer: the method, not fitted and without a head; every run of the cell fits a copy.
    """

    dataset: str
    category: Category
    method: str
    shots: int
    seed: int
    scorer: Method

    @property
    def tuning(self) -> str:
        """The training of the backbone on the references; empty without any."""
        return "" if head_of(self.method) else self.method.partition("@")[2]

    @property
    def head(self) -> str:
        """The file of a trained head, the shipped head's if a method that needs a head names none; empty without."""
        if self.scorer.protocol == "target-only" or "@" in self.method:
            return head_of(self.method)
        return str(head_file.shipped_file(self.scorer.name) or "")

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """The identity of the cell, see `Row.key`."""
        return self.dataset, self.category.name, self.method, self.shots, self.seed


def head_of(method: str) -> str:
    """The file of a trained head in METHOD@HEAD.safetensors; empty without one."""
    after = method.partition("@")[2]
    return after if after.endswith(HEAD_SUFFIX) else ""


def plan(
    datasets: Mapping[str, Dataset], *, methods: Sequence[str | Method], shots: Sequence[Shots], seeds: Sequence[int]
) -> list[Cell]:
    """Every cell of a benchmark, category by category.

    0 shots draw no references, so they have a cell for the lowest seed alone. "all" shots are every good training
    picture of a category. In the table a method given as an object has its name and settings.

    Raises:
        SettingError: for an unknown method or setting, a number of shots below what a method needs, or a seed below 0.
    """
    scorers = dict(_named(method) for method in methods)
    for name, scorer in scorers.items():
        least = 1 if "@" in name else scorer.min_references
        fewest = min((count for count in shots if count != "all"), default=least)
        if fewest < least or min(seeds) < 0:
            got = f"{fewest} and {min(seeds)}"
            raise SettingError(f"`shots` must be at least {least} for {name} and `seeds` at least 0, got {got}.")
    return [
        Cell(name, category, method, count, seed, scorers[method])
        for name, dataset in datasets.items()
        for category in dataset.categories
        for seed, count, method in product(sorted(set(seeds)), counts_of(category, shots), scorers)
        if count or seed == min(seeds)
    ]


def counts_of(category: Category, shots: Sequence[Shots]) -> list[int]:
    """The numbers of references in a category, ascending, "all" replaced by the number of good training pictures."""
    return sorted({len(category.train) if count == "all" else count for count in shots})


def _named(method: str | Method) -> tuple[str, Method]:
    """The name of a method in the table, with the settings that differ from the default, and the method.

    Args:
        method: METHOD, METHOD@TRAINING or METHOD@HEAD.safetensors, or an object.
    """
    if isinstance(method, Method):
        scorer = made(method, None)
        return describe(scorer), scorer
    text, _, after = method.partition("@")
    scorer = parse(text)
    after = head_of(method) or (describe(parse_tuning(after)) if after else "")
    return describe(scorer) + (f"@{after}" if after else ""), scorer


def unfinished(cells: Sequence[Cell], out: Path) -> list[Cell]:
    """The cells without a result, failed cells too."""
    done = {row.key for row in results.read(out / results.RESULTS) if not row.error}
    return [cell for cell in cells if cell.key not in done]


def spoken(category: Category) -> str:
    """A category's name in text prototypes, with spaces for underscores."""
    return category.name.replace("_", " ")
