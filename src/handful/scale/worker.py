"""A worker scores a shard: it reads the shard's pictures, inspects them, and writes one part, whole or not at all.

A worker knows no engine and no other worker. Two workers with the same shard write the same bytes twice, which is
harmless; a worker that is killed leaves nothing but a mark in OUT/attempts, by which the next attempt in the same run
learns that the shard may hold a picture that ends its process, see `handful.scale.careful`.
"""

import faulthandler
import hashlib
import os
import secrets
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from functools import cache
from typing import Any

import pyarrow as pa

from handful.data.images import unreadable
from handful.errors import HandfulError, InputError
from handful.inspector import Inspector
from handful.report.result import Inspection
from handful.scale import run as record
from handful.scale.places import Patience, Place, Stores, is_final, patiently, said
from handful.scale.rows import DECODE, READ, SCORE, counted, part_of, row_of
from handful.scale.run import KEPT, Run
from handful.scale.sources import archive_of
from handful.types import Verdict

INSPECTORS = 2  # held by a worker: shards of an inspector follow each other, so that a third would hardly be asked for
SPAN = 32 << 20  # bytes of a tar file that are read at once
UNREAD = 0.5  # share of a shard's pictures; where more cannot be read, the store is away, not the pictures
IN_A_ROW = 10  # pictures that the store fails to give, one after the other, after which the rest is not asked for
MANY = 20  # pictures that are missing: as many may be the place of the pictures that is missing, fewer are results
SUSPECT = 2  # attempts of one run that have ended with their process; the next attempt is a careful one

Judge = Callable[[bytes, str], tuple[Inspection, str | None]]  # a picture's bytes and name → answer, kind of error


@dataclass(frozen=True)
class Options:
    """The settings of the workers of one call of `handful.scale.score`.

        options = handful.scale.Options(threads=2, seconds=30)
        summaries = list(handful.scale.score("scores", workers=1, options=options))

    Attributes:
        attempt: names the call; attempts are counted within it.
        threads: of each worker.
        again: whether to score shards whose part exists.
        seconds: the longest time for the inspection of a picture.
        pauses: seconds before each further try to read a picture; None for `handful.scale.places.PAUSES`.
        opening: makes the judge of an inspector from the bytes of its file, the number of threads and the largest
            number of pixels; another function replaces the inspection where the machinery alone is measured.
    """

    attempt: str = field(default_factory=lambda: secrets.token_hex(4))
    threads: int = 1
    again: bool = False
    seconds: float = 120.0
    pauses: tuple[float, ...] | None = None
    opening: Callable[[bytes, int, int | None], Judge] | None = None


@dataclass(frozen=True)
class ShardSummary:
    """The outcome of a shard.

        summary: handful.scale.ShardSummary = handful.scale.Worker("scores")(0)
        print(summary.pictures, summary.failed)

    Attributes:
        shard: the number of the shard.
        pictures: the number of its pictures.
        bytes: read.
        seconds: of the worker; 0 for a part that existed.
        verdicts: the number of pictures by verdict.
        errors: the number of pictures by kind of error.
        failed: a sentence on why no part was written; None for a part that is there.
    """

    shard: int
    pictures: int
    bytes: int = 0
    seconds: float = 0.0
    verdicts: Mapping[str, int] = field(default_factory=dict)
    errors: Mapping[str, int] = field(default_factory=dict)
    failed: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """All attributes, ready for JSON."""
        return asdict(self)


class Worker:
    """Scores shards of a run: `worker(shard)` writes the shard's part, and returns a summary.

        worker = handful.scale.Worker("scores")
        print(worker(0).verdicts)

    Args:
        out: the folder of a planned run, a path or a URI.
        options: see `Options`.

    Raises:
        InputError: if there is no run.
    """

    def __init__(self, out: str, options: Options | None = None) -> None:
        self.options = options or Options()
        self.out = out
        self._run = read_run(out)
        self._stores = Stores(self._run.queries)
        self._patience = Patience(self.options.pauses)
        self._judges = OrderedDict[str, Judge]()
        self._unanswered = self._in_a_row = 0  # pictures of the shard under way that the store failed to give
        self.loads = 0  # inspectors that were loaded

    def __call__(self, shard: int) -> ShardSummary:
        """Score a shard; a failure of the store or the disk is a sentence in the summary."""
        began = time.monotonic()
        try:
            part = self._run.part(shard)
            if not self.options.again and patiently(part.is_file):
                return ShardSummary(shard, 0)
            with self._attempt(shard) as before:
                planned = self._run.planned(shard)
                self._unanswered = self._in_a_row = 0
                rows = self._carefully(planned) if before >= SUSPECT else list(self.rows(planned))
                failed = _away(rows, self._unanswered)
                if failed is None:
                    part.put(part_of(rows))
        except (HandfulError, OSError, pa.ArrowException) as error:
            return ShardSummary(shard, 0, failed=str(error) if isinstance(error, HandfulError) else _sentence(error))
        verdicts, errors = counted(row["verdict"] for row in rows), counted(row["error"] for row in rows)
        size = sum(row["bytes"] or 0 for row in rows)
        return ShardSummary(shard, len(rows), size, time.monotonic() - began, verdicts, errors, failed)

    def rows(self, planned: Sequence[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
        """Yield the row of each picture, in turn; the process ends where a picture takes too long."""
        for one, content in self._read(planned):
            yield self._row(one, content)

    def _row(self, planned: Mapping[str, Any], content: bytes | Exception) -> dict[str, Any]:
        kept = {name: planned[name] for name in KEPT}
        path = planned["path"]
        if isinstance(content, Exception):
            self._note_unread(path, content)
            answer = Inspection(path, Verdict.ERROR, reason=str(unreadable(path, said(content))))
            return row_of({**kept, "bytes": None, "picture_sha256": None}, answer, error=READ)
        self._in_a_row = 0
        judge = self._judge(planned["inspector_sha256"])
        with _at_most(self.options.seconds):
            answer, error = judge(content, path)
        facts = {"bytes": len(content), "picture_sha256": hashlib.sha256(content).hexdigest()}
        return row_of({**kept, **facts}, answer, error=error)

    def _note_unread(self, path: str, error: Exception) -> None:
        """Count a picture that the store failed to give.

        Raises:
            InputError: after so many in a row that the store must be away.
        """
        if is_final(error):
            return
        self._unanswered += 1
        self._in_a_row += 1
        if self._in_a_row >= IN_A_ROW:
            raise InputError(
                f"The store of the pictures must answer, got {self._in_a_row} pictures in a row that it did not give, "
                f"the last {path}: {said(error)}; check the store."
            )

    def _carefully(self, planned: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
        from handful.scale.careful import rows  # it needs `Worker`

        return rows(self.out, self.options, planned)

    def _read(self, planned: Sequence[Mapping[str, Any]]) -> Iterator[tuple[Mapping[str, Any], bytes | Exception]]:
        """Yield each picture with its bytes, or the error of the last try; a few pictures are read ahead."""
        ahead = 2 * self.options.threads
        pool = _readers(os.getpid(), ahead)
        under_way: deque[tuple[list[Mapping[str, Any]], Future[list[bytes | Exception]]]] = deque()
        try:
            for span in _spans(planned):
                under_way.append((span, pool.submit(self._contents, span)))
                if len(under_way) > ahead:
                    yield from _paired(*under_way.popleft())
            while under_way:
                yield from _paired(*under_way.popleft())
        finally:
            for _, reading in under_way:
                reading.cancel()

    def _contents(self, span: list[Mapping[str, Any]]) -> list[bytes | Exception]:
        """The bytes of the pictures of a span."""
        try:
            if span[0]["offset"] is None:
                place = self._stores.place(span[0]["path"])
                return [self._patience(place.read)]
            place = self._stores.place(archive_of(span[0]["path"]))
            start, end = span[0]["offset"], span[-1]["offset"] + span[-1]["bytes"]
            block = self._patience(lambda: place.read(start, end - start))
            return [block[one["offset"] - start :][: one["bytes"]] for one in span]
        except (OSError, ValueError, HandfulError, pa.ArrowException) as error:  # ValueError: a null byte in the path
            return [error] * len(span)

    def _judge(self, sha256: str) -> Judge:
        """The judge of an inspector, from the last few or loaded."""
        if sha256 in self._judges:
            self._judges.move_to_end(sha256)
            return self._judges[sha256]
        while len(self._judges) >= INSPECTORS:
            self._judges.popitem(last=False)
        content = patiently(self._run.inspector(sha256).read)
        opening = self.options.opening or open_inspector
        self._judges[sha256] = opening(content, self.options.threads, self._run.max_pixels)
        self.loads += 1
        return self._judges[sha256]

    @contextmanager
    def _attempt(self, shard: int) -> Iterator[int]:
        """Mark a shard as begun; yields the number of attempts of this call that ended with their process.

        At the end of the block all marks of the shard are removed, those of calls that were killed too; where the block
        raises an error, only the block's own.
        """
        folder, prefix = self._run.out / "attempts", f"{shard:07d}-"
        before = [entry.name for entry in folder.entries() if entry.name.startswith(prefix)]
        own = f"{prefix}{self.options.attempt}-"
        mark = folder / f"{own}{secrets.token_hex(4)}"
        mark.put(b"")
        left = [mark]
        try:
            yield sum(name.startswith(own) for name in before)
            left += [folder / name for name in before]
        finally:
            for place in left:
                place.remove()


def open_inspector(content: bytes, threads: int, max_pixels: int | None) -> Judge:
    """The judge of a saved inspector."""
    inspector = Inspector.load(content, threads=threads)._limited(max_pixels)

    def judge(picture: bytes, name: str) -> tuple[Inspection, str | None]:
        inspection, read = inspector._inspect_source(picture, name=name)
        error = None if inspection.verdict is not Verdict.ERROR else DECODE if read is None else SCORE
        return inspection, error

    return judge


def read_run(out: str) -> Run:
    """The record of a planned run.

    Raises:
        InputError: if there is none.
    """
    place = Place.at(out)
    run = record.read(place)
    if run is None:
        raise InputError(f"A run must have been planned, got none in {place.uri}; name --pictures or --manifest.")
    return run


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """End the process if the block takes longer: the work may be inside a library, which no exception reaches."""
    faulthandler.dump_traceback_later(seconds, exit=True, file=_nowhere())
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


@cache
def _nowhere() -> int:
    """A descriptor for the traceback of a process that ends over a picture; opened once."""
    return os.open(os.devnull, os.O_WRONLY)


@cache
def _readers(process: int, count: int) -> ThreadPoolExecutor:
    """The threads of a process that read pictures ahead; a forked process lacks its parent's threads.

    They are kept from shard to shard, since the C library keeps memory of its own for each new thread.
    """
    return ThreadPoolExecutor(count, "handful-reader")


def _spans(planned: Sequence[Mapping[str, Any]]) -> Iterator[list[Mapping[str, Any]]]:
    """The pictures that are read at once: a file each, and neighbours in a tar file."""
    span: list[Mapping[str, Any]] = []
    for one in planned:
        if span and not _follows(span, one):
            yield span
            span = []
        span.append(one)
    if span:
        yield span


def _follows(span: Sequence[Mapping[str, Any]], one: Mapping[str, Any]) -> bool:
    """Whether a picture lies behind a span in the same tar file, and near enough."""
    first, last = span[0], span[-1]
    if one["offset"] is None or last["offset"] is None or one["offset"] < last["offset"] + last["bytes"]:
        return False
    same = archive_of(one["path"]) == archive_of(first["path"])
    return same and one["offset"] + one["bytes"] - first["offset"] <= SPAN


def _paired(
    span: list[Mapping[str, Any]], contents: "Future[list[bytes | Exception]]"
) -> Iterator[tuple[Mapping[str, Any], bytes | Exception]]:
    yield from zip(span, contents.result(), strict=True)


def _away(rows: Sequence[Mapping[str, Any]], unanswered: int) -> str | None:
    """A sentence if so many pictures could not be read that the store must be away, not the pictures.

    Args:
        rows: of a shard.
        unanswered: the number of pictures that the store did not refuse, but failed to give.
    """
    unread = [row for row in rows if row["error"] == READ]
    if unanswered <= UNREAD * len(rows) and (len(unread) <= UNREAD * len(rows) or len(unread) < MANY):
        return None
    return (
        f"At least half of the pictures of a shard must be readable, got {len(unread)} of {len(rows)} that are not, "
        f"the last with: {unread[-1]['reason']}"
    )


def _sentence(error: Exception) -> str:
    return f"The store of a run must answer, got: {said(error)}; check the store, then give the same command again."
