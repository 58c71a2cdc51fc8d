"""How far apart REB's adaptation brings good and defective pictures' scores: writes papers/reb/scores.md.

    python3 scripts/bench reb_scores --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. `handful bench` runs plain kNN, on the
backbone as it is and as adapted, on a few categories at 4 references; the page is made from its scores by picture. What
it says of REB: reb.md.
"""

import argparse
import statistics
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from _heads import table
from handful import backbones
from handful.evaluation import results
from handful.evaluation.environment import commit
from handful.evaluation.results import Row

METHODS = {"plain kNN": "reb:alpha=0", "+ adaptation": "reb:alpha=0@reb"}
CATEGORIES = {"elpv": ["poly"], "magnetic_tile": ["tile"], "mvtec_ad": ["bottle", "leather"], "piped": ["fvn01_tl"]}
HEAD = ("category", "method", "image AUROC, %", "median of defective over good", "spread of good")
OUT = Path(__file__).parent / "papers" / "reb" / "scores"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--shots", type=int, nargs="+", default=[4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    options.categories = [name for names in CATEGORIES.values() for name in names]
    command = "python3 scripts/bench reb_scores --data DIR"
    rows = table(
        options, backbones.create(), OUT, target=list(CATEGORIES), methods=list(METHODS.values()), command=command
    )
    lines = [f"| {' | '.join(HEAD)} |", "|---|---|---|---|---|"]
    for dataset, category in sorted({(row.dataset, row.category) for row in rows}):
        for name, method in METHODS.items():
            here = [row for row in rows if (row.category, row.method) == (category, method)]
            lines.append(f"| {dataset}/{category} | {name} | {' | '.join(cells(here))} |")
    shots, seeds = (", ".join(map(str, numbers)) for numbers in (options.shots, options.seeds))
    page = [
        "# What adaptation does to scores",
        f"`{command}`, code at {commit()}, {shots} references, means over seeds {seeds}. Of the natural logarithms of "
        f"the image scores: how far the median of the defective pictures lies above that of the good ones, and the "
        f"standard deviation of the good ones.",
        "\n".join(lines),
    ]
    OUT.with_suffix(".md").write_text("\n\n".join(page) + "\n")


def cells(rows: Sequence[Row]) -> list[str]:
    """Image AUROC, how far apart both kinds of pictures are, and the spread of the good ones."""
    apart, spread = [], []
    for row in rows:
        scores = results.read_scores(results.scores_path(OUT, row))
        good, defective = (
            np.log([one.raw_score for one in scores if one.anomalous == anomalous]) for anomalous in (False, True)
        )
        apart.append(float(np.median(defective) - np.median(good)))
        spread.append(float(np.std(good)))
    auroc = [row.image_auroc for row in rows if row.image_auroc is not None]
    return [f"{statistics.mean(auroc):.1f}", f"{statistics.mean(apart):+.2f}", f"{statistics.mean(spread):.2f}"]


if __name__ == "__main__":
    main()
