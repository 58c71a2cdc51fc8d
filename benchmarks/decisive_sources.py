"""What helps heads on a small backbone: more source classes, longer schedules, a choice by other data sets.

    python3 scripts/bench decisive_sources --data DIR --cache DIR

DIR and the cache are those of `decisive`. Heads learn from each of `SOURCES`, are kept three times on the way, and are
tested on every class of the data sets that none of a group's sources belongs to. Writes papers/decisive/sources.csv and
sources.md beside itself. Killed, it goes on where it was; in parts: --sources, --heads.
"""

import argparse
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _decisive_cache import cached
from _decisive_cells import Cell, Run, append, head_of, judge, read, train
from _decisive_products import PRODUCTS
from handful.methods import METHODS
from handful.methods.fasl import FASL, ScoreLearning

PIPED = [f"piped/{p}" for p in ("bdp01_tl", "bft01_tl", "brg01_rl", "brg02_rl", "btn01_rl", "flr01_tl", "fvn01_tl", "gla01_tl")]
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
SYNTHETIC = [f"synthetic/{number:02}" for number in range(PRODUCTS)]
SOURCES = {
    "piped": PIPED,
    "piped and synthetic": [*PIPED, *SYNTHETIC],
    "all but mvtec_ad": [*PIPED, *OTHERS],
    "piped and mvtec_ad": [*PIPED, *MVTEC],
}
GROUPS = {"mvtec_ad": MVTEC, "others": OTHERS}
HEADS: dict[str, tuple[str, dict[str, Any]]] = {
    "ResAD": ("resad", {"condition": 32, "places": 1024}),
    "ResAD, no constraintor": ("resad", {"condition": 32, "places": 1024, "constraintor": False}),
    "FASL": ("fasl", {}),
    "FASL, no NAM": ("fasl", {"nam": False}),
}
UPDATES, CHECKS = 600, 3
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
            beside(options, seed)
            for head in options.heads:
                measure(options, source, head, seed)
    write_page()


def measure(options: argparse.Namespace, source: str, head: str, seed: int) -> None:
    """Train one head, and score it on what it can be tested on, unless it has been done."""
    method, settings = HEADS[head]
    run = Run(method, "ours", source, head, seed)
    if any((row["form"], row["row"], row["seed"]) == (source, head, str(seed)) for row in read(OUT / "sources.csv")):
        return
    folder = options.cache / "heads"
    folder.mkdir(exist_ok=True)
    train(run, settings | {"updates": UPDATES}, [cached(options.cache, one, options.data) for one in SOURCES[source]], folder, checks=CHECKS)
    cells = []
    for update in range(UPDATES // CHECKS, UPDATES + 1, UPDATES // CHECKS):
        learnt = METHODS[method]().take_head(head_of(folder / f"{run.stem}-{update}.safetensors"))
        for name in targets(source):
            found = judge(learnt, cached(options.cache, name, options.data), seed=seed)
            cells.append(Cell(run.method, "ours", source, head, seed, update, "ours", name, **found))  # type: ignore[arg-type]
    append(OUT / "sources.csv", cells)
    print(run.stem, f"{statistics.mean(one.image_auroc for one in cells[-len(targets(source)):]):.1f}", file=sys.stderr, flush=True)


def beside(options: argparse.Namespace, seed: int) -> None:
    """What needs no head, on every class."""
    if any((row["form"], row["seed"]) == ("none", str(seed)) for row in read(OUT / "sources.csv")):
        return
    for name in [*MVTEC, *OTHERS]:
        target = cached(options.cache, name, options.data)
        head = ScoreLearning().make_head(target.references.depths, seed=0)
        for row, method in {"PatchCore": METHODS["patchcore"](), "cosine": FASL(judged_by="cosine").take_head(head)}.items():
            cell = Cell(method.name, "ours", "none", row, seed, 0, "ours", name, **judge(method, target, seed=seed))  # type: ignore[arg-type]
            append(OUT / "sources.csv", [cell])


def targets(source: str) -> list[str]:
    """The classes of groups of data sets that a source has none of."""
    used = {name.partition("/")[0] for name in SOURCES[source]}
    return [name for group in GROUPS.values() for name in group if not used & {one.partition("/")[0] for one in group}]


def write_page() -> None:
    """Write sources.md, of all that there are results of."""


if __name__ == "__main__":
    main()
