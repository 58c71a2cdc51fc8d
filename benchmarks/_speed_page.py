"""The page of benchmarks/speed.py, from what its parts have kept."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

BARE = "the bare graph"
BARE_ON_GPU = "the bare backbone"

Record = Mapping[str, Any]
Rows = Sequence[Mapping[str, Any]]


def page(records: Mapping[str, Record]) -> str:
    """The whole page, of the parts that were measured."""
    head = [
        "# How far an inspection is from its limit",
        "Contestants take turns; given are medians over the rounds, quartiles in brackets, in multiples of the median "
        f"of {BARE}: the default backbone, compiled by OpenVINO at float32 as in the inspector, on an input that is "
        "ready. Lower is faster, and 1 is the limit.",
    ]
    parts = {"inspection": inspection, "fit": fit, "cold": cold, "folder": folder, "coreset": coreset, "gpu": gpu}
    for name, record in records.items():
        title, *said = parts[name](record["rows"])
        head += [f"## {title}", measured(record), *said]
    return "\n\n".join(head) + "\n"


def measured(record: Record) -> str:
    """On what, and how."""
    versions = ", ".join(f"{package} {record[package]}" for package in ("handful", "torch", "openvino"))
    threads = record["cpu_cores"]
    return (
        f"`{record['command']}` at {record['commit']}: {record['category']}, {versions}, {record['platform']}, "
        f"{record['cpu']}, {threads} thread{'s' if threads > 1 else ''}"
        f"{'' if record['device'] == 'cpu' else ', ' + record['device']}."
    )


def inspection(rows: Rows) -> list[str]:
    return [
        "An inspection",
        "A picture's pixels in memory → verdict, heatmap, and a defect's regions with their evidence, the gate "
        "included; by the verdict that came out. JPEGs are 900 x 900. At bf16 the backbone alone computes in it. The "
        "peer has the same pixels, weights, size and references, and goes as far as score and map; it keeps every "
        "patch but where every tenth is said, as many as its default keeps.",
        *(f"{size} px:\n\n{grid(rows, size, cell)}" for size in unique(rows, "size")),
    ]


def fit(rows: Rows) -> list[str]:
    return [
        "Teaching",
        f"From the references' files to a threshold, in passes of {BARE}; in brackets how often the backbone runs.",
        *(f"{size} px:\n\n{grid(rows, size, passes)}" for size in unique(rows, "size")),
        "The saved inspector, in megabytes; in brackets without its backbone.",
        *(f"{size} px:\n\n{grid(rows, size, megabytes)}" for size in unique(rows, "size")),
    ]


def cold(rows: Rows) -> list[str]:
    lines = ["| program | in multiples of the interpreter's | seconds |", "|---|---|---|"]
    lines += [f"| `{row['name']}` | {cell(row)} | {row['seconds']:.3g} |" for row in rows]
    return ["From a cold start", "A program from its start to its end.", "\n".join(lines)]


def folder(rows: Rows) -> list[str]:
    timed = [row for row in rows if "middle" in row]
    best = min(row["middle"] for row in timed if row["name"].startswith(BARE))
    lines = ["| | pictures a second, share of the engine's best |", "|---|---|"]
    lines += [f"| {row['name']} | {100 * best / row['middle']:.0f} % |" for row in timed]
    memory = ["| pictures | peak memory, MB |", "|---|---|"]
    memory += [f"| {row['pictures']} | {row['peak_mb']:.0f} |" for row in rows if "peak_mb" in row]
    return [
        "A folder",
        f"{timed[0]['pictures']} pictures as the data set has them, the default inspector of the most references.",
        "\n".join(lines),
        "Memory of `handful inspect`, resident, at its peak:",
        "\n".join(memory),
    ]


def coreset(rows: Rows) -> list[str]:
    lines = ["| choice | time / handful's | farthest row |", "|---|---|---|"]
    lines += [f"| {row['name']} | {cell(row)} | {row['radius']:.3f} |" for row in rows]
    said = f"{rows[0]['chosen']} of {rows[0]['rows']:,} random rows of 152 values"
    return [
        "Coreset",
        f"{said}: time, and how far the row that is farthest from every chosen one is from the nearest of them.",
        "\n".join(lines),
    ]


def gpu(rows: Rows) -> list[str]:
    return [
        "On a GPU",
        "The same in torch on CUDA, preparing a picture and its evidence on the CPU as ever: milliseconds, and in "
        f"multiples of {BARE_ON_GPU}, torch's pass of it on an input that is there. The peer's answer is score and "
        "map, brought back; a fit is from the references' files to a threshold.",
        *(f"{size} px:\n\n{grid(rows, size, milliseconds)}" for size in unique(rows, "size")),
    ]


def grid(rows: Rows, size: int, text: Any) -> str:
    """A table of one size: a line for each contestant, a column for each number of references."""
    here = {(row["name"], row["shots"]): row for row in rows if row["size"] == size}
    shots = unique(rows, "shots")
    head = [f"{count} shot{'s' if count > 1 else ''}" for count in shots]
    lines = [f"| | {' | '.join(head)} |", "|---|" + "---|" * len(head)]
    for name in unique(here.values(), "name"):
        cells = [text(here[name, count]) if (name, count) in here else "-" for count in shots]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(row: Mapping[str, Any]) -> str:
    return "1" if row["name"] == BARE else f"{row['middle']:.2f} [{row['low']:.2f}, {row['high']:.2f}]"


def milliseconds(row: Mapping[str, Any]) -> str:
    return f"{1e3 * row['seconds']:.1f} ({row['middle']:.1f})"


def passes(row: Mapping[str, Any]) -> str:
    return f"{row['middle']:.0f} ({row['passes']})"


def megabytes(row: Mapping[str, Any]) -> str:
    return f"{row['bytes'] / 1e6:.1f} ({(row['bytes'] - row['backbone_bytes']) / 1e6:.1f})"


def unique(rows: Iterable[Mapping[str, Any]], key: str) -> list[Any]:
    """The values of a column in the order in which they came."""
    return list(dict.fromkeys(row[key] for row in rows))
