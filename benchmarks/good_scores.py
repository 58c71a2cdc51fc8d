"""How good parts score, and how the shipped threshold does: writes threshold/METHOD.md.

    python3 scripts/bench good_scores --data DIR

DIR holds data sets in any layout that `handful data check` knows, one a folder. The raw scores of every cell (category,
number of references, draw) go to threshold/METHOD.jsonl as they come; killed, it goes on where it was, and without
--data the page is worked out anew from that file. The tables of good pictures use no defects: they are where the
assumptions at the top of handful/inspection/threshold.py come from. Labels measure the threshold and choose nothing.
"""

import argparse
from pathlib import Path

import torch

import _good_cells
import _thresholds
from _tables import chosen
from handful import __version__
from handful.evaluation.environment import commit

OUT = Path(__file__).parent / "threshold"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="measure what is missing; without it, the page alone")
    parser.add_argument("--categories", nargs="+", help="only these, by name")
    parser.add_argument("--method", default="handful", help="with settings as `handful bench` takes them")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4, 8])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=OUT, help="of the raw scores; default: %(default)s")
    options = parser.parse_args()
    name = options.method.partition(":")[0]
    options.out.mkdir(parents=True, exist_ok=True)
    file = options.out / f"{name}.jsonl"
    if options.data:
        datasets = chosen(options.data, options.categories)
        cells = _good_cells.measure(datasets, file, method=options.method, shots=options.shots, seeds=options.seeds)
    else:
        cells = _good_cells.read(file)
    measured = " and ".join(sorted({cell.commit for cell in cells}))
    page = [
        "# Good parts' scores and the shipped threshold",
        f"`python3 scripts/bench good_scores --data DIR --method {options.method}`, handful {__version__}: scores "
        f"measured at {measured}, this page worked out from [them]({file.name}) at {commit()}. "
        f"tf_efficientnet_lite0 with its weights on board, about 320² pixels; "
        f"{len({cell.key[:2] for cell in cells})} categories, draws 0 to {max(cell.seed for cell in cells)} "
        f"(at 8 references {_draws(cells)}), at most "
        f"{_good_cells.GOOD} good and {_good_cells.DEFECTIVE} defective test pictures of each.",
        *_thresholds.assumptions(cells),
        *_thresholds.verdicts(cells),
        *_thresholds.left_out(cells),
        *_thresholds.sharpened(cells),
    ]
    text = "\n\n".join(page) + "\n"
    if options.out == OUT:
        (OUT / f"{name}.md").write_text(text)
    print(text)


def _draws(cells: list[_good_cells.Cell]) -> str:
    """Which draws of 8 references were measured, in how many categories."""
    seeds = [cell.seed for cell in cells if cell.shots == 8]
    return ", ".join(f"draw {seed} of {seeds.count(seed)} categories" for seed in sorted(set(seeds))) or "none"


if __name__ == "__main__":
    torch.set_grad_enabled(False)
    main()
