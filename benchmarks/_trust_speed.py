"""The part of the trust page about speed: one inspection beside an earlier commit's, in processes that take turns."""

import os
import statistics
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from handful.data.layouts.tree import read_category
from handful.data.shots import draw

ROOT = Path(__file__).resolve().parent.parent
BEFORE = "d5edfa1"  # the last commit before threads, processes and files were made safe
CATEGORY, SHOTS = "mvtec_ad/bottle", 4
PROCESSES, INSPECTIONS = 10, 60
BOUND = 1.03

RUN = """
import statistics, sys, time
from handful.inspector import Inspector
inspector = Inspector.load(sys.argv[1])
for path in sys.argv[2:]:
    seconds = []
    for _ in range({count}):
        begin = time.perf_counter()
        inspector.inspect(path)
        seconds.append(time.perf_counter() - begin)
    print(statistics.median(seconds[5:]))
"""
FIT = """
import sys
from handful.detector import Detector
Detector(settings={settings}).fit(sys.argv[2:]).save(sys.argv[1])
"""
SETTINGS = {"before": "{}", "now": "{'wide': False}"}  # that method had single patches alone


def measure(data: Path, before: str = BEFORE, settings: Mapping[str, str] = SETTINGS) -> dict[str, Any]:
    """Ratios of the median seconds of one inspection, a pair of processes each, of a good and a defective picture.

    Args:
        data: the folder of data sets.
        before: the commit that the working tree is compared with.
        settings: of the method, as Python text, before and now.
    """
    category, _ = read_category(data / CATEGORY)
    references = [str(path) for path in draw(category.train, shots=SHOTS, seed=0)]
    good, bad = (next(one.path for one in category.test if one.anomalous is kind) for kind in (False, True))
    with tempfile.TemporaryDirectory() as folder:
        archive = Path(folder, "before.tar")
        subprocess.run(["git", "archive", "-o", archive, before, "src"], cwd=ROOT, check=True)
        with tarfile.open(archive) as file:
            file.extractall(Path(folder, "before"), filter="data")
        sources = {"before": Path(folder, "before", "src"), "now": ROOT / "src"}
        for name, source in sources.items():
            _run(source, FIT.replace("{settings}", settings[name]), f"{folder}/{name}.handful", *references)
        seconds: dict[str, list[list[float]]] = {name: [] for name in sources}
        for _ in range(PROCESSES):
            for name, source in sources.items():
                said = _run(source, RUN.replace("{count}", str(INSPECTIONS)), f"{folder}/{name}.handful", good, bad)
                seconds[name].append([float(line) for line in said.split()])
    pairs = zip(seconds["now"], seconds["before"], strict=True)
    ratios = [[now / before for now, before in zip(*pair, strict=True)] for pair in pairs]
    return {"good": [row[0] for row in ratios], "defective": [row[1] for row in ratios]}


def _run(source: Path, script: str, *words: str) -> str:
    environment = {"OMP_WAIT_POLICY": "PASSIVE", **os.environ, "PYTHONPATH": str(source)}
    command = [sys.executable, "-c", script, *words]
    return subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout


def page(found: dict[str, Any]) -> list[str]:
    """The section of the page."""
    rows = [
        f"| {kind} | {statistics.median(ratios):.3f} | {min(ratios):.2f} to {max(ratios):.2f} | {BOUND} |"
        for kind, ratios in found.items()
    ]
    return [
        "## Speed",
        f"Seconds of one inspection now, by single patches alone, over those at {BEFORE}, which had no other evidence; "
        f"{CATEGORY} at {SHOTS} references: medians of "
        f"{INSPECTIONS - 5} inspections in each of {PROCESSES} pairs of processes that take turns.",
        "\n".join(["| picture | median | range | bound |", "|---|---|---|---|", *rows]),
    ]
