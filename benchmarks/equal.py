"""Whether the code answers to the last bit as an earlier commit did: writes trust/equal.md.

    python3 scripts/bench equal --data DIR --against COMMIT

DIR holds data sets in any layout that `handful data check` knows, one a folder. For every category both trees of code
fit the same references by the default settings, save the inspector, and inspect the same test pictures by the saved
graph and a few by torch. On two categories they do so with every other method too, and after corrections. With `--keep`
the answers of a commit are kept in a folder, and a run that was stopped goes on.
"""

import argparse
import hashlib
import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import Any

import _trust_speed
from _equal_answers import Answer, Job, differences
from _tables import chosen, evenly
from handful.data.shots import draw
from handful.evaluation.environment import commit
from handful.types import Category

ROOT = Path(__file__).parents[1]
SEED = 0
BY_TORCH = 2  # pictures of each category
OF_OTHERS = 12  # pictures that other methods and settings inspect
PAIR = ("bottle", "screw")  # categories of other methods and settings: parts that lie still, and that turn
LISTED = 30  # differing answers of a category that the page names
SMALL = 160  # pixels a side that heads are trained at
CLIP = {"backbone": "clip:ViT-S-32-alt", "weights": "random", "object_name": "part", "levels": ["patches"]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--against", required=True, metavar="COMMIT")
    parser.add_argument("--shots", type=int, default=2)
    parser.add_argument("--pictures", type=int, help="at most so many test pictures of a category; default: all")
    parser.add_argument("--categories", nargs="+", help="only these, by name")
    parser.add_argument("--times", action="store_true", help="compare the seconds of one inspection too")
    parser.add_argument("--keep", type=Path, help="folder to keep the answers of commits in")
    options = parser.parse_args()
    old, new = _git("rev-parse", "--short=10", f"{options.against}^{{commit}}").decode().strip(), commit()
    jobs = _jobs(options)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        with tarfile.open(fileobj=io.BytesIO(_git("archive", old, "src"))) as archive:
            archive.extractall(folder / "tree", filter="data")
        kept = options.keep or folder
        before = answers_of(folder / "tree" / "src", jobs, kept / old)
        now = answers_of(ROOT / "src", jobs, (folder if _git("status", "--porcelain", "src") else kept) / f"now-{new}")
    words = f" --pictures {options.pictures}" * bool(options.pictures)
    words += f" --categories {' '.join(options.categories)}" if options.categories else ""
    command = f"python3 scripts/bench equal --data DIR --against {old} --shots {options.shots}{words}"
    text = page(command, old, new, jobs, before, now).replace(str(options.data.resolve()), "DIR")
    if options.times:
        text += "\n" + "\n\n".join(_times(options.data, old)) + "\n"
    (Path(__file__).parent / "trust" / "equal.md").write_text(text)
    print(text)


def _times(data: Path, old: str) -> list[str]:
    """The section of the page about times, by the default settings in both."""
    found = _trust_speed.measure(data, old, {"before": "{}", "now": "{}"})
    rows = [
        f"| {kind} | {median(ratios):.3f} | {min(ratios):.2f} to {max(ratios):.2f} |" for kind, ratios in found.items()
    ]
    return [
        "## Times",
        f"Seconds of one inspection over those at {old}: {_trust_speed.CATEGORY} at {_trust_speed.SHOTS} references, "
        f"medians of {_trust_speed.INSPECTIONS - 5} inspections in each of {_trust_speed.PROCESSES} pairs of processes "
        "that take turns.",
        "\n".join(["| picture | median ratio | of the pairs |", "|---|---|---|", *rows]),
    ]


def _git(*words: str) -> bytes:
    return subprocess.run(["git", *words], cwd=ROOT, check=True, stdout=subprocess.PIPE).stdout


def _jobs(options: argparse.Namespace) -> list[Job]:
    """The default settings on every category, and all else on two of them."""
    datasets = chosen(options.data.resolve(), options.categories)
    categories = {f"{name}/{one.name}": one for name, dataset in datasets.items() for one in dataset.categories}
    pair = [name for name in categories if name.split("/")[-1] in PAIR] or list(categories)[: len(PAIR)]
    jobs = []
    for name, category in categories.items():
        job = _job(name, category, options.shots, options.pictures)
        jobs.append(job)
        if name in pair:
            good = sorted(set(category.train) - set(job["references"]))
            job["corrections"] = [["teach_good", good[:1]], ["add_normals", good[1:4]], ["set_rate", 0.1], ["undo", 2]]
            job["corrections"] += [["ignore", sample.masks[0]] for sample in category.test if sample.masks][:1]
            few = min(OF_OTHERS, options.pictures or OF_OTHERS)
            others = _others(good, [f"{options.data.resolve()}/{one}" for one in pair])
            jobs += [_job(name, category, options.shots, few, **other) for other in others]
    return jobs


def _job(name: str, category: Category, shots: int, pictures: int | None, **other: Any) -> Job:
    """What `_equal_answers` is to do: fit, and inspect.

    Args:
        name: data set and category.
        category: likewise.
        shots: how many references.
        pictures: how many test pictures at most; None for all.
        other: `label`, `options` of `Detector`, `trained` (an option whose file is trained, and the words after
            `handful train`), `corrections` (verbs of `Detector` with their arguments), `has_graph`.
    """
    paths = evenly([sample.path for sample in category.test], pictures or len(category.test))
    return {
        "category": name,
        "label": "default",
        "options": {},
        "trained": {},
        "corrections": [],
        "has_graph": True,
        "references": draw(category.train, shots=shots, seed=SEED),
        "pictures": paths,
        "by_torch": evenly(paths, BY_TORCH) if other.get("has_graph", True) else paths,
        **other,
    }


def _others(good: Sequence[str], auxiliary: Sequence[str]) -> list[dict[str, Any]]:
    """Other methods and settings, with trainings too short to be of use.

    Args:
        good: pictures to train a backbone on.
        auxiliary: folders of categories to train a head on.
    """
    brief = ["--set", "updates=2"]
    data = [f"{Path(one).parent.name}:{Path(one).parent}" for one in auxiliary]
    head = ["--data", *dict.fromkeys(data), "--categories", *(Path(one).name for one in auxiliary)]
    return [
        {"label": "size=auto", "options": {"size": "auto"}},
        *({"label": method, "options": {"method": method}} for method in ("patchcore", "fastrecon")),
        *(
            {
                "label": f"{method}, trained",
                "options": {"method": method},
                "trained": {"weights": [method, *good[:3], *brief]},
            }
            for method in ("reb", "coft")
        ),
        *(
            {
                "label": f"{method}, trained",
                "options": {"method": method, "size": SMALL},
                "trained": {"head": [method, *head, *brief, "--size", str(SMALL)]},
                "has_graph": False,
            }
            for method in ("resad", "fasl")
        ),
        {"label": "winclip, random weights", "options": {"method": "winclip", **CLIP}, "has_graph": False},
    ]


def answers_of(source: Path, jobs: Sequence[Job], folder: Path) -> list[list[Answer]]:
    """The answers of a tree of code to each job; those that the folder holds already are not asked for again."""
    folder.mkdir(parents=True, exist_ok=True)
    runner = Path(__file__).with_name("_equal_answers.py")
    asked = [runner.read_bytes() + json.dumps(job).encode() for job in jobs]
    files = [folder / f"{hashlib.sha256(one).hexdigest()[:16]}.jsonl" for one in asked]
    left = [(job, str(file)) for job, file in zip(jobs, files, strict=True) if not file.exists()]
    print(f"{folder.name}: {len(left)} of {len(jobs)} jobs to do", file=sys.stderr, flush=True)
    if left:
        # One thread, whose sums have one order; OpenVINO chooses its own.
        threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"), "1")
        subprocess.run(
            [sys.executable, str(runner)],
            input=json.dumps({"source": str(source), "jobs": left}),
            env={**os.environ, **threads, "PYTHONPATH": str(source)},
            text=True,
            check=True,
        )
    return [[json.loads(line) for line in file.read_text().splitlines()] for file in files]


def page(
    command: str,
    old: str,
    new: str,
    jobs: Sequence[Job],
    before: Sequence[list[Answer]],
    now: Sequence[list[Answer]],
) -> str:
    """How many answers each job gave, how many differ, and which."""
    lines = ["| category | settings | by graph | by torch | corrected | differ |", "|---|---|---|---|---|---|"]
    named, unanswered, total, differ = [], [], 0, 0
    for job, one, other in zip(jobs, before, now, strict=True):
        found, label = differences(one, other), f"{job['category']} {job['label']}"
        by = [answer.get("by") for answer in other]
        counts = [by.count(kind) for kind in ("graph", "torch", "corrected graph")]
        lines.append(f"| {job['category']} | {job['label']} | {' | '.join(map(str, counts))} | {len(found)} |")
        named += [f"- {label}: {name}: {words}" for name, words in list(found.items())[:LISTED]]
        named += [f"- {label}: {len(found) - LISTED} more"] if len(found) > LISTED else []
        unanswered += [f"- {label}: {answer['error']}" for answer in other if "error" in answer]
        total, differ = total + sum(counts), differ + len(found)
    parts = [
        "# The same answers as before",
        f"`{command}`, code of {new} beside that of {old}; references of seed {SEED}.",
        f"{differ} of {total} answers differ: verdict, raw and calibrated score, threshold, heatmap, regions with the "
        f"nearest good place of each, missing place, size, and whether there are sentences, each to the last bit.",
        "\n".join(lines),
    ]
    parts += ["## Answers that differ", "\n".join(named)] if named else []
    parts += ["## Not answered", "\n".join(unanswered)] if unanswered else []
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    main()
