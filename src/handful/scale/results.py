"""The results of a run: the table of its parts, its summary, and compacted files."""

import json
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import dataset, parquet

from handful.errors import InputError
from handful.scale.places import Place, reading
from handful.scale.rows import SCHEMA
from handful.scale.run import Run
from handful.scale.worker import read_run

COMPACTED = 512 << 20  # bytes of a compacted file, about
TOGETHER = 20  # files of one dataset, which keeps the metadata of each, 0.1 MB, for as long as it lives
GROUP = 65_536  # rows of a row group in a compacted file


def table(out: str, *, columns: Sequence[str] | None = None, distinct: bool = False) -> pa.Table:
    """The rows of a run that are there, in the order of the plan.

        scores = handful.scale.table("scores", columns=["path", "score"])

    Args:
        out: the folder of the run, a path or a URI.
        columns: the names of the columns; None for all.
        distinct: keep a single row of pictures with equal bytes under the same inspector.

    Raises:
        InputError: if there is no run, or a part cannot be read.
    """
    run = read_run(out)
    keys = ["inspector_sha256", "picture_sha256"]
    wanted = list(columns or SCHEMA.names)
    unknown = [name for name in wanted if name not in SCHEMA.names]
    if unknown:
        raise InputError(f"A column must be among {', '.join(SCHEMA.names)}, got {unknown[0]}.")
    with reading(run.out, "a run of whole parts"):
        found = _dataset(run, _files(run)).to_table(columns=list(dict.fromkeys([*wanted, *(keys if distinct else [])])))
    return _distinct(found, keys).select(wanted) if distinct else found


def batches(run: Run, columns: Sequence[str], *, only: dataset.Expression | None = None) -> Iterator[pa.RecordBatch]:
    """Yield rows of a run in the order of the plan, so that memory does not grow with the number of parts.

    Args:
        run: of the parts.
        columns: the names of the columns.
        only: a condition on the rows; None for all rows.

    Raises:
        InputError: if a part cannot be read.
    """
    files = _files(run)
    for start in range(0, len(files), TOGETHER):
        with reading(run.out, "a run of whole parts"):
            yield from _dataset(run, files[start : start + TOGETHER]).to_batches(
                columns=list(columns),
                filter=only,
                batch_size=GROUP,
                batch_readahead=1,
                fragment_readahead=1,
                use_threads=False,
            )


def _files(run: Run) -> list[Place]:
    """The files that hold the rows of a run, in the order of the plan: compacted files, then parts."""
    compacted = _compacted(run)
    files = [run.out / "compacted" / name for name in compacted["files"]]
    return files + [run.part(shard) for shard in sorted(run.done()) if shard >= compacted["shards"]]


def _dataset(run: Run, files: Sequence[Place]) -> dataset.Dataset:
    return dataset.dataset([file.path for file in files], schema=SCHEMA, format="parquet", filesystem=run.out.store)


def finish(run: Run) -> None:
    """Write summary.json and failures.parquet, out of the parts, unless they say how the whole run ended."""
    place = run.out / "summary.json"
    if place.is_file() and summary(run)["pictures"] == run.pictures:
        return
    verdicts, errors, count = Counter[str](), Counter[str](), 0
    for batch in batches(run, ["verdict", "error"]):
        count += len(batch)
        verdicts.update(_counts(batch["verdict"]))
        errors.update(_counts(batch["error"]))
    failed = batches(run, SCHEMA.names, only=pc.field("error").is_valid()) if errors else ()
    buffer = pa.BufferOutputStream()
    with parquet.ParquetWriter(buffer, SCHEMA, compression="zstd") as writer:
        for batch in failed:
            writer.write_batch(batch)
    (run.out / "failures.parquet").put(buffer.getvalue())
    place.put(json.dumps(_summary(run, count, verdicts, errors), indent=1).encode())


def summary(run: Run) -> dict[str, Any]:
    """The contents of summary.json.

    Raises:
        InputError: if the file is missing or no JSON.
    """
    return _json(run.out / "summary.json", "the summary of a run")


def compact(out: str) -> int:
    """Copy the rows of a finished run into few large files, OUT/compacted; the number of these files.

    The parts stay, for resuming and for `cmp`. `table` reads the compacted files in place of their parts.

        handful.scale.compact("scores")

    Raises:
        InputError: if there is no run, or it is not finished.
        OutputError: if a file cannot be written.
    """
    run = read_run(out)
    done = len(run.done())
    if done < run.shards:
        raise InputError(
            f"A run must be finished to be compacted, got {done} of {run.shards} shards in {run.out.uri}; score the "
            f"rest."
        )
    before = _compacted(run)
    files, first = list(before["files"]), before["shards"]
    with tempfile.TemporaryDirectory() as folder:
        for path in _large_files(run, range(first, run.shards), Path(folder)):
            name = f"{len(files):05d}.parquet"
            (run.out / "compacted" / name).put(path)
            path.unlink()
            files.append(name)
    index = {"shards": run.shards, "files": files}
    (run.out / "compacted" / "index.json").put(json.dumps(index).encode())
    return len(files)


def forget_summary(run: Run) -> None:
    """Remove summary.json, before parts are written."""
    (run.out / "summary.json").remove()


def forget_compacted(run: Run) -> None:
    """Let the parts count again in place of the compacted files, before parts are replaced."""
    (run.out / "compacted" / "index.json").remove()


def _large_files(run: Run, shards: Sequence[int], folder: Path) -> Iterator[Path]:
    """Write the rows of shards to files of about `COMPACTED` bytes, one after the other."""
    waiting: list[pa.Table] = []
    writer: parquet.ParquetWriter | None = None
    path = folder / "rows.parquet"
    for shard in shards:
        place = run.part(shard)
        with reading(place, "a part"), place.store.open_input_file(place.path) as file:
            waiting.append(parquet.read_table(file, schema=SCHEMA))
        last = shard == shards[-1]
        if sum(map(len, waiting)) >= GROUP or last:
            writer = writer or parquet.ParquetWriter(path, SCHEMA, compression="zstd")
            writer.write_table(pa.concat_tables(waiting).combine_chunks())
            waiting = []
        if writer is not None and (last or path.stat().st_size >= COMPACTED):
            writer.close()
            writer = None
            yield path


def _compacted(run: Run) -> dict[str, Any]:
    """The index of the compacted files: their names, and the number of shards that they hold, from the first on."""
    place = run.out / "compacted" / "index.json"
    with reading(place, "the index of compacted files"):
        there = place.is_file()
    return _json(place, "the index of compacted files") if there else {"shards": 0, "files": []}


def _json(place: Place, noun: str) -> dict[str, Any]:
    """The object in a JSON file of a run.

    Args:
        place: of the file.
        noun: the noun for its contents, with an article.

    Raises:
        InputError: if the file cannot be read, or holds something else.
    """
    with reading(place, noun):
        content = place.read()
    try:
        found = json.loads(content)
    except ValueError as error:
        raise InputError(f"{place.uri} must be {noun}, got: {error}; remove it, then score again.") from error
    if not isinstance(found, dict):
        raise InputError(f"{place.uri} must be {noun}, got something else; remove it, then score again.")
    return found


def _distinct(rows: pa.Table, keys: Sequence[str]) -> pa.Table:
    """The first row of each key; rows without a digest all stay."""
    seen = set[tuple[Any, ...]]()
    kept = []
    for number, key in enumerate(zip(*(rows[name].to_pylist() for name in keys), strict=True)):
        if None in key or key not in seen:
            seen.add(key)
            kept.append(number)
    return rows.take(kept)


def _counts(values: pa.Array) -> dict[str, int]:
    """The number of each value that is not null."""
    return {one["values"]: one["counts"] for one in pc.value_counts(values.drop_null()).to_pylist()}


def _summary(run: Run, count: int, verdicts: Counter[str], errors: Counter[str]) -> dict[str, Any]:
    return {
        "pictures": count,
        "planned": run.pictures,
        "shards": run.shards,
        "verdicts": dict(sorted(verdicts.items())),
        "errors": dict(sorted(errors.items())),
        "products": sorted({product for plan in run.plans for product in plan.inspectors}),
    }
