"""The bank's search in whole numbers of 8 bits beside the same in float32: writes search.md beside itself.

    python3 scripts/bench search --data DIR

DIR/CATEGORY is a category in the layout of MVTec AD. Both find the nearest good patch of every patch of the first
defective pictures; they take turns, and ratios are of medians. The script stops where a row differs.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor

from handful import backbones
from handful.data import images
from handful.data.depths import bits_of
from handful.data.layouts.tree import read
from handful.data.preprocessing import Preprocessing
from handful.evaluation.environment import commit
from handful.fitting.calibration import join
from handful.ops.neighbors import Bank
from handful.ops.patches import level_scales, patch_vectors
from handful.version import __version__

SHOTS, PICTURES, REPETITIONS = (1, 4, 8), 3, 7


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--categories", nargs="+", default=["mvtec_ad/pill", "mvtec_ad/screw", "piped/btn01_rl"])
    options = parser.parse_args()
    lines = ["| category | references | rows | float32 / 8 bits |", "|---|---|---|---|"]
    for category in options.categories:
        for shots in SHOTS:
            lines.append(compare(options.data / category, shots))
            print(lines[-1], flush=True)
    page = [
        "# The search for the nearest good patch",
        f"`python3 scripts/bench search --data DIR --categories {' '.join(options.categories)}`, handful {__version__} "
        f"at {commit()}, {torch.get_num_threads()} threads: a picture's 1,600 patches against those of references, the "
        f"ratio of medians of {REPETITIONS} turns over {PICTURES} pictures. Both find the same rows.",
        "\n".join(lines),
    ]
    Path(__file__).with_suffix(".md").write_text("\n\n".join(page) + "\n")


def compare(folder: Path, shots: int) -> str:
    """One row of the table."""
    category = read(folder).categories[0]
    defective = [sample.path for sample in category.test if sample.anomalous][:PICTURES]
    references = [images.read_picture(path, detail=320) for path in category.train[:shots]]
    preprocessing, backbone = Preprocessing((320, 320), bits_of(references)), backbones.create()
    good = join([backbone(torch.from_numpy(preprocessing(picture))[None]) for picture in references])
    scales = level_scales(good.levels, weights="equal")

    def patches(levels: tuple[Tensor, ...]) -> Tensor:
        return patch_vectors(levels, scales, neighbourhood=3, dimensions=None).flatten(0, 2)

    bank = Bank(patches(good.levels).contiguous())
    inputs = [torch.from_numpy(preprocessing(images.read_picture(path, detail=320))) for path in defective]
    queries = [patches(backbone(image[None]).levels) for image in inputs]

    def by_products(query: Tensor) -> Tensor:
        return bank._nearest_by_products(query, 1, None)[:, 0]

    def by_codes(query: Tensor) -> Tensor:
        return bank.nearest(query)[1][:, 0]

    seconds: dict[str, list[float]] = {"float32": [], "8 bits": []}
    for _ in range(REPETITIONS):
        for query in queries:
            plain = timed(seconds["float32"], by_products, query)
            coded = timed(seconds["8 bits"], by_codes, query)
            if not torch.equal(plain, coded):
                sys.exit(f"{folder} at {shots} references: the two searches differ")
    ratio = statistics.median(seconds["float32"]) / statistics.median(seconds["8 bits"])
    return f"| {folder.parent.name}/{folder.name} | {shots} | {len(bank.rows)} | {ratio:.1f} |"


def timed(seconds: list[float], search: Callable[[Tensor], Tensor], query: Tensor) -> Tensor:
    """What a search finds; its seconds are noted."""
    begin = time.perf_counter()
    found = search(query)
    seconds.append(time.perf_counter() - begin)
    return found


if __name__ == "__main__":
    main()
