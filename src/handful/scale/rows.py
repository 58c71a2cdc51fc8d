"""The table of a run: a row for each picture, and the Parquet files that hold the rows.

A row holds the fields of `Inspection.as_dict` under the same names, with boxes and places taken apart into numbers, and
where the row comes from. It holds no time and no host: the bytes of a part depend on its inputs alone, so that a shard
that is scored twice gives the same file twice.
"""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from typing import Any

import pyarrow as pa
from pyarrow import parquet

from handful.report.result import Inspection
from handful.types import NearestReference, Region
from handful.version import __version__

FORMAT = 1  # of the rows
# The kinds of errors: the store gave no bytes; the bytes are no picture; the scores were not finite; the process ended;
# the inspection did not end.
READ, DECODE, SCORE, CRASH, TIMEOUT = "READ", "DECODE", "SCORE", "CRASH", "TIMEOUT"
PASSING = (READ, CRASH, TIMEOUT)  # kinds that another try may mend

_PLACE = pa.struct(
    [("picture", pa.string()), ("at_x", pa.float64()), ("at_y", pa.float64()), ("distance", pa.float64())]
)
_REGION = pa.struct(
    [
        *((name, pa.int32()) for name in ("left", "top", "width", "height")),
        ("area", pa.int64()),
        ("peak", pa.float64()),
        ("peak_x", pa.int32()),
        ("peak_y", pa.int32()),
        ("nearest", _PLACE),
    ]
)
SCHEMA = pa.schema(
    [
        ("product", pa.string()),
        ("path", pa.string()),
        ("version", pa.string()),
        ("verdict", pa.string()),
        ("score", pa.float64()),
        ("raw_score", pa.float64()),
        ("raw_threshold", pa.float64()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("regions", pa.list_(_REGION)),
        ("missing", _PLACE),
        ("reason", pa.string()),
        ("notes", pa.list_(pa.string())),
        ("error", pa.string()),
        ("inspector", pa.string()),
        ("inspector_sha256", pa.string()),
        ("picture_sha256", pa.string()),
        ("bytes", pa.int64()),
        ("shard", pa.int32()),
        ("row", pa.int32()),
    ]
)


def row_of(planned: Mapping[str, Any], inspection: Inspection, *, error: str | None) -> dict[str, Any]:
    """The row of an inspection.

    Args:
        planned: the columns of the plan that the table keeps, with `bytes` and `picture_sha256` as read.
        inspection: of the picture.
        error: the kind of error, None for a picture that was judged.
    """
    width, height = inspection.size or (None, None)
    return {
        **planned,
        "verdict": str(inspection.verdict),
        "score": inspection.score,
        "raw_score": inspection.raw_score,
        "raw_threshold": inspection.raw_threshold,
        "width": width,
        "height": height,
        "regions": [_region(region) for region in inspection.regions],
        "missing": _place(inspection.missing),
        "reason": inspection.reason,
        "notes": list(inspection.notes),
        "error": error,
        "inspector": inspection.inspector,
    }


def _region(region: Region) -> dict[str, Any]:
    left, top, width, height = region.box
    return {
        "left": left,
        "top": top,
        "width": width,
        "height": height,
        "area": region.area,
        "peak": region.peak,
        "peak_x": region.peak_at[0],
        "peak_y": region.peak_at[1],
        "nearest": _place(region.nearest),
    }


def _place(place: NearestReference | None) -> dict[str, Any] | None:
    if place is None:
        return None
    return {"picture": place.picture, "at_x": place.at[0], "at_y": place.at[1], "distance": place.distance}


def part_of(rows: Sequence[Mapping[str, Any]]) -> bytes:
    """The Parquet file of a shard's rows."""
    table = pa.Table.from_pylist(list(rows), schema=SCHEMA.with_metadata(_metadata()))
    buffer = pa.BufferOutputStream()
    parquet.write_table(table, buffer, compression="zstd", store_schema=True)
    return bytes(buffer.getvalue())


@cache
def _metadata() -> dict[bytes, bytes]:
    from handful.graphs.openvino import openvino

    facts = {"format": FORMAT, "handful": __version__, "openvino": openvino.__version__}
    return {f"handful.{name}".encode(): str(value).encode() for name, value in facts.items()}


def counted(values: Iterable[str | None]) -> dict[str, int]:
    """The number of each value that is not None, sorted by value."""
    found: dict[str, int] = {}
    for value in values:
        if value is not None:
            found[value] = found.get(value, 0) + 1
    return dict(sorted(found.items()))
