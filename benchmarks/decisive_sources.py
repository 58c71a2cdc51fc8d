"""What helps heads on a small backbone: more source classes, longer schedules, a choice by other data sets.

    python3 scripts/bench decisive_sources --data DIR --cache DIR

DIR and the cache are those of `decisive`. Heads learn from each of `SOURCES`, and are tested on the groups of data
sets that none of its classes belongs to. Writes papers/decisive/sources.csv and sources.md beside itself. Killed, it
goes on where it was; in parts: --sources, --heads.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from _decisive_cache import cached
from _decisive_cells import Cell, Run, append, head_of, judge, read, train
from handful.methods import METHODS
from handful.methods.fasl import FASL, ScoreLearning

PIPED = [
    f"piped/{p}"
    for p in ("bdp01_tl", "bft01_tl", "brg01_rl", "brg02_rl", "btn01_rl", "flr01_tl", "fvn01_tl", "gla01_tl")
]
MVTEC = [f"mvtec_ad/{one}" for one in ("bottle", "leather", "pill", "screw", "transistor")]
OTHERS = [
    "bsdata/ballscrew",
    "deeppcb/group20085",
    "deeppcb/group77000",
    "elpv/mono",
    "elpv/poly",
    "kolektor_sdd/commutator",
    "magnetic_tile/tile",
]
SYNTHETIC = [f"synthetic/{number:02}" for number in range(12)]
SOURCES = {
    "piped": PIPED,
    "piped and synthetic": [*PIPED, *SYNTHETIC],
    "piped and synthetic, longer": [*PIPED, *SYNTHETIC],
    "all but mvtec_ad": [*PIPED, *OTHERS],
    "piped and mvtec_ad": [*PIPED, *MVTEC],
}
GROUPS = {"mvtec_ad": MVTEC, "others": OTHERS}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResAD": ("resad", {"condition": 32, "places": 1024, "constraintor": True}),
    "ResAD, no constraintor": ("resad", {"condition": 32, "places": 1024, "constraintor": False}),
    "FASL": ("fasl", {"nam": True}),
    "FASL, no NAM": ("fasl", {"nam": False}),
}
LONGER = ("piped and synthetic, longer",)
CHECKED = 300  # a head is tested after every this many updates
METRICS = {"image_auroc": "image AUROC", "pixel_ap": "pixel AP", "aupro": "AUPRO"}
KEYS = ("form", "row", "seed", "update", "target")
Row = dict[str, str]
OUT = Path(__file__).parent / "papers" / "decisive"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument("--sources", nargs="*", default=list(SOURCES), help="none: the page alone")
    parser.add_argument("--heads", nargs="+", default=["ResAD, no constraintor", "FASL"], help=f"of {list(HEADS)}")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    options = parser.parse_args()
    for source in options.sources:
        for seed in options.seeds:
            for head in options.heads:
                measure(options, source, head, seed)
            beside(options, seed)
    write_page()


def updates_of(source: str) -> int:
    """The number of updates of a training."""
    return 1200 if source in LONGER else 300


def measure(options: argparse.Namespace, source: str, head: str, seed: int) -> None:
    """Train one head, and score it on what it can be tested on, unless it has been done."""
    method, settings = HEADS[head]
    run = Run(method, "ours", source, head, seed)
    if any((row["form"], row["row"], row["seed"]) == (source, head, str(seed)) for row in read(OUT / "sources.csv")):
        return
    folder = options.cache / "heads"
    folder.mkdir(parents=True, exist_ok=True)
    train(
        run,
        settings | {"updates": updates_of(source)},
        [cached(options.cache, one, options.data) for one in SOURCES[source]],
        folder,
        checks=updates_of(source) // CHECKED,
    )
    cells = []
    for update in range(CHECKED, updates_of(source) + 1, CHECKED):
        learnt = METHODS[method]().take_head(head_of(folder / f"{run.stem}-{update}.safetensors"))
        for name in targets(source):
            found = judge(learnt, cached(options.cache, name, options.data), seed=seed)
            cells.append(Cell(run.method, "ours", source, head, seed, update, "ours", name, **found))  # type: ignore[arg-type]
    append(OUT / "sources.csv", cells)
    print(
        run.stem,
        f"{statistics.mean(one.image_auroc for one in cells[-len(targets(source)) :]):.1f}",
        file=sys.stderr,
        flush=True,
    )


def beside(options: argparse.Namespace, seed: int) -> None:
    """What needs no head, on every class."""
    known = {row["target"] for row in read(OUT / "sources.csv") if (row["form"], row["seed"]) == ("none", str(seed))}
    for name in [one for one in (*MVTEC, *OTHERS) if one not in known]:
        target = cached(options.cache, name, options.data)
        head = ScoreLearning().make_head(target.references.depths, seed=0)
        for row, method in {
            "PatchCore": METHODS["patchcore"](),
            "cosine": FASL(judged_by="cosine").take_head(head),
        }.items():
            cell = Cell(method.name, "ours", "none", row, seed, 0, "ours", name, **judge(method, target, seed=seed))  # type: ignore[arg-type]
            append(OUT / "sources.csv", [cell])


def targets(source: str) -> list[str]:
    """The classes of groups of data sets that a source has none of."""
    return [name for title, group in GROUPS.items() for name in group if not used(source, {title: group})]


def write_page() -> None:
    """Write sources.md, of all that there are results of."""
    cells = list({tuple(row[key] for key in KEYS): row for row in read(OUT / "sources.csv")}.values())
    sources = [source for source in SOURCES if any(cell["form"] == source for cell in cells)]
    page = [
        "# Heads by what they learnt from",
        _by_source(cells, sources),
        "## On the way",
        _on_the_way(cells, sources),
    ]
    chosen = _chosen(cells, [one for one in sources if not used(one, GROUPS)])
    page += ["## Chosen by other data sets", chosen] if chosen.count("\n") > 1 else []
    (OUT / "sources.md").write_text("\n\n".join(page) + "\n")


def _by_source(cells: Sequence[Row], sources: Sequence[str]) -> str:
    lines = [f"| learnt from | classes | head | seeds | {' | '.join(GROUPS)} |", "|---|---|---|---|---|---|"]
    for row in ("PatchCore", "cosine"):
        lines.append(f"| - | 0 | {row} | {_seeds(cells, 'none', row)} | {_groups(cells, 'none', row, 0)} |")
    for source in sources:
        for head in HEADS:
            found = _seeds(cells, source, head), _groups(cells, source, head, updates_of(source))
            lines.append(f"| {source} | {len(SOURCES[source])} | {head} | {' | '.join(found)} |")
    return "\n".join(line for line in lines if "- / - / - | - / - / -" not in line)


def _seeds(cells: Sequence[Row], source: str, head: str) -> str:
    """The seeds whose mean a row is."""
    return ", ".join(sorted({cell["seed"] for cell in cells if (cell["form"], cell["row"]) == (source, head)}))


def _on_the_way(cells: Sequence[Row], sources: Sequence[str]) -> str:
    lines = [f"| learnt from | head | updates | {' | '.join(GROUPS)} |", "|---|---|---|---|---|"]
    for source in sources:
        for head in HEADS:
            for update in range(CHECKED, updates_of(source) + 1, CHECKED):
                lines.append(f"| {source} | {head} | {update} | {_groups(cells, source, head, update)} |")
    return "\n".join(line for line in lines if "- / - / - | - / - / -" not in line)


def _groups(cells: Sequence[Row], source: str, head: str, update: int) -> str:
    """Means over each group of data sets: image AUROC / pixel AP / AUPRO."""
    return " | ".join(
        " / ".join(_mean(_of(cells, source, head, update, group), metric) for metric in METRICS) for group in GROUPS
    )


def _chosen(cells: Sequence[Row], sources: Sequence[str]) -> str:
    """On each group: what is best on the other group, by image AUROC and by pixel AP."""
    ways = sorted(
        {(cell["form"], cell["row"], int(cell["update"])) for cell in cells if cell["form"] in ("none", *sources)}
    )
    lines = [
        "| tested on | by the other's | of | chosen | its image AUROC / pixel AP / AUPRO |",
        "|---|---|---|---|---|",
    ]
    for group, other in (tuple(GROUPS), tuple(GROUPS)[::-1]):
        for metric in list(METRICS)[:2]:
            for of, able in (("heads", [way for way in ways if way[0] != "none"]), ("heads and distances", ways)):
                able = [way for way in able if _measured(cells, way, metric)]
                if not able:
                    continue
                best = max(able, key=lambda way: _number(_of(cells, way[0], way[1], way[2], other), metric))
                said = f"{best[1]}" + (f" from {best[0]}, {best[2]} updates" if best[2] else "")
                found = " / ".join(_mean(_of(cells, best[0], best[1], best[2], group), one) for one in METRICS)
                lines.append(f"| {group} | {METRICS[metric]} | {of} | {said} | {found} |")
    return "\n".join(lines)


def _measured(cells: Sequence[Row], way: tuple[str, str, int], metric: str) -> bool:
    return all(_number(_of(cells, *way, group), metric) >= 0 for group in GROUPS)


def _of(cells: Sequence[Row], source: str, head: str, update: int, group: str) -> list[Row]:
    wanted = (source, head, str(update))
    return [
        cell
        for cell in cells
        if (cell["form"], cell["row"], cell["update"]) == wanted and cell["target"] in GROUPS[group]
    ]


def _number(cells: Sequence[Row], metric: str) -> float:
    """The mean over the classes that have it; below all else where none has."""
    values = [float(cell[metric]) for cell in cells if cell[metric]]
    return statistics.mean(values) if values else -1.0


def _mean(cells: Sequence[Row], metric: str) -> str:
    return f"{_number(cells, metric):.1f}" if cells else "-"


def used(source: str, groups: Mapping[str, Sequence[str]]) -> bool:
    """Whether a source has a class of a data set of one of the groups."""
    folders = {name.partition("/")[0] for name in SOURCES[source]}
    return any(name.partition("/")[0] in folders for group in groups.values() for name in group)


if __name__ == "__main__":
    main()
