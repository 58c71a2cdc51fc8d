"""What thresholds do to the pictures of measured cells, and the constants that good pictures alone choose."""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from _good_cells import Cell
from handful import methods, metrics
from handful.fitting import calibration
from handful.inspection.threshold import PRIOR_WEIGHT, Prediction, Prior, predict

RATES = (0.01, 0.03, 0.05)
FURTHER = (10, 20, 50)
JUDGED = 20  # pictures at least that are left to judge a sharpened threshold by
LEAST_SPREAD = 0.01  # of good pictures' log scores, that a threshold's distance is measured in

Reals = NDArray[np.float64]
Model = Callable[[Cell], Prediction]


class Constants(NamedTuple):
    """The default method's that are read off good pictures, see `handful.methods.base.Method`."""

    spread: float
    falling: float
    widening: float
    single_uneven: float
    single_spread: float


_METHOD = methods.METHODS["handful"]
SHIPPED = Constants(
    _METHOD.good_spread, _METHOD.good_falling, _METHOD.single_widening, calibration.UNEVEN, _METHOD.single_spread
)
SPREADS = (0.02, 0.025, 0.03, 0.035, 0.04, 0.05, 0.06)
SINGLE = tuple(product((1.12, 1.14, 1.16, 1.18, 1.20), (0.05, 0.10, 0.15), (0.02, 0.03, 0.06)))


def prior_of(cell: Cell, constants: Constants = SHIPPED) -> Prior:
    """What is assumed of a cell's scores, as `handful.fitting.calibration.prior_from` has it, with these constants."""
    if not cell.apart:  # of another method, whose constants are not these
        return cell.prior
    prior = Prior(
        constants.spread,
        constants.widening,
        constants.single_spread,
        falling=constants.falling,
        ample=_METHOD.ample,
    )
    if cell.shots > 1:
        return prior
    image, mean, _ = cell.apart[0]
    wide = min(constants.single_uneven * math.log(max(image / mean, 1)), calibration.MOST_UNEVEN)
    return replace(prior, widening_spread=max(constants.single_spread, wide), among_places=True)


def shipped(cell: Cell) -> Prediction:
    """What the inspector of a cell predicts of the next good picture."""
    return predict(np.array(cell.image), prior=prior_of(cell))


def chosen_by(cells: Sequence[Cell]) -> Constants:
    """The constants that good pictures of these cells choose, see `loss`; `falling`, in no threshold, is a median."""
    several, single = ([cell for cell in cells if (cell.shots > 1) is kind] for kind in (True, False))
    fallen = [math.log(_beyond(cell)) / math.log(1 - 1 / cell.shots) for cell in several]
    common = min(SPREADS, key=lambda spread: loss(several, Constants(spread, *SHIPPED[1:])))
    first = common, float(np.median(fallen)) if fallen else SHIPPED.falling
    return Constants(*first, *min(SINGLE, key=lambda some: loss(single, Constants(SHIPPED.spread, 0, *some))))


def loss(cells: Iterable[Cell], constants: Constants) -> float:
    """How far thresholds lie from good pictures' own quantiles, by the quantile loss at `RATES`; defects do not count.

    A picture above the threshold costs (1 - rate) times its distance, one below it the rate times its distance: least
    on the mean where the threshold is that quantile (Koenker and Bassett, Econometrica 46, 1978). Distances are of log
    scores, in standard deviations of the cell's own good pictures. A mean over draws, then over categories and numbers
    of references.
    """
    by: dict[tuple[str, str, int], list[float]] = {}
    for cell in cells:
        prediction = predict(np.array(cell.image), prior=prior_of(cell, constants))
        good = np.log([*cell.good, *cell.spare])
        beyond = good - np.log([[prediction.threshold(rate)] for rate in RATES])  # (R, N)
        rates = np.array(RATES)[:, None]
        cost = np.where(beyond > 0, (1 - rates) * beyond, -rates * beyond).mean(1).sum()
        by.setdefault(cell.key[:3], []).append(float(cost) / max(float(good.std()), LEAST_SPREAD))
    return float(np.mean([np.mean(costs) for costs in by.values()]))


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


def verdicts(cells: Sequence[Cell]) -> list[str]:
    """What the shipped threshold does."""
    note = (
        "Means over draws, then over categories. The best threshold gives, in every cell, as many false alarms on the "
        "test pictures themselves as the shipped one does on the mean of all; the last column's gives as many "
        "as were asked for."
    )
    return ["## The shipped threshold", note, *_verdicts(cells, shipped)]


def _verdicts(cells: Sequence[Cell], model: Model) -> list[str]:
    """Rates at the thresholds of a model, the worst categories, and those in which most defects pass all the same."""
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
            weights = _by_category([cell.key[:2] for cell in some])
            mean = float(weights @ wrong)
            same, asked = (100 * weights @ [misses(cell, best(cell, at)) for cell in some] for at in (mean, rate))
            table.append(
                f"| {100 * rate:g} % | {count} | {100 * mean:.1f} % | {by_category[worst]:.0f} % "
                f"({'/'.join(worst)}) | {100 * weights @ passed:.1f} % | {same:.1f} % | {asked:.1f} % |"
            )
    half = []
    for count in sorted({cell.shots for cell in cells}):
        some = [cell for cell in cells if cell.shots == count]
        _, passed = rates(some, model, 0.05)
        for name in sorted({cell.key[:2] for cell in some}):
            rows = [row for row, cell in enumerate(some) if cell.key[:2] == name]
            able = float(np.mean([auroc(some[row]) for row in rows]))
            if able > 90 and passed[rows].mean() > 0.5:
                half.append(f"{name[1]} at {count} ({100 * passed[rows].mean():.0f} %, AUROC {able:.0f})")
    said = "; ".join(half) or "none"
    return ["\n".join(table), f"AUROC above 90 and yet more than half of the defects passed, asked for 5 %: {said}."]


def _by_category(names: Sequence[tuple[str, str]]) -> Reals:
    """The weight of each cell, so that categories count alike however many draws of them were measured."""
    return np.array([1 / names.count(name) for name in names]) / len(set(names))


def rates(cells: Sequence[Cell], model: Model, rate: float) -> tuple[Reals, Reals]:
    """False alarms and misses of every cell, as shares, at a model's thresholds."""
    thresholds = [model(cell).threshold(rate) for cell in cells]
    pairs = list(zip(cells, thresholds, strict=True))
    return np.array([alarms(*pair) for pair in pairs]), np.array([misses(*pair) for pair in pairs])


def left_out(cells: Sequence[Cell]) -> list[str]:
    """The constants chosen again without each data set, and what they give on it."""
    if not any(cell.apart for cell in cells):
        return []
    names = list(dict.fromkeys(cell.dataset for cell in cells))
    table = [f"| left out | {' | '.join(name.replace('_', ' ') for name in Constants._fields)} |"]
    table += ["|---|" + "---|" * len(Constants._fields)]
    chosen: dict[str, Constants] = {}
    for name in names:
        chosen[name] = chosen_by([cell for cell in cells if cell.dataset != name])
        table.append(f"| {name} | {' | '.join(f'{value:.3g}' for value in chosen[name])} |")
    everything = chosen_by(cells)
    table += [f"| none | {' | '.join(f'{value:.3g}' for value in everything)} |"]
    table += [f"| shipped | {' | '.join(f'{value:g}' for value in SHIPPED)} |"]

    def outside(cell: Cell) -> Prediction:
        return predict(np.array(cell.image), prior=prior_of(cell, chosen[cell.dataset]))

    note = (
        "Every constant that is read off data, chosen again by good pictures alone: of a grid, the one with the least "
        "quantile loss of good pictures' log scores at 1, 3 and 5 %, each distance in the cell's own standard "
        "deviation, as a mean over categories and numbers of references; `falling` as a median. The weight of the "
        f"prior, {PRIOR_WEIGHT}, and the most that unevenness counts, {calibration.MOST_UNEVEN:g}, were not "
        "chosen again. The spread stays at 0.03, as thresholds reject more good parts than was asked for already. Loss "
        f"over all cells: {loss(cells, SHIPPED):.4f} as shipped, "
        f"{loss(cells, everything):.4f} at best."
    )
    said = "What the constants of each row do on the data set that they were chosen without:"
    return ["## Each data set left out", note, "\n".join(table), said, *_verdicts(cells, outside)]


def sharpened(cells: Sequence[Cell]) -> list[str]:
    """What further good pictures do to the shipped threshold."""
    table = [
        "| asked for | references | further | categories | false alarms | in the worst category | misses | misses of "
        "the best threshold | of that for the rate asked for |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for rate, count, many in product(RATES, sorted({cell.shots for cell in cells}), (0, *FURTHER)):
        pools = [(cell, np.array([*cell.good, *cell.spare])) for cell in cells if cell.shots == count]
        pools = [(cell, pool) for cell, pool in pools if len(pool) - max(FURTHER[1], many) >= JUDGED]
        if not pools:
            continue
        found: list[tuple[float, float]] = []
        judged: list[tuple[Reals, Reals]] = []
        by: dict[tuple[str, str], list[float]] = {}
        for cell, pool in pools:
            order = np.random.default_rng([cell.seed, many]).permutation(len(pool))
            more, good, bad = pool[order[:many]], pool[order[many:]], np.array(cell.bad)
            prior = prior_of(cell)
            threshold = predict(np.array(cell.image), more.tolist(), prior=prior).threshold(rate)
            found.append((float((good > threshold).mean()), float((bad <= threshold).mean())))
            judged.append((good, bad))
            by.setdefault((cell.dataset, cell.category), []).append(found[-1][0])
        weights = _by_category([(cell.dataset, cell.category) for cell, _ in pools])
        wrong, passed = weights @ found
        same, asked = (
            100 * weights @ [(bad <= np.quantile(good, 1 - at, method="higher")).mean() for good, bad in judged]
            for at in (wrong, rate)
        )
        worst = max(by, key=lambda name, by=by: np.mean(by[name]))  # type: ignore[misc]
        table.append(
            f"| {100 * rate:g} % | {count} | {many} | {len(by)} | {100 * wrong:.1f} % | "
            f"{100 * np.mean(by[worst]):.0f} % ({worst[1]}) | {100 * passed:.1f} % | {same:.1f} % | {asked:.1f} % |"
        )
    note = (
        "What `threshold --normals` does: of a category's good test pictures and of its training pictures that are no "
        "references, so many are drawn at random as further ones, and the others are judged: in categories with at "
        f"least {JUDGED} left of these. Rows of 0 further pictures are of the same categories as those of "
        f"{FURTHER[1]}; those of {FURTHER[2]} are of fewer."
    )
    return ["## Sharpened by further good pictures", note, "\n".join(table)]
