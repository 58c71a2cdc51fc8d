"""Kills of `handful score`: writes scale/kills.md, and the figures beside it.

    python3 scripts/bench scale_kills --kills 10

A run of small files is scored by a stub of 5 ms a picture, with two workers. SIGKILL ends the whole job, a worker, or a
node, each time at a random moment after a shard's summary. In the end the run must hold the bytes of a run that nothing
ended. Every job has a cluster of its own, and its processes are known by their descent: Linux alone.
"""

import argparse
import itertools
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

import _scale_stub
from _fuzz_seeds import drawing
from _scale_killing import MOMENT, SETTLE, Job, done
from handful import scale
from handful.evaluation.environment import describe
from handful.files import replacing
from handful.scale.worker import read_run

VICTIMS = {"local": ("job", "worker"), "ray": ("job", "actor", "node")}
AGAIN = 3  # jobs that may end before their first shard, and are given again: Ray may not start where load is high
HALF = ("actor", "node")  # are killed half as often
MORE = {"node": 4}  # times as many pictures: the first node goes on until another has taken the second's place
KEY = ["inspector_sha256", "path", "version"]
OUT = Path(__file__).parent / "scale" / "kills.md"


@dataclass(frozen=True)
class Setting:
    """Pictures and an inspector, and a finished run of them that nothing ended.

    Attributes:
        folder: of all.
        inspector: a saved inspector, which the stub never asks.
        shard: pictures of a shard.
        seed: of the moments and victims.
    """

    folder: Path
    inspector: Path
    shard: int
    seed: int

    @property
    def whole(self) -> Path:
        """The folder of the finished run."""
        return self.folder / "whole"

    def plan(self, out: Path) -> Path:
        """Plan a run."""
        pictures = str(self.folder / "pictures")
        scale.plan(str(out), pictures=[pictures], inspector=str(self.inspector), shard=self.shard)
        return out


def prepared(folder: Path, inspector: Path, *, pictures: int, shard: int, seed: int) -> Setting:
    """Write the pictures, files of a few bytes, and finish a run of them in this process, without an engine."""
    (folder / "pictures").mkdir(parents=True)
    for number in range(pictures):
        (folder / "pictures" / f"{number:06d}.png").write_bytes(str(number).encode())
    setting = Setting(folder, inspector, shard, seed)
    out = str(setting.plan(setting.whole))
    worker = scale.Worker(out, scale.Options(opening=_scale_stub.stub))
    for number in scale.todo(out):
        worker(number)
    return setting


def killed(setting: Setting, engine: str, victim: str, count: int) -> dict[str, Any]:
    """Score a run with so many kills, to its end: each kill, and what the run holds then; ready for JSON."""
    begin, name = time.monotonic(), f"{engine}-{victim}"
    out, choice = setting.plan(setting.folder / name), random.Random(f"{setting.seed} {name}")
    mode, numbers = "cluster" if victim == "node" else engine, itertools.count()
    rounds, attempts = list[dict[str, Any]](), list[str]()

    def start() -> Job:
        return Job(out, mode, f"{name.replace('-', '')}{next(numbers)}", setting.folder / "jobs")

    job = start()
    while sum(one["working"] for one in rounds) < count and len(rounds) < count + AGAIN:
        rounds.append(job.kill(victim, choice.uniform(0, MOMENT), choice))
        if not rounds[-1]["working"]:
            rounds[-1]["said"] = job.said()
        if victim == "job":
            attempts.append(job.attempt)
            job = start()
    left, unstarted = job.finish(), 0
    while job.process.returncode and not job.shards and unstarted < AGAIN:
        unstarted += 1
        job = start()
        left = max(left, job.finish())
    return {
        "engine": engine,
        "victim": victim,
        "count": count,
        "code": job.process.returncode,
        "said": job.said() if job.process.returncode else "",
        "rounds": rounds,
        "unstarted": unstarted + (sum(not one["working"] for one in rounds) if victim == "job" else 0),
        "last": {"progress": len(done(out) - job.before), "left": left},
        **looked(setting, out, attempts),
        "seconds": time.monotonic() - begin,
    }


def looked(setting: Setting, out: Path, attempts: Sequence[str]) -> dict[str, Any]:
    """What a run holds in the end, against the run that nothing ended and the plan.

    Args:
        setting: of both runs.
        out: the folder of the run.
        attempts: the names of the jobs that were killed.
    """
    expected, found = part_bytes(setting.whole), part_bytes(out)
    rows = scale.table(str(out), columns=[*KEY, "shard", "row"]).to_pylist()
    planned = [row for table in read_run(str(out)).plan_tables([*KEY, "shard", "row"]) for row in table.to_pylist()]
    marks = [path.name for path in (out / "attempts").glob("[!.]*")]  # a mark that a kill cut off is a temporary file
    temporary = len(temporaries(out))
    scale.plan(str(out))  # as the next command does
    return {
        "shards": len(expected),
        "equal": sum(found.get(name) == content for name, content in expected.items()),
        "others": sorted(found.keys() - expected.keys()),
        "planned": len(planned),
        "rows": len(rows),
        "as_planned": sum(row == one for row, one in zip(rows, planned, strict=False)),
        "keys": len({tuple(row[name] for name in KEY) for row in rows}),
        "marks": len(marks),
        "marks_of_others": sorted(name for name in marks if name.split("-")[1] not in attempts),
        "temporary": temporary,
        "temporary_after_next": len(temporaries(out)),
    }


def part_bytes(out: Path) -> dict[str, bytes]:
    """The parts of a run by name."""
    return {path.name: path.read_bytes() for path in sorted(out.glob("parts/*/*.parquet"))}


def temporaries(out: Path) -> list[Path]:
    """Half-written files."""
    return list(out.rglob(".*.part"))


def findings(found: dict[str, Any]) -> list[str]:
    """Sentences on all that should not be in the figures of a scenario."""
    working = sum(one["working"] for one in found["rounds"])
    rules = {
        f"{working} of {found['count']} kills met a working worker": working == found["count"],
        f"the last job ended with {found['code']}: {found['said'].strip().splitlines()[-1:]}": found["code"] == 0,
        f"{found['equal']} of {found['shards']} parts are equal": found["equal"] == found["shards"],
        f"there are other parts: {found['others'][:3]}": not found["others"],
        f"{found['as_planned']} of {found['rows']} rows are those of the plan of {found['planned']}": (
            found["as_planned"] == found["rows"] == found["planned"]
        ),
        f"{found['keys']} of {found['rows']} keys are distinct": found["keys"] == found["rows"],
        f"the least progress was {least(found)} shards": least(found) >= 1,
        f"marks of jobs that were not killed stay: {found['marks_of_others'][:3]}": not found["marks_of_others"],
        f"{found['temporary_after_next']} temporary files stay": found["temporary_after_next"] == 0,
    }
    return [f"{found['engine']}, {found['victim']}: {said}." for said, holds in rules.items() if not holds]


def least(found: dict[str, Any]) -> int:
    """The fewest shards that were done before a kill since the last one, or after the last."""
    counted = [one for one in found["rounds"] if one["working"]] + [found["last"]]
    return int(min(one["progress"] for one in counted))


CHECKS: dict[str, Callable[[dict[str, Any]], str]] = {
    "kills while a worker works": lambda one: f"{sum(kill['working'] for kill in one['rounds'])} of {one['count']}",
    "parts equal by bytes": lambda one: f"{one['equal']} of {one['shards']}",
    "rows as planned": lambda one: f"{one['as_planned']} of {one['planned']}",
    "distinct keys (inspector_sha256, path, version)": lambda one: f"{one['keys']} of {one['rows']}",
    "fewest shards done before a kill or after the last": lambda one: str(least(one)),
    "marks left in attempts/, of killed jobs": lambda one: str(one["marks"] - len(one["marks_of_others"])),
    "marks left in attempts/, of other jobs": lambda one: str(len(one["marks_of_others"])),
    "temporary files left; after the next command": lambda one: f"{one['temporary']}; {one['temporary_after_next']}",
    f"processes left {SETTLE:g} s after a job's end, at most": lambda one: str(
        max(end["left"] for end in (*one["rounds"], one["last"]) if "left" in end)
    ),
    "jobs that ended before a kill, and were given again": lambda one: str(one["unstarted"]),
    "time": lambda one: f"{one['seconds']:.0f} s",
    "measured": lambda one: f"at {one['commit']}",
}


def page(record: dict[str, Any]) -> str:
    """The page of a record."""
    rows, said = record["rows"], [sentence for row in record["rows"] for sentence in findings(row)]
    heads = [f"{row['engine']}: {row['victim']}" for row in rows]
    table = [f"| check | {' | '.join(heads)} |", f"|---|{'---|' * len(heads)}"]
    table += [f"| {name} | {' | '.join(figure(row) for row in rows)} |" for name, figure in CHECKS.items()]
    lines = [
        "# Runs of `handful score` that are killed",
        f"`{record['command']}`: Handful {record['handful']}, Ray {record['ray']}, {record['platform']}, "
        f"{record['cpu']}, shared with other programs. The command is that of the last columns that were measured: "
        "--engines and --victims choose columns, and without them it measures all. Every kill is in "
        "[kills.json](kills.json).",
        f"Files of a few bytes in shards of {record['shard']} are judged by a stub at 5 ms a picture, by two workers. "
        f"SIGKILL comes at a random moment up to {MOMENT * 1000:.0f} ms after the summary of a shard that was not done "
        "before. *job*: the process group of the whole job, without the actors of Ray, which have groups of their own "
        "and end by themselves; the next job resumes the run, and the last job ends it. *worker* and *actor*: a "
        "process that scores shards, in a job that goes on. *node*: the second of two nodes on loopback, with all its "
        "processes, in a job that goes on; another node comes in its place. The parts are compared with those of a run "
        "that nothing ended.",
        "\n".join(table),
        "A mark says that a process has begun a shard. The job that writes the shard's part removes all marks of the "
        "shard, those of killed jobs too.",
        "\n".join([f"{len(said)} findings{':' if said else '.'}", *(f"- {one}" for one in said)]),
    ]
    return "\n\n".join(lines) + "\n"


def small_inspector(folder: Path) -> Path:
    """A saved inspector of 64 pixels on random weights."""
    from handful.detector import Detector

    paths = [folder / f"{number}.png" for number in range(2)]
    for number, path in enumerate(paths):
        Image.fromarray(drawing(number)).save(path)
    small = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "engine": "openvino"}
    Detector(device="cpu", **small).fit(list(map(str, paths))).save(folder / "part.handful")  # type: ignore[arg-type]
    return folder / "part.handful"


def main() -> int:
    """0 where nothing is found that should not be, else 1."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--engines", nargs="+", choices=list(VICTIMS), default=list(VICTIMS), help="default: both")
    parser.add_argument("--victims", nargs="+", default=["job", "worker", "actor", "node"], help="default: all")
    parser.add_argument("--kills", type=int, default=10, help="of each victim, of actors and nodes half; %(default)s")
    parser.add_argument("--pictures", type=int, default=4000, help="default: %(default)s")
    parser.add_argument("--shard", type=int, default=20, help="pictures of a shard; default: %(default)s")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=OUT, help="the page; the figures lie beside it as JSON")
    options = parser.parse_args()
    words = ["OUT" if word == str(options.out) else word for word in sys.argv[1:]]
    command = " ".join(["python3 scripts/bench scale_kills", *words])
    facts = {"shard": options.shard, "seed": options.seed, "ray": version("ray")}
    record, figures = describe(command=command, device="cpu", facts=facts), options.out.with_suffix(".json")
    rows = {name(row): row for row in json.loads(figures.read_text())["rows"]} if figures.exists() else {}
    with tempfile.TemporaryDirectory() as folder:
        inspector, settings = small_inspector(Path(folder)), dict[int, Setting]()
        for engine in options.engines:
            for victim in (one for one in VICTIMS[engine] if one in options.victims):
                pictures = options.pictures * MORE.get(victim, 1)
                settings[pictures] = setting = settings.get(pictures) or prepared(
                    Path(folder, str(pictures)), inspector, pictures=pictures, shard=options.shard, seed=options.seed
                )
                count = -(-options.kills // 2) if victim in HALF else options.kills
                row = killed(setting, engine, victim, count)
                rows[name(row)] = {**row, "commit": record["commit"]}
                print(name(row), *findings(row), sep="\n", file=sys.stderr, flush=True)
    order = [(engine, victim) for engine, victims in VICTIMS.items() for victim in victims]
    record["rows"] = [rows[key] for key in order if key in rows]
    for path, text in ((options.out, page(record)), (figures, json.dumps(record, indent=1))):
        with replacing(path, make_folder=True) as file:
            file.write(f"{text.rstrip()}\n".encode())
    print(page(record))
    return int(any(findings(row) for row in record["rows"]))


def name(row: dict[str, Any]) -> tuple[str, str]:
    """The name of a scenario: its engine and victim."""
    return str(row["engine"]), str(row["victim"])


if __name__ == "__main__":
    sys.exit(main())
