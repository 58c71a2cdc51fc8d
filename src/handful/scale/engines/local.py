"""The engine `local`: processes of this machine, which share nothing."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from handful.errors import ProcessError
from handful.scale.pool import Died, Pool
from handful.scale.worker import Options, ShardSummary, Worker

DEATHS = 20  # processes that may end for each 1,000 shards; beyond, something else than pictures is wrong


@dataclass(frozen=True)
class _Workers:
    """Makes a worker in a process of the pool."""

    out: str
    options: Options

    def __call__(self) -> Callable[[int], ShardSummary]:
        return Worker(self.out, self.options)


def summaries(out: str, options: Options, shards: Sequence[int], *, workers: int) -> Iterator[ShardSummary]:
    """Score shards; a shard whose process ends is handed out again.

    Args:
        out: the folder of the run.
        options: of the workers.
        shards: their numbers, in the order in which they are handed out.
        workers: the number of processes.

    Raises:
        ProcessError: if more processes end than pictures can be the reason for.
    """
    deaths, left = 0, list(shards)
    with Pool(_Workers(out, options), workers, threads=options.threads) as pool:
        while left:
            again = []
            for shard, answer in pool.answers(left):
                if not isinstance(answer, Died):
                    yield answer
                    continue
                again.append(shard)
                deaths += 1
                if deaths > DEATHS * max(1.0, len(shards) / 1_000):
                    raise ProcessError(
                        f"Worker processes must live, got {deaths} that ended among {len(shards)} shards, the last by "
                        f"{answer}; see whether the memory suffices for {workers} workers, then give the same command "
                        f"again."
                    )
            left = again
