"""The page of benchmarks/scale_simulation.py, from the figures that its parts have kept."""

from collections.abc import Callable, Mapping, Sequence
from statistics import mean
from typing import Any

from _scale_page import measured as how
from _scale_page import table

Rows = Sequence[Mapping[str, Any]]
BILLION = 10**9


def page(records: Mapping[str, Mapping[str, Any]]) -> str:
    """The whole page, of the parts that were measured."""
    head = [
        "# How `handful score` behaves with more machines and pictures than there are",
        "No cluster was at hand. What can be measured on one machine is measured, with sleeping workers and empty "
        "parts in place of inspections; the rest is simulated from measured times. The machine was shared with other "
        "programs, so that another day gives other times. What no part of this page says: a real object store, a "
        "real network, and machines of more cores.",
    ]
    for name, record in records.items():
        title, *said = PARTS[name](record["rows"])
        head += [f"## {title}", how(record), *said]
    return "\n\n".join(head) + "\n"


def measured(rows: Rows) -> list[str]:
    row = rows[0]
    low, high = min(row["variation"]), max(row["variation"])
    return [
        "Times of real pictures",
        f"One process of one thread, the default inspector, {row['pictures']} pictures: {1e3 * row['picture']:.1f} ms "
        f"of the processor a picture; 25 pictures in a row take {low:.2f} to {high:.2f} times the mean; "
        f"{row['load']:.1f} s of the processor until a new process has loaded its inspector. Wall time would count the "
        "other programs of the machine.",
    ]


def cluster(rows: Rows) -> list[str]:
    lines = []
    for row in rows:
        ideal = row["slept"] / row["processes"]
        busy = 100 * ideal / (row["last"] - row["first"])
        memory = f"{row['start_mb']:.0f} → {row['peak_mb']:.0f}"
        times = (f"{row['first']:.0f}", f"{row['rate']:.0f}", f"{busy:.0f} %", memory, f"{row['finish']:.1f}")
        cells = (f"{row['rows']:,}", f"{row['shards']:,}", *times, f"{row['resume']:.2f}")
        lines.append(f"| {row['processes']} on {row['nodes']} | {' | '.join(cells)} |")
    sleep = rows[0]["sleep"]
    return [
        "The engine ray with sleeping workers",
        f"`ray.cluster_utils`: nodes on loopback; each worker sleeps for a measured time of a shard, shortened to "
        f"{1e3 * sleep:.0f} ms on the mean, and writes the shard's part. As many summaries come to the driver as "
        f"thousands of real workers would send. Busy: the share of the workers' time that they slept. Memory of the "
        f"driver: when Ray has started, and its peak. Finish: summary.json and failures.parquet out of all rows. "
        f"Resume: the finished run is asked for again.",
        table(
            [
                "workers on nodes",
                "rows",
                "shards",
                "first, s",
                "summaries a second",
                "busy",
                "driver, MB",
                "finish, s",
                "resume, s",
            ],
            lines,
        ),
    ]


def events(rows: Rows) -> list[str]:
    sections = []
    forms, sizes = unique(rows, "form"), unique(rows, "shard")
    for title, figure in (
        ("Time from the first shard to the last part, in multiples of the ideal:", makespan),
        ("Work lost with machines, in hours of a worker:", lost),
        ("Minutes from the moment at which the last shard is handed out to the end:", tail),
    ):
        lines = []
        for form in forms:
            cells = [figure([row for row in rows if (row["form"], row["shard"]) == (form, size)]) for size in sizes]
            lines.append(f"| {form} | {' | '.join(cells)} |")
        sections += [title, table(["", *(f"{size:,} pictures a shard" for size in sizes)], lines)]
    ideal, seeds = mean(row["ideal"] for row in rows), len(unique(rows, "seed"))
    gone = {form: mean(row["machines_lost"] for row in rows if row["form"] == form) for form in forms}
    return [
        "A large cluster, simulated",
        f"Discrete events in plain Python, means of {seeds} seeds: {rows[0]['pictures']:,} pictures, "
        f"{rows[0]['workers']:,} workers on machines of 16; 0.1 % of the "
        "machines lost in an hour, back after 5 minutes; 2 % of the workers 3 times as slow; a store of 16 prefixes, "
        "each with as many pictures, that answers 5,500 requests a second for each prefix; 0.3 s a shard for its "
        f"requests (assumed). Times of a picture and of a load are the measured ones. The ideal, {ideal / 60:.0f} "
        "minutes, has no load, request, loss or limit, and shares the work out to the last second. The queue is in "
        "the order of `handful.scale.todo`, which lays neighbours of the plan far apart, but for the row that says so.",
        *sections,
        "Machines lost in a run, on the mean: "
        + ", ".join(f"{form} {count:.1f}" for form, count in gone.items())
        + ".",
    ]


def makespan(rows: Rows) -> str:
    return f"{mean(row['seconds'] / row['ideal'] for row in rows):.2f}"


def lost(rows: Rows) -> str:
    return f"{mean(row['lost'] for row in rows) / 3600:.2f}"


def tail(rows: Rows) -> str:
    return f"{mean(row['tail'] for row in rows) / 60:.1f}"


def plans(rows: Rows) -> list[str]:
    planned = [row for row in rows if row["name"] == "plan"]
    resumed = [row for row in rows if row["name"] == "resume"]
    lines = []
    for row in planned:
        each = 1e6 * row["seconds"] / row["rows"]
        cells = (f"{row['seconds']:.0f}", f"{each:.1f}", f"{row['bytes'] / 1e6:.0f}",
                 f"{row['start_mb']:.0f} → {row['peak_mb']:.0f}", f"{1e3 * row['opened']['median']:.0f}")  # fmt: skip
        lines.append(f"| {row['rows']:,} | {' | '.join(cells)} |")
    again = [
        f"| {row['rows']:,} | {row['shards']:,} | {row['done']:,} | {row['seconds']:.1f} | {row['peak_mb']:.0f} | "
        f"{row['bytes'] / 1e6:.1f} |"
        for row in resumed
    ]
    said = [formula(planned)] if len(planned) > 1 else []
    return [
        "Plans and resumes without a picture",
        "Keys of 45 characters and ETags of 32 digits, from a generator, whose own time counts; opening is the median "
        "of 20 shards.",
        table(["rows", "seconds", "µs a row", "files, MB", "memory, MB", "a shard opens, ms"], lines),
        *said,
        "A resume of a run half of whose parts are there, as empty files on a local disk: the record, the list of "
        "shards, the listing of the parts, and the order of the rest; the median of 3.",
        table(["rows", "shards", "parts", "seconds", "memory, MB", "list of shards, MB"], again),
    ]


def formula(rows: Rows) -> str:
    """The plan of 10^9 rows, from the two largest plans."""
    few, many = rows[-2:]
    more = many["rows"] - few["rows"]
    second, size, memory = ((many[key] - few[key]) / more for key in ("seconds", "bytes", "peak_mb"))
    hours = (many["seconds"] + second * (BILLION - many["rows"])) / 3600
    return (
        f"From the two largest plans, for each row more: {1e6 * second:.1f} µs, {size:.0f} bytes of files, "
        f"{1e6 * memory:.0f} bytes of memory. So 10^9 rows would take {hours:.1f} hours in one process, "
        f"{size * BILLION / 1e9:.0f} GB of files and {memory * BILLION / 1e3:.0f} GB of memory; the memory is that of "
        f"the digests by which a picture that is named twice is told."
    )


def unique(rows: Rows, key: str) -> list[Any]:
    """The values of a column in the order in which they came."""
    return list(dict.fromkeys(row[key] for row in rows))


PARTS: Mapping[str, Callable[[Rows], list[str]]] = {
    "measured": measured,
    "cluster": cluster,
    "events": events,
    "plans": plans,
}
