"""A run's own files: the record `run.json`, the plan, the inspectors, and the parts.

OUT/run.json                          the options and the plans; the plan counts from the moment this file exists
OUT/plan/ID-00000.parquet             at most 10^6 pictures, a row group for each shard
OUT/plan/ID-shards.parquet            a row for each shard: inspector, pictures, bytes
OUT/inspectors/SHA256.handful         the run's own copies
OUT/parts/K/part-0000123.parquet      K = shard // 1,000; a shard is done when its part exists
OUT/attempts/SHARD-RUN-ID             a process has begun the shard; removed when the process has finished with it
OUT/failures.parquet, summary.json    written at the end
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from handful.errors import InputError
from handful.scale.places import Place, reading
from handful.version import __version__

FORMAT = 1
PART_FOLDER = 1_000  # shards
PLANNED = pa.schema(
    [
        ("path", pa.string()),
        ("bytes", pa.int64()),
        ("version", pa.string()),
        ("offset", pa.int64()),
        ("product", pa.string()),
        ("inspector", pa.string()),  # the digest of the inspector with its calibration
        ("inspector_sha256", pa.string()),  # of its file
        ("shard", pa.int32()),
        ("row", pa.int32()),
    ]
)
KEPT = ("product", "path", "version", "inspector", "inspector_sha256", "shard", "row")  # columns that a result keeps
SHARDS = pa.schema(
    [("shard", pa.int32()), ("inspector_sha256", pa.string()), ("pictures", pa.int32()), ("bytes", pa.int64())]
)


@dataclass(frozen=True)
class Plan:
    """The pictures that were planned at once: at the start of a run, or by an extension.

    Attributes:
        id: the beginning of the names of its files.
        sources: the addresses of the pictures or of the manifest.
        inspectors: the sha256 of each product's inspector file, in hex.
        addresses: of the inspectors that the manifest named, by product.
        first_shard: the number of its first shard.
        shards: the number of its shards.
        pictures: the number of its pictures.
        shards_a_file: the number of shards in each of its files but the last.
    """

    id: str
    sources: tuple[str, ...]
    inspectors: Mapping[str, str]
    addresses: Mapping[str, str]
    first_shard: int
    shards: int
    pictures: int
    shards_a_file: int


@dataclass(frozen=True)
class Run:
    """A run's record, `run.json`.

    Attributes:
        out: the folder of the run.
        shard: the largest number of pictures in a shard.
        max_pixels: the largest number of pixels of a picture; None for each inspector's own.
        queries: of the stores, by scheme.
        plans: in their order.
    """

    out: Place
    shard: int
    max_pixels: int | None
    queries: Mapping[str, str]
    plans: tuple[Plan, ...] = ()

    @property
    def shards(self) -> int:
        """The number of all shards."""
        return sum(plan.shards for plan in self.plans)

    @property
    def pictures(self) -> int:
        """The number of all pictures."""
        return sum(plan.pictures for plan in self.plans)

    def part(self, shard: int) -> Place:
        """The part of a shard."""
        return self.out / "parts" / str(shard // PART_FOLDER) / f"part-{shard:07d}.parquet"

    def inspector(self, sha256: str) -> Place:
        """The run's copy of an inspector."""
        return self.out / "inspectors" / f"{sha256}.handful"

    def plan_file(self, plan: Plan, number: int) -> Place:
        """A file of a plan."""
        return self.out / "plan" / f"{plan.id}-{number:05d}.parquet"

    def shards_file(self, plan: Plan) -> Place:
        """The list of a plan's shards."""
        return self.out / "plan" / f"{plan.id}-shards.parquet"

    def planned(self, shard: int) -> list[dict[str, Any]]:
        """The pictures of a shard, in the order of the plan.

        Raises:
            InputError: if the plan cannot be read.
        """
        plan = next(plan for plan in self.plans if shard < plan.first_shard + plan.shards)
        file, group = divmod(shard - plan.first_shard, plan.shards_a_file)
        place = self.plan_file(plan, file)
        with reading(place, "a plan"), place.store.open_input_file(place.path) as opened:
            rows = parquet.ParquetFile(opened).read_row_group(group, use_threads=False)
        found: list[dict[str, Any]] = rows.to_pylist()
        return found

    def shard_table(self) -> pa.Table:
        """All shards with the columns `SHARDS`, in the order of their numbers."""
        tables = []
        for plan in self.plans:
            place = self.shards_file(plan)
            with reading(place, "the list of a plan's shards"), place.store.open_input_file(place.path) as opened:
                tables.append(parquet.read_table(opened, use_threads=False))
        return pa.concat_tables(tables)

    def plan_tables(self, columns: Sequence[str]) -> Iterator[pa.Table]:
        """Yield some columns of all planned pictures, a shard at a time."""
        for plan in self.plans:
            for number in range(-(-plan.shards // plan.shards_a_file)):
                place = self.plan_file(plan, number)
                with reading(place, "a plan"), place.store.open_input_file(place.path) as opened:
                    source = parquet.ParquetFile(opened)
                    for group in range(source.num_row_groups):
                        yield source.read_row_group(group, columns=list(columns), use_threads=False)

    def done(self) -> set[int]:
        """The numbers of the shards whose part exists."""
        parts = self.out / "parts"
        found = set[int]()
        for folder in parts.entries():
            if folder.is_folder:
                found |= {number for entry in (parts / folder.name).entries() if (number := _number(entry.name)) >= 0}
        return {shard for shard in found if shard < self.shards}

    def with_plan(self, plan: Plan) -> "Run":
        """The run with a further plan."""
        return replace(self, plans=(*self.plans, plan))

    def put(self) -> None:
        """Write the record.

        Raises:
            OutputError: if the file cannot be written.
        """
        (self.out / "run.json").put(self._content())

    def put_first(self) -> bool:
        """Write the record unless there is one, see `Place.put_first`."""
        return (self.out / "run.json").put_first(self._content())

    def _content(self) -> bytes:
        record = {
            "format": FORMAT,
            "handful": __version__,
            "shard": self.shard,
            "max_pixels": self.max_pixels,
            "queries": dict(self.queries),
            "plans": [asdict(plan) for plan in self.plans],
        }
        return json.dumps(record, indent=1).encode()


def read(out: Place) -> Run | None:
    """The record of a run; None where there is none.

    Raises:
        InputError: if the record cannot be read, or was written by a newer version.
    """
    place = out / "run.json"
    with reading(place, "the record of a run"):
        if not place.is_file():
            return None
        content = place.read()
    try:
        record = json.loads(content)
        version = record["format"]
        if version == FORMAT:
            plans = [Plan(**{**plan, "sources": tuple(plan["sources"])}) for plan in record["plans"]]
            return Run(out, int(record["shard"]), record["max_pixels"], dict(record["queries"]), tuple(plans))
    except (ValueError, KeyError, TypeError) as error:
        raise InputError(
            f"{place.uri} must be the record of a run that `handful score` wrote, got another file ({error}); name "
            f"another folder."
        ) from error
    raise InputError(
        f"{place.uri} must be the record of a run of format {FORMAT}, got format {version}; upgrade handful."
    )


def _number(name: str) -> int:
    """The shard of a part's name; -1 for another file."""
    stem = name.removeprefix("part-").removesuffix(".parquet")
    return int(stem) if name == f"part-{stem}.parquet" and stem.isdecimal() else -1
