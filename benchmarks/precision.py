"""What bf16 costs: the default inspector at both precisions, on the same pictures; writes speed/precision.md.

    python3 scripts/bench precision --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. Each inspector is calibrated at its own
precision. What bf16 saves is told by the speed benchmark. It needs a CPU that computes in bf16.
"""

import argparse
import statistics
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from _tables import chosen
from handful import backbones
from handful.backbones.base import Backbone
from handful.data.shots import draw
from handful.detector import Detector
from handful.evaluation.environment import commit
from handful.inspector import Inspector
from handful.metrics import image_auroc
from handful.report.result import Inspection
from handful.types import Category

SIZE = 320
OUT = Path(__file__).parent / "speed" / "precision.md"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", help="only these, by name")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    command = " ".join(["python3 scripts/bench precision", *sys.argv[1:]]).replace(str(options.data), "DIR")
    exact, rounded = (backbones.create(size=(SIZE, SIZE), engine="openvino", precision=p) for p in ("f32", "bf16"))
    page = [
        "# What bf16 costs",
        f"`{command}`, code of {commit()}, {exact.spec.name} (weights on board) at {SIZE} x {SIZE}: the default "
        f"inspector with its backbone at float32 and at bf16, each calibrated at its own precision on the same "
        f"references, and the same pictures. Calibrated scores: 0 is a typical good part, 1 the threshold. Whether a "
        "part turns is decided anew too; where that comes out otherwise, scores lie far apart.",
    ]
    for shots in options.shots:
        pairs = []
        for dataset in chosen(options.data, options.categories).values():
            for category in dataset.categories:
                references = draw(category.train, shots=shots, seed=options.seed)
                pairs.append(Pair(category, *(inspected(category, one, references) for one in (exact, rounded))))
                print(pairs[-1].line(), file=sys.stderr, flush=True)
        page += [f"## {shots} reference{'s' if shots > 1 else ''}", table(pairs), summary(pairs)]
    text = "\n\n".join(page) + "\n"
    OUT.write_text(text, encoding="utf-8")
    print(text)


def inspected(category: Category, backbone: Backbone, references: Sequence[str]) -> list[Inspection]:
    """What a saved inspector of these references says of the category's pictures."""
    detector = Detector(backbone=backbone, gate=()).fit(references)
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "part.handful")
        detector.save(file)
        return Inspector.load(file).inspect([sample.path for sample in category.test])


@dataclass(frozen=True)
class Pair:
    """A category's pictures inspected at float32 and at bf16."""

    category: Category
    exact: list[Inspection]
    rounded: list[Inspection]

    @property
    def scores(self) -> list[tuple[float, float]]:
        """The calibrated scores of each picture at both."""
        return list(zip(calibrated(self.exact), calibrated(self.rounded), strict=True))

    @property
    def aurocs(self) -> tuple[float, float]:
        """Image AUROC at both, percent."""
        truth = [bool(sample.anomalous) for sample in self.category.test]
        at_f32, at_bf16 = (100 * image_auroc(truth, scores) for scores in zip(*self.scores, strict=True))
        return at_f32, at_bf16

    @property
    def differ(self) -> list[float]:
        """The scores at float32 of pictures that get another verdict."""
        pairs = zip(self.scores, self.exact, self.rounded, strict=True)
        return [score for (score, _), one, other in pairs if one.verdict != other.verdict]

    def line(self) -> str:
        """Of the table."""
        at_f32, at_bf16 = self.aurocs
        apart = [abs(one - other) for one, other in self.scores]
        return (
            f"| {self.category.name} | {at_f32:.1f} | {at_bf16:.1f} | {len(self.exact)} | {len(self.differ)} | "
            f"{statistics.median(apart):.3f} | {max(apart):.3f} |"
        )


def calibrated(inspections: Sequence[Inspection]) -> list[float]:
    """The scores of pictures; one that cannot be read has none, and ends the benchmark."""
    found = [one.score for one in inspections if one.score is not None]
    if len(found) < len(inspections):
        sys.exit(next(one.reason or one.path for one in inspections if one.score is None))
    return found


def table(pairs: Sequence[Pair]) -> str:
    """One line for each category."""
    names = "image AUROC at f32 | at bf16 | pictures | another verdict | calibrated scores apart, median | largest"
    return "\n".join([f"| category | {names} |", "|---|" + "---|" * 6, *(pair.line() for pair in pairs)])


def summary(pairs: Sequence[Pair]) -> str:
    """All categories in one sentence."""
    at_f32, at_bf16 = (statistics.mean(values) for values in zip(*(pair.aurocs for pair in pairs), strict=True))
    differ = [score for pair in pairs for score in pair.differ]
    within = f", of scores between {min(differ):.2f} and {max(differ):.2f}" if differ else ""
    count = sum(len(pair.exact) for pair in pairs)
    return f"Means: {at_f32:.2f} and {at_bf16:.2f}. {len(differ)} of {count} pictures get another verdict{within}."


if __name__ == "__main__":
    main()
