"""What sharing features between cells saves: writes reuse.md beside itself.

    python3 scripts/bench reuse --data DIR

The same cells of one category three ways: all at once; cell by cell, a `handful bench` for each, as a script without
such a benchmark would go about it; and one by one in one process, which spares the start-up and computes features anew.
DIR/CATEGORY is a category of the few_shot run, whose methods, shots and seeds these are.
"""

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from few_shot import ABLATION, SEEDS, SHOTS
from handful import backbones
from handful.data.layouts.tree import read
from handful.evaluation import results
from handful.evaluation.cells import Cell, plan
from handful.evaluation.environment import commit
from handful.evaluation.run import run
from handful.version import __version__

METHODS = ["patchcore", *ABLATION.values()]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", default=["piped/btn01_rl"])
    parser.add_argument("--commands", type=int, default=6, help="cells that get a command of their own")
    options = parser.parse_args()
    lines = [
        "| category | cells | all at once | cell by cell / at once | one by one in a process / at once |",
        "|---|---|---|---|---|",
    ]
    for category in options.categories:
        lines.append(compare(options.data / category, options.commands))
        print(lines[-1], flush=True)
    page = [
        "# What sharing features saves",
        f"`python3 scripts/bench reuse --data DIR --categories {' '.join(options.categories)}`, handful {__version__} "
        f"at {commit()}: {len(METHODS)} methods x {len(SHOTS)} numbers of references x {len(SEEDS)} seeds, the cells "
        f"of few_shot. Cell by cell is a command for each: the median of {options.commands} cells spread over the "
        f"grid, times their number. Results are equal in all three.",
        "\n".join(lines),
        "One by one in a process tells what the features alone cost; the rest of cell by cell is the start of a "
        "process and its network. What is left at once is the methods' own work, most of it PatchCore's search.",
    ]
    Path(__file__).with_suffix(".md").write_text("\n\n".join(page) + "\n")


def compare(folder: Path, commands: int) -> str:
    """One row of the table."""
    cells = plan({"data": read(folder)}, methods=METHODS, shots=SHOTS, seeds=SEEDS)
    backbone = backbones.create()
    with tempfile.TemporaryDirectory() as scratch:
        begin = time.perf_counter()
        together = list(run(cells, backbone, Path(scratch, "together"), false_alarm_rate=0.01))
        at_once = time.perf_counter() - begin
        begin = time.perf_counter()
        singly = [
            row for cell in cells for row in run([cell], backbone, Path(scratch, "singly"), false_alarm_rate=0.01)
        ]
        one_by_one = time.perf_counter() - begin
        some = cells[:: max(1, len(cells) // commands)][:commands]
        each = statistics.median(command(folder, cell, Path(scratch, str(n))) for n, cell in enumerate(some))
        written = [results.read(Path(scratch, str(n), results.RESULTS))[0] for n in range(len(some))]
    expected = {row.key: numbers(row) for row in together}
    for row in [*singly, *written]:
        if numbers(row) != expected[row.key]:
            sys.exit(f"{row.key} came out differently")
    return (
        f"| {folder.parent.name}/{folder.name} | {len(cells)} | 1 | {each * len(cells) / at_once:.1f} "
        f"| {one_by_one / at_once:.1f} |"
    )


def numbers(row: results.Row) -> list[str]:
    """What must not depend on the way, as a table shows it."""
    values = (row.image_auroc, row.image_ap, row.pixel_auroc, row.pixel_ap, row.aupro, row.false_alarm_rate)
    return ["" if value is None else f"{value:.2f}" for value in values]


def command(folder: Path, cell: Cell, out: Path) -> float:
    """Seconds of `handful bench` for one cell."""
    options = ["--methods", cell.method, "--shots", str(cell.shots), "--seeds", str(cell.seed), "--no-sheets"]
    arguments = ["bench", "--data", f"data:{folder}", *options, "--out", str(out)]
    begin = time.perf_counter()
    subprocess.run([sys.executable, "-m", "handful", *arguments], check=True, capture_output=True)
    return time.perf_counter() - begin


if __name__ == "__main__":
    main()
