"""How `handful score` behaves with more machines and pictures than there are: writes scale_simulation/ and its page.

    python3 scripts/bench scale_simulation --data DIR

Four parts (--parts), each kept in a file of its own with the commit that it was measured at: times of real pictures on
this machine; the engine ray with workers that sleep for such times, shortened; a discrete-event simulation of a large
cluster by these times; and plans that a generator fills, with resumes of runs whose parts are empty files. The second
and the third part need the figures of the first.
"""

import argparse
import json
import shutil
import statistics
import sys
from dataclasses import asdict
from pathlib import Path
from typing import Any

import _scale_parts
import _scale_pictures as pictures
import _scale_simulation_page
from _scale_events import Cluster, Work, simulate
from _scale_parts import Part, Rows
from _scale_watch import job

PROGRAM = "_scale_cluster"
OUT = Path(__file__).with_suffix("")
FORMS: dict[str, dict[str, Any]] = {
    "as planned": {},
    "100 times the losses": {"losses": 0.1},
    "4 prefixes": {"prefixes": 4},
    "queue in the plan's order": {"spread": False},
    "no slow worker": {"slow": 0.0},
}


def main() -> None:
    _scale_parts.measured("scale_simulation", parsed(), PARTS, _scale_simulation_page.page)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="mvtec_ad/pill", help="default: %(default)s")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="default: all; none: the page")
    parser.add_argument("--pictures", type=int, default=500, help="measured: default: %(default)s")
    parser.add_argument("--size", type=int, default=320, help="of the inspector; default: %(default)s")
    parser.add_argument("--processes", type=int, nargs="+", default=[2, 8, 16], help="cluster: workers that sleep")
    parser.add_argument("--rows", type=int, nargs="+", default=[100_000, 1_000_000, 10_000_000], help="cluster: rows")
    parser.add_argument("--hurry", type=float, default=1000, help="cluster: sleeps are so many times shorter")
    parser.add_argument("--workers", type=int, default=1000, help="events: default: %(default)s")
    parser.add_argument("--many", type=int, default=100_000_000, help="events: pictures; default: %(default)s")
    parser.add_argument("--shards", type=int, nargs="+", default=[500, 1000, 2000, 5000, 10_000], help="events: sizes")
    parser.add_argument("--seeds", type=int, default=3, help="events: default: %(default)s")
    parser.add_argument("--planned", type=int, nargs="+", default=[1_000_000, 10_000_000], help="plans: rows")
    parser.add_argument("--resumed", type=int, nargs="+", default=[10**7, 10**8, 10**9], help="plans: rows of a run")
    parser.add_argument("--shard", type=int, default=2000, help="pictures of a shard; default: %(default)s")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def measured(options: argparse.Namespace, folder: Path) -> Rows:
    """Processor seconds of real pictures, 25 in a row, and of the start of a worker with its inspector."""
    references, originals = pictures.picture_paths(options.data, options.category)
    file = pictures.inspector(references, folder / "part.handful", options.size)
    whole = [str(path) for path in sorted(pictures.repeated(originals, folder / "all", options.pictures).iterdir())]
    answer = job("load", path=str(file), pictures=whole, group=25)
    each = answer["groups"]
    variation = [one / answer["picture_cpu"] for one in each]
    load = answer["start_cpu"] + answer["load_cpu"]
    return [{"picture": answer["picture_cpu"], "load": load, "variation": variation, "pictures": len(whole)}]


def times(options: argparse.Namespace) -> dict[str, Any]:
    """The figures of the part `measured`."""
    file = options.out / "measured.json"
    if not file.exists():
        sys.exit(f"The part measured must have been measured, got no {file}; add it to --parts.")
    found: dict[str, Any] = json.loads(file.read_text())["rows"][0]
    return found


def cluster(options: argparse.Namespace, folder: Path) -> Rows:
    """The engine ray on nodes of this machine: every number of processes on the middle plan, the most on every plan."""
    found, rows = times(options), []
    shard = options.shard * found["picture"]
    sleeps = [shard * one / options.hurry for one in found["variation"]]
    middle = options.rows[len(options.rows) // 2]
    most = max(options.processes)
    for processes, count in [*((one, middle) for one in options.processes if one != most),
                             *((most, one) for one in options.rows)]:  # fmt: skip
        out = folder / f"{processes}-{count}"
        job("hollow", program=PROGRAM, out=str(out), shards=count // options.shard, shard=options.shard, parts=0)
        nodes = 2 if processes % 2 == 0 else 1
        answer = job("ray", program=PROGRAM, out=str(out), processes=processes, nodes=nodes, times=sleeps)
        again = job("score", out=str(out), engine="local", workers=1)
        rows.append({"processes": processes, "nodes": nodes, "rows": count, "sleep": statistics.mean(sleeps),
                     **answer, "resume": again["seconds"], "resumed_shards": again["shards"]})  # fmt: skip
        shutil.rmtree(out)
    return rows


def events(options: argparse.Namespace, folder: Path) -> Rows:
    """Makespan and lost work against the size of a shard."""
    found, rows = times(options), []
    for form, changed in FORMS.items():
        for size in options.shards:
            for seed in range(options.seeds):
                work = Work(options.many, size, found["picture"], found["variation"], found["load"])
                outcome = simulate(Cluster(workers=options.workers, **changed), work, seed=seed)
                rows.append({"form": form, "workers": options.workers, "pictures": options.many, "shard": size,
                             "seed": seed, **asdict(outcome)})  # fmt: skip
    return rows


def plans(options: argparse.Namespace, folder: Path) -> Rows:
    """Plans that a generator fills, and resumes of hollow runs, half of whose parts are there."""
    references, _ = pictures.picture_paths(options.data, options.category)
    file, rows = pictures.small_inspector(references, folder / "part.handful"), []
    for count in options.planned:
        out = folder / f"planned-{count}"
        answer = job("generated", program=PROGRAM, out=str(out), rows=count, inspector=str(file), shard=options.shard)
        shards = answer["rows"] // options.shard
        opened = job("open", out=str(out), shards=[0, *(number * shards // 20 for number in range(20))])
        rows.append({"name": "plan", **answer, "opened": opened})
        shutil.rmtree(out)
    for count in options.resumed:
        out = folder / f"hollow-{count}"
        made = job(
            "hollow", program=PROGRAM, out=str(out), shards=count // options.shard, shard=options.shard, parts=0.5
        )
        again = [job("todo", program=PROGRAM, out=str(out)) for _ in range(3)]
        rows.append({"name": "resume", "rows": count, "shards": count // options.shard, "done": made["done"],
                     "bytes": made["bytes"], "seconds": statistics.median(one["seconds"] for one in again),
                     "peak_mb": max(one["peak_mb"] for one in again)})  # fmt: skip
        shutil.rmtree(out)
    return rows


PARTS: dict[str, Part] = {
    "measured": measured,
    "cluster": cluster,
    "events": events,
    "plans": plans,
}

if __name__ == "__main__":
    main()
