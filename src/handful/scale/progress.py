"""The progress of a run, from the summaries of its shards."""

import time
from collections import deque
from collections.abc import Iterable, Sequence
from itertools import pairwise
from statistics import median

from handful.scale.worker import ShardSummary

LAST = 50  # shards whose median time foretells the rest


class Progress:
    """The state of a run.

    Args:
        sizes: the number of pictures of each shard of the run.
        left: the numbers of the shards that are scored now.

    Attributes:
        pictures: the number of all planned pictures.
        done: the number of pictures outside the shards that are left.
        shards_left: the number of shards that are left.
        errors: the number of pictures with an error, of those scored now.
    """

    def __init__(self, sizes: Sequence[int], left: Iterable[int]) -> None:
        self._sizes = sizes
        waiting = list(left)
        self.pictures, self.shards_left, self.errors = sum(sizes), len(waiting), 0
        self.done = self._before = self.pictures - sum(sizes[shard] for shard in waiting)
        self._began = time.monotonic()
        self._ends = deque[float](maxlen=LAST)

    def add(self, summary: ShardSummary) -> None:
        """Count a shard, also where another command has written its part meanwhile."""
        self.done += self._sizes[summary.shard]
        self.shards_left -= 1
        self.errors += sum(summary.errors.values())
        self._ends.append(time.monotonic())

    @property
    def per_second(self) -> float:
        """Pictures a second since the start."""
        return (self.done - self._before) / max(time.monotonic() - self._began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """The time left, from the median time between the last shards' ends; None before two shards have ended."""
        if len(self._ends) < 2:
            return None
        return self.shards_left * median(after - before for before, after in pairwise(self._ends))
