"""Contestants that take turns, and what came of it."""

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import numpy as np

Run = Callable[[int], object]  # with the number of the picture, which it may take modulo what it has
Rows = list[dict[str, Any]]
Item = TypeVar("Item")


def in_turn(contestants: Mapping[str, Run], rounds: int, *, warm: bool = True) -> dict[str, list[float]]:
    """Seconds of every contestant in every round; `warm` runs each before it is timed, as the picture before would."""
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
    """Median and quartiles of every contestant in multiples of one's median, a row each."""
    unit = statistics.median(seconds[by])
    rows = []
    for name, values in seconds.items():
        low, middle, high = (float(value) / unit for value in np.quantile(values, (0.25, 0.5, 0.75)))
        rows.append({**about, "name": name, "low": low, "middle": middle, "high": high})
    return rows


def each(run: Callable[[Item], object], items: Sequence[Item]) -> Run:
    """A contestant that takes one item after the other."""
    return lambda number: run(items[number % len(items)])
