"""The scores of a report as a histogram whose bins are the same in every report."""

import statistics
from collections import Counter
from dataclasses import dataclass

from handful.types import Verdict

LOWEST, HIGHEST, WIDTH = -1.0, 4.0, 0.25  # the threshold, 1, is the edge of two bins; both outermost bins are open
_BINS = round((HIGHEST - LOWEST) / WIDTH) + 2
STACKED = (Verdict.OK, Verdict.RETAKE, Verdict.DEFECT)  # from the bottom of a bar


@dataclass(frozen=True)
class Bar:
    """The number of pictures of each verdict with a score in a bin.

    Attributes:
        words: the bin in words.
        parts: for each verdict with at least one picture: the verdict, the count, and the count of the verdicts below
            in the bar.
    """

    words: str
    parts: tuple[tuple[Verdict, int, int], ...]

    @property
    def count(self) -> int:
        return sum(count for _, count, _ in self.parts)

    def of(self, verdict: Verdict) -> int:
        """The number of pictures with this verdict."""
        return sum(count for each, count, _ in self.parts if each == verdict)


class Histogram:
    """The counts of scores by bin and verdict.

    Attributes:
        verdicts: the verdicts of a bar, from the bottom.
    """

    verdicts = STACKED

    def __init__(self) -> None:
        self._counts: Counter[tuple[int, Verdict]] = Counter()
        self._scores: list[float] = []

    def add(self, score: float, verdict: Verdict) -> None:
        """Count a score; a bin includes its upper edge, since a score equal to the threshold is not above it."""
        inner = -int(-(score - LOWEST) // WIDTH) if score > LOWEST else 0  # rounded up
        self._counts[min(inner, _BINS - 1), verdict] += 1
        self._scores.append(score)

    @property
    def bars(self) -> list[Bar]:
        """The bars of all bins, empty bins too, from the lowest scores."""
        found = []
        for number in range(_BINS):
            low, high = LOWEST + (number - 1) * WIDTH, LOWEST + number * WIDTH
            words = f"above {low:g} up to {high:g}"
            if number == 0:
                words = f"up to {LOWEST:g}"
            elif number == _BINS - 1:
                words = f"above {HIGHEST:g}"
            parts, below = [], 0
            for verdict in STACKED:
                if count := self._counts[number, verdict]:
                    parts.append((verdict, count, below))
                    below += count
            found.append(Bar(words, tuple(parts)))
        return found

    @property
    def threshold_at(self) -> float:
        """The place of the threshold, as a share of the width of all bins."""
        return ((1 - LOWEST) / WIDTH + 1) / _BINS

    @property
    def words(self) -> str:
        """The histogram in words; empty without a score."""
        if not self._scores:
            return ""
        above = sum(score > 1 for score in self._scores)
        lowest, middle, highest = min(self._scores), statistics.median(self._scores), max(self._scores)
        named = f"{len(self._scores)} scores" if len(self._scores) > 1 else "1 score"
        return (
            f"{named}: {len(self._scores) - above} at or below the threshold of 1, {above} above it; "
            f"lowest {lowest:.2f}, median {middle:.2f}, highest {highest:.2f}."
        )
