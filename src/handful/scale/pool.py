"""Worker processes on this machine: each makes a function once, and answers tasks with it, one at a time.

The processes are spawned, so that they share nothing with this process; each computes with a given number of threads.
Like every program that spawns processes, a script that calls this needs `if __name__ == "__main__":`.
"""

import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.context import SpawnProcess
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar, cast

from handful.errors import ProcessError

STARTS = 3  # processes in a row, for each of the pool, that may end before they are ready

# The variables by which the libraries beneath NumPy and torch are told their number of threads, when they are imported.
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
_environment = threading.Lock()

Task = TypeVar("Task")
Answer = TypeVar("Answer")


@dataclass(frozen=True)
class Died:
    """A process ended while it worked on a task.

    Attributes:
        code: the exit code; a negative number is the signal that ended the process.
        seconds: from the moment at which the process got the task.
    """

    code: int
    seconds: float

    def __str__(self) -> str:
        if self.code >= 0:
            return f"exit code {self.code}"
        with suppress(ValueError):
            return signal.Signals(-self.code).name
        return f"signal {-self.code}"


class Pool(Generic[Task, Answer]):
    """Processes that answer tasks; a process that ends is replaced, and its task is answered with `Died`.

        with Pool(make, 2) as pool:
            for task, answer in pool.answers(tasks):
                ...

    Args:
        make: makes the function that answers tasks, once in each process; it is pickled, as are tasks and answers.
        count: the number of processes.
        threads: the number of threads of each process's numerical libraries.
    """

    def __init__(self, make: Callable[[], Callable[[Task], Answer]], count: int, *, threads: int = 1) -> None:
        self._make, self._count, self._threads = make, count, threads
        self._processes: dict[Connection, SpawnProcess] = {}
        self._idle: list[Connection] = []
        self._ready = set[Connection]()
        self._early = 0  # processes in a row that ended before they were ready

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for connection, process in self._processes.items():
            connection.close()
            process.terminate()
        for process in self._processes.values():
            process.join()
        self._processes.clear()
        self._idle.clear()

    def answers(self, tasks: Iterable[Task]) -> Iterator[tuple[Task, "Answer | Died"]]:
        """Yield each task with its answer, in the order of the answers; a task is taken only for an idle process.

        Raises:
            ProcessError: if processes end again and again before they are ready.
            Exception: an exception of the function, as raised in the process.
        """
        left = iter(tasks)
        under_way: dict[Connection, tuple[Task, float]] = {}
        while True:
            while len(under_way) < self._count and (task := next(left, _NONE)) is not _NONE:
                connection = self._hand_out(task)  # type: ignore[arg-type]  # mypy cannot tell `_NONE` apart
                under_way[connection] = (task, time.monotonic())  # type: ignore[assignment]
            if not under_way:
                return
            for connection in cast(list[Connection], wait(list(under_way))):
                answer = self._received(connection, under_way[connection][1])
                if not isinstance(answer, _Ready):
                    task, _ = under_way.pop(connection)
                    yield task, answer

    def in_order(self, tasks: Sequence[Task], *, ahead: int) -> Iterator[tuple[Task, "Answer | Died"]]:
        """Yield each task with its answer, in the order of the tasks.

        Args:
            tasks: of the function.
            ahead: the largest number of tasks that are handed out before the oldest of them is answered.
        """
        done, handed = 0, 0  # tasks yielded; tasks handed out
        answered: dict[int, Answer | Died] = {}
        under_way: dict[Connection, tuple[int, float]] = {}
        while done < len(tasks):
            while handed < min(len(tasks), done + ahead) and len(under_way) < self._count:
                under_way[self._hand_out(tasks[handed])] = (handed, time.monotonic())
                handed += 1
            for connection in cast(list[Connection], wait(list(under_way))):
                answer = self._received(connection, under_way[connection][1])
                if not isinstance(answer, _Ready):
                    answered[under_way.pop(connection)[0]] = answer
            while done in answered:
                yield tasks[done], answered.pop(done)
                done += 1

    def _hand_out(self, task: Task) -> Connection:
        """Send a task to an idle process; a process that ended while it was idle is replaced."""
        while True:
            connection = self._idle.pop() if self._idle else self._start()
            try:
                connection.send(task)
                return connection
            except OSError:
                self._ended(connection)

    def _start(self) -> Connection:
        context = multiprocessing.get_context("spawn")
        ours, theirs = context.Pipe()
        process = context.Process(target=_serve, args=(self._make, theirs))
        with _threads_of_children(self._threads):
            process.start()
        theirs.close()
        self._processes[ours] = process
        return ours

    def _received(self, connection: Connection, since: float) -> "Answer | Died | _Ready":
        try:
            answer = connection.recv()
        except (EOFError, OSError):
            early, code = connection not in self._ready, self._ended(connection)
            self._early += early
            if self._early > STARTS * self._count:
                raise ProcessError(
                    f"Worker processes must start and answer, got {self._early} that ended at once, the last by "
                    f"{Died(code, 0)}; look at their messages above, put a script's call below "
                    f"`if __name__ == '__main__':`, and see whether the memory suffices."
                ) from None
            return Died(code, time.monotonic() - since)
        if isinstance(answer, _Ready):
            self._early = 0
            self._ready.add(connection)
            return answer
        self._idle.append(connection)
        if isinstance(answer, _Raised):
            raise answer.error
        return answer  # type: ignore[no-any-return]

    def _ended(self, connection: Connection) -> int:
        """Forget a process that has ended; its exit code."""
        process = self._processes.pop(connection)
        self._ready.discard(connection)
        connection.close()
        process.join()
        return process.exitcode or 0


@dataclass(frozen=True)
class _Raised:
    """An exception of the function, or of making it."""

    error: Exception


@dataclass(frozen=True)
class _Ready:
    """A process has made its function."""


_NONE = object()


def _serve(make: Callable[[], Callable[[Task], Answer]], connection: Connection) -> None:
    """Answer tasks until the parent closes the connection or ends."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent decides
    answer: Callable[[Task], Answer] | None = None
    said: Answer | _Raised
    with suppress(EOFError, OSError):  # the parent has closed the connection or ended
        while True:
            task = connection.recv()
            try:
                if answer is None:
                    answer = make()
                    connection.send(_Ready())
                said = answer(task)
            except Exception as error:
                said = _Raised(error)
            connection.send(said)


@contextmanager
def _threads_of_children(count: int) -> Iterator[None]:
    """Let processes that start in the block compute with a number of threads."""
    with _environment:
        before = {name: os.environ.get(name) for name in THREAD_VARIABLES}
        os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(count)))
        try:
            yield
        finally:
            for name, value in before.items():
                if value is None:
                    del os.environ[name]
                else:
                    os.environ[name] = value


def cores() -> dict[str, float | int | None]:
    """The numbers of cores: in the computer, usable by this process, and granted by its container (None for all)."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    granted = None
    with suppress(OSError, ValueError):
        share, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        granted = None if share == "max" else int(share) / int(period)
    return {"there": os.cpu_count(), "usable": usable, "granted": granted}


def usable_cores() -> int:
    """The number of cores that this process may keep busy, at least 1."""
    found = cores()
    return max(1, int(min(found["usable"] or 1, found["granted"] or sys.maxsize)))
