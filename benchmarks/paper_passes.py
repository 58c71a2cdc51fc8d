"""What a picture costs on the backbones of the papers: writes papers/passes.md.

    OPENBLAS_NUM_THREADS=1 python3 scripts/bench paper_passes --most 100

One thread of torch, random weights (the operations are the same), one picture, the processor's time of a second pass.
Beside it stands how fast NumPy multiplies matrices on one thread: `handful bench --paper NAME --plan` divides the
operations by a share of that, `EFFICIENCY` in src/handful/evaluation/papers/estimate.py.
Without --most, in 10⁹ operations, the two large vision transformers are measured too.
"""

import argparse
import time
from pathlib import Path

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from handful import backbones
from handful.evaluation.papers import PAPERS, read_paper
from handful.evaluation.papers.estimate import EFFICIENCY, SIDE
from handful.evaluation.tables import markdown_table

BY_NUMPY = 20  # matrices multiplied


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=float, default=float("inf"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    used = {one.name: one for paper in PAPERS for one in read_paper(paper).backbones.values()}
    rows: list[list[str]] = []
    for name, one in sorted(used.items(), key=lambda item: item[1].gflop):
        if one.gflop > options.most:
            continue
        network = backbones.create(
            name, levels=list(one.levels) or None, size=one.size, weights="random", engine="torch", device="cpu"
        )
        picture = torch.rand(1, 3, *one.size)
        with FlopCounterMode(display=False) as counter:
            network(picture)
        begin = time.thread_time()
        network(picture)
        seconds, rate = time.thread_time() - begin, _rate_of_numpy()
        counted = counter.get_total_flops() / 1e9
        reached = counted / seconds
        figures = [f"{counted:.1f}", f"{one.gflop:.1f}", f"{seconds:.2f}", f"{reached:.1f}", f"{rate:.1f}"]
        rows.append([name, f"{one.size[1]}x{one.size[0]}", *figures, f"{reached / rate:.2f}"])
        print(rows[-1], flush=True)
    _write(rows, options.most)


def _write(rows: list[list[str]], most: float) -> None:
    """Write the page of what was measured."""
    heads = [
        "backbone",
        "input",
        "10⁹ operations",
        "in the paper's file",
        "s a picture",
        "10⁹ a second",
        "NumPy's",
        "share",
    ]
    command = "OPENBLAS_NUM_THREADS=1 python3 scripts/bench paper_passes" + (f" --most {most:g}" if most < 1e9 else "")
    page = [
        "# What a picture costs on the papers' backbones",
        "",
        f"`{command}`; torch {torch.__version__}, one thread, random weights, the processor's time of a second "
        f"pass on a machine that was busy otherwise. Plans take a share of {EFFICIENCY}.",
        "",
        *markdown_table(heads, rows),
    ]
    (Path(__file__).parent / "papers" / "passes.md").write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


def _rate_of_numpy() -> float:
    """10⁹ operations a second, by the processor's time; OPENBLAS_NUM_THREADS must be 1."""
    matrix = np.ones((SIDE, SIDE), np.float32)
    matrix @ matrix
    begin = time.thread_time()
    for _ in range(BY_NUMPY):
        matrix @ matrix
    return float(2 * SIDE**3 * BY_NUMPY / (time.thread_time() - begin) / 1e9)


if __name__ == "__main__":
    main()
