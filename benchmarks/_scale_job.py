"""A step of a run of `handful.scale` in a process of its own: prints its seconds and its memory as JSON.

    python benchmarks/_scale_job.py plan|score|open ARGUMENTS_AS_JSON

Worker processes import this file anew, so that nothing that takes memory is imported before it is needed.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any


def main() -> None:
    print(json.dumps(STEPS[sys.argv[1]](**json.loads(sys.argv[2]))))


def plan(**arguments: Any) -> dict[str, Any]:
    """Plan a run."""
    from handful import scale

    begin = time.monotonic()
    found = scale.plan(**arguments)
    return {"seconds": time.monotonic() - begin, "pictures": found.pictures, "shards": found.run.shards, **_peak()}


def score(out: str, engine: str, workers: int, opening: str | None = None) -> dict[str, Any]:
    """Score a run, by an inspection of _scale_stub.py if `opening` names it.

    The rate is that of the pictures after the first shard; a run that was finished before has no first shard.
    """
    import _scale_stub
    from handful import scale

    options = scale.Options(opening=getattr(_scale_stub, opening) if opening else None)
    begin = time.monotonic()
    ends = []
    for summary in scale.score(out, engine=engine, workers=workers, options=options):  # type: ignore[arg-type]
        ends.append((time.monotonic() - begin, summary.pictures, summary.seconds))
    found: dict[str, Any] = {"seconds": time.monotonic() - begin, "shards": len(ends), **_peak()}
    if ends:
        pictures = sum(count for _, count, _ in ends)
        after = pictures - ends[0][1]
        found |= {
            "pictures": pictures,
            "first": ends[0][0],
            "last": ends[-1][0],
            "rate": after / max(ends[-1][0] - ends[0][0], 1e-9),
            "shard_seconds": [seconds for _, _, seconds in ends],
        }
    return found


def open_shards(out: str, shards: list[int]) -> dict[str, Any]:
    """Open shards of a plan as a worker does: the first by itself, for a library's first use takes longer."""
    from handful.scale.worker import read_run

    run = read_run(out)
    seconds = []
    for shard in shards:
        begin = time.monotonic()
        run.planned(shard)
        seconds.append(time.monotonic() - begin)
    return {"first": seconds[0], "median": statistics.median(seconds[1:]), "most": max(seconds), **_peak()}


def load(path: str, pictures: list[str], group: int = 20) -> dict[str, Any]:
    """Load an inspector and inspect pictures: its memory beside `handful.scale.worker`, and processor seconds."""
    from pathlib import Path

    from handful.scale.worker import open_inspector

    def resident() -> float:
        return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6

    start, content, before = time.process_time(), Path(path).read_bytes(), resident()
    open_inspector(content, 1, None)  # the library's first use
    seconds = []
    for _ in range(5):
        begin = time.process_time()
        judge = open_inspector(content, 1, None)
        seconds.append(time.process_time() - begin)
    groups = []
    for first in range(0, len(pictures), group):
        begin, some = time.process_time(), pictures[first : first + group]
        for picture in some:
            judge(Path(picture).read_bytes(), picture)
        groups.append((time.process_time() - begin) / len(some))
    found = {"start_cpu": start, "load_cpu": statistics.median(seconds), "picture_cpu": statistics.mean(groups)}
    return {**found, "groups": groups, "mb": resident() - before, **_peak()}


def _peak() -> dict[str, float | None]:
    from handful.evaluation.peak_memory import peak_mb

    return {"peak_mb": peak_mb()}


STEPS: dict[str, Callable[..., dict[str, Any]]] = {"plan": plan, "score": score, "open": open_shards, "load": load}

if __name__ == "__main__":
    main()
