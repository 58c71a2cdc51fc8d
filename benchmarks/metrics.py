"""The pixel metrics beside their peers, times and values: writes speed/metrics.md.

    python3 scripts/bench metrics

Pictures are synthetic: smooth noise, and discs that stand out of it in every second picture. Peers are torchmetrics'
exact curves (`thresholds=None`) and anomalib's AUPRO; scikit-learn says what is right.
"""

import argparse
import platform
import statistics
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

import handful.backbones.timm  # noqa: F401  # first: with it torchvision, which anomalib needs, imports beside any torch
from handful.evaluation.environment import commit
from handful.metrics import PixelCounts, pixel_truth
from handful.types import TrueRegion
from handful.version import __version__

try:
    from anomalib.metrics import AUPRO
    from torchmetrics.classification import BinaryAUROC, BinaryAveragePrecision
except ImportError:
    sys.exit("This benchmark compares with anomalib and the torchmetrics that it brings: pip install anomalib==2.7.0")

Maps = NDArray[np.floating]  # (N, H, W)
Masks = NDArray[np.bool_]  # (N, H, W)

SHAPES: dict[str, Callable[[Maps], Maps]] = {
    "smooth, in (0, 1)": lambda scores: scores,
    "uniform in (0, 1]": lambda scores: rankdata(scores).reshape(scores.shape) / scores.size,
    "heavy tail": lambda scores: np.exp(30 * scores),
    "heavy tails of both signs": lambda scores: np.sinh(30 * (scores - np.median(scores))),
    "tied in 50 steps": lambda scores: np.round(50 * scores),
    "half of them 0": lambda scores: np.maximum(scores - np.median(scores), 0),
    "1000 and as much as 1": lambda scores: 1000 + scores,
    "1000 and as much as 0.01": lambda scores: 1000 + scores / 100,
    "crowded below 1": lambda scores: 1 / (1 + np.exp(-20 * (scores - np.median(scores)))),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[256, 320])
    parser.add_argument("--pictures", type=int, default=60)
    parser.add_argument("--repetitions", type=int, default=5)
    options = parser.parse_args()
    command = (
        f"python3 scripts/bench metrics --sides {' '.join(map(str, options.sides))} --pictures {options.pictures} "
        f"--repetitions {options.repetitions}"
    )
    packages = ("numpy", "scipy", "scikit-learn", "torch", "torchmetrics", "anomalib")
    page = [
        "# The pixel metrics, measured",
        f"`{command}`, handful {__version__} at {commit() or 'an unknown commit'}, "
        f"{', '.join(f'{package} {version(package)}' for package in packages)}, {platform.machine()}, "
        f"{torch.get_num_threads()} cores; {options.pictures} synthetic pictures, 1 to 3 regions in every second one.",
        *times(options.sides, options.pictures, options.repetitions),
        *differences(options.sides[0], options.pictures),
    ]
    (Path(__file__).parent / "speed" / "metrics.md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def draw(side: int, count: int) -> tuple[Maps, Masks]:
    """Scores in (0, 1), which torchmetrics takes as they are, and masks; the same for the same numbers."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:side, :side]
    noise = ndimage.gaussian_filter(random.normal(size=(count, side, side)), (0, 2, 2))
    masks = np.zeros((count, side, side), dtype=bool)
    for mask in masks[1::2]:
        for _ in range(random.integers(1, 4)):
            row, column = random.integers(side // 10, side - side // 10, 2)
            mask |= np.hypot(y - row, x - column) <= random.integers(side // 60, side // 12)
    scores = np.exp(0.5 * noise / noise.std() + 1.2 * ndimage.gaussian_filter(masks.astype(float), (0, 3, 3)))
    return (scores / (1.01 * scores.max())).astype(np.float32), masks


def count_pixels(maps: Maps, masks: Masks) -> PixelCounts:
    """Ours, the truth prepared as well."""
    counts, size = PixelCounts(), masks.shape[1:]
    for index, (values, mask) in enumerate(zip(maps, masks, strict=True)):
        counts.add(values, pixel_truth([TrueRegion(mask)] if mask.any() else [], size), name=str(index))
    return counts


def peer(metric: Any, maps: Maps, masks: Masks) -> float:
    """A peer's number, its pictures added one by one as ours are."""
    for values, mask in zip(torch.from_numpy(maps), torch.from_numpy(masks), strict=True):
        if isinstance(metric, AUPRO):
            batch: Any = SimpleNamespace(anomaly_map=values[None], gt_mask=mask[None])  # all that it looks at
            metric.update(batch)
        else:
            metric.update(values.flatten(), mask.flatten().int())
    return float(metric.compute())


def aupro_of_anomalib() -> Any:
    return AUPRO(fields=["anomaly_map", "gt_mask"])


def times(sides: list[int], count: int, repetitions: int) -> list[str]:
    """How many times as long as ours the peers take, from maps and masks in memory to the number."""
    peers: dict[str, tuple[str, Callable[[PixelCounts], float], Callable[[], Any]]] = {
        "AUROC": ("torchmetrics", PixelCounts.auroc, lambda: BinaryAUROC(thresholds=None, validate_args=False)),
        "average precision": (
            "torchmetrics",
            PixelCounts.average_precision,
            lambda: BinaryAveragePrecision(thresholds=None, validate_args=False),
        ),
        "AUPRO": ("anomalib", PixelCounts.aupro, aupro_of_anomalib),
    }
    table = ["| maps | metric | peer | its time / ours | in the repetitions |", "|---|---|---|---|---|"]
    shares = []
    for side in sides:
        maps, masks = draw(side, count)
        ratios: dict[str, list[float]] = {name: [] for name in (*peers, "all three, one pass of ours")}
        counting = []
        for _ in range(repetitions):
            seconds, counts = timed(lambda: count_pixels(maps, masks))  # noqa: B023
            ours, others = seconds, 0.0
            for name, (_, metric, create) in peers.items():
                mine, _ = timed(lambda: metric(counts))  # noqa: B023
                other, _ = timed(lambda: peer(create(), maps, masks))  # noqa: B023
                ratios[name].append(other / (seconds + mine))
                ours, others = ours + mine, others + other
            ratios["all three, one pass of ours"].append(others / ours)
            counting.append(1000 * seconds / count)
            print(side, {name: round(values[-1], 1) for name, values in ratios.items()}, file=sys.stderr, flush=True)
        for name, values in ratios.items():
            by = peers[name][0] if name in peers else "both"
            spread = f"{min(values):.1f} to {max(values):.1f}"
            table.append(f"| {side} x {side} | {name} | {by} | {statistics.median(values):.1f} | {spread} |")
        shares.append(f"{statistics.median(counting):.2f} ms for {side} x {side}")
    return [
        "## Times",
        f"Medians of {repetitions} repetitions on a shared machine, ours and theirs in turn; peers are given the maps "
        f"one by one and without validation, `thresholds=None`. Ours counts anew for each metric in a row, truth "
        f"included; the last row counts once, as an evaluation does.",
        "\n".join(table),
        f"Ours to add a picture, its truth prepared as well: {', '.join(shares)}.",
    ]


def timed(run: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    begin = time.perf_counter()
    result = run()
    return time.perf_counter() - begin, result


def differences(side: int, count: int) -> list[str]:
    """How far ours lies from the exact value, for scores of many shapes."""
    maps, masks = draw(side, count)
    table = ["| scores | AUROC | average precision | best F1 | AUPRO |", "|---|---|---|---|---|"]
    for name, shape in SHAPES.items():
        shaped = shape(maps.astype(np.float64)).astype(np.float32)
        counts = count_pixels(shaped, masks)
        truth, scores = masks.ravel(), shaped.ravel().astype(np.float64)
        precision, recall, _ = precision_recall_curve(truth, scores)
        f1 = float((2 * precision * recall / np.maximum(precision + recall, 1e-12)).max())
        pairs = (
            (counts.auroc(), roc_auc_score(truth, scores)),
            (counts.average_precision(), average_precision_score(truth, scores)),
            (counts.f1_max(), f1),
            (counts.aupro(), peer(aupro_of_anomalib(), shaped, masks)),
        )
        table.append(f"| {name} | {' | '.join(f'{abs(ours - exact):.0e}' for ours, exact in pairs)} |")
        print(table[-1], file=sys.stderr, flush=True)
    return [
        "## Differences",
        f"Absolute, {side} x {side}, against scikit-learn in float64, and AUPRO against anomalib's, which adds up in "
        f"float32. The same pictures, their scores reshaped.",
        "\n".join(table),
    ]


if __name__ == "__main__":
    main()
