"""ResAD's, FASL's and REB's trainings beside the authors' own: writes papers/decisive/ beside itself.

    python3 scripts/bench decisive --data DIR --cache DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder; the cache takes features, one file for
each class, and heads. Ours learns from cached features of the source classes, and is tested on those of the targets;
papers/decisive.md says how the authors' code learnt from the same files. Its losses and cells lie in
papers/decisive/theirs_losses.csv and theirs_cells.csv, ours go to ours_losses.csv and ours_cells.csv, and tables.md and
the plots have both. Killed, it goes on where it was; a smaller table: --methods, --seeds.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _decisive_page
from _decisive_cache import Cached, cached
from _decisive_cells import FASL_UPDATES, IDENTITY, UPDATES, Cell, Run, append, judge, read, scored, train
from _decisive_reb import CATEGORIES, SETTINGS, adapt
from handful.methods import METHODS
from handful.methods.fasl import FASL, ScoreLearning

SOURCES = [
    *(f"piped/{paper}" for paper in ("bdp01_tl", "bft01_tl", "brg01_rl", "brg02_rl")),
    *(f"piped/{paper}" for paper in ("btn01_rl", "flr01_tl", "fvn01_tl", "gla01_tl")),
    "magnetic_tile/tile",
    "bsdata/ballscrew",
]
TARGETS = ["mvtec_ad/pill", "mvtec_ad/screw", "mvtec_ad/transistor", "mvtec_ad/leather", "deeppcb/group77000"]
COMMON = {
    "resad": {"updates": UPDATES, "condition": 32, "places": 1024},
    "fasl": {"updates": FASL_UPDATES},
}
FORMS: dict[str, dict[str, dict[str, Any]]] = {
    "resad": {
        "paper": {},
        "code": {"match": "cosine", "residual": "squared", "occ": "log_barrier", "blocks": 10},
    },
    "fasl": {"code": {}, IDENTITY: {}},
}
ROWS: dict[str, dict[str, dict[str, Any]]] = {
    "resad": {
        "full": {"constraintor": True},
        "no residual": {"constraintor": True, "residual": "none"},
        "no constraintor": {"constraintor": False, "occ": "invariant"},  # without a constraintor, "occ" says nothing
        "no abnormal invariance": {"constraintor": True, "occ": "normal"},
    },
    "fasl": {"with NAM": {"nam": True}, "without NAM": {"nam": False}},
}
OUT = Path(__file__).parent / "papers" / "decisive"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--cache", type=Path, required=True)
    parser.add_argument(
        "--methods", nargs="*", default=[*ROWS, "reb"], help="of resad, fasl, reb; none: the tables alone"
    )
    parser.add_argument("--categories", nargs="+", default=CATEGORIES, help="of REB")
    parser.add_argument("--rows", nargs="+", help="of the ablations; else all")
    parser.add_argument("--forms", nargs="+", help="of ResAD: paper, code; of REB: all layers, default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    options = parser.parse_args()
    if "reb" in options.methods:
        for name in options.categories:
            for form in [one for one in SETTINGS if one in (options.forms or [one])]:
                for seed in options.seeds:
                    measure_adapted(Run("reb", "ours", form, "", seed), options.data, options.cache, name)
    if set(options.methods) & set(ROWS):
        sources, targets = ([cached(options.cache, one, options.data) for one in names] for names in (SOURCES, TARGETS))
        beside(options, targets)
    for method in [one for one in options.methods if one in ROWS]:
        for seed in options.seeds:
            for form, form_settings in FORMS[method].items():
                for row, row_settings in ROWS[method].items():
                    wanted = row in (options.rows or [row]) and form in (options.forms or [form])
                    if not wanted or (form == IDENTITY and row != "with NAM"):
                        continue
                    settings = COMMON[method] | form_settings | row_settings
                    measure(Run(method, "ours", form, row, seed), settings, sources, targets, options.cache)
    _decisive_page.write(OUT)


def measure(
    run: Run, settings: dict[str, Any], sources: Sequence[Cached], targets: Sequence[Cached], cache: Path
) -> None:
    """Train and score, unless the cells are there."""
    if any(
        Run(**{key: row[key] for key in ("method", "code", "form", "row")}, seed=int(row["seed"])) == run
        for row in read(OUT / "ours_cells.csv")
    ):
        return
    folder = cache / "heads"
    folder.mkdir(exist_ok=True)
    append(OUT / "ours_losses.csv", train(run, settings, sources, folder))
    last = COMMON[run.method]["updates"]
    updates = range(last // 5, last + 1, last // 5) if run.seed == 0 and run.row in ("full", "with NAM") else [last]
    cells = scored(run, targets, folder, updates=updates)
    append(OUT / "ours_cells.csv", cells)
    print(run.stem, *(f"{cell.image_auroc:.1f}" for cell in cells if cell.update == last), file=sys.stderr, flush=True)


def measure_adapted(run: Run, data: Path, cache: Path, name: str) -> None:
    """Adapt and score, unless it has been done."""
    known = {(row["form"], row["seed"], row["target"]) for row in read(OUT / "ours_reb_cells.csv")}
    if (run.form, str(run.seed), name) in known:
        return
    found, losses = adapt(run, data, cache, name)
    append(OUT / "ours_reb_cells.csv", [found])
    append(OUT / "ours_losses.csv", losses)
    print(found, file=sys.stderr, flush=True)


def beside(options: argparse.Namespace, targets: Sequence[Cached]) -> None:
    """What needs no head: PatchCore, and FASL's plain distance, with the references of each seed."""
    known = {(row["method"], row["seed"]) for row in read(OUT / "ours_cells.csv")}
    head = ScoreLearning().make_head(targets[0].references.depths, seed=0)
    for name, method in {
        "patchcore": METHODS["patchcore"](),
        "cosine": FASL(judged_by="cosine").take_head(head),
    }.items():
        for seed in [one for one in options.seeds if (name, str(one)) not in known]:
            for target in targets:
                found = judge(method, target, seed=seed)
                append(OUT / "ours_cells.csv", [Cell(name, "ours", "", "", seed, 0, "ours", target.name, **found)])  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
