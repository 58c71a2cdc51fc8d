"""What LFE costs beside one crop at a time and loops over patches, and what its index saves: writes fasl_lfe.md.

    python3 scripts/bench fasl_lfe --data DIR

DIR/CATEGORY is a category in the layout of MVTec AD. All compare the crops of one defective picture, at the paper's
sizes on the default backbone, with those of references; the script stops where distances differ. The loops are those of
FASL's code: one that picks each patch's row after one product ("mulmax"), and one that also measures each patch's
distances ("diff2"); here crop by crop, as the crops go through the backbone. Their seconds are those of a few crops,
times all crops over these.
"""

import argparse
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from handful import backbones
from handful.backbones.base import Backbone
from handful.backbones.windows import windowed
from handful.benchmark.environment import commit
from handful.benchmark.memory import peak_mb, reset_peak
from handful.data import images
from handful.data.preprocessing import Preprocessing, bits_of
from handful.data.tree import read
from handful.learning import join
from handful.methods.fasl import FASL, FASLHead, unit
from handful.types import Features
from handful.version import __version__

LOOPED = 6  # crops that the loops are timed on


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="mvtec_ad/pill")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    lines = [
        "| references | what | matching, s | backbone, s | rows a patch is compared with | MB more while matching |",
        "|---|---|---|---|---|---|",
    ]
    for shots in options.shots:
        for line in measured(options.data / options.category, shots):
            lines.append(f"| {shots} | {line} |")
            print(lines[-1], flush=True)
    page = [
        "# LFE beside one crop at a time",
        f"`python3 scripts/bench fasl_lfe --data DIR --category {options.category}`, handful {__version__} at "
        f"{commit()}, {torch.get_num_threads()} threads. Rows are those of the finest level; MB is what the process "
        f"held at its peak above what it held before. All but the index find rows equally near.",
        "\n".join(lines),
    ]
    Path(__file__).with_suffix(".md").write_text("\n\n".join(page) + "\n")


def measured(folder: Path, shots: int) -> list[str]:
    """The rows of the table for so many references."""
    category = read(folder).categories[0]
    references = [images.read_picture(path, detail=320) for path in category.train[:shots]]
    defective = next(sample.path for sample in category.test if sample.anomalous)
    preprocessing = Preprocessing((320, 320), bits_of(references))
    wanted = FASL(winmode="only").windows_wanted
    backbone = windowed(backbones.create(), wanted)
    good = join([backbone(preprocessing(picture)[None]) for picture in references])
    image = preprocessing(images.read_picture(defective, detail=320))[None]
    query, seconds = timed_backbone(backbone, image)
    head = FASLHead(good.depths, nam=True, seed=0)
    whole = FASL(winmode="only", win_index=0).take_head(head).fit(good)
    few = FASL(winmode="only").take_head(head).fit(good)
    assert whole.windows_ is not None and query.windows is not None
    levels = unit(tuple(level[0] for level in query.windows.levels))
    bank = [level.flatten(0, 2) for level in whole.windows_.levels]
    of_one, lines = whole.windows_.levels[0][0, ..., 0].numel(), []
    at_once: tuple[Tensor, ...] = ()
    for name, method, rows in (("all crops", whole, len(bank[0])), ("by the index", few, few.win_index * of_one)):
        method._crop_discrepancies(tuple(level[:1] for level in levels))  # a bank is prepared by its first search
        found, spent, more = timed(method._crop_discrepancies, levels)
        at_once = at_once or found
        lines.append(f"at once, {name} | {spent:.2f} | {seconds:.2f} | {rows} | {more:.0f}")
    for name, nearest in (("mulmax", mulmax), ("diff2", diff2)):
        found, spent, more = timed(partial(looped, bank=bank, nearest=nearest), levels)
        for one, other in zip(found, at_once, strict=True):
            if not torch.allclose(one.square().sum(3), other[:LOOPED].square().sum(3), atol=1e-5):
                sys.exit("The loops find other rows than all crops at once.")
        spent *= len(levels[0]) / LOOPED
        lines.append(f"loop, {name} | {spent:.2f} | {seconds:.2f} | {len(bank[0])} | {more:.0f}")
    return lines


def timed_backbone(backbone: Backbone, image: Tensor) -> tuple[Features, float]:
    """The features of a picture and its crops, and the seconds of the second time."""
    backbone(image)
    begin = time.perf_counter()
    return backbone(image), time.perf_counter() - begin


def timed(
    match: Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]], levels: tuple[Tensor, ...]
) -> tuple[tuple[Tensor, ...], float, float]:
    """What a matching finds, its seconds, and the MB that it held above those before."""
    reset_peak()
    before, begin = peak_mb() or 0.0, time.perf_counter()
    with torch.inference_mode():
        found = match(levels)
    seconds = time.perf_counter() - begin
    return found, seconds, (peak_mb() or 0.0) - before


def looped(
    levels: tuple[Tensor, ...], *, bank: Sequence[Tensor], nearest: Callable[[Tensor, Tensor], Tensor]
) -> tuple[Tensor, ...]:
    """The discrepancies of the first crops, one at a time: (LOOPED, h, w, D) each level."""
    found = []
    for number in range(LOOPED):
        crop = [level[number] for level in levels]
        rows = [nearest(level.flatten(0, 1), bank_) for level, bank_ in zip(crop, bank, strict=True)]
        found.append([(level - one.reshape(level.shape)).abs() for level, one in zip(crop, rows, strict=True)])
    return tuple(torch.stack(level) for level in zip(*found, strict=True))


def mulmax(patches: Tensor, bank: Tensor) -> Tensor:
    """Each patch's most similar row by one product, picked in a loop."""
    return torch.stack([bank[row] for row in (patches @ bank.T).argmax(1)])


def diff2(patches: Tensor, bank: Tensor) -> Tensor:
    """Each patch's nearest row, measured and picked in a loop."""
    return torch.stack([bank[(bank - patch).norm(dim=1).argmin()] for patch in patches])


if __name__ == "__main__":
    main()
