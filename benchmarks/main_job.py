"""The main job, measured: image AUROC, verdicts, engines and times; writes main_job.md beside itself.

    python3 scripts/bench main_job --data DIR

DIR holds DATASET/CATEGORY folders in the MVTec AD layout. References are drawn as the protocol says (a seeded
permutation of the sorted names of train/good); labels are used for the metrics alone.
"""

import argparse
import math
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

import handful
from handful import backbones
from handful.data.images import read_picture
from handful.data.layouts.tree import read_category
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation.environment import commit
from handful.metrics import image_auroc

ROWS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("PatchCore", "patchcore", {}),
    ("PatchCore, raw levels", "patchcore", {"level_weights": "raw"}),
    ("PatchCore as its code: 1024 values, maximum", "patchcore", {"dimensions": 1024, "image_score": "max"}),
    ("FastRecon as its code: λ 2, maximum", "fastrecon", {}),
    ("FastRecon, λ 0.5, mean of the top 1 %", "fastrecon", {"lam": 0.5, "share": 0.01}),
)
ENGINES = {  # timm's name → what to call it: a network without its real weights does not carry their name
    "tf_efficientnet_lite0": "tf_efficientnet_lite0, weights on board",
    "resnet18": "a residual network of 18 layers, random weights",
    "wide_resnet50_2": "a wide residual network of 50 layers, random weights",
    "vit_small_patch14_dinov2.lvd142m": "a small vision transformer with 14-pixel patches, random weights",
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", default=["mvtec_ad/pill", "mvtec_ad/bottle"])
    parser.add_argument("--shots", type=int, default=4)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    command = f"python3 scripts/bench main_job --data DIR --categories {' '.join(options.categories)}"
    seeds = " ".join(map(str, options.seeds))
    page = [
        "# The main job, measured",
        f"`{command} --shots {options.shots} --seeds {seeds}`, handful {handful.__version__} at {commit()}, "
        f"torch {torch.__version__}, {platform.machine()}, {torch.get_num_threads()} cores; "
        f"backbone tf_efficientnet_lite0 with its weights on board, 320 x 320.",
        *accuracy(options),
        *engines(),
        *times(options.data / options.categories[0], options.shots),
    ]
    Path(__file__).with_suffix(".md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def accuracy(options: argparse.Namespace) -> list[str]:
    """Image AUROC, mean ± standard deviation over the seeds, and the verdicts at the shipped threshold."""
    table = ["| method | category | image AUROC | by seed | false alarms | misses |", "|---|---|---|---|---|---|"]
    for title, method, settings in ROWS:
        for category in options.categories:
            cells = [cell(options.data / category, method, settings, options.shots, seed) for seed in options.seeds]
            aurocs = [100 * value for value, _, _ in cells]
            spread = statistics.stdev(aurocs) if len(aurocs) > 1 else 0.0
            alarms, misses = (100 * statistics.mean(values) for values in list(zip(*cells, strict=True))[1:])
            by_seed = ", ".join(f"{value:.1f}" for value in aurocs)
            table.append(
                f"| {title} | {category} | {statistics.mean(aurocs):.2f} ± {spread:.2f} | {by_seed} "
                f"| {alarms:.1f} % | {misses:.1f} % |"
            )
            print(table[-1], file=sys.stderr, flush=True)
    return [
        "## Accuracy and verdicts",
        f"{options.shots} references; false alarms and misses at the shipped threshold, which rests on them alone.",
        "\n".join(table),
    ]


def cell(folder: Path, method: str, settings: dict[str, Any], shots: int, seed: int) -> tuple[float, float, float]:
    """Image AUROC, false-alarm rate and miss rate of one fit."""
    category, _ = read_category(folder)
    detector = Detector(method, settings=settings).fit(draw(category.train, shots=shots, seed=seed))
    inspections = detector.inspect([sample.path for sample in category.test])
    truth = [bool(sample.anomalous) for sample in category.test]
    rejected = [inspection.verdict == "DEFECT" for inspection in inspections]
    alarms = [out for out, bad in zip(rejected, truth, strict=True) if not bad]
    misses = [not out for out, bad in zip(rejected, truth, strict=True) if bad]
    scores = [math.nan if inspection.score is None else inspection.score for inspection in inspections]
    auroc = image_auroc(truth, scores)
    return auroc, statistics.mean(alarms), statistics.mean(misses)


def engines() -> list[str]:
    """Milliseconds a picture on both engines, side by side, and how far their features differ."""
    table = ["| network | torch / openvino time | largest difference |", "|---|---|---|"]
    for name, title in ENGINES.items():
        weights = "auto" if name == backbones.DEFAULT_BACKBONE else "random"
        fast = backbones.create(name, weights=weights, engine="openvino")
        slow = backbones.load(fast.spec, fast.parts, engine="torch", device="cpu")
        image = torch.rand(1, 3, *fast.spec.size, generator=torch.Generator().manual_seed(0))
        ratios = []
        for _ in range(15):
            begin = time.perf_counter()
            one = fast(image)
            middle = time.perf_counter()
            other = slow(image)
            ratios.append((time.perf_counter() - middle) / (middle - begin))
        off = max(float((a - b).abs().max() / b.abs().max()) for a, b in zip(one.levels, other.levels, strict=True))
        table.append(f"| {title} | {statistics.median(ratios):.1f} | {off:.0e} of the largest value |")
    return [
        "## OpenVINO against torch on the CPU, float32",
        "Median of 15 pairs, one picture at a time.",
        "\n".join(table),
    ]


def times(folder: Path, shots: int) -> list[str]:
    """Whole commands from a cold start, and where an inspection's time goes."""
    category, _ = read_category(folder)
    references = draw(category.train, shots=shots, seed=0)
    with tempfile.TemporaryDirectory() as scratch:
        inspector = f"{scratch}/inspector.handful"
        fits = [timed("fit", *references, "-o", inspector) for _ in range(3)]
        cold = [timed("inspect", inspector, category.test[0].path) for _ in range(5)]
        megabytes = Path(inspector).stat().st_size / 1e6
        detector = Detector.load(inspector)
        detector.inspect(category.test[0].path)
        backbone = backbones.create()
    image = torch.from_numpy(Preprocessing(detector.backbone_spec.size)(read_picture(category.test[0].path)))[None]
    shares = []
    for sample in category.test[:30]:
        begin = time.perf_counter()
        detector.inspect(sample.path)
        middle = time.perf_counter()
        backbone(image)
        shares.append((middle - begin) / (time.perf_counter() - middle))
    return [
        "## Times",
        f"{folder.parent.name}/{folder.name}, {shots} references; medians on a shared machine, for orientation only.",
        f"- `handful fit`, start-up included: {statistics.median(fits):.1f} s of 3 runs\n"
        f"- `handful inspect` of one picture from a cold start: {statistics.median(cold):.1f} s of 5 runs\n"
        f"- a whole inspection (reading, features, search, map, verdict) takes {statistics.median(shares):.1f} times "
        f"the backbone alone\n"
        f"- saved inspector: {megabytes:.1f} MB, its backbone included",
    ]


def timed(*arguments: str) -> float:
    """Seconds of one command, started afresh."""
    begin = time.perf_counter()
    done = subprocess.run([sys.executable, "-m", "handful", *arguments], capture_output=True)
    if done.returncode > 1:
        sys.exit(done.stderr.decode())
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
