"""The unused files of a data set's folder: files that are neither pictures nor masks of the data set."""

import os
from collections import defaultdict
from collections.abc import Iterator, Sequence
from functools import cache
from pathlib import Path

from handful.data.layouts.tree import relative, some
from handful.data.listing import LeftOut, list_all
from handful.types import Dataset

LISTS = {  # files that a reader reads besides pictures and masks: the matches of the first pattern with matches
    "kolektor": ("*/[!.]*_GT.*",),  # masks of good pictures
    "loco": ("*/defects_config.json",),
    "manifest": ("manifest.csv", "manifest.jsonl"),
    "meta": ("meta.json",),
    "shanghaitech": ("testing/test_frame_mask/[!.]*.npy",),
    "visa": ("split_csv/1cls.csv",),
}


def unused(dataset: Dataset) -> tuple[LeftOut, ...]:
    """Every file in a data set's folder that is no picture or mask of a category and that its reader does not read.

    Args:
        dataset: a data set whose root is a folder, or a list of pictures in a folder.

    Returns:
        Sorted by path; a hidden folder counts once.

    Raises:
        InputError: if a folder cannot be read.
    """
    folder = _folder(dataset)
    real = cache(os.path.realpath)

    def place(path: Path) -> tuple[str, str]:
        """The real folder of a file, with links resolved, and the file's name."""
        return real(path.parent), path.name

    used = {place(path) for path in (*_lists(dataset), *map(Path, _paths(dataset)))}
    listed = list_all(folder, recursive=True)
    pictures = (LeftOut(str(path), "used by no category") for path in listed.pictures)
    found = (one for one in (*pictures, *listed.left_out) if place(Path(one.path)) not in used)
    return tuple(sorted(found, key=lambda one: one.path))


def sentences(dataset: Dataset, left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    """Sentences on the files left out, by reason, with the number of files and the first names."""
    by_reason: dict[str, list[str]] = defaultdict(list)
    for one in left_out:
        by_reason[one.reason].append(relative(one.path, _folder(dataset)))
    return tuple(f"left out ({len(paths)}), {reason}: {some(paths)}." for reason, paths in sorted(by_reason.items()))


def _paths(dataset: Dataset) -> Iterator[str]:
    for category in dataset.categories:
        yield from category.train
        for sample in category.test:
            yield from (sample.path, *sample.masks)


def _lists(dataset: Dataset) -> list[Path]:
    root = Path(dataset.root)
    if root.is_file():
        return [root]
    return next(filter(None, (list(root.glob(pattern)) for pattern in LISTS.get(dataset.layout, ()))), [])


def _folder(dataset: Dataset) -> Path:
    root = Path(dataset.root)
    return root.parent if root.is_file() else root
