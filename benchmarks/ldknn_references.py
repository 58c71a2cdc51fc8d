"""REB's LDKNN and its settings, measured on good training pictures alone: writes papers/reb/ldknn_references.md.

    python3 scripts/bench ldknn_references --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. Of each category only the good training
pictures are read: some are references, and others are scored twice, as they are and with a synthetic defect. No test
picture and no label is seen, so that defaults may be chosen here and measured elsewhere.
"""

import argparse
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import backbones
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.layouts.registry import open_dataset
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.evaluation.environment import commit
from handful.methods.reb.scoring import REB, Correction, corrected, squares_to_others, window_peak
from handful.metrics import PixelCounts, image_auroc, pixel_truth
from handful.ops.defects import RECIPES, make_defect
from handful.ops.foreground import foreground
from handful.ops.maps import pixel_map, top_share
from handful.ops.neighbors import Bank
from handful.ops.patches import level_scales, patch_vectors
from handful.types import Category, Features, TrueRegion
from handful.version import __version__

SHOTS, SEEDS = (1, 2, 4, 8), (0, 1)
HELD_OUT = 8  # good pictures of a category and seed that are scored
STEP = 4  # every fourth pixel each way counts for the pixel metrics: its neighbours say the same
IMAGE_SCORES: dict[str, Callable[[Tensor], Tensor]] = {
    "top_share": lambda patches: top_share(patches, share=0.01),
    "mended": lambda patches: window_peak(patches, mended=True),
    "authors": lambda patches: window_peak(patches, mended=False),
    "maximum": lambda patches: top_share(patches, share=0.0),
}
METRICS = (*IMAGE_SCORES, "pixel AUROC", "pixel AP")


@dataclass(frozen=True)
class Setting:
    """One of LDKNN's; α 0 is the squared distance alone."""

    alpha: float = 0.0
    neighbours: int = 9
    radius: int = 0
    correction: Correction = "difference"

    @property
    def title(self) -> str:
        """In words."""
        if self.alpha == 0:
            return "alpha 0: squared distances"
        return f"{self.correction}, alpha {self.alpha:g}, K {self.neighbours}, radius {self.radius}"


ALPHAS, NEIGHBOURS, RADII = (0.25, 0.5, 1.0), (3, 9), (0, 1, 2)
PLAIN, AUTHORS = Setting(), Setting(alpha=1.0)
SHIPPED = Setting(REB().alpha, REB().neighbours, REB().exclude_radius, REB().correction)
SETTINGS = (
    PLAIN,
    *(Setting(alpha, count, radius) for count, radius, alpha in product(NEIGHBOURS, RADII, ALPHAS)),
    *(Setting(alpha, count, radius, "ratio") for count, radius, alpha in product(NEIGHBOURS, RADII, ALPHAS[1:])),
)

Cell = tuple[str, int]  # a category and how many references
Results = dict[Cell, dict[Setting, dict[str, list[float]]]]  # by metric, a value for each seed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    options = parser.parse_args()
    backbone = backbones.create()
    results: Results = defaultdict(lambda: defaultdict(lambda: defaultdict(list)))
    start = time.monotonic()
    for folder in sorted(path for path in options.data.iterdir() if path.is_dir()):
        for category, seed in product(open_dataset(folder).categories, SEEDS):
            name = f"{folder.name}/{category.name}"
            for shots, setting, values in category_values(category, backbone, seed):
                for metric, value in values.items():
                    results[name, shots][setting][metric].append(value)
            print(f"{name}, seed {seed}, {time.monotonic() - start:.0f} s", file=sys.stderr, flush=True)
    categories = sorted({name for name, _ in results})
    page = [
        "# LDKNN's settings on good pictures alone",
        f"`python3 scripts/bench ldknn_references --data DIR`, handful {__version__} at {commit()}, "
        f"tf_efficientnet_lite0 with its weights on board, 320 x 320; {len(categories)} categories, "
        f"{', '.join(map(str, SHOTS))} references, seeds {', '.join(map(str, SEEDS))}, up to {HELD_OUT} other good "
        f"training pictures, each scored as it is and with one of REB's synthetic defects, kind after kind. "
        f"A category that has fewer pictures takes part with fewer references.",
        *all_settings(results),
        *gains(results),
    ]
    (Path(__file__).parent / "papers" / "reb" / "ldknn_references.md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


def category_values(
    category: Category, backbone: Backbone, seed: int
) -> Iterator[tuple[int, Setting, dict[str, float]]]:
    """Every number of references with every setting, for one draw."""
    preprocessing = Preprocessing(backbone.spec.size)
    order = draw(category.train, shots=len(category.train), seed=seed)
    counts = [count for count in SHOTS if count < len(order)]
    references = [backbone(torch.from_numpy(preprocessing(read_picture(path)))[None]) for path in order[: counts[-1]]]
    frames = [preprocessing(read_picture(path)) for path in order[counts[-1] :][:HELD_OUT]]
    held_out = [(255 * frame).round().astype(np.uint8).transpose(1, 2, 0) for frame in frames]  # (H, W, 3)
    defective, masks = with_defects(held_out, np.random.default_rng(seed))
    queries = [
        backbone(torch.from_numpy(picture).permute(2, 0, 1)[None].float() / 255) for picture in [*held_out, *defective]
    ]
    for count in counts:
        levels = tuple(
            torch.cat(level) for level in zip(*(picture.levels for picture in references[:count]), strict=True)
        )
        for setting, patch_scores in scored(levels, queries):
            yield count, setting, measured(patch_scores, masks)


def with_defects(
    pictures: Sequence[NDArray[np.uint8]], generator: np.random.Generator
) -> tuple[list[NDArray[np.uint8]], list[NDArray[np.bool_]]]:
    """Each picture with a defect, the recipes in turn, cuts from any of them; and where it is."""
    parts = [foreground(picture) for picture in pictures]
    made = []
    for row, (picture, part) in enumerate(zip(pictures, parts, strict=True)):
        other = int(generator.integers(len(pictures)))
        recipe = RECIPES[row % len(RECIPES)]
        made.append(
            make_defect(
                picture,
                part,
                recipe=recipe,
                generator=generator,
                source=pictures[other],
                source_foreground=parts[other],
            )
        )
    return [picture for picture, _ in made], [mask for _, mask in made]


def scored(levels: tuple[Tensor, ...], queries: Sequence[Features]) -> Iterator[tuple[Setting, Tensor]]:
    """The queries' patch scores (N, h, w) by every setting; the search for the nearest patches is done once."""
    scales = level_scales(levels, weights="equal")
    patches = patch_vectors(levels, scales, neighbourhood=3, dimensions=None)
    bank, grid = Bank(patches.flatten(0, 2)), patches.shape[1:3]
    found = []
    for query in queries:
        rows = patch_vectors(query.levels, scales, neighbourhood=3, dimensions=None).flatten(0, 2)
        found.append(bank.nearest(rows))
    squares = torch.cat([distances[:, 0] for distances, _ in found]).square()
    nearest_rows = torch.cat([indices[:, 0] for _, indices in found])
    others = {radius: squares_to_others(patches, neighbours=max(NEIGHBOURS), exclude_radius=radius) for radius in RADII}
    for setting in SETTINGS:
        density = others[setting.radius][:, : setting.neighbours].mean(1)[nearest_rows]
        values = corrected(squares, density, alpha=setting.alpha, correction=setting.correction)
        yield setting, values.reshape(len(queries), *grid)


def measured(patch_scores: Tensor, masks: Sequence[NDArray[np.bool_]]) -> dict[str, float]:
    """The metrics in percent of pictures of which the first half are good and the others have these masks."""
    size = masks[0].shape
    truth = [False] * len(masks) + [True] * len(masks)
    values = {name: image_auroc(truth, score(patch_scores).numpy()) for name, score in IMAGE_SCORES.items()}
    maps = pixel_map(patch_scores, (size[0], size[1]), sigma=4.0)[:, ::STEP, ::STEP].flatten(0, 1).numpy()
    found = np.concatenate([np.zeros_like(masks), masks])[:, ::STEP, ::STEP].reshape(maps.shape)
    counts = PixelCounts()
    counts.add(maps, pixel_truth([TrueRegion(found)], maps.shape), name="all pictures, one above the other")
    values |= {"pixel AUROC": counts.auroc(), "pixel AP": counts.average_precision()}
    return {name: 100 * value for name, value in values.items()}


def all_settings(results: Results) -> list[str]:
    """Every setting by every metric, the mean over categories."""
    lines = [f"| setting | {' | '.join(METRICS)} |", "|---|" + "---|" * len(METRICS)]
    for setting in SETTINGS:
        cells = [statistics.mean(by_category(results, setting, metric, SHOTS).values()) for metric in METRICS]
        lines.append(f"| {setting.title} | {' | '.join(f'{cell:.2f}' for cell in cells)} |")
    note = (
        "In percent: image AUROC by each image score, and the metrics of the map; means over seeds, numbers of "
        "references and then categories."
    )
    return ["## All settings", note, "\n".join(lines)]


def gains(results: Results) -> list[str]:
    """What the shipped settings and the authors' change, category by category."""
    lines = [
        f"| over alpha 0 | metric | all | {' | '.join(f'k = {shots}' for shots in SHOTS)} |",
        "|---|---|---|" + "---|" * len(SHOTS),
    ]
    for name, setting in (("as shipped", SHIPPED), ("the authors' values", AUTHORS)):
        for metric in METRICS:
            cells = [gain(results, setting, metric, PLAIN, metric, shots) for shots in (SHOTS, *((n,) for n in SHOTS))]
            lines.append(f"| {name}: {setting.title} | {metric} | {' | '.join(cells)} |")
    for score in list(IMAGE_SCORES)[1:]:
        cells = [gain(results, SHIPPED, score, SHIPPED, "top_share", n) for n in (SHOTS, *((n,) for n in SHOTS))]
        lines.append(f"| as shipped, {score} over top_share | image AUROC | {' | '.join(cells)} |")
    note = "Mean difference over categories ± its standard error, and in how many of them it is above and below 0."
    return ["## What it gains", note, "\n".join(lines)]


def gain(results: Results, setting: Setting, metric: str, base: Setting, base_metric: str, shots: Sequence[int]) -> str:
    """How one setting by one metric does beside another, in words."""
    values, base_values = (by_category(results, *which, shots) for which in ((setting, metric), (base, base_metric)))
    differences = [values[name] - base_values[name] for name in values]
    error = statistics.stdev(differences) / len(differences) ** 0.5
    better, worse = (sum(sign * value > 0 for value in differences) for sign in (1, -1))
    return f"{statistics.mean(differences):+.2f} ± {error:.2f} ({better}, {worse})"


def by_category(results: Results, setting: Setting, metric: str, shots: Sequence[int]) -> dict[str, float]:
    """A metric's mean over seeds and numbers of references, by category."""
    values: dict[str, list[float]] = defaultdict(list)
    for (name, count), of_cell in results.items():
        if count in shots:
            values[name] += of_cell[setting][metric]
    return {name: statistics.mean(found) for name, found in values.items()}


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
