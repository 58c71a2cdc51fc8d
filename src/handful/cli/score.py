"""The verb `score`: many pictures of one or many products into a table, on this machine or a cluster."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.options import JsonOption, MaxPixelsOption, among
from handful.cli.output import FAILED, NAMED, OK, complain, print_json, say, suggest
from handful.errors import needing, number_of

if TYPE_CHECKING:
    from handful.scale.planning import Found
    from handful.scale.progress import Progress
    from handful.scale.worker import ShardSummary


def score(
    inspector: Annotated[
        str | None, typer.Argument(help="A saved inspector, NAME.handful; leave it out to go on with a run.")
    ] = None,
    pictures: Annotated[
        list[str] | None,
        typer.Option(help="Folders, prefixes of a bucket, tar files, pictures or manifests.", metavar="URI"),
    ] = None,
    out: Annotated[str, typer.Option(help="The folder of the run, a path or a URI.", metavar="URI")] = "",
    manifest: Annotated[
        str | None, typer.Option(help="A Parquet file with the columns path and product.", metavar="URI")
    ] = None,
    inspectors: Annotated[
        str | None, typer.Option(help="The folder of PRODUCT.handful for --manifest.", metavar="URI")
    ] = None,
    engine: Annotated[str, typer.Option(help="local or ray.", autocompletion=among("local", "ray"))] = "local",
    workers: Annotated[int | None, typer.Option(help="Processes; default: as many as cores.", metavar="N")] = None,
    threads: Annotated[int, typer.Option(help="Threads of each worker.", metavar="N")] = 1,
    address: Annotated[str | None, typer.Option(help="A cluster of Ray, HOST:PORT or auto.", metavar="ADDRESS")] = None,
    shard: Annotated[
        int | None, typer.Option(help="Pictures that are written together; default: 2000.", metavar="N")
    ] = None,
    max_pixels: MaxPixelsOption = None,
    extend: Annotated[bool, typer.Option("--extend", help="Add the pictures that the run does not hold yet.")] = False,
    retry_errors: Annotated[
        bool,
        typer.Option("--retry-errors", help="Score pictures again that could not be read, or that ended a worker."),
    ] = False,
    compact: Annotated[bool, typer.Option("--compact", help="Copy the finished table into few large files.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Score many pictures into a table of Parquet files, OUT/parts; the same command goes on with an interrupted run.

    Exit codes: 0 when every picture has its row, whatever its verdict; 2 when the run could not finish.
    """
    ray = engine == "ray"
    with needing("`handful score --engine ray`" if ray else "`handful score`", "ray" if ray else "scale"):
        from handful.scale import planning, results, scoring
        from handful.scale.progress import Progress
        from handful.scale.worker import Options
    from handful.errors import SettingError

    if not out:
        raise SettingError("`--out` must name the folder of the run, got none; add --out FOLDER.")
    scoring.check_engine(engine, workers, threads, address)
    found = planning.plan(
        out,
        pictures=[_text(uri) for uri in pictures or ()],
        inspector=inspector,
        manifest=manifest,
        inspectors=inspectors,
        shard=shard,
        max_pixels=max_pixels,
        extend=extend,
    )
    _say_planned(found)
    run = found.run
    sizes = run.shard_table()["pictures"].to_pylist()
    state = Progress(sizes, scoring.chosen(run, retry_errors=retry_errors))
    if state.done and state.shards_left:
        complain(f"going on: {state.done} of {run.pictures} pictures are done.")
    summaries = scoring.score(
        out,
        engine=engine,  # type: ignore[arg-type]  # checked above
        workers=workers,
        address=address,
        retry_errors=retry_errors,
        options=Options(threads=threads),
    )
    with _bar(state, quiet=as_json) as shown:
        for summary in summaries:
            state.add(summary)
            shown(summary)
            if as_json:
                print_json({**summary.as_dict(), **_state(state)})
    files = results.compact(out) if compact else None
    total = results.summary(run)
    if as_json:
        print_json({**total, "out": run.out.uri, **({} if files is None else {"compacted": files})})
    else:
        say(_line(total, run.out.uri))
        if total["errors"]:
            complain(f"pictures with an error: {sum(total['errors'].values())}; see {run.out.uri}/failures.parquet.")
        program = f"import handful.scale; print(handful.scale.table({run.out.address!r}))"
        suggest(f"look at the table: python -c {shlex.quote(program)}")
    raise typer.Exit(OK if total["pictures"] == run.pictures else FAILED)


def _text(uri: str) -> str:
    return str(Path(uri)) if "://" not in uri else uri


def _say_planned(found: "Found") -> None:
    """Say on stderr which files are left out, and which pictures were named twice."""
    if found.left_out_count:
        named = ", ".join(f"{one.path} ({one.reason})" for one in found.left_out[:NAMED])
        more = f", and {found.left_out_count - NAMED} more" if found.left_out_count > NAMED else ""
        complain(f"left out {found.left_out_count} beside {number_of(found.pictures, 'picture')}: {named}{more}.")
    if found.twice:
        complain(f"left out {number_of(found.twice, 'picture')} named before.")


@contextmanager
def _bar(state: "Progress", *, quiet: bool) -> Iterator[Any]:
    """Show a bar on stderr if stderr is a terminal; yields the function that a summary moves the bar by."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("scoring"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[note]}"))
    with Progress(*columns, console=console, transient=True, disable=quiet or not console.is_terminal) as bar:
        task = bar.add_task("scoring", total=state.pictures, completed=state.done, note="")

        def shown(summary: "ShardSummary") -> None:
            left = "" if state.seconds_left is None else f", {_duration(state.seconds_left)} left"
            errors = f", {state.errors} errors" if state.errors else ""
            bar.update(task, completed=state.done, note=f"{state.per_second:.0f} a second{left}{errors}")

        yield shown


def _duration(seconds: float) -> str:
    hours, minutes, rest = int(seconds) // 3600, int(seconds) // 60 % 60, int(seconds) % 60
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def _state(state: "Progress") -> dict[str, Any]:
    return {
        "done": state.done,
        "left": state.pictures - state.done,
        "per_second": round(state.per_second, 2),
        "seconds_left": None if state.seconds_left is None else round(state.seconds_left, 1),
    }


def _line(total: dict[str, Any], out: str) -> str:
    verdicts = ", ".join(f"{count} {verdict}" for verdict, count in total["verdicts"].items())
    said = f"{number_of(total['pictures'], 'picture')} in {number_of(total['shards'], 'shard')}"
    return f"{said}: {verdicts}; {out}"
