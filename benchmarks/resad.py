"""ResAD tested on data sets that it was not trained on: writes papers/resad/ and papers/resad/ablation.md.

    python3 scripts/bench resad --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. Heads are trained on one part of them,
tested on another, and the other way round; then `handful bench` runs with the heads, PatchCore and FastRecon at equal
references. Killed, it goes on where it was; heads stay in papers/resad/heads. A smaller table: --directions, --rows,
--shots, --seeds, --updates; the page has all that there are results of in the folders whose names begin with a
direction's.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from _heads import by_category, head, means, table
from handful import backbones
from handful.evaluation import results
from handful.evaluation.results import Row

DIRECTIONS = {  # what is trained on, and what is tested on: no data set on both sides
    "piped, magnetic_tile, bsdata → mvtec_ad": (("piped", "magnetic_tile", "bsdata"), ("mvtec_ad",)),
    "mvtec_ad → others": (("mvtec_ad",), ("piped", "magnetic_tile", "bsdata", "elpv", "deeppcb")),
}
ROWS: dict[str, dict[str, Any]] = {  # the settings of the training, as the paper's ablation has them
    "full": {"constraintor": True},
    "no residual": {"constraintor": True, "residual": "none"},
    "no constraintor": {"constraintor": False},
    "no abnormal invariance": {"constraintor": True, "occ": "normal"},
}
BESIDE = {"PatchCore": "patchcore", "FastRecon, λ 0.5, top 1 %": "fastrecon:lam=0.5,share=0.01"}
METRICS = {"image_auroc": "image AUROC, %", "pixel_auroc": "pixel AUROC, %", "aupro": "AUPRO, %"}
OUT = Path(__file__).parent / "papers" / "resad"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--directions", type=int, nargs="+", default=[0, 1], help="0 and 1 as the table has them")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help=f"of {', '.join(ROWS)}; none: the page alone")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, default=600, help="of each training")
    options = parser.parse_args()
    for number in options.directions if options.rows else ():
        measure(options, number, *list(DIRECTIONS.values())[number])
    write_page()


def measure(options: argparse.Namespace, number: int, source: Sequence[str], target: Sequence[str]) -> None:
    """Train what heads are missing, and run the cells that are."""
    backbone = backbones.create()
    for row in options.rows:
        settings = ROWS[row] | {"updates": options.updates}
        head(head_file(source, row), "resad", settings, backbone, options.data, source)
    command = f"python3 scripts/bench resad --data DIR --directions {number}"
    named = methods(source, options.rows)
    table(options, backbone, OUT / f"direction{number}", target=target, methods=list(named.values()), command=command)


def methods(source: Sequence[str], rows: Sequence[str]) -> dict[str, str]:
    """The methods of some rows and those beside them, by name, as the table has them."""
    heads = {row: head_file(source, row).relative_to(Path(__file__).parents[1]) for row in rows}
    found = {f"ResAD, {row}": f"resad@{file}" for row, file in heads.items()} | BESIDE
    if "full" in heads:
        found["ResAD, full, as its code evaluates"] = f"resad:paper_compat=true@{heads['full']}"
    return found


def head_file(source: Sequence[str], row: str) -> Path:
    """Where the head of a row that was trained on some data sets lies."""
    return OUT / "heads" / f"{'-'.join(source)}-{row.replace(' ', '-')}.safetensors"


def write_page() -> None:
    """Write ablation.md, of all rows that there are results of."""
    page = ["# ResAD on data that it was not trained on"]
    for number, (name, (source, target)) in enumerate(DIRECTIONS.items()):
        rows = results_of(number)
        if not rows:
            continue
        named = methods(source, list(ROWS))
        page += [f"## {name}", *means(rows, named, METRICS), *by_category(rows, named)]
        for dataset in target if len(target) > 1 else ():
            page += [f"### {dataset}", *means([row for row in rows if row.dataset == dataset], named, METRICS)]
    (OUT / "ablation.md").write_text("\n\n".join(page) + "\n")


def results_of(number: int) -> list[Row]:
    """The cells of a direction, each once: parts of it may have been run apart."""
    cells = {
        (row.method, row.dataset, row.category, row.shots, row.seed): row
        for folder in sorted(OUT.glob(f"direction{number}*"))
        for row in results.read(folder / results.RESULTS)
        if not row.error
    }
    return list(cells.values())


if __name__ == "__main__":
    main()
