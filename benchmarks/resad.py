"""ResAD tested on data sets that it was not trained on: writes resad/ and resad/ablation.md beside itself.

    python3 scripts/bench resad --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. Heads are trained on one part of them,
tested on another, and the other way round, at their default schedule; then `handful bench` runs with the heads,
PatchCore and FastRecon at the same references. Killed, it goes on where it was; heads stay in resad/heads. A smaller
table: --directions, --rows, --shots, --seeds, --updates.
"""

import argparse
from pathlib import Path
from typing import Any

from _heads import by_category, head, means, table
from handful import backbones

DIRECTIONS = {  # what is trained on, and what is tested on: no data set on both sides
    "piped, magnetic_tile, bsdata → mvtec_ad": (("piped", "magnetic_tile", "bsdata"), ("mvtec_ad",)),
    "mvtec_ad → others": (("mvtec_ad",), ("piped", "magnetic_tile", "bsdata", "elpv", "deeppcb")),
}
ROWS: dict[str, dict[str, Any]] = {  # the settings of the training, as the paper's ablation has them
    "full": {},
    "no residual": {"residual": "none"},
    "no constraintor": {"constraintor": False},
    "no abnormal invariance": {"occ": "normal"},
}
BESIDE = {"PatchCore": "patchcore", "FastRecon, λ 0.5, top 1 %": "fastrecon:lam=0.5,share=0.01"}
METRICS = {"image_auroc": "image AUROC, %", "pixel_auroc": "pixel AUROC, %", "aupro": "AUPRO, %"}
OUT = Path(__file__).with_suffix("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--directions", type=int, nargs="+", default=[0, 1], help="0 and 1 as the table has them")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--shots", type=int, nargs="+", default=[2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, help="of each training; else its default")
    options = parser.parse_args()
    backbone = backbones.create()
    page = ["# ResAD on data that it was not trained on"]
    for number in options.directions:
        name, (source, target) = list(DIRECTIONS.items())[number]
        heads = {}
        for row in options.rows:
            file = OUT / "heads" / f"{'-'.join(source)}-{row.replace(' ', '-')}.safetensors"
            settings = ROWS[row] | ({"updates": options.updates} if options.updates else {})
            heads[row] = head(file, "resad", settings, backbone, options.data, source)
        methods = {**{f"ResAD, {row}": f"resad@{path}" for row, path in heads.items()}, **BESIDE}
        if "full" in heads:
            methods["ResAD, full, as its code evaluates"] = f"resad:paper_compat=true@{heads['full']}"
        command = f"python3 scripts/bench resad --data DIR --directions {number}"
        out = OUT / f"direction{number}"
        rows = table(options, backbone, out, target=target, methods=list(methods.values()), command=command)
        page += [f"## {name}", *means(rows, methods, METRICS), *by_category(rows, methods)]
    (OUT / "ablation.md").write_text("\n\n".join(page) + "\n")


if __name__ == "__main__":
    main()
