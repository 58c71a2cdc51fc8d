"""An estimate of a paper's hours on this machine: operations divided by the rate of the machine's matrix products.

The operations, counted by hand, are passes of the backbone (test pictures, references and their variations, crops),
trainings (three passes of each picture for forward and backward), the search for nearest patches, and coresets.
Decoding, metrics and figures are left out, and a GPU is not considered. `EFFICIENCY` is the share of NumPy's rate that
the papers' backbones reach (benchmarks/papers/passes.md).
"""

import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from handful.evaluation.papers import PaperBackbone, Settings, Variant
from handful.evaluation.papers.plan import Job, counts

EFFICIENCY = 0.65
SIDE = 768  # side of the matrices whose product measures the rate of this machine
VIEWS, SCORED = 7, 56  # equal `MAX_VIEWS` and `MAX_SCORED_VIEWS` of handful.fitting.calibration, which needs torch
MOST_REFERENCES = 100  # equals `MOST_REFERENCES` of handful.training.head, which needs torch
BACKWARD = 3  # cost of a forward and a backward pass, in forward passes


@dataclass(frozen=True)
class Estimate:
    """The estimated cost of a job.

    Attributes:
        gflop: operations, in 10⁹.
        gigabytes: the most gigabytes of features that the training of a head holds at once; 0 without a training.
        unknown: the data sets that are left out, because their numbers of pictures are not known.
    """

    gflop: float
    gigabytes: float
    unknown: tuple[str, ...]

    def hours(self, rate: float) -> float:
        """The hours at a `rate` of NumPy's matrix products, in 10⁹ operations a second."""
        return self.gflop / (rate * EFFICIENCY) / 3600


def measured_rate() -> float:
    """The rate of NumPy's matrix products on this machine, in 10⁹ operations a second; takes a few tens of ms."""
    matrix = np.ones((SIDE, SIDE), np.float32)
    best = float("inf")
    for _ in range(3):
        begin = time.perf_counter()
        matrix @ matrix
        best = min(best, time.perf_counter() - begin)
    return 2 * SIDE**3 / best / 1e9


def estimate(job: Job) -> Estimate:
    """The estimated cost of a job with all its data sets, given or not."""
    known = {name: counts(job, name) for name in job.run.datasets}
    gflop = sum(_category(job, train, test) for found in known.values() for train, test in found or ())
    gigabytes = 0.0
    unknown = [name for name, found in known.items() if found is None]
    if job.untrained:
        pictures = [min(train, MOST_REFERENCES) + test for train, test in counts(job, job.run.trained_on) or ()]
        held = sum(side**2 * depth for side, depth in _levels(job.backbone)) * 4 / 1e9
        for key in job.untrained:
            head = job.paper.heads[key.removeprefix(f"{job.run.trained_on}-")]
            shown = sum(pictures) + len(pictures) * head.training.get("pool", 0)
            gflop += shown * job.backbone.gflop + head.training["updates"] * head.gflop
            gigabytes = max(gigabytes, shown * held)
    return Estimate(gflop, gigabytes, tuple(unknown))


def _category(job: Job, train: int, test: int) -> float:
    """The operations of all cells of a category, in 10⁹, for numbers of good training pictures and test pictures."""
    backbone, variants = job.backbone, list(job.variants.values())
    draws = [train if k == "all" else k for k in job.run.shots for _ in (job.run.seeds if k else (0,))]
    total = 0.0
    if any(not variant.tuning for variant in variants):
        crops = max((_crop_passes(backbone, variant.method) for variant in variants), default=0.0)
        total += (1 + crops) * (test + sum(reference_passes(k) for k in draws)) * backbone.gflop
    for variant in variants:
        for k in draws:
            total += variant.method.get("views", 0) * k * backbone.gflop
            total += sum(_search(backbone, variant, k, test))
            if variant.tuning:
                total += (test + reference_passes(k) + _tuning_passes(backbone, variant.tuning)) * backbone.gflop
    return total


def reference_passes(shots: int) -> int:
    """The number of passes for references and their mild variations."""
    return shots * max(1, min(VIEWS, SCORED // max(1, shots)))


def _tuning_passes(backbone: PaperBackbone, tuning: Settings) -> float:
    """The cost of a backbone's training, in forward passes of a picture of the backbone's size."""
    if tuning["name"] == "reb":
        pictures = tuning["sources"] * 7 * tuning["accumulate"]
    else:
        pictures = tuning["pictures"] * (2 if tuning.get("negatives", "none") != "none" else 1)
    return float(tuning["updates"] * pictures * BACKWARD * (tuning["size"] / backbone.size[0]) ** 2)


def _windows(backbone: PaperBackbone, method: Settings) -> int:
    """The number of crops of a picture that a method wants."""
    if method.get("winmode", "none") == "none":
        return 0
    return int((-(-(backbone.grids[0] - method["win_size"]) // method["win_stride"]) + 1) ** 2)


def _crop_passes(backbone: PaperBackbone, method: Settings) -> float:
    """The cost of the crops of a picture, in passes of a whole picture."""
    windows = _windows(backbone, method)
    return float(windows * (method["win_size"] / backbone.grids[0]) ** 2) if windows else 0.0


def _search(backbone: PaperBackbone, variant: Variant, shots: int, test: int) -> Iterator[float]:
    """The costs of the searches for nearest patches in a cell, in 10⁹ operations.

    A search multiplies every patch with every row of the bank.
    """
    method = variant.method
    if variant.head:  # level by level
        for side, depth in _levels(backbone):
            in_crops = _windows(backbone, method) * method.get("win_size", 0) ** 2
            yield 2e-9 * depth * shots * test * ((side**2) ** 2 + in_crops**2)
    elif method["name"] in ("patchcore", "reb", "fastrecon", "coft"):
        rows, depth = shots * backbone.grids[0] ** 2, method.get("dimensions") or sum(backbone.channels)
        kept = method.get("coreset_ratio", 1.0) * rows
        yield 2e-9 * depth * kept * test * backbone.grids[0] ** 2
        if kept < rows:
            yield 2e-9 * depth * kept * rows
        if method["name"] == "reb":
            yield 2e-9 * depth * rows**2


def _levels(backbone: PaperBackbone) -> Iterator[tuple[int, int]]:
    """For each level the side of its grid and its number of channels."""
    yield from zip(backbone.grids, backbone.channels, strict=True)
