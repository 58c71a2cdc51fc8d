"""The careful way through a shard that ended its process twice: a child process takes the pictures one by one.

A picture on which the child ends is tried once more in a new child. A picture that ends that child too gets a row with
the error CRASH; a picture that takes too long gets a row with the error TIMEOUT at once. All other pictures get the
rows that they would have got anyhow.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful.report.result import Inspection
from handful.scale.pool import Died, Pool
from handful.scale.rows import CRASH, TIMEOUT, row_of
from handful.scale.run import KEPT
from handful.scale.worker import Options, Worker
from handful.types import Verdict


@dataclass(frozen=True)
class _Rows:
    """Makes, in the child, the function from a picture of the plan to its row."""

    out: str
    options: Options

    def __call__(self) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
        worker = Worker(self.out, self.options)
        return lambda planned: next(worker.rows([planned]))


def rows(out: str, options: Options, planned: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The rows of a shard, whatever its pictures do to the process that inspects them.

    Args:
        out: the folder of the run.
        options: of the worker.
        planned: the pictures of the shard.

    Raises:
        ProcessError: if the child cannot start.
    """
    found = []
    with Pool(_Rows(out, options), 1, threads=options.threads) as pool:
        for one in planned:
            answer = _asked(pool, one)
            if isinstance(answer, Died) and not _too_slow(answer, options.seconds):
                answer = _asked(pool, one)
            found.append(_failed(one, answer, options.seconds) if isinstance(answer, Died) else answer)
    return found


def _asked(pool: Pool[Mapping[str, Any], dict[str, Any]], planned: Mapping[str, Any]) -> dict[str, Any] | Died:
    answers: Iterator[tuple[Mapping[str, Any], dict[str, Any] | Died]] = pool.answers([planned])
    return next(answers)[1]


def _too_slow(died: Died, seconds: float) -> bool:
    """Whether the child ended itself over a picture that took too long, as `faulthandler` does, with exit code 1."""
    return died.code == 1 and died.seconds >= seconds


def _failed(planned: Mapping[str, Any], died: Died, seconds: float) -> dict[str, Any]:
    """The row of a picture that no process survives."""
    path = planned["path"]
    if _too_slow(died, seconds):
        error = TIMEOUT
        reason = f"{path} must be inspected within {seconds:g} s, got no answer; look at the file."
    else:
        error = CRASH
        reason = (
            f"{path} must be a picture that can be inspected, got the end of the process that inspected it ({died}), "
            f"twice; look at the file, and see whether the memory suffices."
        )
    kept = {name: planned[name] for name in KEPT}
    answer = Inspection(path, Verdict.ERROR, reason=reason)
    return row_of({**kept, "bytes": planned["bytes"], "picture_sha256": None}, answer, error=error)
