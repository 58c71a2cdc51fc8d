"""Small defects in large pictures, in one input and in tiles: writes default/tiles.md.

    python3 scripts/bench tiles

Pictures are generated, as no large ones lie in the data sets here: a weave, alike all over, and a brushed plate with
holes, edges and engraved bars that come once each. Two references of each; in each further picture lies one round
defect, dark or bright, at a place of its own. Each size of picture has a process of its own, which says what it took.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from handful.data.images import Picture, read_picture
from handful.detector import Detector
from handful.evaluation.environment import commit
from handful.inspector import Inspector

OUT = Path(__file__).parent / "default" / "tiles.md"
SIZES = {2: (1632, 1216), 4: (2304, 1728), 8: (3264, 2464), 16: (4608, 3456)}  # megapixels: width, height
DIAMETERS = (4, 6, 8, 12)
REFERENCES, EACH = 2, 2  # pictures that are learnt, and with a defect of each diameter; twice as many further good ones
ASKED: tuple[int | Literal["auto"], ...] = (320, "auto")
INSPECT = """
import sys
import numpy as np
from handful.evaluation.peak_memory import peak_mb
from handful.inspector import Inspector
Inspector.load(sys.argv[1]).inspect([np.load(sys.argv[2])])
print(peak_mb())
"""
KINDS = {"weave": (2, 4, 8, 16), "plate": (2, 8)}  # and their megapixels


def weave(seed: int, width: int, height: int) -> NDArray[np.float32]:
    """A fine weave under light that falls off a little: (height, width) of 255 levels."""
    generator = np.random.default_rng([1, seed])
    grain = ndimage.gaussian_filter(generator.normal(size=(height, width)).astype(np.float32), 0.8)
    y, x = np.ogrid[:height, :width]
    phase = generator.uniform(0, 2 * np.pi, 2)
    threads = np.sin(x / 2.2 + phase[0]) * np.sin(y / 2.2 + phase[1])
    light = 1 - 0.1 * ((x / width - 0.5) ** 2 + (y / height - 0.5) ** 2)
    grey: NDArray[np.float32] = ((120 + 18 * grain / grain.std() + 25 * threads) * light).astype(np.float32)
    return grey


def plate(seed: int, width: int, height: int) -> NDArray[np.float32]:
    """A brushed plate, its holes and bars always the same, moved by up to 2 pixels: (height, width) of 255 levels."""
    generator, design = np.random.default_rng([2, seed]), np.random.default_rng(0)
    noise = generator.normal(size=(height, width)).astype(np.float32)
    brushed = ndimage.gaussian_filter(noise, (0.6, 6))
    fine = ndimage.gaussian_filter(noise[::-1], 0.7)
    grey = 140 + 14 * brushed / brushed.std() + 8 * fine / fine.std()
    down, across = generator.integers(-2, 3, 2)
    y, x = np.ogrid[:height, :width]
    unit = np.sqrt(width * height / 1e6)
    for _ in range(8):
        centre, radius = design.uniform(0.1, 0.9, 2) * (width, height), design.uniform(15, 40) * unit
        off = np.hypot(x - centre[0] - across, y - centre[1] - down) - radius
        grey = np.where(off < 0, 35 + 0.2 * (grey - 140), np.where(off < 4, grey + 40, grey))
    for _ in range(12):
        left, top = (design.uniform(0.1, 0.85, 2) * (width, height) + [across, down]).astype(int)
        wide, high = (design.uniform(10, 60, 2) * unit).astype(int)
        grey[top : top + high, left : left + wide] -= 45
    return np.asarray(grey, np.float32)


def picture(kind: str, seed: int, size: tuple[int, int], *, diameter: int = 0) -> tuple[Picture, tuple[float, float]]:
    """A picture, with a defect of this diameter where there is one, and its place, x and y."""
    width, height = size
    grey = {"weave": weave, "plate": plate}[kind](seed, width, height)
    across, down = np.random.default_rng([3, seed]).uniform(0.04, 0.96, 2) * size
    if diameter:
        y, x = np.ogrid[:height, :width]
        inside = ((diameter + 1) / 2 - np.hypot(x - across, y - down)).clip(0, 1)  # its edge a pixel wide
        grey += inside * ((25 if seed % 2 else 235) - grey)
    pixels = np.repeat(grey.clip(0, 255).astype(np.uint8)[:, :, None], 3, 2)
    return read_picture(pixels, name=f"{kind} {seed}"), (across, down)


def measure(kind: str, megapixels: int) -> list[dict[str, Any]]:
    """Fit an inspector of one input and one in tiles, and inspect: what each took and found."""
    wanted = SIZES[megapixels]
    references = [picture(kind, seed, wanted)[0].pixels for seed in range(REFERENCES)]
    inspectors: list[Inspector] = []
    rows: list[dict[str, Any]] = []
    for size in ASKED:
        begin = time.process_time()
        detector = Detector(size=size, engine="openvino").fit(references)
        row: dict[str, Any] = {"kind": kind, "megapixels": megapixels, "size": size, "seconds": [], "good": 0}
        row |= {"fit": time.process_time() - begin, "found": dict.fromkeys(map(str, DIAMETERS), 0)}
        row |= {"frame": detector.tiles.frame if detector.tiles else detector.backbone_spec.size}
        rows.append(
            row | {"tiles": len(detector.tiles) if detector.tiles else 1, "memory": peak(detector, references[0])}
        )
        inspectors.append(detector.inspector)
    for group, diameter in enumerate((0, 0, *DIAMETERS)):
        for number in range(EACH):
            one, at = picture(kind, 100 + 10 * group + number, wanted, diameter=diameter)
            for inspector, row in zip(inspectors, rows, strict=True):
                begin = time.process_time()
                found = inspector(one)
                row["seconds"].append(time.process_time() - begin)
                row["good"] += diameter == 0 and found.verdict == "DEFECT"
                if diameter and found.verdict == "DEFECT":
                    row["found"][str(diameter)] += any(_near(region.box, at) for region in found.regions)
    return [{**row, "seconds": float(np.median(row["seconds"]))} for row in rows]


def peak(detector: Detector, pixels: NDArray[Any]) -> float:
    """Megabytes at the peak of a process that loads an inspector and inspects one picture."""
    with tempfile.TemporaryDirectory() as folder:
        part, given = Path(folder, "part.handful"), Path(folder, "picture.npy")
        detector.save(part)
        np.save(given, pixels)
        done = subprocess.run(
            [sys.executable, "-c", INSPECT, part, given], stdout=subprocess.PIPE, text=True, check=True
        )
        return float(done.stdout)


def _near(box: tuple[int, int, int, int], at: tuple[float, float]) -> bool:
    """Whether a place lies in a box, or within a patch of it."""
    x, y, width, height = box
    return x - 8 <= at[0] <= x + width + 8 and y - 8 <= at[1] <= y + height + 8


def page(rows: Sequence[Mapping[str, Any]]) -> str:
    """The page of all that was measured."""
    heads = [f"{diameter} px" for diameter in DIAMETERS]
    found = [
        f"| pictures | `--size` | frame | tiles | {' | '.join(heads)} | good rejected |",
        "|---" * (5 + len(heads)) + "|",
    ]
    costs = [
        "| pictures | tiles | fit, s | inspection, s | s per 100 tiles | memory at `--size 320`, MB | in tiles, MB | "
        "more, bytes a pixel |",
        "|---" * 8 + "|",
    ]
    before = 0.0  # memory of the inspector of one input, which comes first
    for row in rows:
        pictures, (height, width) = f"{row['kind']}, {row['megapixels']} MP", row["frame"]
        hits = [f"{hits} of {EACH}" for hits in row["found"].values()] + [f"{row['good']} of {2 * EACH}"]
        found.append(f"| {pictures} | {row['size']} | {width} x {height} | {row['tiles']} | {' | '.join(hits)} |")
        if row["size"] == "auto":
            costs.append(
                f"| {pictures} | {row['tiles']} | {row['fit']:.0f} | {row['seconds']:.2f} | "
                f"{100 * row['seconds'] / row['tiles']:.2f} | {before:.0f} | {row['memory']:.0f} | "
                f"{1e6 * (row['memory'] - before) / np.prod(SIZES[row['megapixels']]):.0f} |"
            )
        before = row["memory"]
    lines = [
        "# Small defects in large pictures",
        f"`python3 scripts/bench tiles`, code of {commit()}. Generated pictures; {REFERENCES} references; for each "
        f"diameter, in pixels of the picture, {EACH} pictures with one round defect; {2 * EACH} further good ones; the "
        "default method and backbone on OpenVINO. Found: the verdict is DEFECT, and a region lies at its place.",
        "\n".join(found),
        "What `auto` takes: processor seconds of a fit and of an inspection (median), on the computer at hand, and the "
        "memory at the peak of a process that loads an inspector and inspects one picture whose pixels it has. Where "
        "time is in proportion to area, 100 tiles take as long in every size of picture.",
        "\n".join(costs),
    ]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--one", nargs=2, metavar=("KIND", "MEGAPIXELS"), help="measure this alone, and print JSON")
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure(options.one[0], int(options.one[1]))))
        return
    rows = []
    for kind, sizes in KINDS.items():
        for megapixels in sizes:
            command = [sys.executable, __file__, "--one", kind, str(megapixels)]
            done = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True)
            rows += json.loads(done.stdout)
            print(done.stdout.strip(), file=sys.stderr, flush=True)
    OUT.write_text(page(rows), "utf-8")


if __name__ == "__main__":
    main()
