"""Hostile input at scale: writes trust/fuzz.md.

    python3 scripts/fuzz --count 100000

Each input is a small file, or a command line, with a few hostile changes: of its bytes, of a field, of a digest made
right again. It must be taken, or refused in one sentence, within 3 seconds and 500 MB. Worker processes answer;
one that dies or hangs is replaced. The same seed and number make the same input. A run that was stopped goes on when
it is called again with the same log.
"""

import argparse
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import asdict, dataclass, field
from multiprocessing.connection import Connection
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any

from _fuzz_kills import kills
from _fuzz_seeds import make_seeds
from _fuzz_worker import FINDINGS, Answer, work
from handful.files import replacing
from handful.version import __version__

COMMANDS = "command line"
SHARES = {"picture": 0.5, "mask": 0.08, "inspector": 0.18, "data set": 0.14, COMMANDS: 0.1}  # of all inputs
DEADLINE, MEMORY = 3.0, 500.0  # seconds, MB of a process
HUNG = 60.0  # seconds after which a worker is replaced
FULL = 300.0  # MB at rest, after which a worker is replaced: hundreds of compiled graphs leave their traces in a heap
BATCH = 100  # inputs that a worker takes at a time


@dataclass
class Batch:
    """What became of some inputs of one kind.

    Attributes:
        kind: of the inputs.
        start: the first one's number.
        outcomes: how many had each.
        slowest: seconds.
        largest: MB.
        findings: the answers that should not be.
    """

    kind: str
    start: int
    outcomes: dict[str, int] = field(default_factory=dict)
    slowest: float = 0.0
    largest: float = 0.0
    findings: list[dict[str, Any]] = field(default_factory=list)

    def add(self, answer: Answer) -> None:
        """Count one answer."""
        self.outcomes[answer.outcome] = self.outcomes.get(answer.outcome, 0) + 1
        self.slowest, self.largest = max(self.slowest, answer.seconds), max(self.largest, answer.peak)
        if answer.outcome in FINDINGS:
            self.findings.append({"kind": self.kind, **asdict(answer)})


Done = dict[tuple[str, int], Batch]  # by kind and start


class Worker:
    """One process that answers, replaced when it dies; used by one thread.

    Args:
        folder: where its inputs' files lie.
        seeds: the folder that `make_seeds` made.
        seed: of everything.
    """

    def __init__(self, folder: Path, seeds: Path, seed: int) -> None:
        self.folder, self.seeds, self.seed, self.verbs = folder, seeds, seed, False
        self._start()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")  # a fork of a process with threads may hang
        self.connection: Connection
        self.connection, other = context.Pipe()
        self.process = context.Process(
            target=work, args=(other, self.folder, self.seeds, self.seed, self.verbs), daemon=True
        )
        self.process.start()
        other.close()
        self.connection.recv()  # "ready"

    def answer(self, kind: str, number: int) -> Answer:
        """What becomes of one input; it is put again to a new process where it was too slow: others work here too."""
        if self.verbs != (kind == COMMANDS):
            self.verbs = kind == COMMANDS
            self._restart()
        first = self._ask(kind, number)
        if first.outcome in ("hang", "crash") or (first.resting > FULL and not self.verbs):
            self._restart()
        if first.outcome == "hang" or first.seconds > DEADLINE:
            second = self._ask(kind, number)
            if second.outcome in ("hang", "crash"):
                self._restart()
            first = min(first, second, key=lambda answer: answer.seconds)
        return _judged(first)

    def _ask(self, kind: str, number: int) -> Answer:
        begin = time.monotonic()
        try:
            self.connection.send((kind, number))
            if not self.connection.poll(HUNG):
                return Answer(number, "hang", f"no answer within {HUNG:g} s", time.monotonic() - begin, 0.0)
            answer: Answer = self.connection.recv()
        except (EOFError, OSError):
            self.process.join(5)
            words = f"the process ended with {self.process.exitcode}"
            return Answer(number, "crash", words, time.monotonic() - begin, 0.0)
        return answer

    def _restart(self) -> None:
        self.stop()
        self._start()

    def stop(self) -> None:
        """End the process."""
        self.process.kill()
        self.process.join()
        self.connection.close()


def _judged(answer: Answer) -> Answer:
    """An answer, turned into a finding where it took too long or too much."""
    if answer.outcome in FINDINGS:
        return answer
    if answer.seconds > DEADLINE:
        return Answer(answer.number, "slow", answer.words, answer.seconds, answer.peak)
    return (
        Answer(answer.number, "memory", answer.words, answer.seconds, answer.peak) if answer.peak > MEMORY else answer
    )


def fuzz(
    count: int,
    *,
    seed: int,
    jobs: int,
    kept: Path | None = None,
    kinds: list[str] | None = None,
    progress: Path | None = None,
) -> dict[str, Any]:
    """Put so many inputs of all kinds to Handful.

    Args:
        count: of inputs.
        seed: of everything.
        jobs: processes that answer side by side.
        kept: a folder for the files of inputs that were answered wrongly; None to keep none.
        kinds: only these.
        progress: a file to note batches in, and to go on from.

    Returns:
        Figures by kind, and a list of findings, ready for JSON.
    """
    batches: SimpleQueue[tuple[str, range]] = SimpleQueue()
    done = _done(progress, seed)
    for kind, numbers in _batches(count, kinds or list(SHARES)):
        if (kind, numbers.start) not in done:
            batches.put((kind, numbers))
    with tempfile.TemporaryDirectory() as folder:
        seeds = Path(folder, "seeds")
        make_seeds(seeds)

        def serve(place: Path) -> None:
            worker = Worker(place, seeds, seed)
            try:
                while True:
                    kind, numbers = batches.get_nowait()
                    batch = Batch(kind, numbers.start)
                    for number in numbers:
                        batch.add(answer := worker.answer(kind, number))
                        if answer.outcome in FINDINGS:
                            _keep(place, kept, kind, answer)
                    done[kind, numbers.start] = batch
                    _note(progress, seed, batch)
            except Empty:
                return
            finally:
                worker.stop()

        with ThreadPoolExecutor(jobs) as pool:
            serving = [pool.submit(serve, Path(folder, f"inputs-{job}")) for job in range(jobs)]
            _wait(serving, done, count)
    return {"seed": seed, "jobs": jobs, **_summed(done.values())}


def _done(progress: Path | None, seed: int) -> Done:
    """The batches that an earlier run of the same seed has answered."""
    lines = progress.read_text("utf-8").splitlines() if progress and progress.exists() else []
    batches = [Batch(**fields) for line in lines if (fields := json.loads(line)).pop("seed") == seed]
    return {(batch.kind, batch.start): batch for batch in batches}


def _note(progress: Path | None, seed: int, batch: Batch) -> None:
    if progress is not None:
        with progress.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"seed": seed, **asdict(batch)}) + "\n")  # one write: threads do not mix


def _summed(batches: Iterable[Batch]) -> dict[str, Any]:
    """The figures of all batches by kind, ready for JSON."""
    kinds: dict[str, dict[str, Any]] = {}
    findings: list[dict[str, Any]] = []
    for batch in sorted(batches, key=lambda batch: (list(SHARES).index(batch.kind), batch.start)):
        kind = kinds.setdefault(batch.kind, {"outcomes": Counter(), "slowest": 0.0, "largest": 0.0})
        kind["outcomes"].update(batch.outcomes)
        kind["slowest"] = max(kind["slowest"], batch.slowest)
        kind["largest"] = max(kind["largest"], batch.largest)
        findings += batch.findings
    return {
        "count": sum(kind["outcomes"].total() for kind in kinds.values()),
        "kinds": {name: {**kind, "outcomes": dict(kind["outcomes"])} for name, kind in kinds.items()},
        "findings": findings,
    }


def _batches(count: int, kinds: list[str]) -> Iterator[tuple[str, range]]:
    """The numbers of each kind's inputs, the kinds that take long first."""
    whole = sum(SHARES[kind] for kind in kinds)
    for kind in sorted(kinds, key=list(SHARES).index, reverse=True):
        of_kind = round(count * SHARES[kind] / whole)
        for start in range(0, of_kind, BATCH):
            yield kind, range(start, min(start + BATCH, of_kind))


def _wait(serving: list[Future[None]], done: Done, count: int) -> None:
    """Tell on stderr now and then how far it has come, until all is done."""
    begin = time.monotonic()
    while wait(serving, timeout=30, return_when=FIRST_EXCEPTION).not_done:
        for one in serving:
            if one.done():
                one.result()
        so_far = _summed(list(done.values()))
        minutes = (time.monotonic() - begin) / 60
        said = f"{so_far['count']} of {count} inputs, {len(so_far['findings'])} findings, {minutes:.1f} min"
        print(said, file=sys.stderr, flush=True)
    for one in serving:
        one.result()


def _keep(place: Path, kept: Path | None, kind: str, answer: Answer) -> None:
    """Keep the files of an input that was answered wrongly, and what was said."""
    if kept is not None:
        target = kept / f"{kind.replace(' ', '-')}-{answer.number}"
        shutil.copytree(place, target, dirs_exist_ok=True)
        (target / "answer.json").write_text(json.dumps(asdict(answer), indent=1))


def page(found: dict[str, Any]) -> list[str]:
    """The figures as Markdown lines."""
    kinds = found["kinds"]
    lines = [
        "| input | inputs | taken | refused | findings | slowest | most memory |",
        "|---|---|---|---|---|---|---|",
    ]
    for kind, tally in kinds.items():
        outcomes = tally["outcomes"]
        wrong = ", ".join(f"{outcomes[name]} {name}" for name in FINDINGS if outcomes.get(name)) or "0"
        lines.append(
            f"| {kind} | {sum(outcomes.values())} | {outcomes.get('accepted', 0)} | {outcomes.get('refused', 0)} "
            f"| {wrong} | {tally['slowest']:.2f} s | {tally['largest']:.0f} MB |"
        )
    return lines


def kills_page(found: dict[str, Any]) -> list[str]:
    """The kills as Markdown lines."""
    outcomes = ("SIGKILL killed", "SIGTERM killed", "wrong")
    lines = ["| verb | SIGKILL | SIGTERM | neither old nor new, or something left |", "|---|---|---|---|"]
    for verb, counts in found["verbs"].items():
        lines.append(f"| {verb} | {' | '.join(str(counts.get(outcome, 0)) for outcome in outcomes)} |")
    return lines


def main() -> int:
    """0 where nothing was answered wrongly, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--count", type=int, default=2000, help="of inputs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="processes side by side")
    parser.add_argument("--kinds", nargs="+", choices=list(SHARES), help="only these")
    parser.add_argument("--kills", type=int, metavar="COUNT", help="instead, end verbs so often at random moments")
    parser.add_argument("--keep", type=Path, help="a folder for the files of inputs that were answered wrongly")
    parser.add_argument("--log", type=Path, help="write the page here, and the figures as JSON beside it")
    options = parser.parse_args()
    if options.kills:
        killed = kills(options.kills, seed=options.seed)
        _write(options.log, _whole_kills_page(killed), killed)
        return int(bool(killed["wrong"]))
    progress = options.log and options.log.with_suffix(".progress.jsonl")
    found = fuzz(
        options.count,
        seed=options.seed,
        jobs=options.jobs,
        kept=options.keep,
        kinds=options.kinds,
        progress=progress,
    )
    _write(options.log, _whole_page(found), found)
    if progress:
        progress.unlink(missing_ok=True)
    return int(bool(found["findings"]))


def _write(log: Path | None, lines: list[str], found: dict[str, Any]) -> None:
    """Print a page, and keep it with its figures where a log is asked for."""
    text = "\n".join(lines)
    print(text)
    if log:
        for path, said in ((log, text), (log.with_suffix(".json"), json.dumps(found, indent=1))):
            with replacing(path) as file:
                file.write(f"{said}\n".encode())


def _commit() -> str:
    from handful.evaluation.environment import commit  # with torch, which the workers, who import this too, go without

    return commit()


def _whole_kills_page(found: dict[str, Any]) -> list[str]:
    return [
        "# Verbs that are killed",
        "",
        f"`python3 scripts/fuzz --kills {found['count']} --seed {found['seed']} --log benchmarks/trust/kills.md`, "
        f"Handful {__version__}, commit {_commit()}.",
        "",
        "A verb is ended by a signal at a random moment; its target must hold the old or the new content, and after "
        "the verb's next run nothing else may lie there.",
        "",
        *kills_page(found),
        "",
        f"{len(found['wrong'])} findings{':' if found['wrong'] else '.'}",
        *(f"- {said}" for said in found["wrong"]),
    ]


def _whole_page(found: dict[str, Any]) -> list[str]:
    findings = found["findings"]
    said = [f"- {one['kind']} {one['number']}: {one['outcome']}: {one['words'][-600:]}" for one in findings[:50]]
    return [
        "# Hostile input",
        "",
        f"`python3 scripts/fuzz --count {found['count']} --seed {found['seed']} --log benchmarks/trust/fuzz.md`, "
        f"Handful {__version__}, commit {_commit()}.",
        "",
        'Each input is a small file or command line with a few hostile changes. "Taken" means a whole answer, '
        '"refused" one sentence without a program\'s innards. A finding is anything else: a traceback, a crash, a hang '
        f"({HUNG:g} s), more than {DEADLINE:g} s by the clock or the processor, whichever is shorter, in two tries, as "
        f"other programs run beside; or more than {MEMORY:g} MB of resident memory: for the whole process, and for a "
        "command line beyond what the process had, as it holds the packages of all verbs at once.",
        "",
        *page(found),
        "",
        f"{len(findings)} findings{':' if findings else '.'}",
        *said,
    ]


if __name__ == "__main__":
    sys.exit(main())
