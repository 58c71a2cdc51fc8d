"""What a picture costs on the backbones of the papers: writes paper_passes.md beside itself.

    python3 scripts/bench paper_passes

One thread of torch, random weights (the operations are the same), one picture, the best of three passes. Beside them
stands how fast NumPy multiplies matrices in the same minute: `handful bench --paper NAME --plan` divides the operations
by a share of that, `EFFICIENCY` in src/handful/evaluation/papers/estimate.py.
"""

import time
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from handful import backbones
from handful.evaluation.papers import PAPERS, read_paper
from handful.evaluation.papers.estimate import EFFICIENCY, measured_rate
from handful.evaluation.tables import markdown_table

PASSES = 3


def main() -> None:
    torch.set_num_threads(1)
    used = {one.name: one for paper in PAPERS for one in read_paper(paper).backbones.values()}
    rows = []
    for name, one in sorted(used.items()):
        network = backbones.create(
            name, levels=list(one.levels) or None, size=one.size, weights="random", engine="torch", device="cpu"
        )
        picture = torch.rand(1, 3, *one.size)
        with FlopCounterMode(display=False) as counter:
            network(picture)
        seconds = []
        for _ in range(PASSES):
            begin = time.perf_counter()
            network(picture)
            seconds.append(time.perf_counter() - begin)
        counted, rate = counter.get_total_flops() / 1e9, measured_rate()
        reached = counted / min(seconds)
        figures = [f"{counted:.1f}", f"{one.gflop:.1f}", f"{min(seconds):.2f}", f"{reached:.1f}", f"{rate:.1f}"]
        rows.append([name, f"{one.size[1]}x{one.size[0]}", *figures, f"{reached / rate:.2f}"])
        print(rows[-1], flush=True)
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
    page = [
        "# What a picture costs on the papers' backbones",
        "",
        f"`python3 scripts/bench paper_passes`; torch {torch.__version__}, one thread, random weights, the best of "
        f"{PASSES} passes. Plans take a share of {EFFICIENCY}.",
        "",
        *markdown_table(heads, rows),
    ]
    Path(__file__).with_suffix(".md").write_text("\n".join(page).rstrip() + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
