"""Jobs that benchmarks/scale_kills.py starts and ends, each with its own session of processes. Linux alone."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from threading import Thread
from typing import Any

from _scale_kill_job import PROGRAM, WORKERS

PATIENCE = 180.0  # seconds until a job must have done a further shard, or ended
SETTLE = 5.0  # seconds until the processes of an ended job must have gone
MOMENT = 0.3  # seconds at most between a shard's summary and a kill


class Job:
    """A process that scores a run, with the processes that it starts.

    Args:
        out: the folder of the run.
        engine: local, ray or cluster.
        attempt: the name of the job in the run's marks.
        folder: for the job's messages and the ids of its workers.
    """

    def __init__(self, out: Path, engine: str, attempt: str, folder: Path) -> None:
        self.out, self.attempt = out, attempt
        self.shards: list[int] = []  # that the job said to be done
        self.nodes: list[int] = []  # process ids of the second node and of those that replaced it
        self._seen: dict[int, str] = {}  # all processes of the job that were seen, with their times of start
        self._replaced = 0  # nodes that were killed
        self._folder = folder / attempt
        self._folder.mkdir(parents=True)
        self.before = done(out)
        path = os.pathsep.join([str(Path(__file__).parent), *sys.path])
        with (self._folder / "said.txt").open("w") as said:
            self.process = subprocess.Popen(
                [sys.executable, "-c", PROGRAM, str(out), engine, attempt],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env={**os.environ, "PYTHONPATH": path, WORKERS: str(self._folder)},
                start_new_session=True,
            )
        self._reader = Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            word, _, number = line.decode().strip().partition(" ")
            if word in ("shard", "node") and number.isdecimal():
                (self.shards if word == "shard" else self.nodes).append(int(number))

    def said(self) -> str:
        """The last of the job's messages."""
        return (self._folder / "said.txt").read_text()[-2000:]

    def running(self) -> bool:
        """Whether the job lives."""
        return self.process.poll() is None

    def workers(self) -> list[int]:
        """The ids of the living processes that score shards; not of a worker's own child."""
        there = processes()
        known = {int(file.name) for file in self._folder.iterdir() if file.name.isdecimal()} & there.keys()
        return sorted(pid for pid in known if there[pid] not in known)

    def kill(self, victim: str, delay: float, choice: random.Random) -> dict[str, Any]:
        """Wait until a shard is done that was not done before the last kill, then for a delay, and end a victim.

        Args:
            victim: job, worker, actor or node.
            delay: in seconds.
            choice: of the worker.
        """
        waited = self._wait(lambda: bool(set(self.shards) - self.before) and bool(self._victims(victim)))
        time.sleep(delay)
        victims = self._victims(victim)
        working = waited and self.running() and bool(victims)
        self._look()
        if working and victim == "job":
            os.killpg(self.process.pid, signal.SIGKILL)
        elif working and victim == "node":
            self._replace_node()  # returns before the node has gone
        elif working:
            os.kill(choice.choice(victims), signal.SIGKILL)
        now = done(self.out)
        found = {"delay": delay, "working": working, "progress": len(now - self.before), "done": len(now)}
        self.before = now
        return found if victim != "job" else {**found, "left": self._ended()}

    def _victims(self, victim: str) -> list[int]:
        """The workers that a kill may meet: of a node, once the node has taken the place of the last."""
        if victim != "node":
            return self.workers()
        there, nodes = processes(), self.nodes[self._replaced :]
        return [pid for pid in self.workers() if there.get(pid) in nodes]

    def _replace_node(self) -> None:
        assert self.process.stdin is not None
        self._replaced += 1
        self.process.stdin.write(b"x")
        self.process.stdin.flush()

    def finish(self) -> int:
        """Wait for the job's end; the number of its processes that were left."""
        count = -1
        while len(self.shards) > count:
            count = len(self.shards)
            self._look()
            self._wait(lambda: len(self.shards) > count)  # noqa: B023  # called at once
        with suppress(subprocess.TimeoutExpired):
            self.process.wait(PATIENCE)
        return self._ended()

    def _wait(self, condition: Callable[[], bool]) -> bool:
        """Whether a condition came true, before the job ended and its time was up."""
        until = time.monotonic() + PATIENCE
        while time.monotonic() < until and self.running():
            if condition():
                return True
            time.sleep(0.005)
        return False

    def _look(self) -> None:
        """Note the processes of the job, those that its processes started included."""
        there = processes()
        found = {self.process.pid} & there.keys()
        while more := {pid for pid, parent in there.items() if parent in found} - found:
            found |= more
        self._seen |= {pid: began for pid in found if (began := started(pid))}

    def _ended(self) -> int:
        """Collect an ended job; count the processes that it left, some seconds later, and end their groups."""
        until = time.monotonic() + SETTLE
        while (left := living(self._seen)) and time.monotonic() < until:
            self.process.poll()
            time.sleep(0.05)
        for pid in left:
            with suppress(ProcessLookupError):
                if (group := os.getpgid(pid)) in self._seen:
                    os.killpg(group, signal.SIGKILL)
        self.process.wait(PATIENCE)
        self._reader.join(PATIENCE)
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None:
                pipe.close()
        return len(left)


def living(family: dict[int, str]) -> list[int]:
    """The processes that live still, and are no others under an old id."""
    return [pid for pid, began in family.items() if began == started(pid)]


def done(out: Path) -> set[int]:
    """The shards whose part is there."""
    return {int(path.stem.removeprefix("part-")) for path in out.glob("parts/*/part-*.parquet")}


def processes() -> dict[int, int]:
    """The parents of all living processes."""
    found = {}
    for folder in Path("/proc").glob("[0-9]*"):
        fields = _fields(int(folder.name))
        if fields and fields[0] != "Z":
            found[int(folder.name)] = int(fields[1])
    return found


def started(pid: int) -> str:
    """The time at which a process began; empty where it has ended."""
    fields = _fields(pid)
    return fields[19] if fields and fields[0] != "Z" else ""


def _fields(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on; none for a process that is not there."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return []
