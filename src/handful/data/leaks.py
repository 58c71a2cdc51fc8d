"""Leaks: test pictures of a data set whose files equal training pictures."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path

from handful.data.layouts.tree import relative
from handful.errors import ImageError
from handful.types import Category, Dataset


def leaks(dataset: Dataset) -> tuple[str, ...]:
    """A sentence on each test picture whose file equals, byte for byte, a training picture's of its category.

    Raises:
        ImageError: if a picture cannot be read.
    """
    root = Path(dataset.root)
    return tuple(
        f"{category.name}: {relative(test, root)} is the same file as the training picture {relative(train, root)}: "
        f"a leak."
        for category in dataset.categories
        for train, test in _equal(category)
    )


def _equal(category: Category) -> list[tuple[str, str]]:
    """Pairs of a training and a test picture of equal files, with the first training picture for each test picture."""
    tested = [sample.path for sample in category.test]
    try:
        train, test = _by_length(category.train), _by_length(tested)
        alike = [path for length in train.keys() & test for path in (*train[length], *test[length])]
        digests = {path: hashlib.sha256(Path(path).read_bytes()).digest() for path in alike}
    except OSError as error:
        raise ImageError(f"{error.filename} must be readable, got: {error.strerror}; check the path.") from error
    learnt = {digests[path]: path for path in reversed(category.train) if path in digests}
    return [(learnt[digests[path]], path) for path in tested if digests.get(path) in learnt]


def _by_length(paths: Iterable[str]) -> dict[int, list[str]]:
    """Paths by the lengths of their files in bytes; files of different lengths need not be compared."""
    lengths: dict[int, list[str]] = defaultdict(list)
    for path in paths:
        lengths[Path(path).stat().st_size].append(path)
    return lengths
