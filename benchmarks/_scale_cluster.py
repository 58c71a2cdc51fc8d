"""A step of benchmarks/scale_simulation.py in a process of its own: prints its seconds and its memory as JSON.

    python benchmarks/_scale_cluster.py ray|generated|hollow|todo ARGUMENTS_AS_JSON

A hollow run has a record, a list of shards and parts, and no pictures: enough for an engine and for resuming.
"""

import json
import logging
import random
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import pyarrow as pa
from pyarrow import parquet

from handful.evaluation.peak_memory import peak_mb, reset_peak
from handful.report.result import Inspection
from handful.scale import planning
from handful.scale import run as record
from handful.scale.places import Place
from handful.scale.rows import part_of, row_of
from handful.scale.run import PART_FOLDER, SHARDS, Plan, Run
from handful.scale.scoring import score, todo
from handful.scale.sources import BATCH, FOUND
from handful.scale.worker import Options, ShardSummary, read_run
from handful.types import Verdict

DIGEST = "0" * 64
SOURCE = "s3://pictures/?region=us-east-1"  # never asked


def main() -> None:
    print(json.dumps(STEPS[sys.argv[1]](**json.loads(sys.argv[2]))))


def hollow(out: str, shards: int, shard: int, parts: float) -> dict[str, Any]:
    """Write a hollow run: shards of so many pictures, and a share of their parts, as empty files."""
    begin = time.monotonic()
    run = Run(Place.at(out), shard, None, {})
    plan = Plan("0" * 8, (SOURCE,), {"part": DIGEST}, {}, 0, shards, shards * shard, max(1, 1_000_000 // shard))
    columns = [
        pa.array(np.arange(shards, dtype=np.int32)),
        pa.repeat(pa.scalar(DIGEST), shards),
        pa.repeat(pa.scalar(shard, pa.int32()), shards),
        pa.repeat(pa.scalar(shard * 60_000, pa.int64()), shards),
    ]
    place = Path(run.shards_file(plan).path)
    place.parent.mkdir(parents=True)
    parquet.write_table(pa.table(columns, schema=SHARDS), place, compression="zstd")
    run.with_plan(plan).put()
    for folder in range(-(-shards // PART_FOLDER)):
        Path(out, "parts", str(folder)).mkdir(parents=True)
    done = random.Random(0).sample(range(shards), round(shards * parts))
    for number in done:
        Path(run.part(number).path).touch()
    return {"seconds": time.monotonic() - begin, "done": len(done), "bytes": place.stat().st_size}


def left(out: str) -> dict[str, Any]:
    """The shards that are left, as `score` asks for them when it begins: seconds and peak memory."""
    begin = time.monotonic()
    found = todo(out)
    return {"seconds": time.monotonic() - begin, "left": len(found), "peak_mb": peak_mb()}


def generated(out: str, rows: int, inspector: str, shard: int) -> dict[str, Any]:
    """Plan rows that a generator makes, in place of those of a source."""
    reset_peak()
    before, begin = peak_mb(), time.monotonic()
    with patch.object(planning, "Sources", _Generated(rows)):
        found = planning.plan(out, pictures=[SOURCE], inspector=inspector, shard=shard)
    seconds = time.monotonic() - begin
    size = sum(one.stat().st_size for one in Path(out, "plan").iterdir())
    return {"seconds": seconds, "rows": found.pictures, "bytes": size, "peak_mb": peak_mb(), "start_mb": before}


class _Generated:
    """Stands for `Sources`: keys such as a line's cameras write them, with an ETag as their version."""

    left_out: tuple[Any, ...] = ()
    left_out_count = 0

    def __init__(self, rows: int) -> None:
        self._rows = rows

    def __call__(self, *_: Any) -> "_Generated":
        return self

    def tables(self) -> Iterator[pa.Table]:
        for start in range(0, self._rows, BATCH):
            numbers = range(start, min(start + BATCH, self._rows))
            columns = {
                "path": [f"s3://pictures/line{n // 5_000_000:03d}/2026-11-30/{n:012d}.jpg" for n in numbers],
                "bytes": [60_000 + n * 7919 % 20_000 for n in numbers],
                "version": [f"{n * 2654435761 % 2**128:032x}" for n in numbers],
                **dict.fromkeys(("offset", "product", "inspector"), [None] * len(numbers)),
            }
            yield pa.table([pa.array(columns[one.name], one.type) for one in FOUND], schema=FOUND)


def on_ray(out: str, processes: int, nodes: int, times: Sequence[float]) -> dict[str, Any]:
    """Score a hollow run by the engine ray, on nodes of this machine whose workers sleep for a time drawn from some."""
    import ray
    from ray.cluster_utils import Cluster

    from handful.scale.engines import ray as engine

    run = read_run(out)
    cluster = Cluster()
    for _ in range(nodes):
        cluster.add_node(num_cpus=processes // nodes)
    ray.init(address=cluster.address, logging_level=logging.ERROR, log_to_driver=False)
    reset_peak()
    before, begin, ends = peak_mb(), time.monotonic(), []
    with patch.object(engine, "_Actor", sleeper(tuple(times))):
        for _ in score(out, engine="ray", workers=processes):
            ends.append(time.monotonic() - begin)
    finished = time.monotonic() - begin
    slept = sum(drawn(times, shard) for shard in range(run.shards))
    found: dict[str, Any] = {"shards": len(ends), "first": ends[0], "last": ends[-1], "finish": finished - ends[-1]}
    found |= {"slept": slept, "rate": (len(ends) - 1) / (ends[-1] - ends[0]), "peak_mb": peak_mb(), "start_mb": before}
    ray.shutdown()
    cluster.shutdown()  # type: ignore[no-untyped-call]
    return found


def drawn(times: Sequence[float], shard: int) -> float:
    """The seconds of a shard."""
    return times[random.Random(shard).randrange(len(times))]


def sleeper(times: Sequence[float]) -> type:
    """The class of an actor that sleeps for a shard's time, and writes the shard's part."""

    class Sleeper:
        def __init__(self, out: str, options: Options) -> None:
            self._run = read_run(out)
            self._content = part_of(_rows(self._run.shard))

        def __call__(self, batch: dict[str, Any]) -> dict[str, list[Any]]:
            return {"summary": [json.dumps(self._scored(int(shard)).as_dict()) for shard in batch["id"]]}

        def _scored(self, shard: int) -> ShardSummary:
            seconds = drawn(times, shard)
            time.sleep(seconds)
            self._run.part(shard).put(self._content)
            size = self._run.shard
            return ShardSummary(shard, size, size * 60_000, seconds, {"OK": size})

    return Sleeper


def _rows(count: int) -> list[dict[str, Any]]:
    """The rows of a shard, all alike."""
    names = (*record.KEPT, "bytes", "picture_sha256")
    planned = {**dict.fromkeys(names), "product": "part", "path": "picture.jpg", "inspector_sha256": DIGEST}
    return [row_of(planned, Inspection("picture.jpg", Verdict.OK, 0.5, 1.0, 2.0, size=(1, 1)), error=None)] * count


STEPS: dict[str, Callable[..., dict[str, Any]]] = {
    "hollow": hollow,
    "todo": left,
    "generated": generated,
    "ray": on_ray,
}

if __name__ == "__main__":
    main()
