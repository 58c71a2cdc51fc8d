"""Scoring a planned run: hand the shards that are not done to an engine, and put the end to the run."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from pyarrow import dataset

from handful.errors import OutputError, SettingError, check_packages
from handful.scale import results
from handful.scale.pool import usable_cores
from handful.scale.rows import PASSING
from handful.scale.run import Run
from handful.scale.worker import Options, ShardSummary, read_run

Engine = Literal["local", "ray"]
ENGINES: tuple[Engine, ...] = ("local", "ray")
FAILED = 3  # shards in a row without a part, after which a run ends
_SPREAD = 2_654_435_761  # times a shard's number, modulo 2^32: neighbours in this order lie far apart


def score(
    out: str,
    *,
    engine: Engine = "local",
    workers: int | None = None,
    address: str | None = None,
    retry_errors: bool = False,
    options: Options | None = None,
) -> Iterator[ShardSummary]:
    """Score the shards of a run that are not done, and yield a summary of each; the last step writes summary.json.

    The engine local spawns processes: in a script, call it below `if __name__ == "__main__":`.

        for summary in handful.scale.score("scores", workers=2):
            print(summary.shard, summary.verdicts)

    Args:
        out: the folder of a run that `plan` has planned, a path or a URI.
        engine: local, processes of this machine; or ray, this machine or a cluster.
        workers: the number of processes; None for as many as there are cores.
        address: of a cluster of Ray; None for this machine.
        retry_errors: score the shards again that hold a picture with the error READ, CRASH or TIMEOUT, and replace
            their parts.
        options: of the workers.

    Raises:
        InputError: if there is no run, or it cannot be read.
        SettingError: for an unknown engine, a number below 1, or an address without Ray.
        PackageError: if the engine's package is not installed.
        OutputError: if three shards in a row get no part, or the last ones; all parts that exist stay.
        ProcessError: if processes end again and again.
    """
    options = options or Options()
    check_engine(engine, workers, options.threads, address)
    run = read_run(out)
    run.out.sweep()
    shards = chosen(run, retry_errors=retry_errors)
    if retry_errors and shards:
        results.forget_compacted(run)
        options = replace(options, again=True)
    return _scored(run, shards, options, engine, workers, address)


def chosen(run: Run, *, retry_errors: bool) -> list[int]:
    """The shards that `score` would score."""
    return _with_errors(run) if retry_errors else _todo(run)


def _scored(
    run: Run,
    shards: Sequence[int],
    options: Options,
    engine: Engine,
    workers: int | None,
    address: str | None,
) -> Iterator[ShardSummary]:
    left = list(shards)
    if left:
        results.forget_summary(run)
    while left:
        failed: list[ShardSummary] = []
        in_a_row = 0
        for summary in _engine(engine, run.out.address, options, left, workers, address):
            in_a_row = in_a_row + 1 if summary.failed else 0
            if summary.failed:
                failed.append(summary)
            else:
                yield summary
            if in_a_row == FAILED:
                raise _ended(run, summary)
        if len(failed) == len(left):
            raise _ended(run, failed[-1])
        left = [summary.shard for summary in failed]
    results.finish(run)


def check_engine(engine: str, workers: int | None, threads: int, address: str | None) -> None:
    """Check the choice of an engine.

    Raises:
        SettingError: for an unknown engine, a number below 1, or an address without Ray or of Ray's client.
        PackageError: if the engine's package is not installed.
    """
    if engine not in ENGINES:
        raise SettingError(f"`engine` must be {' or '.join(ENGINES)}, got {engine}; choose either.")
    if (workers is not None and workers < 1) or threads < 1:
        raise SettingError(
            f"The numbers of workers and of their threads must be at least 1, got {workers} and {threads}; leave them "
            f"out for a worker of one thread on each core."
        )
    if address and engine != "ray":
        raise SettingError(f"`address` must name a cluster of Ray, got {address} for {engine}; add --engine ray.")
    if address and address.startswith("ray://"):
        raise SettingError(
            f"`address` must be HOST:PORT of the cluster's head, or auto, got {address}; give the port of `ray start`, "
            f"6379 by default, on a machine of the cluster."
        )
    if engine == "ray":
        check_packages("The engine ray", "ray")


def todo(out: str) -> list[int]:
    """The shards of a planned run that have no part, in the order in which they should be scored.

        worker = handful.scale.Worker("scores")
        summaries = [worker(shard) for shard in handful.scale.todo("scores")]

    Shards of an inspector follow each other, so that a worker hardly ever changes its inspector. Where pictures come
    from a store, neighbours in this order lie far apart in the plan: a store answers more requests at once where their
    keys begin differently.

    Args:
        out: the folder of the run, a path or a URI.

    Raises:
        InputError: if there is no run, or it cannot be read.
    """
    return _todo(read_run(out))


def _todo(run: Run) -> list[int]:
    shards = run.shard_table()
    numbers = shards["shard"].to_numpy()
    inspectors = np.unique(shards["inspector_sha256"].to_numpy(zero_copy_only=False), return_inverse=True)[1]
    spread = any("://" in source for plan in run.plans for source in plan.sources)
    order = np.lexsort(((numbers.astype(np.uint64) * _SPREAD) % 2**32 if spread else numbers, inspectors))
    done = run.done()
    return [shard for shard in numbers[order].tolist() if shard not in done]


def _with_errors(run: Run) -> list[int]:
    """The shards without a part, and the shards that hold an error that another try may mend."""
    passing = dataset.field("error").isin(list(PASSING))
    found = {shard for batch in results.batches(run, ["shard"], only=passing) for shard in batch["shard"].to_pylist()}
    return sorted(found | set(_todo(run)))


def _engine(
    engine: Engine, out: str, options: Options, shards: Sequence[int], workers: int | None, address: str | None
) -> Iterator[ShardSummary]:
    if engine == "ray":
        from handful.scale.engines import ray

        return ray.summaries(out, options, shards, workers=workers, address=address)
    from handful.scale.engines import local

    count = workers or max(1, usable_cores() // options.threads)
    return local.summaries(out, options, shards, workers=min(count, len(shards)))


def _ended(run: Run, summary: ShardSummary) -> OutputError:
    done = len(run.done())
    return OutputError(
        f"{str(summary.failed).rstrip('.')}. {done} of {run.shards} shards are done, and stay; give the same command "
        f"again to go on."
    )
