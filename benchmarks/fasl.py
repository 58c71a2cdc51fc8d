"""FASL tested on data sets that it was not trained on: writes papers/fasl/ and papers/fasl/ablation.md.

    python3 scripts/bench fasl --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. Heads, with NAM and without, are
trained on one half of them, tested on the other, and the other way round, at their default schedule. Beside them stands
the plain cosine distance of the same features. Killed, it goes on where it was; heads stay in fasl/heads. A smaller
table: --one, --other, --directions, --rows, --categories, --shots, --seeds, --updates; the page has all rows that there
are results of. With LFE a picture costs as many runs of the backbone as it has crops: --win-stride.
"""

import argparse
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from _heads import by_category, head, means, table
from handful import backbones
from handful.evaluation import results
from handful.evaluation.results import Row

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
BY_CATEGORY = {metric: METRICS[metric] for metric in ("image_auroc", "pixel_ap", "aupro")}
GAINS = [
    ("base", "cosine distance"),
    ("+ NAM", "cosine distance"),
    ("+ NAM", "base"),
    ("+ LFE", "base"),
    ("+ NAM + LFE", "+ NAM"),
]
OUT = Path(__file__).parent / "papers" / "fasl"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--one", nargs="+", default=["piped", "magnetic_tile", "bsdata"], help="data sets of one half")
    parser.add_argument("--other", nargs="+", default=["mvtec_ad", "elpv", "deeppcb"], help="those of the other")
    parser.add_argument("--directions", type=int, nargs="+", default=[0, 1], help="0: trained on --one; 1: on --other")
    parser.add_argument("--rows", nargs="*", default=list(ROWS), help=f"of {', '.join(ROWS)}; none: the page alone")
    parser.add_argument("--categories", nargs="+", help="to test, by name; else all")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--updates", type=int, help="of each training; else its default")
    parser.add_argument("--win-stride", type=int, help="of LFE; else the paper's")
    options = parser.parse_args()
    halves = [(options.one, options.other), (options.other, options.one)]
    for number in options.directions if options.rows else ():
        measure(options, number, *halves[number])
    write_page(halves, options.win_stride)


def measure(options: argparse.Namespace, number: int, source: Sequence[str], target: Sequence[str]) -> None:
    """Train what heads are missing, and run the cells that are."""
    backbone = backbones.create()
    for row in options.rows:
        nam = ROWS[row][0]
        training = {"nam": nam} | ({"updates": options.updates} if options.updates else {})
        head(head_file(source, nam=nam), "fasl", training, backbone, options.data, source)
    named = methods(source, options.rows, options.win_stride)
    command = f"python3 scripts/bench fasl --data DIR --directions {number}"
    table(options, backbone, OUT / f"direction{number}", target=target, methods=list(named.values()), command=command)


def methods(source: Sequence[str], rows: Iterable[str], stride: int | None) -> dict[str, str]:
    """The methods of some rows, by name, as the table has them."""
    root = Path(__file__).parents[1]
    return {
        f"FASL, {row}": f"{configured(ROWS[row][1], stride)}@{head_file(source, nam=ROWS[row][0]).relative_to(root)}"
        for row in rows
    }


def head_file(source: Sequence[str], *, nam: bool) -> Path:
    """Where the head that was trained on some data sets lies."""
    return OUT / "heads" / f"{'-'.join(source)}-{'nam' if nam else 'base'}.safetensors"


def configured(settings: dict[str, str], stride: int | None) -> str:
    """The method's text, as the table has it."""
    given = [f"{name}={value}" for name, value in settings.items()]
    given += [f"win_stride={stride}"] if stride not in (None, 2) and "winmode" in settings else []
    return "fasl" + (f":{','.join(given)}" if given else "")


def write_page(halves: Sequence[tuple[Sequence[str], Sequence[str]]], stride: int | None) -> None:
    """Write ablation.md, of all rows that there are results of."""
    page, both = ["# FASL on data that it was not trained on"], list[Row]()
    for number, (source, target) in enumerate(halves):
        rows = [row for row in results.read(OUT / f"direction{number}" / results.RESULTS) if not row.error]
        named = methods(source, ROWS, stride)
        named = {name: method for name, method in named.items() if any(row.method == method for row in rows)}
        both += [replace(row, method=name) for name, method in named.items() for row in rows if row.method == method]
        if rows:
            page += [f"## {', '.join(source)} → {', '.join(target)}", *means(rows, named, METRICS)]
            page += [gains(rows, named), *by_category(rows, named, BY_CATEGORY)]
    page += ["## Both halves", *means(both, {row.method: row.method for row in both}, METRICS)]
    (OUT / "ablation.md").write_text("\n\n".join(page) + "\n")


def gains(rows: Sequence[Row], named: Mapping[str, str]) -> str:
    """What one row has more than another, on the mean over the cells that both have."""
    cells = {(row.method, row.dataset, row.category, row.shots, row.seed): row for row in rows}
    metrics = {metric: title for metric, title in METRICS.items() if metric != "ms_per_image"}
    lines = [f"| gain, on cells that both have | {' | '.join(metrics.values())} | cells |"]
    lines.append("|---|" + "---|" * (len(metrics) + 1))
    for more, less in GAINS:
        one, other = named.get(f"FASL, {more}", ""), named.get(f"FASL, {less}", "")
        pairs = [(row, cells.get((other, *key[1:]))) for key, row in cells.items() if key[0] == one]
        both = [(row, of_other) for row, of_other in pairs if of_other is not None]
        if both:
            shown = [f"{difference(both, metric):+.1f}" for metric in metrics]
            lines.append(f"| {more} over {less} | {' | '.join(shown)} | {len(both)} |")
    return "\n".join(lines)


def difference(pairs: Sequence[tuple[Row, Row]], metric: str) -> float:
    """The mean of what the first of each pair has more, where it has that metric."""
    found = [(getattr(one, metric), getattr(other, metric)) for one, other in pairs]
    return statistics.mean(float(one - other) for one, other in found if one is not None and other is not None)


if __name__ == "__main__":
    main()
