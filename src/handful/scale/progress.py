"""The progress of a run, from the summaries of its shards."""

import time
from collections import deque
from dataclasses import dataclass, field
from itertools import pairwise
from statistics import median

from handful.scale.worker import ShardSummary

LAST = 50  # shards whose median time foretells the rest


@dataclass
class Progress:
    """The state of a run.

    Attributes:
        pictures: the number of all planned pictures.
        done: the number of pictures whose part exists.
        shards_left: the number of shards without a part.
        errors: the number of pictures with an error, of those scored now.
        scored: the number of pictures scored now.
    """

    pictures: int
    done: int
    shards_left: int
    errors: int = 0
    scored: int = 0
    _began: float = field(default_factory=lambda: time.monotonic())
    _last: deque[tuple[float, int]] = field(default_factory=lambda: deque(maxlen=LAST))  # time of its end, pictures

    def add(self, summary: ShardSummary) -> None:
        """Count a shard."""
        self.done += summary.pictures
        self.scored += summary.pictures
        self.shards_left -= 1
        self.errors += sum(summary.errors.values())
        self._last.append((time.monotonic(), summary.pictures))

    @property
    def per_second(self) -> float:
        """Pictures a second since the start."""
        return self.scored / max(time.monotonic() - self._began, 1e-9)

    @property
    def seconds_left(self) -> float | None:
        """The time left, from the median time between the last shards' ends; None before two shards have ended."""
        if len(self._last) < 2:
            return None
        ends = [end for end, _ in self._last]
        return self.shards_left * median(after - before for before, after in pairwise(ends))
