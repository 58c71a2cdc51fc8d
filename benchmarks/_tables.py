"""What the benchmarks' tables share: the data sets that are wanted, and means with their spread over seeds."""

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from handful.data.layouts.registry import open_dataset
from handful.types import Dataset

Item = TypeVar("Item")


def chosen(
    data: Path, categories: Sequence[str] | None = None, *, names: Sequence[str] | None = None
) -> dict[str, Dataset]:
    """The data sets of a folder by name, all or some, with the categories wanted."""
    folders = [data / name for name in names] if names else sorted(path for path in data.iterdir() if path.is_dir())
    datasets = {path.name: open_dataset(path) for path in folders}
    if not categories:
        return datasets
    smaller = {
        name: replace(dataset, categories=tuple(c for c in dataset.categories if c.name in categories))
        for name, dataset in datasets.items()
    }
    return {name: dataset for name, dataset in smaller.items() if dataset.categories}


def evenly(items: Sequence[Item], most: int) -> list[Item]:
    """At most so many, from all over the list."""
    rows = np.unique(np.linspace(0, len(items) - 1, min(most, len(items))).round().astype(int))
    return [items[row] for row in rows]


def over_seeds(values: Iterable[tuple[int, float | None]]) -> str:
    """Of (seed, value), the mean within each seed, then mean ± standard deviation over them; None does not count."""
    by_seed: dict[int, list[float]] = {}
    for seed, value in values:
        if value is not None:
            by_seed.setdefault(seed, []).append(value)
    return spread([statistics.mean(of_seed) for of_seed in by_seed.values()])


def spread(values: Sequence[float]) -> str:
    """Mean ± standard deviation, with one decimal."""
    if not values:
        return "-"
    return f"{statistics.mean(values):.1f}" + (f" ± {statistics.stdev(values):.1f}" if len(values) > 1 else "")
