"""The part of the trust page about files: what was written comes back or is refused, and no half file is judged."""

from collections import Counter
from pathlib import Path
from typing import Any

import _decode
from _decode import halves


def measure(data: Path) -> dict[str, Any]:
    """Read every cell of the decode matrix, and half-copied files of one good picture of each category."""
    outcomes: dict[str, Counter[str]] = {}
    wrong, causes = [], Counter[str]()
    for cell in _decode.cells():
        outcome, said = _decode.judge(cell)
        outcomes.setdefault(cell.format, Counter())[outcome] += 1
        if outcome == "wrong":
            wrong.append(f"{cell.format} {cell.make}: {said}")
        elif outcome == "refused":
            causes[f"{cell.format}: {_cause(said)}"] += 1
    folders = sorted((data / "mvtec_ad").glob("*/train/good"))
    pictures = [sorted(folder.iterdir())[0] for folder in folders]
    return {
        "cells": {kind: dict(counts) for kind, counts in outcomes.items()},
        "wrong": wrong,
        "causes": dict(causes.most_common()),
        "half_copied": halves.found(pictures),
        "alarms": halves.alarms(),
        "pictures": len(pictures),
    }


def page(found: dict[str, Any]) -> list[str]:
    """The section of the page."""
    order = ("right", "refused", "wrong")
    rows = [f"| {kind} | {' | '.join(str(n.get(name, 0)) for name in order)} |" for kind, n in found["cells"].items()]
    total = [sum(counts.get(name, 0) for counts in found["cells"].values()) for name in order]
    halves_found = {kind: tuple(counts) for kind, counts in found["half_copied"].items()}
    missed = [f"{kind} {got} of {of}" for kind, (got, of) in halves_found.items() if got < of]
    got, of = (sum(column) for column in zip(*halves_found.values(), strict=True))
    return [
        "## Files",
        "Picture files of every format, mode, depth, byte order, layout, polarity, compression, orientation and colour "
        "profile, written by tifffile, imagecodecs, OpenCV or by hand, read as `inspect` reads them. Bound: 0 wrong.",
        "\n".join(
            [
                "| format | right | refused | wrong |",
                "|---|---|---|---|",
                *rows,
                f"| all | {' | '.join(map(str, total))} |",
            ]
        ),
        *([f"Wrong: {'; '.join(found['wrong'])}."] if found["wrong"] else []),
        "What is refused, and why:",
        "\n".join(f"- {count} x {cause}" for cause, count in found["causes"].items()),
        f"Half-copied files whose length was reserved (zeros to the end), of {found['pictures']} real pictures in "
        f"{len(halves_found)} formats: {got} of {of} refused"
        + (f"; fewer for {', '.join(missed)}" if missed else "")
        + f". Whole files of pictures that end in black or are even: {found['alarms'][0]} of {found['alarms'][1]} "
        "refused.",
    ]


def _cause(sentence: str) -> str:
    """What must hold and what came, without the picture's name and the remedy."""
    return "must " + sentence.rpartition(" must ")[2].partition(";")[0]
