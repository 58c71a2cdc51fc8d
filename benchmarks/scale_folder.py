"""How fast `handful inspect FOLDER` is by processes, beside the same by threads: writes scale/folder.md.

    python3 scripts/bench scale_folder --data DIR

DIR/CATEGORY is a category in any layout that `handful data check` knows; its test pictures are repeated under other
names in a temporary folder. Both contestants are the whole command, from start to end, and take turns; their answers
are compared line by line. Memory is that of the largest process, at its peak, from /proc: Linux alone.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _scale_pictures as pictures
from _scale_watch import Watch, environment, repaying
from handful.evaluation.environment import describe
from handful.files import replacing

OUT = Path(__file__).with_name("scale") / "folder"
BOUND = 1.5  # pictures a second, by processes to by threads
FORMS = {"threads": 10**9, "processes": 1}  # the number of pictures that repay a process


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="mvtec_ad/pill", help="default: %(default)s")
    parser.add_argument("--pictures", type=int, nargs="+", default=[100, 200, 400, 1600], help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of contestants that take turns; default: %(default)s")
    parser.add_argument("--size", type=int, default=320, help="of the inspector; default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT)
    options = parser.parse_args()
    folders = {str(options.data): "DIR", str(options.out): "OUT"}
    said = " ".join(["python3 scripts/bench scale_folder", *(folders.get(word, word) for word in sys.argv[1:])])
    record = describe(command=said, device="cpu", facts={"category": options.category})
    with tempfile.TemporaryDirectory() as name:
        references, originals = pictures.picture_paths(options.data, options.category)
        file = pictures.inspector(references, Path(name) / "part.handful", options.size)
        record["rows"] = []
        for count in options.pictures:
            folder = pictures.repeated(originals, Path(name) / f"{count}", count)
            record["rows"] += rounds(file, folder, count, options.rounds)
    with replacing(options.out.with_suffix(".json"), make_folder=True) as output:
        output.write(json.dumps(record, indent=1).encode() + b"\n")
    options.out.with_suffix(".md").write_text(page(record), encoding="utf-8")
    print(page(record))


def rounds(file: Path, folder: Path, count: int, number: int) -> list[dict[str, Any]]:
    """Both contestants in turn on a folder; the program ends if their answers differ."""
    rows, answers = [], set[str]()
    for turn in range(number):
        for form, each in FORMS.items():
            answer, row = inspected(file, folder, each)
            answers.add(answer)
            rows.append({"pictures": count, "round": turn, "form": form, **row})
    if len(answers) > 1:
        sys.exit(f"The answers for {count} pictures differ between processes and threads.")
    return rows


def inspected(file: Path, folder: Path, each: int) -> tuple[str, dict[str, float]]:
    """The answers of the command; its seconds, processor seconds, and the memory of its largest process in MB."""
    words = [*repaying(each), "inspect", str(file), str(folder), "--json"]
    begin = time.monotonic()
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()) as child:
        seen = Watch(child.pid)
        answer, complained = child.communicate()
    seconds = time.monotonic() - begin
    if child.returncode > 1:
        sys.exit(f"handful inspect failed: {complained}")
    return answer, {"seconds": seconds, "cpu": seen.cpu(), "peak_mb": seen.peak()}


def page(record: dict[str, Any]) -> str:
    """The page of a record."""
    rows, counts = record["rows"], sorted({row["pictures"] for row in record["rows"]})
    lines = [
        "# `handful inspect FOLDER` by processes\n",
        f"`{record['command']}` at {record['commit']}: {record['category']}, openvino {record['openvino']}, "
        f"{record['platform']}, {record['cpu']}, {record['cpu_cores']} cores. Whole commands in turn, medians of "
        f"{max(row['round'] for row in rows) + 1} rounds; the machine was shared, so that the ratios count. Every line "
        f"of the answers is the same.\n",
        "| pictures | seconds, threads | seconds, processes | threads / processes | processor seconds | "
        "largest process, MB |",
        "|---|---|---|---|---|---|",
        *(line(count, [row for row in rows if row["pictures"] == count]) for count in counts),
    ]
    most = ratio([row for row in rows if row["pictures"] == counts[-1]])
    verdict = "holds" if most >= BOUND else "**does not hold**"
    if len(counts) > 1:
        lines.append(f"\n{further(rows, counts[-2], counts[-1])}")
    lines.append(f"\nThe bound of {BOUND} times the pictures a second {verdict} at {counts[-1]} pictures: {most:.2f}.")
    return "\n".join(lines) + "\n"


def further(rows: Sequence[dict[str, Any]], few: int, many: int) -> str:
    """A sentence on the time of each further picture, without the start of the processes."""
    took = {}
    for form in FORMS:
        seconds = [
            statistics.median(row["seconds"] for row in rows if (row["pictures"], row["form"]) == (count, form))
            for count in (few, many)
        ]
        took[form] = (seconds[1] - seconds[0]) / (many - few)
    return (
        f"Each picture from {few} to {many} takes {1000 * took['threads']:.1f} ms by threads and "
        f"{1000 * took['processes']:.1f} ms by processes, {took['threads'] / took['processes']:.2f} times the pictures "
        f"a second; the start of the processes is what small folders pay."
    )


def line(count: int, rows: Sequence[dict[str, Any]]) -> str:
    seconds, cpu, peak = (
        [statistics.median(row[name] for row in rows if row["form"] == form) for form in FORMS]
        for name in ("seconds", "cpu", "peak_mb")
    )
    return (
        f"| {count} | {seconds[0]:.1f} | {seconds[1]:.1f} | {ratio(rows):.2f} | {cpu[0]:.1f}, {cpu[1]:.1f} | "
        f"{peak[0]:.0f}, {peak[1]:.0f} |"
    )


def ratio(rows: Sequence[dict[str, Any]]) -> float:
    """The median over the rounds of the seconds by threads to those by processes in the same round."""
    seconds: dict[tuple[int, str], float] = {(row["round"], row["form"]): row["seconds"] for row in rows}
    turns = {number for number, _ in seconds}
    return statistics.median(seconds[number, "threads"] / seconds[number, "processes"] for number in turns)


if __name__ == "__main__":
    main()
