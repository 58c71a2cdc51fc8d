"""The engine `ray`: actors of Ray Data, on this machine or a cluster.

Only shard numbers and summaries travel through Ray. No operator reads or writes beside the actors, which would wait for
the processors that the actors hold. Ray starts an actor that has ended again, without a limit; a shard that ends its
actor twice is scored carefully, which ends that.
"""

import json
import logging
import os
import socket
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import ray
import ray.data
from numpy.typing import NDArray

from handful.errors import ProcessError
from handful.scale.pool import THREAD_VARIABLES
from handful.scale.worker import Options, ShardSummary, Worker

REACHING = 10.0  # seconds to reach a cluster
QUIET = {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0", "RAY_BACKEND_LOG_LEVEL": "fatal"}  # environment, unless set
# Settings of Ray Data. Ray counts an actor that is no longer needed before it has started, and an actor of a lost node,
# among the actors that end before they have started; 20 of these in a row may.
DATA = {"enable_progress_bars": False, "print_on_execution_start": False, "max_consecutive_actor_init_deaths": 20}
WINDOW = 10_000  # shards that are handed to Ray at once, so that its driver's memory stays bounded


class _Actor:
    """A worker in an actor: takes a batch of one shard number, gives its summary."""

    def __init__(self, out: str, options: Options) -> None:
        self._worker = Worker(out, options)

    def __call__(self, batch: dict[str, NDArray[np.int64]]) -> dict[str, list[Any]]:
        return {"summary": [json.dumps(self._worker(int(shard)).as_dict()) for shard in batch["id"]]}


def summaries(
    out: str, options: Options, shards: Sequence[int], *, workers: int | None, address: str | None
) -> Iterator[ShardSummary]:
    """Score shards.

    Args:
        out: the folder of the run, which every machine of the cluster reaches under the same address.
        options: of the workers.
        shards: their numbers, in the order in which they are handed out.
        workers: the number of actors; None for as many as the cluster has processors for.
        address: of a cluster, HOST:PORT or auto; None for Ray on this machine alone.

    Raises:
        ProcessError: if Ray does not start, or gives up.
    """
    started = not ray.is_initialized()
    with ExitStack() as stack:
        stack.enter_context(_quietly())
        if started:
            stack.callback(ray.shutdown)
            _start(address)
        yield from _scored(out, options, shards, workers)


def _scored(out: str, options: Options, shards: Sequence[int], workers: int | None) -> Iterator[ShardSummary]:
    """Score shards by windows, in a Ray that has started."""
    try:
        processors = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]
        count = workers or max(1, int(processors // options.threads))
        for start in range(0, len(shards), WINDOW):
            yield from _window(out, options, shards[start : start + WINDOW], count)
    except ray.exceptions.RayError as error:
        raise ProcessError(
            f"Ray must finish the shards that it was given, got: {str(error).strip().splitlines()[-1]}; look at its "
            f"messages, then give the same command again."
        ) from error


def _start(address: str | None) -> None:
    """Start Ray on this machine, or reach a cluster."""
    try:
        _reach(address)
        with _quiet_children():
            # "local" starts Ray: without an address Ray would join any cluster that it finds on this machine.
            where = address or "local"
            ray.init(address=where, include_dashboard=False, logging_level=logging.CRITICAL, log_to_driver=False)
    except Exception as error:  # Ray's start raises errors of any kind, Exception itself among them
        raise ProcessError(
            f"Ray must start or be reached{f' at {address}' if address else ''}, got: "
            f"{(str(error).strip() or type(error).__name__).splitlines()[0]}; check the address, and that the versions "
            f"of Ray and Python are the same on all machines."
        ) from error


def _reach(address: str | None) -> None:
    """Raise OSError where nobody answers at an address HOST:PORT: Ray would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host.strip("[]"), int(port)), timeout=REACHING).close()


@contextmanager
def _quietly() -> Iterator[None]:
    """Let Ray print no message and no progress of its own in the block; all settings are put back at the end."""
    variables = {name: value for name, value in QUIET.items() if name not in os.environ}
    context = ray.data.DataContext.get_current()
    loggers = [logging.getLogger(name) for name in ("ray", "ray.data")]
    levels = [logger.level for logger in loggers]
    kept = {name: getattr(context, name) for name in DATA}
    try:
        os.environ.update(variables)
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        for name, value in DATA.items():
            setattr(context, name, value)
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
        for name, value in kept.items():
            setattr(context, name, value)


@contextmanager
def _quiet_children() -> Iterator[None]:
    """Let processes that start in the block write their messages nowhere: Ray keeps them in its own folder."""
    sys.stderr.flush()
    kept = os.dup(2)
    with Path(os.devnull).open("w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _window(out: str, options: Options, shards: Sequence[int], count: int) -> Iterator[ShardSummary]:
    numbers = ray.data.from_items([{"id": shard} for shard in shards], override_num_blocks=len(shards))
    scored = numbers.map_batches(
        _Actor,
        fn_constructor_args=(out, options),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(count, len(shards)), max_tasks_in_flight_per_actor=2),
        num_cpus=options.threads,
        runtime_env={"env_vars": dict.fromkeys(THREAD_VARIABLES, str(options.threads))},
    )
    for row in scored.iter_rows():
        yield ShardSummary(**json.loads(row["summary"]))
