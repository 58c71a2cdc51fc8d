"""Timing of contestants that take turns, and their medians and quartiles."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Run = Callable[[int], object]  # called with the number of a picture, which a contestant takes modulo its pictures
Rows = list[dict[str, Any]]
Item = TypeVar("Item")


def in_turn(contestants: Mapping[str, Run], rounds: int, *, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of every contestant in every round; with `warm`, each contestant runs once before it is timed."""
    seconds: dict[str, list[float]] = {name: [] for name in contestants}
    for number in range(rounds):
        for name, run in contestants.items():
            if warm:
                run(number)
            begin = time.perf_counter()
            run(number + 1)
            seconds[name].append(time.perf_counter() - begin)
    return seconds


def in_multiples(seconds: Mapping[str, Sequence[float]], by: str, **about: Any) -> Rows:
    """Median and quartiles of every contestant, in multiples of the median of contestant `by`, a row each."""
    unit = statistics.median(seconds[by])
    rows = []
    for name, values in seconds.items():
        low, middle, high = (float(value) / unit for value in np.quantile(values, (0.25, 0.5, 0.75)))
        rows.append({**about, "name": name, "low": low, "middle": middle, "high": high})
    return rows


def each(run: Callable[[Item], object], items: Sequence[Item]) -> Run:
    """A contestant that takes the items in turn."""
    return lambda number: run(items[number % len(items)])
