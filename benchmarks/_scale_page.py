"""The page of benchmarks/scale.py, from the figures that its parts have kept."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from statistics import median
from typing import Any

Record = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]
# The bounds: of ratios, of seconds, of milliseconds a row and process, and of megabytes.
FASTER, RAY_RATE, RAY_FIRST, TWO_WORKERS = 1.3, 0.95, 25.0, 1.8
MILLISECONDS, GROWTH, RESUME = 0.5, 1.1, 5.0
BESIDE_INSPECTORS, PRODUCTS = 150.0, 1.05
PLAN_MB, OPENED = 500.0, 0.2
INSPECTS = {"threads": "`inspect` by threads", "inspect": "`inspect`"}
PLAN_ROWS, RESUME_ROWS = 10_000_000, 1_000_000  # for which the bounds are meant


class Check:
    """A bound, and the figure that must keep to it."""

    def __init__(self, name: str, bound: str, figure: str, holds: bool, *, full: bool = True) -> None:
        self.name, self.bound, self.figure = name, bound, figure
        self.said = ("yes" if holds else "**no**") if full else ("yes, of a smaller run" if holds else "**no**")

    def __str__(self) -> str:
        return f"| {self.name} | {self.bound} | {self.figure} | {self.said} |"


def page(records: Mapping[str, Record]) -> str:
    """The whole page, of the parts that were measured."""
    checks, sections = [], []
    for name, record in records.items():
        title, found, *said = PARTS[name](record["rows"])
        checks += found
        sections += [f"## {title}", measured(record), *said]
    head = [
        "# How fast `handful score` is, and how much memory it takes",
        "The machine was shared with other programs throughout, so that another day gives other seconds and rates; "
        "ratios are of medians over rounds in which the contestants took turns. Memory is resident memory at the peak "
        "of a process, in MB (10^6 bytes). The stub judges a picture by the digest of its bytes, so that what is left "
        "is the machinery.",
        table(["check", "bound", "measured", "holds"], checks),
    ]
    return "\n\n".join([*head, *sections]) + "\n"


def measured(record: Record) -> str:
    """The command, the commit and the machine of a part."""
    versions = ", ".join(f"{package} {record[package]}" for package in ("handful", "openvino"))
    low, high = sorted(record["load"])
    return (
        f"`{record['command']}` at {record['commit']}: {record['category']}, {versions}, {record['platform']}, "
        f"{record['cpu']}, {record['cpu_cores']} threads; {record['seconds']:.0f} s at a load of {low:.1f} to "
        f"{high:.1f}."
    )


def engines(rows: Rows) -> list[Any]:
    keys = list(dict.fromkeys((row["name"], row["workers"]) for row in rows))
    by = {key: [row for row in rows if (row["name"], row["workers"]) == key] for key in keys}
    seconds = {key: median(row["seconds"] for row in found) for key, found in by.items()}
    count = rows[0]["pictures"]
    alone = {name: value for (name, workers), value in seconds.items() if name in INSPECTS}
    many = max(workers for name, workers in keys if name == "local")
    full = count >= 480
    checks = [
        ratio(f"2: pictures a second, local / two {noun} at once", alone[name] / seconds["local", many], FASTER, full)
        for name, noun in INSPECTS.items()
        if name in alone
    ]
    if ("ray", many) in by:
        rate = median(row["rate"] for row in by["ray", many]) / median(row["rate"] for row in by["local", many])
        first = median(row["first"] for row in by["ray", many])
        checks += [
            ratio("2: pictures a second after the first shard, ray / local", rate, RAY_RATE, full),
            Check("2: first shard of ray", f"<= {RAY_FIRST:g} s", f"{first:.1f} s", first <= RAY_FIRST, full=full),
        ]
    if many > 1:
        whole, after = seconds["local", 1] / seconds["local", many], rates(by, many)
        checks += [
            ratio(f"3: pictures a second, {many} workers / 1, start and plan included", whole, TWO_WORKERS, full),
            ratio(f"3: the same after the first shard, {many} workers / 1", after, TWO_WORKERS, full),
        ]
    lines = []
    for (name, workers), found in by.items():
        early = [row["first"] for row in found if "first" in row]
        rate = [row["rate"] for row in found if "rate" in row]
        title = f"{workers} {INSPECTS[name]} at once" if name in INSPECTS else f"`handful score`, {name}, {workers}"
        cells = (*(spread(row[key] for row in found) for key in ("seconds", "cpu")), spread(early), spread(rate))
        lines.append(f"| {title} | {' | '.join(cells)} |")
    return [
        "Commands",
        checks,
        f"{count} pictures from start to end of a command: medians, and the least and the most of {len(found)} rounds. "
        f"From 200 pictures on `inspect` works by as many processes as cores; when the bound of {FASTER} was set, it "
        "worked by threads, as in the first row. Two workers beside another busy program have less than twice a "
        "worker's share of two cores; processor seconds count the work alone, that of Ray's own processes included.",
        table(["command", "seconds", "processor, s", "to the first shard, s", "pictures a second after it"], lines),
    ]


def rates(by: Mapping[tuple[str, int], Rows], many: int) -> float:
    """The rate of many workers of the engine local, in multiples of one worker's, after the first shard."""
    fast, slow = (median(float(row["rate"]) for row in by["local", workers]) for workers in (many, 1))
    return fast / slow


def machinery(rows: Rows) -> list[Any]:
    checks, lines = [], []
    for engine in dict.fromkeys(row["name"] for row in rows):
        found = [row for row in rows if row["name"] == engine]
        full = found[0]["pictures"] >= 100_000
        cost = [1e3 * row["workers"] / row["rate"] for row in found]
        cpu = [1e3 * row["worker_cpu"] / row["pictures"] for row in found]
        for noun, values in (("wall", cost), ("processor", cpu)):
            name, value = f"4: stub, {engine}, {noun} time of a row and process", median(values)
            bound, holds = f"<= {MILLISECONDS} ms", value <= MILLISECONDS
            checks.append(Check(name, bound, f"{value:.2f} ms", holds, full=full))
        first, whole = spread(row["first"] for row in found), spread(row["seconds"] for row in found)
        lines.append(f"| {engine} | {spread(cost, 3)} | {spread(cpu, 3)} | {first} | {whole} |")
    return [
        "The machinery",
        checks,
        f"{rows[0]['pictures']:,} rows of the stub, files of 1 kB, {rows[0]['workers']} workers: wall time after the "
        f"first shard, in which a worker also waits for other programs, and processor time of the workers with their "
        f"start; medians, with the least and the most of {len(found)} rounds.",
        table(
            ["engine", "ms a row and process", "processor, ms a row", "seconds to the first shard", "seconds"], lines
        ),
    ]


def memory(rows: Rows) -> list[Any]:
    resumed = [row for row in rows if row["name"] == "resume"]
    checks, lines = grown([row for row in rows if row["name"] != "resume"], "stub", 1_000_000)
    again = []
    for row in resumed:
        again.append(f"| {row['rows']:,} | {spread(row['seconds'], 2)} |")
    if resumed:
        last, seconds = resumed[-1], median(resumed[-1]["seconds"])
        holds = seconds <= RESUME and last["shards"] == 0
        full = last["rows"] >= RESUME_ROWS
        name = f"11: a finished run of {last['rows']:,} rows, asked for again"
        checks.append(Check(name, f"<= {RESUME:g} s", f"{seconds:.2f} s", holds, full=full))
    return [
        "Memory and resuming, of the stub's rows",
        checks,
        "Shards of 2,000 rows; the workers' memory is that of the largest worker.",
        table(["engine", "rows", "driver, MB", "worker, MB", "rows a second"], lines),
        "A finished run is asked for again, after its pictures have been removed, so that a resume that reads a "
        "picture fails: from the call to the end of the iteration, in a process of its own.",
        table(["rows", "seconds"], again),
    ]


def grown(rows: Rows, noun: str, asked: int) -> tuple[list[Check], list[str]]:
    """Checks of memory at the most rows beside the fewest, and a line for each run."""
    checks, lines = [], []
    for engine in dict.fromkeys(row["name"] for row in rows):
        found = sorted((row for row in rows if row["name"] == engine), key=lambda row: row["rows"])
        few, many = found[0], found[-1]
        for who, key in (("driver", "peak_mb"), ("worker", "worker_mb")):
            growth = many[key] / few[key]
            name = f"5: {noun}, {engine}, {who}, {few['rows']:,} → {many['rows']:,} rows"
            figure = f"{growth:.2f} x ({few[key]:.0f} → {many[key]:.0f} MB)"
            full = many["rows"] >= asked
            checks.append(Check(name, f"<= {GROWTH} x", figure, growth <= GROWTH, full=full))
        for row in found:
            cells = f"{row['peak_mb']:.0f} | {row['worker_mb']:.0f} | {row['rate']:,.0f}"
            lines.append(f"| {engine} | {row['rows']:,} | {cells} |")
    return checks, lines


def real(rows: Rows) -> list[Any]:
    checks, lines = grown(rows, "pictures", 10_000)
    return [
        "Memory, of real pictures",
        checks,
        "The default inspector, shards of a quarter of the pictures, at most 2,000.",
        table(["engine", "pictures", "driver, MB", "worker, MB", "pictures a second"], lines),
    ]


def products(rows: Rows) -> list[Any]:
    checks, lines, said = [], [], []
    for name in dict.fromkeys(row["name"] for row in rows):
        one, many, single = (
            next(row for row in rows if (row["name"], row["form"]) == (name, form))
            for form in ("inspector", "products", "single")
        )
        full = many["products"] >= 300 and many["pictures"] >= 100 * many["products"]
        about = f"10: {name} inspector, {many['products']} products x {many['pictures'] // many['products']} pictures"
        peak, allowed = many["worker_mb"], 2 * one["mb"] + BESIDE_INSPECTORS
        cpu, wall = many["worker_cpu"] / single["worker_cpu"], many["seconds"] / single["seconds"]
        bounds = f"<= {many['shards']} (shards)", f"<= {allowed:.0f} MB (2 inspectors + 150 MB)"
        checks += [
            Check(f"{about}, loads", bounds[0], str(many["loads"]), many["loads"] <= many["shards"], full=full),
            Check(f"{about}, worker", bounds[1], f"{peak:.0f} MB", peak <= allowed, full=full),
            Check(f"{about}, time / one product's", f"<= {PRODUCTS}", f"{wall:.2f} (processor {cpu:.2f})",
                  wall <= PRODUCTS, full=full),
        ]  # fmt: skip
        for row in (single, many):
            cells = (row["products"], row["pictures"], row["shards"], row["loads"], f"{row['worker_mb']:.0f}",
                     f"{row['seconds']:.1f}", f"{row['worker_cpu']:.1f}", f"{row['plan_seconds']:.1f}")  # fmt: skip
            lines.append(f"| {name} | {' | '.join(map(str, cells))} |")
        share = one["load_cpu"] / (one["picture_cpu"] * many["pictures"] / many["products"])
        each = many["pictures"] // many["products"]
        said.append(
            f"The {name} inspector: {1e3 * one['load_cpu']:.0f} ms of the processor to load, "
            f"{1e3 * one['picture_cpu']:.1f} ms a picture, so that a load is {100 * share:.0f} % of the work on {each} "
            f"pictures; it adds {one['mb']:.0f} MB to a process, libraries included."
        )
    head = ["inspector", "products", "pictures", "shards", "loads", "worker, MB", "seconds", "workers' processor, s",
            "plan, s"]  # fmt: skip
    return [
        "Many products",
        checks,
        "Each product has an inspector file of its own, which differs in the threshold alone; a product's pictures "
        "are a shard. The single product has as many pictures in as many shards.",
        table(head, lines),
        *said,
    ]


def plan(rows: Rows) -> list[Any]:
    lines = []
    for row in rows:
        opened = [1e3 * row["opened"][key] for key in ("first", "median", "most")]
        cells = [f"{value:.0f}" for value in (row["seconds"], row["peak_mb"], row["bytes"] / 1e6, *opened)]
        lines.append(f"| {row['rows']:,} | {row['shards']:,} | {' | '.join(cells)} |")
    last = rows[-1]
    peak, most, full = last["peak_mb"], last["opened"]["most"], last["rows"] >= PLAN_ROWS
    slowest = f"{most:.3f} s, the slowest of 50"
    name = f"15: plan of {last['rows']:,} rows"
    return [
        "Plans",
        [
            Check(f"{name}, memory", f"<= {PLAN_MB:.0f} MB", f"{peak:.0f} MB", peak <= PLAN_MB, full=full),
            Check(f"{name}, a worker opens its shard", f"<= {OPENED} s", slowest, most <= OPENED, full=full),
        ],
        "From a manifest in Parquet; the times to open are of a process's first shard, of the median, and of the "
        "slowest of 50 from all over the plan.",
        table(
            ["rows", "shards", "seconds", "memory, MB", "files, MB", "first, ms", "median, ms", "slowest, ms"], lines
        ),
    ]


def ratio(name: str, value: float, bound: float, full: bool) -> Check:
    """The check of a ratio that must be large."""
    return Check(name, f">= {bound:g} x", f"{value:.2f} x", value >= bound, full=full)


def spread(values: Iterable[float], digits: int = 1) -> str:
    """Median, with the least and the most."""
    found = list(values)
    if not found:
        return "-"
    return f"{median(found):.{digits}f} [{min(found):.{digits}f}, {max(found):.{digits}f}]"


def table(head: Sequence[str], lines: Iterable[object]) -> str:
    """A table of lines that are ready."""
    return "\n".join([f"| {' | '.join(head)} |", "|---" * len(head) + "|", *map(str, lines)])


PARTS: Mapping[str, Callable[[Rows], list[Any]]] = {
    "engines": engines,
    "machinery": machinery,
    "memory": memory,
    "real": real,
    "products": products,
    "plan": plan,
}
