"""What LFE costs beside one crop at a time and loops over patches, and what its index saves: writes papers/fasl/lfe.md.

    python3 scripts/bench fasl_lfe --data DIR

DIR/CATEGORY is a category in the layout of MVTec AD. All compare the crops of one defective picture, at the paper's
sizes on the default backbone, with those of references, each in a process of its own, and the script stops where
distances differ. The loops are those of FASL's code: one that picks each patch's row after one product ("mulmax"), and
one that also measures each patch's distances ("diff2"); here crop by crop, as the crops go through the backbone. Their
seconds are those of a few crops, times all crops over these. Memory is measured apart from time, right on Linux alone.
"""

import argparse
import multiprocessing
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import backbones
from handful.backbones.crops import with_crops
from handful.data import images
from handful.data.depths import bits_of
from handful.data.layouts.tree import read
from handful.data.preprocessing import Preprocessing
from handful.evaluation.environment import commit
from handful.evaluation.peak_memory import peak_mb, reset_peak
from handful.fitting.calibration import join
from handful.methods.fasl.scoring import FASL, feature_discrepancy, unit
from handful.ops.crops import CropBank
from handful.ops.residuals import ResidualBank
from handful.version import __version__

Search = Callable[[tuple[Tensor, ...]], tuple[Tensor, ...]]

LOOPED = 6  # crops that the loops are timed on
VARIANTS = {
    "all": "at once, all crops",
    "index": "at once, by the index",
    "mulmax": "loop, mulmax",
    "diff2": "loop, diff2",
}


class Matched(NamedTuple):
    """What one way of matching took.

    Attributes:
        seconds: of the processor, for all crops.
        rows: of the finest level that a patch is compared with.
        kept: MB that the process holds more with the references' crops ready to be searched than before.
        more: MB that it held above these at its peak while matching.
        distances: squared, of the first crops' patches on every level.
    """

    seconds: float
    rows: int
    kept: float
    more: float
    distances: list[NDArray[np.float32]]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="mvtec_ad/pill")
    parser.add_argument("--shots", type=int, nargs="+", default=[1, 2, 4])
    options = parser.parse_args()
    lines = [
        "| references | what | matching, s | backbone, s | rows a patch meets | MB kept | MB more while matching |",
        "|---|---|---|---|---|---|---|",
    ]
    for shots in options.shots:
        for line in measured(options.data / options.category, shots):
            lines.append(f"| {shots} | {line} |")
            print(lines[-1], flush=True)
    page = [
        "# LFE beside one crop at a time",
        f"`python3 scripts/bench fasl_lfe --data DIR --category {options.category}`, handful {__version__} at "
        f"{commit()}. Seconds are the processor's, on one thread; the backbone's are the least of three. Rows are "
        f"those of the finest level. MB kept is what a process holds more once the references' crops are ready to be "
        f"searched, MB more what it held above that at its peak. All but the index find rows equally near.",
        "\n".join(lines),
    ]
    (Path(__file__).parent / "papers" / "fasl" / "lfe.md").write_text("\n\n".join(page) + "\n")


def measured(folder: Path, shots: int) -> list[str]:
    """The rows of the table for so many references."""
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "features.safetensors")
        seconds = write_features(folder, shots, file)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(1, mp_context=context, max_tasks_per_child=1) as pool:
            found = {name: pool.submit(match, name, str(file), LOOPED).result() for name in VARIANTS}
            with setting("MALLOC_MMAP_THRESHOLD_", "500000"):  # else glibc keeps what is given back, and hides it
                memory = {name: pool.submit(match, name, str(file), 1).result() for name in VARIANTS}
    for name in ("mulmax", "diff2"):
        for one, other in zip(found[name].distances, found["all"].distances, strict=True):
            if not np.allclose(one, other, atol=1e-5):
                sys.exit("The loops find other rows than all crops at once.")
    return [
        f"{VARIANTS[name]} | {found[name].seconds:.2f} | {seconds:.2f} | {of.rows} | {of.kept:.0f} | {of.more:.0f}"
        for name, of in memory.items()
    ]


def write_features(folder: Path, shots: int, file: Path) -> float:
    """Write the crops' levels of a defective picture and of references; the seconds that the former take."""
    category = read(folder).categories[0]
    references = [images.read_picture(path, detail=320) for path in category.train[:shots]]
    defective = next(sample.path for sample in category.test if sample.anomalous)
    preprocessing = Preprocessing((320, 320), bits_of(references))
    backbone = with_crops(backbones.create(), FASL(winmode="only").crops_wanted)
    good = join([backbone(torch.from_numpy(preprocessing(picture))[None]) for picture in references])
    image = torch.from_numpy(preprocessing(images.read_picture(defective, detail=320)))[None]
    seconds = []
    for _ in range(3):
        begin = time.process_time()
        query = backbone(image)
        seconds.append(time.process_time() - begin)
    assert good.crops is not None and query.crops is not None
    crops = {"query": query.crops.levels, "good": good.crops.levels}
    tensors = {f"{name}.{number}": level for name, of in crops.items() for number, level in enumerate(of)}
    safetensors.torch.save_file(tensors, file)
    return min(seconds)


@contextmanager
def setting(name: str, value: str) -> Iterator[None]:
    """An environment variable for the processes that are started meanwhile."""
    os.environ[name] = value
    try:
        yield
    finally:
        del os.environ[name]


def match(name: str, file: str, crops: int) -> Matched:
    """One way of matching, in this process; the loops for so many crops alone."""
    torch.set_num_threads(1)
    queries = crops_of(file, "query")
    share = 1.0
    if name in ("mulmax", "diff2"):
        share = len(queries[0]) / crops
        queries = tuple(level[:crops] for level in queries)
    one = tuple(level[:1] for level in queries)
    searching(name, one)[0](one)  # loads what of the libraries is used
    before = held()
    search, rows = searching(name, crops_of(file, "good"))
    with torch.inference_mode():
        search(one)  # a bank is prepared by its first search
        kept, begin = held(), time.process_time()
        found = search(queries)
        seconds = time.process_time() - begin
    more = (peak_mb() or 0.0) - kept
    distances = [one[:LOOPED].square().sum(3).numpy() for one in found]
    return Matched(seconds * share, rows, kept - before, more, distances)


def held() -> float:
    """MB that this process holds, which is its peak from here on."""
    reset_peak()
    return peak_mb() or 0.0


def crops_of(file: str, name: str) -> tuple[Tensor, ...]:
    """Crops of all pictures, patches at length 1: (W, h, w, D) of each level."""
    read = safetensors.torch.load(Path(file).read_bytes())
    return unit(tuple(level.flatten(0, 1) for key, level in sorted(read.items()) if key.startswith(name)))


def searching(name: str, good: tuple[Tensor, ...]) -> tuple[Search, int]:
    """What finds the discrepancies of crops from good ones, and how many rows it compares a patch with."""
    rows = good[0][..., 0].numel()
    if name == "all":
        return partial(feature_discrepancy, ResidualBank(good, match="euclidean")), rows
    if name == "index":
        index = FASL().win_index
        return partial(by_index, CropBank(good), index), index * good[0][0, ..., 0].numel()
    bank = [level.flatten(0, 2) for level in good]
    return partial(looped, bank, mulmax if name == "mulmax" else diff2), rows


def by_index(bank: CropBank, crops: int, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """As `FASL` does with its `win_index`."""
    nearest = bank.nearest(levels, crops=crops)
    return tuple((one - other).abs() for one, other in zip(levels, nearest, strict=True))


def looped(
    bank: Sequence[Tensor], nearest: Callable[[Tensor, Tensor], Tensor], levels: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """The discrepancies of crops, one at a time."""
    found = []
    for number in range(len(levels[0])):
        crop = [level[number] for level in levels]
        rows = [nearest(level.flatten(0, 1), of_level) for level, of_level in zip(crop, bank, strict=True)]
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
