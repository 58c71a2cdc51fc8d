"""The tables and plots of `decisive`, from both codes' losses and cells."""

import statistics
from collections.abc import Iterable, Sequence
from pathlib import Path

import matplotlib

from _decisive_cells import FASL_UPDATES, IDENTITY, UPDATES, read
from _tables import over_seeds

matplotlib.use("Agg")
import matplotlib.pyplot as plt

Cells = list[dict[str, str]]
METRICS = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "aupro": "AUPRO"}
COLUMNS = {  # code, form, evaluation
    "resad": {
        "theirs": ("theirs", "scaled", "ours"),
        "ours, as their code": ("ours", "code", "ours"),
        "ours, as the paper": ("ours", "paper", "ours"),
        "theirs, by its own evaluation": ("theirs", "scaled", "theirs, merged"),
        "theirs, features as they are": ("theirs", "raw", "ours"),
        "theirs, constraintor begins as the identity": ("theirs", "scaled, identity start", "ours"),
    },
    "fasl": {
        "theirs": ("theirs", "code", "ours"),
        "ours": ("ours", "code", "ours"),
        "theirs, NAM left out in scoring": ("theirs", "code", "ours, NAM left out"),
        "ours, NAM left out in scoring": ("ours", "code", "ours, NAM left out"),
        "ours, NAM begins as the identity": ("ours", IDENTITY, "ours"),
        "theirs, seed 0 again": ("theirs", "code, again", "ours"),
        "the same, NAM left out in scoring": ("theirs", "code, again", "ours, NAM left out"),
    },
}
ROWS = {
    "resad": ("full", "no residual", "no constraintor", "no abnormal invariance"),
    "fasl": ("with NAM", "without NAM"),
}
SPREAD = "Means over classes and seeds, ± the standard deviation of the seeds' means; without ±, of one seed."
BESIDE = {"patchcore": "PatchCore", "cosine": "plain cosine distance"}


def write(folder: Path) -> None:
    """Write tables.md and a plot of each method's losses."""
    cells = read(folder / "ours_cells.csv") + read(folder / "theirs_cells.csv")
    losses = read(folder / "ours_losses.csv") + read(folder / "theirs_losses.csv")
    page = ["# Both codes' trainings side by side", SPREAD, _beside(cells)]
    for method, title in (("resad", "ResAD"), ("fasl", "FASL")):
        rows = [row for row in cells if row["method"] == method]
        page += [f"## {title}", _means(method, rows), _by_target(method, rows), _on_the_way(method, rows)]
        _plot(folder / f"losses-{method}.svg", title, [row for row in losses if row["method"] == method])
    page += ["## REB's adaptation", _reb(read(folder / "ours_reb_cells.csv") + read(folder / "theirs_reb_cells.csv"))]
    _plot(folder / "losses-reb.svg", "REB", [row for row in losses if row["method"] == "reb"])
    (folder / "tables.md").write_text("\n\n".join(_known(part) for part in page) + "\n")


def _known(part: str) -> str:
    """A table without the lines that there are no results of."""
    return "\n".join(
        line
        for line in part.splitlines()
        if set(line.partition("| ")[2].partition(" | ")[2]) - set("-/ |") or line[:2] != "| "
    )


def _beside(cells: Cells) -> str:
    lines = [f"| without a head, % | {' / '.join(METRICS.values())} |", "|---|---|"]
    lines += [
        f"| {title} | {_triple([row for row in cells if row['method'] == name])} |" for name, title in BESIDE.items()
    ]
    return "\n".join(lines)


def _means(method: str, cells: Cells) -> str:
    columns = COLUMNS[method]
    lines = [f"| {' / '.join(METRICS.values())}, % | {' | '.join(columns)} |", "|---|" + "---|" * len(columns)]
    for row in ROWS[method]:
        found = [_triple(_of(cells, column, row)) for column in columns.values()]
        lines.append(f"| {row} | {' | '.join(found)} |")
    return "\n".join(lines)


def _of(cells: Cells, column: tuple[str, str, str], row: str, *, update: int = 0) -> Cells:
    code, form, evaluation = column
    last = FASL_UPDATES if row in ROWS["fasl"] else UPDATES
    wanted = {"code": code, "form": form, "evaluation": evaluation, "row": row, "update": str(update or last)}
    return [cell for cell in cells if all(cell[key] == value for key, value in wanted.items())]


def _by_target(method: str, cells: Cells) -> str:
    named = {name: column for name, column in COLUMNS[method].items() if column[2] == "ours"}
    pairs = [(row, name) for row in ROWS[method] for name in named]
    targets = sorted({cell["target"] for cell in cells})
    lines = [f"| image AUROC / pixel AP, % | {' | '.join(targets)} |", "|---|" + "---|" * len(targets)]
    for row, name in pairs:
        here = _of(cells, named[name], row)
        found = [
            " / ".join(
                _over([cell for cell in here if cell["target"] == target], metric) for metric in list(METRICS)[:2]
            )
            for target in targets
        ]
        lines.append(f"| {name}: {row} | {' | '.join(found)} |")
    return "\n".join(lines)


def _on_the_way(method: str, cells: Cells) -> str:
    """Means over the targets of the first row's heads as they were on the way, seed 0."""
    row, seed = ROWS[method][0], [cell for cell in cells if cell["seed"] == "0"]
    updates = sorted({int(cell["update"]) for cell in seed})
    lines = [f"| {row}, seed 0, after updates | {' | '.join(map(str, updates))} |", "|---|" + "---|" * len(updates)]
    for name, column in COLUMNS[method].items():
        if column[2] == "ours":
            found = [
                " / ".join(_over(_of(seed, column, row, update=update), metric) for metric in list(METRICS)[:2])
                for update in updates
            ]
            lines.append(f"| {name} | {' | '.join(found)} |")
    return "\n".join(lines)


def _reb(cells: Cells) -> str:
    names = ("told apart, of our defects, %", "of theirs, %", "image AUROC before", "after", "AUPRO before", "after")
    keys = (
        "accuracy_ours",
        "accuracy_theirs",
        "image_auroc_before",
        "image_auroc_after",
        "aupro_before",
        "aupro_after",
    )
    lines = [f"| category | training | {' | '.join(names)} |", "|---|---|" + "---|" * len(names)]
    for target, code, form in sorted({(cell["target"], cell["code"], cell["form"]) for cell in cells}):
        here = [cell for cell in cells if (cell["target"], cell["code"], cell["form"]) == (target, code, form)]
        lines.append(f"| {target} | {code}, {form} | {' | '.join(_over(here, key) for key in keys)} |")
    return "\n".join(lines)


def _triple(cells: Cells) -> str:
    return " / ".join(_over(cells, metric) for metric in METRICS)


def _over(cells: Iterable[dict[str, str]], metric: str) -> str:
    return over_seeds((int(cell["seed"]), float(cell[metric]) if cell[metric] else None) for cell in cells)


def _plot(path: Path, title: str, losses: Cells) -> None:
    """A panel for each part of the loss, a line for each code, form and row; means over seeds."""
    losses = [one for one in losses if one["form"] != "raw" and one["part"] != "codebook" and _learns(one)]
    parts = sorted({row["part"] for row in losses})
    if not parts:
        return
    figure, axes = plt.subplots(1, len(parts), figsize=(4.2 * len(parts), 4.2), squeeze=False, layout="constrained")
    for axis, part in zip(axes[0], parts, strict=True):
        here = [row for row in losses if row["part"] == part]
        for code, form, row in sorted({(one["code"], one["form"], one["row"]) for one in here}):
            points = _curve([one for one in here if (one["code"], one["form"], one["row"]) == (code, form, row)])
            style = "-" if code == "theirs" else "--" if form in ("code", "all layers") else ":"
            label = f"{code}, {form}" + (f": {row}" if row else "")
            axis.plot([x for x, _ in points], [y for _, y in points], style, lw=1.2, label=label)
        axis.set(title=f"{title}: {part}", xlabel="update", ylabel="loss")
        axis.legend(fontsize=6, loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=2)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _learns(loss: dict[str, str]) -> bool:
    """Whether the loss trained something: their code computes the constraintor's without one as well."""
    return (loss["row"], loss["part"]) != ("no constraintor", "constraintor")


def _curve(losses: Sequence[dict[str, str]]) -> list[tuple[int, float]]:
    """Means over seeds, up to the last update that all of them made."""
    by_update: dict[int, list[float]] = {}
    for one in losses:
        by_update.setdefault(int(one["update"]), []).append(float(one["loss"]))
    seeds = len({one["seed"] for one in losses})
    return [(update, statistics.mean(found)) for update, found in sorted(by_update.items()) if len(found) == seeds]
