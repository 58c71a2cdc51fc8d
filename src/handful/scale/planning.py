"""The plan of a run: every picture gets a shard and a row, and every shard one inspector.

Pictures keep the order of their source; a shard is closed as soon as it is full, so that memory holds one open shard
for each inspector and 16 bytes for each picture (to recognise a picture that is named twice), whatever the number of
pictures.
"""

import hashlib
import secrets
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyarrow import parquet

from handful.data.listing import LeftOut
from handful.errors import InputError, SettingError
from handful.scale import run as record
from handful.scale.inspectors import Inspectors
from handful.scale.places import Place, Stores
from handful.scale.run import PLANNED, SHARDS, Plan, Run
from handful.scale.sources import Sources

SHARD = 2_000  # pictures
FILE = 1_000_000  # pictures of a plan's file
SETTLING = 2.0  # seconds until the record of two runs that begin at once in a store is surely the later of the two


@dataclass(frozen=True)
class Found:
    """The result of planning.

        found: handful.scale.Found = handful.scale.plan("scores", pictures=["archive/"], inspector="part.handful")
        print(found.pictures, found.run.shards)

    Attributes:
        run: the record of the run.
        pictures: the number of pictures that this call planned; 0 where a run was found as it was asked for.
        twice: the number of pictures left out because they were named before.
        left_out: other files in the sources, at most the first 65,536.
        left_out_count: the number of other files.
    """

    run: Run
    pictures: int = 0
    twice: int = 0
    left_out: tuple[LeftOut, ...] = ()
    left_out_count: int = 0


def plan(
    out: str,
    *,
    pictures: Sequence[str] = (),
    inspector: str | None = None,
    manifest: str | None = None,
    inspectors: str | None = None,
    shard: int | None = None,
    max_pixels: int | None = None,
    extend: bool = False,
) -> Found:
    """Plan a run, or find it as it was planned before.

        handful.scale.plan("scores", pictures=["archive/"], inspector="part.handful")

    Args:
        out: the folder of the run, a path or a URI.
        pictures: folders, prefixes of a bucket, tar files, pictures, or manifests, of a single product.
        inspector: of that product, a saved inspector.
        manifest: a Parquet file with the columns `path` and `product`, instead of `pictures` and `inspector`.
        inspectors: the folder of the saved inspectors of `manifest`, PRODUCT.handful.
        shard: the largest number of pictures that are scored and written together; None for 2,000, or as the run has
            it.
        max_pixels: refuse pictures of more pixels before decoding; None for each inspector's own limit, or as the run
            has it.
        extend: plan the pictures that the run does not hold yet, as rows after its last.

    Raises:
        SettingError: if the arguments do not go together, or the run was planned with others.
        InputError: if a source or the run's record cannot be read, or no picture is found.
        InspectorError: if an inspector is missing, damaged, or holds no graph.
        OutputError: if the plan cannot be written.
    """
    _check(pictures, inspector, manifest, inspectors, shard)
    place = Place.at(out)
    place.sweep()
    found = record.read(place)
    sources = tuple(_absolute(uri) for uri in ([manifest] if manifest else pictures))
    if not sources:
        if found is None:
            raise InputError(f"A run must have been planned, got none in {place.uri}; name --pictures or --manifest.")
        return Found(found)
    known = Inspectors(inspector, inspectors)
    if found is not None:
        _check_options(found, shard, max_pixels)
        if not extend:
            _check_same(found, sources, known)
            return Found(found)
    run = found or Run(place, shard or SHARD, max_pixels, {})
    run = Run(place, run.shard, run.max_pixels, {**run.queries, **_queries(sources)}, run.plans)
    return _planned(run, found, sources, known)


def _planned(run: Run, before: Run | None, sources: tuple[str, ...], known: Inspectors) -> Found:
    """Plan the pictures of the sources that the run does not hold yet, and write the plan."""
    seen = _Seen()
    for table in run.plan_tables(["inspector_sha256", "path", "version"]):
        seen.new(table["inspector_sha256"], table["path"], table["version"])
    writer = _Writer(run, sources)
    given, twice = Sources(sources, Stores(run.queries)), 0
    for table in given.tables():
        for sha256, rows in known.by_inspector(table):
            new = seen.new(rows["inspector_sha256"], rows["path"], rows["version"])
            twice += len(rows) - int(new.sum())
            writer.add(sha256, rows.filter(pa.array(new)))
    if not writer.pictures and before is None:
        raise InputError(f"There must be a picture, got none in {', '.join(sources)}; check the path.")
    if writer.pictures:
        known.copy(run)
        run = writer.finish(known)
        run = _first(run) if before is None else _extended(run, before)
    left_out = tuple(given.left_out)
    return Found(run, writer.pictures, twice if before is None else 0, left_out, given.left_out_count)


def _first(run: Run) -> Run:
    """Write the record of a new run; where two runs begin at once, both go on with the same record."""
    if run.put_first() and not run.out.is_local:
        time.sleep(SETTLING)
    return record.read(run.out) or run


def _extended(run: Run, before: Run) -> Run:
    """Write the record of a run with a further plan.

    Raises:
        SettingError: if another command has extended the run meanwhile, whose shards would have the same numbers.
    """
    now = record.read(run.out)
    if now is None or now.plans != before.plans:
        raise SettingError(
            f"A run must be extended by one command at a time, got another extension of {run.out.uri} meanwhile; give "
            f"the same command again."
        )
    run.put()
    return run


def _check(
    pictures: Sequence[str], inspector: str | None, manifest: str | None, inspectors: str | None, shard: int | None
) -> None:
    if shard is not None and shard < 1:
        raise SettingError(f"A shard must hold at least 1 picture, got {shard}; leave it out for {SHARD}.")
    if bool(pictures) != bool(inspector) or bool(manifest) != bool(inspectors) or (pictures and manifest):
        raise SettingError(
            "A run must have INSPECTOR and --pictures for one product, or --manifest and --inspectors for many, got "
            "another combination; give one pair, or neither to go on with a run."
        )


def _check_options(run: Run, shard: int | None, max_pixels: int | None) -> None:
    """Raise SettingError where a run was planned with other options than those given."""
    for name, had, came in (("--shard", run.shard, shard), ("--max-pixels", run.max_pixels, max_pixels)):
        if came is not None and came != had:
            begun = f"without {name}" if had is None else f"{name} {had}"
            raise SettingError(
                f"{run.out.uri} must go on with the options of its start, {begun}, got {name} {came}; leave {name} "
                f"out, or name another folder."
            )


def _check_same(run: Run, sources: Sequence[str], known: Inspectors) -> None:
    """Raise SettingError where a run was planned with other sources or inspectors."""
    if not any(tuple(sources) == plan.sources for plan in run.plans):
        raise SettingError(
            f"{run.out.uri} must go on with the pictures of its start, {', '.join(run.plans[-1].sources)}, got "
            f"{', '.join(sources)}; name another folder, or add --extend for further pictures."
        )
    latest = next(plan for plan in reversed(run.plans) if plan.sources == tuple(sources))
    for product, sha256 in latest.inspectors.items():
        if known.sha256(product, latest.addresses.get(product)) != sha256:
            raise SettingError(
                f"{run.out.uri} must go on with the inspectors of its start, got another inspector of {product}; leave "
                f"inspector and pictures out to go on with the run's own copy, add --extend to score every picture "
                f"with the new inspector too, or name another folder."
            )


def _absolute(uri: str) -> str:
    """An address as the record keeps it: a path in full, a URI with its query."""
    return uri if "://" in uri else Place.at(uri).uri


def _queries(sources: Sequence[str]) -> dict[str, str]:
    """The queries of the sources' stores, by scheme."""
    found: dict[str, str] = {}
    for uri in sources:
        place = Place.at(uri)
        if not place.is_local and place.query:
            scheme = place.uri.partition("://")[0]
            if found.setdefault(scheme, place.query) != place.query:
                raise SettingError(
                    f"The stores of a run must have the same options for each scheme, got {found[scheme]} and "
                    f"{place.query} for {scheme}; score them in two runs."
                )
    return found


@dataclass
class _Writer:
    """Fills shards, and writes the files of a plan.

    Attributes:
        pictures: the number of pictures so far.
    """

    run: Run
    sources: tuple[str, ...]
    pictures: int = 0
    _open: dict[str, list[pa.Table]] = field(default_factory=dict)
    _shards: list[tuple[int, str, int, int]] = field(default_factory=list)
    _files: int = 0
    _file: parquet.ParquetWriter | None = None
    _buffer: pa.BufferOutputStream | None = None

    def __post_init__(self) -> None:
        first, shards_a_file = self.run.shards, max(1, FILE // self.run.shard)
        self._plan = Plan(secrets.token_hex(4), self.sources, {}, {}, first, 0, 0, shards_a_file)

    def add(self, sha256: str, rows: pa.Table) -> None:
        """Add pictures of one inspector; full shards are written."""
        self.pictures += len(rows)
        waiting = pa.concat_tables([*self._open.pop(sha256, []), rows])
        size = self.run.shard
        whole = len(waiting) // size * size
        for start in range(0, whole, size):
            self._close(sha256, waiting.slice(start, size))
        if whole < len(waiting):
            self._open[sha256] = [waiting.slice(whole)]

    def finish(self, known: Inspectors) -> Run:
        """Write the shards that are not full and the list of shards; the run with the plan, not yet recorded."""
        for sha256, tables in self._open.items():
            self._close(sha256, pa.concat_tables(tables))
        self._end_file()
        columns = list(zip(*self._shards, strict=True))
        shards = pa.table([pa.array(c, f.type) for c, f in zip(columns, SHARDS, strict=True)], schema=SHARDS)
        self._put(self.run.shards_file(self._plan), shards)
        inspectors, addresses = dict(sorted(known.used.items())), dict(sorted(known.addresses.items()))
        done = replace(self._plan, inspectors=inspectors, addresses=addresses)
        return self.run.with_plan(replace(done, shards=len(self._shards), pictures=self.pictures))

    def _close(self, sha256: str, rows: pa.Table) -> None:
        """Write a shard as a row group."""
        shard, count = self._plan.first_shard + len(self._shards), len(rows)
        table = rows.append_column("shard", pa.repeat(pa.scalar(shard, pa.int32()), count))
        table = table.append_column("row", pa.array(np.arange(count, dtype=np.int32)))
        if self._file is None:
            self._buffer = pa.BufferOutputStream()
            self._file = parquet.ParquetWriter(self._buffer, PLANNED, compression="zstd")
        self._file.write_table(table.select(PLANNED.names).combine_chunks(), row_group_size=count)
        size = sum(size or 0 for size in table["bytes"].to_pylist())
        self._shards.append((shard, sha256, count, size))
        if len(self._shards) % self._plan.shards_a_file == 0:
            self._end_file()

    def _end_file(self) -> None:
        if self._file is None or self._buffer is None:
            return
        self._file.close()
        self.run.plan_file(self._plan, self._files).put(self._buffer.getvalue())
        self._files, self._file, self._buffer = self._files + 1, None, None

    def _put(self, place: Place, table: pa.Table) -> None:
        buffer = pa.BufferOutputStream()
        parquet.write_table(table, buffer, compression="zstd")
        place.put(buffer.getvalue())


class _Seen:
    """The identities of pictures: 16 bytes of a digest each, apart by the first half byte.

    Apart, since merging takes as much memory again as the keys that are merged.
    """

    def __init__(self) -> None:
        self._known = [_Keys() for _ in range(16)]

    def new(self, *columns: pa.ChunkedArray) -> NDArray[np.bool_]:
        """Whether each row is met for the first time, here and in all calls before."""
        keys = np.array(
            [
                hashlib.blake2b("\0".join(row).encode(), digest_size=16).digest()
                for row in zip(*(column.to_pylist() for column in columns), strict=True)
            ],
            dtype="S16",
        )
        first = np.zeros(len(keys), bool)
        first[np.unique(keys, return_index=True)[1]] = True
        beginning = keys.view(np.uint8)[::16] >> 4
        for number, known in enumerate(self._known):
            rows = np.flatnonzero(first & (beginning == number))
            first[rows] = known.add(keys[rows])
        return first


class _Keys:
    """Keys in sorted arrays, so that memory grows slowly."""

    def __init__(self) -> None:
        self._sorted: list[NDArray[np.bytes_]] = []  # each at least twice as long as the next

    def add(self, keys: NDArray[np.bytes_]) -> NDArray[np.bool_]:
        """Add keys that differ from each other; whether each was not there before."""
        new = np.ones(len(keys), bool)
        for known in self._sorted:
            place = np.minimum(np.searchsorted(known, keys), len(known) - 1)
            new &= known[place] != keys
        added = np.sort(keys[new])
        while len(added) and self._sorted and len(self._sorted[-1]) < 2 * len(added):
            added = np.concatenate([self._sorted.pop(), added])
            added.sort(kind="stable")  # which merges runs that are sorted
        if len(added):
            self._sorted.append(added)
        return new
