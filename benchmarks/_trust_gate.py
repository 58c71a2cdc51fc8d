"""The part of the trust page about RETAKE: that it hides no defect, and what it still catches."""

import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from _gate_pictures import (
    DEFECTS,
    GOOD,
    WHOLE,
    Category,
    GatePicture,
    category_of,
    doubt,
    folders_of,
    gate_of,
    large_name,
    strangers_of,
)
from _large_defects import KINDS
from handful import Detector, backbones
from handful.backbones.base import Backbone
from handful.data.shots import draw
from handful.inspection import gate as gate_module
from handful.inspection.gate import Gate
from handful.inspector import Inspector

SHOTS, SEEDS = (2, 4), (0,)
# What the constants that large defects turn on were chosen from; the loosest value doubts most.
GRID: dict[tuple[str, str], tuple[int | float, ...]] = {
    ("FINE", "blur"): (0, 3, 6),
    ("STAYED", "exposure"): (1, 0.2, 0.1, 0.05),
    ("EVENLY", "product"): (0, 0.5, 0.75, 0.9),
}
ALIKE = " (control alike)"


def measure(data: Path) -> dict[str, Any]:
    """Give every picture its verdict at every number of references, over all categories and draws."""
    grad = torch.is_grad_enabled()
    torch.set_grad_enabled(False)
    try:
        return _measure(data)
    finally:
        torch.set_grad_enabled(grad)


def _measure(data: Path) -> dict[str, Any]:
    folders, backbone = folders_of(data), backbones.create()
    strangers = strangers_of(folders, backbone)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    retakes: list[str] = []
    halves: list[dict[str, Counter[str]]] = [defaultdict(Counter), defaultdict(Counter)]
    for number, folder in enumerate(folders):
        category = category_of(folder, backbone, strangers)
        for shots in SHOTS:
            for seed in SEEDS if shots <= len(category.train) else ():
                references = draw(category.train, shots=shots, seed=seed)
                detector = Detector(backbone=backbone, squeeze=True)  # all pictures below are of one frame
                inspector = detector.fit(list(references), accept_odd=True).inspector
                where = f"{category.name}, {shots} references of seed {seed}"
                retakes += [f"{where}: {said}" for said in _count(category, inspector, shots, counts)]
                if seed == SEEDS[0]:
                    _try_constants(category, shots, backbone, halves[number % 2])
        print(category.name, file=sys.stderr, flush=True)
    return {
        "categories": len(folders),
        "counts": {name: dict(values) for name, values in counts.items()},
        "retakes": retakes,
        "left_out": [_left_out(*order) for order in (halves, halves[::-1])],
    }


def _pictures(category: Category) -> Iterator[tuple[str, str, GatePicture]]:
    """The group that a picture counts in, its key within the category, and the picture."""
    for column, some in category.seen.items():
        yield from ((column, one.name, one) for one in some)
    for (kind, share), some in category.large.items():
        yield from ((f"{kind}, {large_name(share)}", f"{kind} {one.name}", one) for one in some)


def _count(category: Category, inspector: Inspector, shots: int, counts: dict[str, Counter[str]]) -> list[str]:
    """Count verdicts, and say which defects are a RETAKE; where the control is one too, that is said."""
    defective, controls = [], set()
    for group, key, picture in _pictures(category):
        doubted = doubt(inspector._gate, picture, inspector._learnt)
        counted = counts[f"{group} | {shots}"]
        counted["pictures"] += 1
        if doubted is None:
            continue
        retake = not inspector._forward(picture.image.numpy()).score > inspector.calibration.threshold
        counted["doubted"] += 1
        counted["retakes"] += retake
        if retake and large_name(WHOLE) in group:
            controls.add(key)
        elif retake and _defective(group):
            defective.append((group, key, doubted))
    return [
        f"{group}, {Path(key).name}, for {doubted}{ALIKE if key in controls else ''}"
        for group, key, doubted in defective
    ]


def _try_constants(category: Category, shots: int, backbone: Backbone, found: dict[str, Counter[str]]) -> None:
    """Count for every value of every constant how many defects, and how many other pictures, its check doubts."""
    groups = [(group, one) for group, _, one in _pictures(category) if group != GOOD and large_name(WHOLE) not in group]
    for (name, check), values in GRID.items():
        kept, left = getattr(gate_module, name), groups
        try:
            for value in values:
                setattr(gate_module, name, value)
                gate, good = gate_of(category.train, shots, SEEDS[0], backbone)
                gate = Gate((check,), gate.statistics)
                left = [(group, one) for group, one in left if doubt(gate, one, good)]
                defective = sum(_defective(group) for group, _ in left)
                found[name][f"{value:g} defects"] += defective
                found[name][f"{value:g} others"] += len(left) - defective
        finally:
            setattr(gate_module, name, kept)


def _defective(group: str) -> bool:
    return group.split(",")[0] in (DEFECTS, *KINDS)


def _left_out(chosen_on: dict[str, Counter[str]], quoted_on: dict[str, Counter[str]]) -> list[dict[str, Any]]:
    """Of each constant the value that doubts fewest defects of one half, then most others; and its worth on the other.

    Returns:
        for each constant its name, the value, and how many defects and others its check doubts on the other half.
    """
    rows = []
    for (name, _), values in GRID.items():
        counts = chosen_on[name]
        best = min(values, key=lambda value: (counts[f"{value:g} defects"], -counts[f"{value:g} others"]))
        defects, others = (quoted_on[name][f"{best:g} {kind}"] for kind in ("defects", "others"))
        rows.append({"name": name, "value": best, "defects": defects, "others": others})
    return rows


def page(found: dict[str, Any]) -> list[str]:
    """The section of the page."""
    groups = list(dict.fromkeys(name.split(" | ")[0] for name in found["counts"]))
    hidden = [said for said in found["retakes"] if not said.endswith(ALIKE)]
    bound = f"Bound: none of the defects is a RETAKE unless its control is. Found: {len(hidden)}"
    names = ("one half", "the other half")
    halves = [
        f"| {row['name']} = {row['value']:g} | {names[order]} | {row['defects']} | {row['others']} |"
        for order, rows in enumerate(found["left_out"])
        for row in rows
    ]
    return [
        "## RETAKE hides no defect",
        f"All defective test pictures of {found['categories']} categories, large defects made from good ones, and good "
        f"ones as they are and spoilt, at {', '.join(map(str, SHOTS))} references of seed "
        f"{', '.join(map(str, SEEDS))}. *Alike* is read so: the control of a large defect is the same good picture "
        "damaged in the same way over the whole part, and a RETAKE of a large defect is no failure where its control "
        "is a RETAKE at the same references.",
        f"{bound}{'.' if not hidden else ': ' + '; '.join(hidden) + '.'} RETAKEs whose control is one, too: "
        f"{len(found['retakes']) - len(hidden)}.",
        "In percent of the pictures, for each number of references: RETAKE, in brackets doubted (a RETAKE, or a DEFECT "
        "with a note).",
        "\n".join(
            [
                f"| pictures | number | {' | '.join(f'k = {shots}' for shots in SHOTS)} |",
                f"|---|---|{'---|' * len(SHOTS)}",
                *(_row(group, found["counts"]) for group in groups),
            ]
        ),
        "Each constant that large defects turn on, chosen on one half of the categories (fewest defects doubted by its "
        "check, then most other pictures), and what its check then doubts on the other half, at seed "
        f"{SEEDS[0]}; shipped: {', '.join(f'{name} = {getattr(gate_module, name):g}' for name, _ in GRID)}.",
        "\n".join(
            ["| constant | chosen on | defects doubted | spoilt and others doubted |", "|---|---|---|---|", *halves]
        ),
    ]


def _row(group: str, counts: dict[str, dict[str, int]]) -> str:
    cells = []
    for shots in SHOTS:
        found = counts.get(f"{group} | {shots}", {})
        retakes, doubted = (
            100 * found.get(kind, 0) / max(1, found.get("pictures", 0)) for kind in ("retakes", "doubted")
        )
        cells.append(f"{retakes:.1f} ({doubted:.1f})")
    number = sum(counts.get(f"{group} | {shots}", {}).get("pictures", 0) for shots in SHOTS)
    return f"| {group} | {number} | {' | '.join(cells)} |"
