"""How fast `handful score` is, and how much memory it takes: writes scale/ and scale.md beside itself.

    python3 scripts/bench scale --data DIR

DIR/CATEGORY is a category in any layout that `handful data check` knows; its test pictures are repeated under other
names in a temporary folder. Contestants take turns, and medians over the rounds are compared, so that other programs on
the machine meet them all. The stub judges a picture by the digest of its bytes: what is left is the machinery. Each
part (--parts) keeps its figures in a file of its own with the commit that it was measured at, and the page is made of
the parts that are there. Memory is read from /proc: Linux alone.
"""

import argparse
import json
import os
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import _scale_page
import _scale_pictures as pictures
from _scale_parts import Part, Rows, measured
from _scale_watch import HANDFUL, command, job, repaying, started

ENGINES = ("local", "ray")
OUT = Path(__file__).with_suffix("")


def main() -> None:
    measured("scale", parsed(), PARTS, _scale_page.page)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--category", default="mvtec_ad/pill", help="default: %(default)s")
    parser.add_argument("--parts", nargs="*", choices=PARTS, default=list(PARTS), help="default: all; none: the page")
    parser.add_argument("--engines", nargs="+", choices=ENGINES, default=list(ENGINES), help="default: both")
    parser.add_argument("--workers", type=int, default=2, help="default: %(default)s")
    parser.add_argument("--rounds", type=int, default=3, help="of contestants that take turns; default: %(default)s")
    parser.add_argument("--pictures", type=int, default=480, help="engines: default: %(default)s")
    parser.add_argument("--shard", type=int, default=40, help="engines: pictures of a shard; default: %(default)s")
    parser.add_argument("--size", type=int, default=320, help="of the inspector; default: %(default)s")
    parser.add_argument("--stub", type=int, default=100_000, help="machinery: rows; default: %(default)s")
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 1_000_000], help="memory: of the stub")
    parser.add_argument("--rows-on-ray", type=int, default=1_000_000, help="memory: at most; default: %(default)s")
    parser.add_argument("--real", type=int, nargs="+", default=[1_000, 10_000], help="pictures: of a run")
    parser.add_argument("--products", type=int, nargs=2, default=[300, 100], metavar=("PRODUCTS", "PICTURES"))
    parser.add_argument("--large", type=int, nargs=2, default=[20, 100], metavar=("PRODUCTS", "PICTURES"))
    parser.add_argument("--planned", type=int, nargs="+", default=[1_000_000, 10_000_000], help="plan: rows")
    parser.add_argument("--out", type=Path, default=OUT)
    return parser.parse_args()


def engines(options: argparse.Namespace, folder: Path) -> Rows:
    """Commands on the same pictures, from start to end: `handful inspect` twice at once, and `handful score`.

    `handful inspect` comes by threads too, as it worked when the bound was set.
    """
    references, originals = pictures.picture_paths(options.data, options.category)
    file = pictures.inspector(references, folder / "part.handful", options.size)
    whole = pictures.repeated(originals, folder / "whole", options.pictures)
    halves = halved(whole, folder)
    forms = [(engine, options.workers) for engine in options.engines] + [("local", 1)]
    rows = []
    for number in range(options.rounds):
        for name, program in (("threads", repaying(10**9)), ("inspect", HANDFUL)):
            rows.append({"round": number, "name": name, "workers": len(halves), **inspected(file, halves, program)})
        for engine, workers in forms:
            out = folder / f"{engine}-{workers}-{number}"
            words = ("--pictures", whole, "--out", out, "--shard", options.shard, "--workers", workers)
            answer = scored(command(["score", file, *words, "--engine", engine]))
            rows.append({"round": number, "name": engine, "workers": workers, **answer})
            shutil.rmtree(out)
    return rows


def halved(whole: Path, folder: Path) -> list[Path]:
    """Two folders with a half of the pictures each."""
    halves = [folder / "half0", folder / "half1"]
    for number, picture in enumerate(sorted(whole.iterdir())):
        half = halves[number % 2]
        half.mkdir(exist_ok=True)
        os.link(picture, half / picture.name)
    return halves


def inspected(file: Path, folders: Sequence[Path], program: Sequence[str]) -> dict[str, Any]:
    """Run `handful inspect` on folders at once."""
    begin = time.monotonic()
    children = [started(["inspect", file, one], program) for one in folders]
    counts = [len(child.communicate()[0].splitlines()) - 1 for child, _ in children]  # less the line of the totals
    seconds = time.monotonic() - begin
    return {"seconds": seconds, "pictures": sum(counts), "cpu": sum(seen.cpu() for _, seen in children)}


def scored(answer: dict[str, Any]) -> dict[str, Any]:
    """Seconds of a `handful score`, and pictures a second after its first shard."""
    shards = [(at, json.loads(line)) for at, line in answer["lines"] if '"shard"' in line]
    count = sum(one["pictures"] for _, one in shards)
    (first, early), (last, _) = shards[0], shards[-1]
    return {
        "seconds": answer["seconds"],
        "cpu": answer["cpu"],
        "pictures": count,
        "first": first,
        "rate": (count - early["pictures"]) / (last - first),
    }


def machinery(options: argparse.Namespace, folder: Path) -> Rows:
    """The stub's rows, in turn by each engine."""
    rows = []
    begin_with = stub_run(options, folder, options.stub)
    for number in range(options.rounds):
        for engine in options.engines:
            out = copied(begin_with, folder / f"{engine}-{number}")
            asked = {"out": str(out), "engine": engine, "workers": options.workers, "opening": "stub"}
            answer = job("score", watched=True, **asked)
            rows.append({"round": number, "name": engine, "workers": options.workers, **answer})
            shutil.rmtree(out)
    return rows


def stub_run(options: argparse.Namespace, folder: Path, count: int) -> Path:
    """A planned run of so many rows for the stub."""
    references, _ = pictures.picture_paths(options.data, options.category)
    file = pictures.small_inspector(references, folder / "part.handful")
    named = pictures.manifest(folder / "rows.parquet", pictures.small_files(folder / "files"), count)
    out = folder / f"planned-{count}"
    job("plan", out=str(out), pictures=[str(named)], inspector=str(file))
    return out


def copied(run: Path, target: Path) -> Path:
    """A planned run under another name."""
    return Path(shutil.copytree(run, target))


def memory(options: argparse.Namespace, folder: Path) -> Rows:
    """Peak memory of driver and workers against the stub's rows; then the finished run is asked for once more."""
    rows = []
    for count in options.rows:
        begin_with = stub_run(options, folder, count)
        for engine in [one for one in options.engines if one != "ray" or count <= options.rows_on_ray]:
            out = copied(begin_with, folder / f"{engine}-{count}")
            asked = {"out": str(out), "engine": engine, "workers": options.workers, "opening": "stub"}
            rows.append({"name": engine, "rows": count, **job("score", watched=True, **asked)})
            if engine == "local":
                shutil.rmtree(folder / "files")  # a resume that reads a picture fails
                again = [job("score", **asked) for _ in range(options.rounds)]
                rows.append({"name": "resume", "rows": count, "seconds": [one["seconds"] for one in again],
                             "shards": max(one["shards"] for one in again)})  # fmt: skip
                pictures.small_files(folder / "files")
            shutil.rmtree(out)
        shutil.rmtree(begin_with)
    return rows


def real(options: argparse.Namespace, folder: Path) -> Rows:
    """Peak memory of driver and workers against the number of real pictures, by the default inspector."""
    references, originals = pictures.picture_paths(options.data, options.category)
    file = pictures.inspector(references, folder / "part.handful", options.size)
    rows = []
    for count in options.real:
        whole = pictures.repeated(originals, folder / f"pictures-{count}", count)
        for engine in options.engines:
            out = folder / f"{engine}-{count}"
            job("plan", out=str(out), pictures=[str(whole)], inspector=str(file), shard=max(1, min(2_000, count // 4)))
            answer = job("score", watched=True, out=str(out), engine=engine, workers=options.workers)
            rows.append({"name": engine, "rows": count, **answer})
            shutil.rmtree(out)
        shutil.rmtree(whole)
    return rows


def products(options: argparse.Namespace, folder: Path) -> Rows:
    """Many products beside a single one of as many pictures, by a small inspector and by the default one."""
    references, originals = pictures.picture_paths(options.data, options.category)
    forms = {
        "small": (options.products, pictures.small_inspector(references, folder / "small.handful")),
        "default": (options.large, pictures.inspector(references, folder / "default.handful", options.size)),
    }
    rows = []
    for name, ((count, each), file) in forms.items():
        files = [str(path) for path in sorted(pictures.repeated(originals, folder / name, len(originals)).iterdir())]
        rows.append({"name": name, "form": "inspector", **job("load", path=str(file), pictures=files[:20])})
        for form, held in (("products", count), ("single", 1)):
            owners = pictures.named_products(file, folder / f"{name}-{form}", held)
            # As many rows for each product, and the same files for both forms.
            manifest = pictures.manifest(folder / f"{name}-{form}.parquet", files, count * each, products=owners)
            out = folder / f"{name}-{form}-out"
            planned = job(
                "plan", out=str(out), manifest=str(manifest), inspectors=str(folder / f"{name}-{form}"), shard=each
            )
            noted = folder / f"{name}-{form}.loads"
            os.environ["HANDFUL_NOTED_LOADS"] = str(noted)
            asked = {"out": str(out), "engine": "local", "workers": options.workers, "opening": "noted"}
            answer = job("score", watched=True, **asked)
            rows.append({"name": name, "form": form, "products": held, "loads": noted.stat().st_size,
                         "plan_seconds": planned["seconds"], **answer})  # fmt: skip
    return rows


def plan(options: argparse.Namespace, folder: Path) -> Rows:
    """Planning a manifest of many rows, and the time in which a worker opens its shard."""
    references, _ = pictures.picture_paths(options.data, options.category)
    file = pictures.small_inspector(references, folder / "part.handful")
    files, rows = pictures.small_files(folder / "files"), []
    for count in options.planned:
        named = pictures.manifest(folder / "rows.parquet", files, count)
        out = folder / f"planned-{count}"
        answer = job("plan", out=str(out), pictures=[str(named)], inspector=str(file))
        size = sum(one.stat().st_size for one in (out / "plan").iterdir())
        shards = [number * answer["shards"] // 50 for number in range(50)]
        opened = job("open", out=str(out), shards=[*shards[25:], *shards[:25]])
        rows.append({"rows": count, **answer, "bytes": size, "opened": opened})
        shutil.rmtree(out)
    return rows


PARTS: dict[str, Part] = {
    "engines": engines,
    "machinery": machinery,
    "memory": memory,
    "real": real,
    "products": products,
    "plan": plan,
}

if __name__ == "__main__":
    main()
