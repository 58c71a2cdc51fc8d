"""What thresholds do to the pictures of measured cells; labels measure them and choose nothing."""

import math
from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

from _good_cells import Cell
from handful import decision, metrics
from handful.decision import Prediction

RATES = (0.01, 0.03, 0.05)

Reals = NDArray[np.float64]
Model = Callable[[Cell], Prediction]


def shipped(cell: Cell) -> Prediction:
    """What the inspector of a cell predicts of the next good picture."""
    return decision.predict(np.array(cell.image), prior=cell.prior)


def alarms(cell: Cell, threshold: float) -> float:
    """The share of good test pictures above a threshold."""
    return float((np.array(cell.good) > threshold).mean())


def misses(cell: Cell, threshold: float) -> float:
    """The share of defective test pictures at or below a threshold."""
    return float((np.array(cell.bad) <= threshold).mean())


def best(cell: Cell, rate: float) -> float:
    """The threshold with that rate of false alarms on the good test pictures themselves."""
    return float(np.quantile(cell.good, 1 - rate, method="higher"))


def auroc(cell: Cell) -> float:
    """Image AUROC in percent."""
    truth = [False] * len(cell.good) + [True] * len(cell.bad)
    return 100 * metrics.image_auroc(truth, [*cell.good, *cell.bad])


def assumptions(cells: Sequence[Cell]) -> list[str]:
    """What good pictures alone say, as quantiles over categories and draws."""
    table = [
        "| quantity | references | least | quarter | half | three quarters | most |",
        "|---|---|---|---|---|---|---|",
    ]
    for title, of in (
        ("typical good test score over that of the references' views", _beyond),
        ("how far that is from what is assumed, in its deviations", _off),
        ("calibrated typical good test score, at 3 %", _calibrated),
        ("standard deviation of the log scores of good test pictures", spread),
    ):
        for count in sorted({cell.shots for cell in cells}):
            found = [of(cell) for cell in cells if cell.shots == count]
            values = [value for value in found if value is not None]
            if values:
                quantiles = np.quantile(values, [0, 0.25, 0.5, 0.75, 1])
                table.append(f"| {title} | {count} | {' | '.join(f'{q:.2f}' for q in quantiles)} |")
    note = (
        "With two or more references a view is scored by an inspector that had not seen its picture. With one, "
        "the inspector had seen it, and where the method can compare a picture's places with one another, that score "
        "and the views' count alike: this is the factor that a single reference's threshold is widened by."
    )
    return ["## Good pictures alone", note, "\n".join(table)]


def _beyond(cell: Cell) -> float:
    """How far a typical good test picture lies beyond the references' views: ratio of medians."""
    return float(np.median(cell.good) / np.median(cell.image))


def _off(cell: Cell) -> float | None:
    """At one reference, how far the logarithm of `_beyond` lies from what is assumed, in its standard deviations."""
    if cell.shots > 1:
        return None
    return math.log(_beyond(cell) / cell.prior.widening) / cell.prior.widening_spread


def _calibrated(cell: Cell) -> float:
    """The calibrated score of a typical good test picture: 0 is what it should be, 1 the threshold at 3 %."""
    prediction = shipped(cell)
    return (float(np.median(cell.good)) - prediction.typical) / (prediction.threshold(0.03) - prediction.typical)


def spread(cell: Cell) -> float:
    """Standard deviation of the log scores of good test pictures."""
    return float(np.log(cell.good).std())


def verdicts(cells: Sequence[Cell], model: Model = shipped) -> list[str]:
    """Rates at the thresholds of a model, means over categories and draws, and the worst categories."""
    table = [
        "| asked for | references | false alarms | in the worst category | misses | misses of the best threshold | of "
        "that for the rate asked for |",
        "|---|---|---|---|---|---|---|",
    ]
    for rate in RATES:
        for count in sorted({cell.shots for cell in cells}):
            some = [cell for cell in cells if cell.shots == count]
            wrong, passed = rates(some, model, rate)
            by_category = {
                name: 100 * float(wrong[[cell.key[:2] == name for cell in some]].mean())
                for name in sorted({cell.key[:2] for cell in some})
            }
            worst = max(by_category, key=lambda name, by=by_category: by[name])  # type: ignore[misc]
            same, asked = (
                100 * np.mean([misses(cell, best(cell, at)) for cell in some]) for at in (float(wrong.mean()), rate)
            )
            table.append(
                f"| {100 * rate:g} % | {count} | {100 * wrong.mean():.1f} % | {by_category[worst]:.0f} % "
                f"({'/'.join(worst)}) | {100 * passed.mean():.1f} % | {same:.1f} % | {asked:.1f} % |"
            )
    note = (
        "The best threshold gives, in every cell, as many false alarms on the test pictures themselves as the shipped "
        "one on the mean of all cells; the last column's gives as many as were asked for."
    )
    return ["## The shipped threshold", note, "\n".join(table)]


def rates(cells: Sequence[Cell], model: Model, rate: float) -> tuple[Reals, Reals]:
    """False alarms and misses of every cell, as shares, at a model's thresholds."""
    thresholds = [model(cell).threshold(rate) for cell in cells]
    pairs = list(zip(cells, thresholds, strict=True))
    return np.array([alarms(*pair) for pair in pairs]), np.array([misses(*pair) for pair in pairs])
