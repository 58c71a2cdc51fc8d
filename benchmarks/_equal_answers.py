"""The answers of one tree of Handful's code, told to the last bit: run by equal.py with PYTHONPATH on that tree.

It knows the package by its public names and its command line alone, and those before and after `Inspection.score`
became the calibrated score.
"""

import hashlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

EARLIER = {"teach_good": "teach"}  # verbs of `Detector` that had another name
Answer = dict[str, Any]  # `by`, `picture`, and what `told` says; or `error` alone
Job = dict[str, Any]  # see `_job` in equal.py


def main() -> None:
    """Answer the jobs that stdin lists, each into the file that stands beside it."""
    given = json.load(sys.stdin)
    import handful

    if not Path(handful.__file__).is_relative_to(given["source"]):
        sys.exit(f"The code must be that of {given['source']}, got {handful.__file__}.")
    for number, (job, out) in enumerate(given["jobs"], 1):
        begin = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            answers = list(answers_to(job, Path(folder)))
        aside = Path(f"{out}.part")
        aside.write_text("".join(f"{json.dumps(answer)}\n" for answer in answers))
        aside.replace(out)
        seconds = time.perf_counter() - begin
        said = f"{job['category']} {job['label']}: {len(answers)} answers, {seconds:.0f} s"
        print(f"  {number} of {len(given['jobs'])}: {said}", file=sys.stderr, flush=True)


def answers_to(job: Job, folder: Path) -> Iterator[Answer]:
    """Fit, save, inspect by the saved graph and by torch, and again after corrections; an error ends it."""
    import torch

    from handful import Detector, Inspector

    torch.manual_seed(0)  # of random weights
    try:
        options = dict(job["options"])
        for option, words in job["trained"].items():
            options[option] = str(folder / f"{option}.safetensors")
            command = [sys.executable, "-m", "handful", "train", *words, "--output", options[option]]
            subprocess.run(command, check=True, capture_output=True, text=True)
        saved = folder / "part.handful"
        detector = Detector(**options)
        detector.fit(job["references"], accept_odd=True).save(saved)  # which changes no answer
        loaded = {name: options[name] for name in ("head",) if name in options}
        by_torch = Detector.load(saved, engine="torch", **loaded)
        yield from _inspected("torch", by_torch, job["by_torch"])
        if job["has_graph"]:
            yield from _inspected("graph", Inspector.load(saved), job["pictures"])
        if job["corrections"]:
            for verb, *arguments in job["corrections"]:
                getattr(detector, verb if hasattr(detector, verb) else EARLIER[verb])(*arguments)
            detector.save(saved)
            yield from _inspected("corrected graph", Inspector.load(saved), job["by_torch"])
    except subprocess.CalledProcessError as error:
        yield {"error": error.stderr.strip().splitlines()[-1]}
    except Exception as error:
        yield {"error": f"{type(error).__name__}: {error}"}


def _inspected(by: str, inspector: Any, pictures: Sequence[str]) -> Iterator[Answer]:
    for picture in pictures:
        (inspection,) = inspector.inspect(picture)
        yield {"by": by, "picture": picture, **told(inspection)}


def told(inspection: Any) -> Answer:
    """Everything of an inspection but its sentences, ready for JSON, which keeps every bit of a number."""
    renamed = hasattr(inspection, "raw_score")  # `score` is the calibrated one there
    heatmap = inspection.heatmap
    return {
        "verdict": str(inspection.verdict),
        "raw score": inspection.raw_score if renamed else inspection.score,
        "calibrated score": inspection.score if renamed else inspection.calibrated_score,
        "threshold": inspection.raw_threshold if renamed else inspection.threshold,
        "heatmap": None if heatmap is None else [str(heatmap.dtype), *heatmap.shape, _sha256(heatmap.tobytes())],
        "regions": [
            [region.box, region.area, region.peak, region.peak_at, _place(region.nearest)]
            for region in inspection.regions
        ],
        "missing": _place(inspection.missing),
        "size": inspection.size,
        "sentences": [inspection.reason is not None, len(inspection.notes)],
    }


def _place(likeness: Any) -> list[Any] | None:
    return None if likeness is None else [likeness.picture, likeness.at, likeness.distance]


def _sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def differences(before: Sequence[Answer], now: Sequence[Answer]) -> dict[str, str]:
    """The answers that differ by name, and in which fields, in words."""
    old, new = ({_name(answer): answer for answer in answers} for answers in (before, now))
    found = {name: _different(old.get(name), new.get(name)) for name in {**old, **new}}
    return {name: words for name, words in found.items() if words}


def _name(answer: Answer) -> str:
    return f"{answer['picture']} by {answer['by']}" if "picture" in answer else "error"


def _different(one: Answer | None, other: Answer | None) -> str:
    """The fields whose JSON differs, where NaN is NaN and 0 is not -0; empty for none."""
    if one is None or other is None:
        return f"given {'now' if one is None else 'before'} alone"
    pairs = [(name, one[name], other[name]) for name in one if json.dumps(one[name]) != json.dumps(other[name])]
    return ", ".join(name if isinstance(old, list) else f"{name} {old} → {new}" for name, old, new in pairs)


if __name__ == "__main__":
    main()
