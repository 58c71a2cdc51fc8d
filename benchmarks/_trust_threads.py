"""Threads: answers to several threads that are others than alone, and the rate of threads beside a stream's."""

import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from handful.data.layouts.tree import read_category
from handful.data.shots import draw
from handful.detector import Detector
from handful.inspector import Inspector
from handful.report.result import Inspection

CATEGORY, SHOTS = "mvtec_ad/bottle", 4
THREADS, ANSWERS = 4, 5000  # of each engine
RATES, ROUNDS, PICTURES = (2, 4, 8), 7, 200
RATE_BOUND = 0.9

Ask = Callable[[str], Inspection]


def measure(data: Path) -> dict[str, Any]:
    """The wrong answers of each engine, and the rate of threads as a share of the stream's.

    Args:
        data: data sets in the layout of MVTec AD, a folder each, `CATEGORY` among them.
    """
    category, _ = read_category(data / CATEGORY)
    references = draw(category.train, shots=SHOTS, seed=0)
    paths = [sample.path for sample in category.test]
    with tempfile.TemporaryDirectory() as folder:
        Detector(engine="openvino").fit(references).save(Path(folder, "part.handful"))
        inspector = Inspector.load(Path(folder, "part.handful"))
    torch = Detector(engine="torch", device="cpu").fit(references).inspector
    wrong = {name: _wrong(one, paths) for name, one in (("openvino", inspector), ("torch", torch))}
    return {"wrong": wrong, "rates": {str(threads): found for threads, found in _rates(inspector, paths).items()}}


def _wrong(inspector: Inspector, paths: Sequence[str]) -> int:
    """How many of `ANSWERS` answers to `THREADS` threads differ from the picture's own in any value."""
    alone = {path: _described(inspector.inspect(path)[0]) for path in paths}
    asked = [paths[number % len(paths)] for number in range(ANSWERS)]
    told = _in_threads(lambda path: inspector.inspect(path)[0], asked, threads=THREADS)
    return sum(_described(one) != alone[one.path] for one in told) + len(asked) - len(told)


def _described(inspection: Inspection) -> tuple[bytes, str]:
    return b"" if inspection.heatmap is None else inspection.heatmap.tobytes(), str(inspection.as_dict())


def _rates(inspector: Inspector, paths: Sequence[str]) -> dict[int, list[float]]:
    """Of each number of threads, its pictures a second as shares of the streams' before and after, a share a round."""
    asked = [paths[number % len(paths)] for number in range(PICTURES)]
    found: dict[int, list[float]] = {threads: [] for threads in RATES}
    before = _seconds(lambda: list(inspector.stream(asked)))
    for _ in range(ROUNDS):
        for threads, shares in found.items():
            taken = _seconds(lambda n=threads: _in_threads(lambda path: inspector.inspect(path)[0], asked, threads=n))  # type: ignore[misc]
            after = _seconds(lambda: list(inspector.stream(asked)))
            shares.append((before + after) / 2 / taken)
            before = after
    return found


def _seconds(job: Callable[[], object]) -> float:
    begin = time.perf_counter()
    job()
    return time.perf_counter() - begin


def _in_threads(ask: Ask, paths: Sequence[str], *, threads: int) -> list[Inspection]:
    """The answers to all pictures, by as many threads that each take the next picture."""
    left, told = SimpleQueue[str](), list[Inspection]()
    for path in paths:
        left.put(path)

    def run() -> None:
        while True:
            try:
                path = left.get_nowait()
            except Empty:
                return
            told.append(ask(path))

    workers = [threading.Thread(target=run) for _ in range(threads)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    return told


def page(found: dict[str, Any]) -> list[str]:
    """The part of the page."""
    wrong = ", ".join(f"{name} {count}" for name, count in found["wrong"].items())
    rows = [
        f"| {threads} | {statistics.median(shares):.2f} | {min(shares):.2f} to {max(shares):.2f} | {RATE_BOUND} |"
        for threads, shares in found["rates"].items()
    ]
    return [
        "## Threads",
        f"{ANSWERS} answers of each engine to {THREADS} threads, {CATEGORY} at {SHOTS} references: answers that differ "
        f"from the picture's own answer in any value, heatmaps included: {wrong} (bound: 0).",
        "Pictures a second of threads that share one inspector, as a share of `stream`'s in the same run, "
        f"{PICTURES} pictures, {ROUNDS} rounds:",
        "\n".join(["| threads | median | range | bound |", "|---|---|---|---|", *rows]),
    ]
