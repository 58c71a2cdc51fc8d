"""FASL tested on data sets that it was not trained on: writes fasl/ and fasl/ablation.md beside itself.

    python3 scripts/bench fasl --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. Heads, with NAM and without, are
trained on one half of them, tested on the other, and the other way round, at their default schedule. Beside them stands
the plain cosine distance of the same features. Killed, it goes on where it was; heads stay in fasl/heads. A smaller
table: --one, --other, --directions, --rows, --categories, --shots, --seeds, --updates. With LFE a picture costs as many
runs of the backbone as it has crops: --win-stride.
"""

import argparse
from pathlib import Path

from _heads import by_category, head, means, table
from handful import backbones

ROWS = {  # whether there is NAM, and the settings of the method
    "base": (False, {}),
    "+ NAM": (True, {}),
    "+ LFE": (False, {"winmode": "mul"}),
    "+ NAM + LFE": (True, {"winmode": "mul"}),
    "cosine distance": (False, {"judged_by": "cosine"}),
}
METRICS = {
    "image_auroc": "image AUROC, %",
    "image_f1_oracle": "image F1-max, %",
    "image_ap": "image AP, %",
    "pixel_auroc": "pixel AUROC, %",
    "pixel_f1_oracle": "pixel F1-max, %",
    "pixel_ap": "pixel AP, %",
    "aupro": "AUPRO, %",
    "ms_per_image": "ms an image",
}
OUT = Path(__file__).with_suffix("")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--one", nargs="+", default=["piped", "magnetic_tile", "bsdata"], help="data sets of one half")
    parser.add_argument("--other", nargs="+", default=["mvtec_ad", "elpv", "deeppcb"], help="those of the other")
    parser.add_argument("--directions", type=int, nargs="+", default=[0, 1], help="0: trained on --one; 1: on --other")
    parser.add_argument("--rows", nargs="+", default=list(ROWS), help=f"of {', '.join(ROWS)}")
    parser.add_argument("--categories", nargs="+", help="to test, by name; else all")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, help="of each training; else its default")
    parser.add_argument("--win-stride", type=int, help="of LFE; else the paper's")
    options = parser.parse_args()
    backbone = backbones.create()
    page = ["# FASL on data that it was not trained on"]
    for number in options.directions:
        source, target = (options.one, options.other) if number == 0 else (options.other, options.one)
        methods = {}
        for row in options.rows:
            nam, settings = ROWS[row]
            file = OUT / "heads" / f"{'-'.join(source)}-{'nam' if nam else 'base'}.safetensors"
            training = {"nam": nam} | ({"updates": options.updates} if options.updates else {})
            path = head(file, "fasl", training, backbone, options.data, source)
            methods[f"FASL, {row}"] = f"{configured(settings, options.win_stride)}@{path}"
        command = f"python3 scripts/bench fasl --data DIR --directions {number}"
        out = OUT / f"direction{number}"
        rows = table(options, backbone, out, target=target, methods=list(methods.values()), command=command)
        page += [f"## {', '.join(source)} → {', '.join(target)}", *means(rows, methods, METRICS)]
        page += by_category(rows, methods)
        (OUT / "ablation.md").write_text("\n\n".join(page) + "\n")


def configured(settings: dict[str, str], stride: int | None) -> str:
    """The method's text, as the table has it."""
    given = [f"{name}={value}" for name, value in settings.items()]
    given += [f"win_stride={stride}"] if stride not in (None, 2) and "winmode" in settings else []
    return "fasl" + (f":{','.join(given)}" if given else "")


if __name__ == "__main__":
    main()
