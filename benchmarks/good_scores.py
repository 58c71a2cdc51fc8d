"""How good parts score, and how the shipped threshold does: writes good_scores_METHOD.md beside itself.

    python3 scripts/bench good_scores --data DIR

DIR holds DATASET/CATEGORY folders in the MVTec AD layout. The first table rests on good pictures alone; it is where the
assumptions at the top of handful/decision.py come from. The second uses labels, to measure the threshold and nothing
else.
"""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

import handful
from handful import backbones, decision, methods, turning
from handful.backbones.base import Backbone
from handful.benchmark.environment import commit
from handful.data.images import read_picture
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.data.tree import read_category
from handful.learning import MAX_VIEWS, fit, prior
from handful.ops.views import mild_views
from handful.types import Features

MOST_TESTED = 60  # pictures of either kind in a category: enough for a rate in percent
RATES = (0.01, 0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--method", default="handful", help="with settings as `handful bench` takes them")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1])
    options = parser.parse_args()
    backbone = backbones.create()
    cells: list[Cell] = []
    for folder in sorted(path.parent for path in options.data.glob("*/*/test")):
        cells += category_cells(folder, backbone, options.method, options.shots, options.seeds)
        print(folder, file=sys.stderr, flush=True)
    shots, seeds = (" ".join(map(str, values)) for values in (options.shots, options.seeds))
    command = f"python3 scripts/bench good_scores --data DIR --method {options.method} --shots {shots} --seeds {seeds}"
    page = [
        "# Good parts' scores and the shipped threshold",
        f"`{command}`, handful {handful.__version__} at {commit()}, "
        f"tf_efficientnet_lite0 with its weights on board, 320 x 320; {len({cell.category for cell in cells})} "
        f"categories, at most {MOST_TESTED} good and {MOST_TESTED} defective pictures of each.",
        *assumptions(cells),
        *verdicts(cells),
    ]
    name = options.method.partition(":")[0]
    Path(__file__).with_name(f"good_scores_{name}.md").write_text("\n\n".join(page) + "\n")
    print("\n\n".join(page))


class Cell:
    """One category, number of references and seed: scores of the test pictures and of the references' views."""

    def __init__(
        self,
        category: str,
        shots: int,
        references: NDArray[np.float64],
        peaks: NDArray[np.float64],
        good: NDArray[np.float64],
        bad: NDArray[np.float64],
        prior: decision.Prior,
    ) -> None:
        self.category, self.shots, self.references, self.peaks = category, shots, references, peaks
        self.good, self.bad, self.prior = good, bad, prior

    @property
    def beyond(self) -> float:
        """How far a typical good test picture lies beyond the references' views: ratio of medians."""
        return float(np.median(self.good) / np.median(self.references))

    @property
    def off(self) -> float:
        """At one reference, how far the logarithm of `beyond` lies from what is assumed, in its standard deviations."""
        return math.log(self.beyond / self.prior.widening) / self.prior.widening_spread

    @property
    def calibrated(self) -> float:
        """The calibrated score of a typical good test picture: 0 is what it should be, 1 the threshold at 5 %."""
        calibration = decision.calibrate(self.references, self.peaks, false_alarm_rate=0.05, prior=self.prior)
        return calibration.calibrated(float(np.median(self.good)))

    @property
    def spread(self) -> float:
        """Standard deviation of the log scores of good test pictures."""
        return float(np.log(self.good).std())

    def rates(self, rate: float) -> tuple[float, float, float]:
        """Measured false-alarm and miss rate, and the miss rate of the oracle threshold with `rate` false alarms."""
        threshold = decision.calibrate(self.references, self.peaks, false_alarm_rate=rate, prior=self.prior).threshold
        oracle = np.quantile(self.good, 1 - rate, method="higher")
        alarms, misses = (self.good > threshold).mean(), (self.bad <= threshold).mean()
        return float(alarms), float(misses), float((self.bad <= oracle).mean())


def category_cells(
    folder: Path, backbone: Backbone, method: str, shots: Sequence[int], seeds: Sequence[int]
) -> list[Cell]:
    """Every cell of one category; the test pictures' features are computed once."""
    category, _ = read_category(folder)
    preprocessing = Preprocessing(backbone.spec.size)
    kinds = [[s.path for s in category.test if s.anomalous is kind][:MOST_TESTED] for kind in (False, True)]
    good, bad = (
        [backbone(torch.from_numpy(preprocessing(read_picture(path)))[None]) for path in paths] for paths in kinds
    )
    cells = []
    for count in shots:
        for seed in seeds if count <= len(category.train) else ():
            pictures = [read_picture(path) for path in draw(category.train, shots=count, seed=seed)]
            images = [torch.from_numpy(preprocessing(picture)) for picture in pictures]
            views = [[backbone(view[None]) for view in mild_views(image, MAX_VIEWS)] for image in images]
            upright = [of_picture[0] for of_picture in views]
            fitted = methods.parse(method)
            aspects = [picture.aspect for picture in pictures]
            turned = []
            if turning.decide(fitted.turn_wanted, images, upright, backbone, aspects=aspects).turned:
                turned = [
                    turning.learn(image, of_it, backbone, aspect=aspect)
                    for image, of_it, aspect in zip(images, upright, aspects, strict=True)
                ]
            references, peaks = fit(fitted, views, (), turned)
            name = f"{folder.parent.name}/{folder.name}"
            found = scores(fitted, good), scores(fitted, bad)
            cells.append(Cell(name, count, references, peaks, *found, prior(fitted, upright)))
    return cells


def scores(method: methods.Method, features: list[Features]) -> NDArray[np.float64]:
    """The image scores of some pictures."""
    return np.array([float(method.score(picture).image[0]) for picture in features])


def assumptions(cells: list[Cell]) -> list[str]:
    """What good pictures alone say, as quantiles over categories and seeds."""
    table = [
        "| quantity | references | least | quarter | half | three quarters | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, values in (
        ("typical good test score over that of the references' views", [(cell.shots, cell.beyond) for cell in cells]),
        (
            "how far that is from what is assumed, in its deviations",
            [(1, cell.off) for cell in cells if cell.shots == 1],
        ),
        ("calibrated typical good test score, at 5 %", [(cell.shots, cell.calibrated) for cell in cells]),
        ("standard deviation of the log scores of good test pictures", [(cell.shots, cell.spread) for cell in cells]),
    ):
        for count in sorted({shots for shots, _ in values}):
            quantiles = np.quantile([value for shots, value in values if shots == count], [0, 0.25, 0.5, 0.75, 1])
            table.append(f"| {title} | {count} | {' | '.join(f'{q:.2f}' for q in quantiles)} |")
    note = (
        "With two or more references a view is scored by an inspector that had not seen its picture. With one, "
        "the inspector had seen it, and where the method can compare a picture's places with one another, that score "
        "and the views' count alike: this is the factor that a single reference's threshold is widened by."
    )
    return ["## Good pictures alone", note, "\n".join(table)]


def verdicts(cells: list[Cell]) -> list[str]:
    """Rates at the shipped threshold, mean over categories and seeds, and the worst categories."""
    table = [
        "| asked for | references | false alarms | in the worst category | misses | misses of the oracle threshold |",
        "|---|---|---|---|---|---|",
    ]
    for rate in RATES:
        for count in sorted({cell.shots for cell in cells}):
            some = [cell for cell in cells if cell.shots == count]
            alarms, misses, oracle = np.array([cell.rates(rate) for cell in some]).T
            worst = max(
                (float(np.mean([c.rates(rate)[0] for c in some if c.category == name])), name)
                for name in {cell.category for cell in some}
            )
            table.append(
                f"| {100 * rate:g} % | {count} | {100 * alarms.mean():.1f} % | {100 * worst[0]:.0f} % ({worst[1]}) "
                f"| {100 * misses.mean():.1f} % | {100 * oracle.mean():.1f} % |"
            )
    note = "The oracle threshold is the one that gives the rate asked for on the test pictures themselves."
    return ["## The shipped threshold", note, "\n".join(table)]


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
