"""Programs under watch: seconds, processor seconds, and the memory of the processes that they start. Linux alone."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from handful.scale.pool import THREAD_VARIABLES

HERE = Path(__file__).parent
EVERY = 0.5  # seconds; a peak is kept by the kernel, so that a process is only missed if it lives shorter
TICKS = os.sysconf("SC_CLK_TCK") if hasattr(os, "sysconf") else 100
# The program, with the number of pictures that repay a process of `handful inspect`.
PROGRAM = "from handful.scale import inspecting\ninspecting.EACH = {each}\nfrom handful.cli.main import main\nmain()"
HANDFUL = (sys.executable, "-m", "handful")
# The processes of the engine local, and Ray's actors that hold a worker.
WORKER = re.compile(r"multiprocessing\.spawn|^ray::(MapWorker|MapBatches|\w*Actor\w*\.__call__)")


def environment() -> dict[str, str]:
    """The environment of a program: as a person's shell has it, with these benchmarks to import.

    Ray gives its workers a lower priority, for which they would wait longer beside other programs than the contestants.
    """
    kept = {name: value for name, value in os.environ.items() if name not in THREAD_VARIABLES}
    return {
        "RAY_worker_niceness": "0",
        **kept,
        "PYTHONPATH": os.pathsep.join(filter(None, (str(HERE), os.environ.get("PYTHONPATH")))),
    }


def job(step: str, *, program: str = "_scale_job", watched: bool = False, **arguments: Any) -> dict[str, Any]:
    """The answer of a program's step; with `watched` also the workers' peak memory and processor seconds."""
    words = [sys.executable, str(HERE / f"{program}.py"), step, json.dumps(arguments)]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as child:
        seen = Watch(child.pid) if watched else None
        said, complained = child.communicate()
    workers = {} if seen is None else seen.workers()
    if child.returncode:
        sys.exit(f"{' '.join(words[1:])} failed: {complained}")
    answer: dict[str, Any] = json.loads(said.splitlines()[-1])
    return {**answer, **workers}


def repaying(each: int) -> Sequence[str]:
    """The program that starts a process of `handful inspect` for so many pictures: a huge number means threads."""
    return (sys.executable, "-c", PROGRAM.format(each=each))


def started(words: Sequence[str | Path], program: Sequence[str] = HANDFUL) -> "tuple[subprocess.Popen[str], Watch]":
    """Start `handful` with `--json`."""
    whole = [*program, *map(str, words), "--json"]
    child = subprocess.Popen(whole, stdout=subprocess.PIPE, text=True, env=environment())
    return child, Watch(child.pid)


def command(words: Sequence[str | Path]) -> dict[str, Any]:
    """Run `handful` with `--json` to its end: seconds, processor seconds, and the lines with their times."""
    begin, lines = time.monotonic(), []
    child, seen = started(words)
    with child:
        assert child.stdout is not None
        for line in child.stdout:
            lines.append((time.monotonic() - begin, line))
    if not lines:
        sys.exit(f"handful {' '.join(map(str, words))} failed.")
    return {"seconds": time.monotonic() - begin, "cpu": seen.cpu(), "lines": lines}


class Watch:
    """Looks at a process and its descendants until it ends."""

    def __init__(self, pid: int) -> None:
        self._seen: dict[int, dict[str, Any]] = {}
        self._thread = threading.Thread(target=self._look, args=(pid,), daemon=True)
        self._thread.start()

    def _look(self, pid: int) -> None:
        while Path(f"/proc/{pid}/stat").exists() and state(pid)[0] != "Z":
            for one in (pid, *descendants(pid)):
                with suppress(OSError, ValueError, StopIteration):
                    self._note(one)
            time.sleep(EVERY)

    def _note(self, pid: int) -> None:
        name = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        peak = next(int(line.split()[1]) * 1024 / 1e6 for line in lines if line.startswith("VmHWM"))
        fields = state(pid)
        cpu = (int(fields[11]) + int(fields[12])) / TICKS
        if name:
            worker = WORKER.search(name) is not None or self._seen.get(pid, {}).get("worker", False)
            self._seen[pid] = {"name": name, "peak_mb": peak, "cpu": cpu, "worker": worker}

    def cpu(self) -> float:
        """The processor seconds of all processes, but for the last half second of each."""
        self._thread.join()
        return sum(float(one["cpu"]) for one in self._seen.values())

    def peak(self) -> float:
        """The most memory of any process, in MB."""
        self._thread.join()
        return max(float(one["peak_mb"]) for one in self._seen.values())

    def workers(self) -> dict[str, Any]:
        """The most memory of a worker, the processor seconds of all, and their number."""
        self._thread.join()
        found = [one for one in self._seen.values() if one["worker"]]
        if not found:
            return {"worker_mb": None, "worker_cpu": None, "workers_seen": 0}
        peak, cpu = max(one["peak_mb"] for one in found), sum(one["cpu"] for one in found)
        return {"worker_mb": peak, "worker_cpu": cpu, "workers_seen": len(found)}


def state(pid: int) -> list[str]:
    """The fields of /proc/PID/stat after the name; a process that has ended is a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return ["Z", "0"]


def descendants(pid: int) -> Iterator[int]:
    """The processes that a process has started, and theirs."""
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            children.setdefault(int(state(int(folder.name))[1]), []).append(int(folder.name))
    waiting = list(children.get(pid, ()))
    while waiting:
        one = waiting.pop()
        yield one
        waiting += children.get(one, ())
