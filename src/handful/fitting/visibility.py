"""The detection rate of synthetic defects at any threshold, from scores that `fit` keeps.

`handful.ops.planting` makes the defects. The rate holds for synthetic defects alone; benchmarks/threshold/synthetic.md
compares the detection rates of synthetic and real defects.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from handful.errors import number_of

LOW = 0.5  # detection rate of synthetic defects below which a warning is given
HALF = 0.5  # share of the spots of a diameter that must be found for the diameter to count as seen


@dataclass(frozen=True)
class Trial:
    """The scores of a good picture without and with a synthetic defect, by a method that has not learnt the picture.

    Attributes:
        kind: the kind of the defect, such as "cut blob" or "spot".
        clean, planted: the raw image score without and with the defect.
        diameter: the diameter of a spot, in pixels of a picture of `Trials.size`; None for any other defect.
    """

    kind: str
    clean: float
    planted: float
    diameter: float | None = None


@dataclass(frozen=True)
class Visibility:
    """The detection of synthetic defects at an inspector's threshold.

    A defect is found if its picture scores above the threshold. A defect on a picture that scores above the threshold
    without the defect does not count.

    Attributes:
        found, counted, tried: the numbers of defects of various shapes that are found, that count, and that were
            planted.
        spots_from: the smallest diameter, in pixels of a picture of `size`, from which on at least half of the spots of
            each diameter tried are found; None if fewer of the largest spots are found.
        spots_tried: the smallest and the largest diameter tried.
        size: width, height of the picture in whose pixels diameters are given.
        single: whether the defects lie on variations of the only reference, which the method has learnt.
        changed: the number of later corrections that changed the learnt pictures or the ignored region.
    """

    found: int
    counted: int
    tried: int
    spots_from: float | None
    spots_tried: tuple[float, float]
    size: tuple[int, int]
    single: bool
    changed: int

    @property
    def words(self) -> str:
        """The detection rate in words, as the object of "finds"."""
        if not self.counted:
            return f"none of {self.tried} synthetic defects, as their pictures score above the threshold without"
        on = "variations of the only reference" if self.single else "references left out"
        more = self.tried - self.counted
        left = f"; {more} more do not count, as their pictures score above the threshold without" if more else ""
        return f"{self.found} of {self.counted} synthetic defects planted on {on}{left}{self._since}"

    @property
    def spot_words(self) -> str:
        """The smallest spots found, in words, as the object of "sees"."""
        least, most = (_pixels(diameter) for diameter in self.spots_tried)
        if self.spots_from is None:
            seen = f"no spots up to {most} pixels across"
        elif self.spots_from == self.spots_tried[0]:
            seen = f"spots from {least} pixels across, the smallest tried"
        else:
            seen = f"spots from about {_pixels(self.spots_from)} pixels across"
        return f"{seen}, in pictures of {self.size[0]} x {self.size[1]}{self._since}"

    @property
    def _since(self) -> str:
        if not self.changed:
            return ""
        return f"; measured at fit, before {number_of(self.changed, 'correction')} of what is learnt"

    @property
    def caution(self) -> str | None:
        """A warning if few defects are found; otherwise None."""
        if not self.counted or self.found >= LOW * self.counted:
            return None
        return (
            f"The inspector finds {self.found} of {self.counted} synthetic defects, so many real ones may pass; fit "
            f"with more references, or a larger `--size` for small defects."
        )

    def as_dict(self) -> dict[str, Any]:
        """The rates as a dictionary for JSON."""
        return asdict(self)


@dataclass(frozen=True)
class Trials:
    """The scores of synthetic defects that `fit` keeps.

    Attributes:
        trials: of defects of various shapes, and of at least one spot.
        size: width, height of the picture in whose pixels diameters are given.
        single: see `Visibility`.
    """

    trials: tuple[Trial, ...]
    size: tuple[int, int]
    single: bool

    def at(self, threshold: float, *, changed: int = 0) -> Visibility:
        """The detection rates at a raw threshold; for `changed` see `Visibility`."""
        counted = [trial for trial in self.trials if trial.clean <= threshold]
        defects = [trial for trial in counted if trial.diameter is None]
        diameters = sorted({trial.diameter for trial in self.trials if trial.diameter is not None})
        seen = None
        for diameter in reversed(diameters):
            spots = [trial for trial in counted if trial.diameter == diameter]
            if not spots or _found(spots, threshold) < HALF * len(spots):
                break
            seen = diameter
        found, tried = _found(defects, threshold), sum(trial.diameter is None for trial in self.trials)
        extremes = diameters[0], diameters[-1]
        return Visibility(found, len(defects), tried, seen, extremes, self.size, self.single, changed)

    def as_dict(self) -> dict[str, Any]:
        """The trials as a dictionary for the manifest of a saved inspector."""
        trials = [{name: value for name, value in asdict(one).items() if value is not None} for one in self.trials]
        return {"trials": trials, "size": list(self.size), "single": self.single}

    @classmethod
    def from_manifest(cls, manifest: Mapping[str, Any]) -> "Trials | None":
        """Read the trials of a saved inspector's manifest; None for an inspector saved without trials.

        Raises:
            KeyError, TypeError, ValueError: if the manifest's trials cannot be read.
        """
        kept = manifest.get("visibility")
        if kept is None:
            return None
        width, height = kept["size"]
        trials = tuple(Trial(**fields) for fields in kept["trials"])
        if not any(trial.diameter is not None for trial in trials):
            raise ValueError("no spots among the synthetic defects")
        return cls(trials, (width, height), kept["single"])


def _found(trials: Sequence[Trial], threshold: float) -> int:
    return sum(trial.planted > threshold for trial in trials)


def _pixels(diameter: float) -> str:
    return f"{diameter:.0f}" if diameter >= 10 else f"{diameter:.2g}"
