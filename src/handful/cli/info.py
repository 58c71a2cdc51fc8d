"""The verb `info`: facts about a saved inspector."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.correct import basis_rows
from handful.cli.options import JsonOption
from handful.cli.output import mixed_depths, print_json, say

if TYPE_CHECKING:
    from handful.fitting.revisions import History
    from handful.fitting.visibility import Visibility
    from handful.inspection.threshold import Calibration


def info(
    inspector: Annotated[Path, typer.Argument(help="A saved inspector, NAME.handful.")], as_json: JsonOption = False
) -> None:
    """Say what a saved inspector is and what its threshold rests on."""
    from handful.inspection.threshold import Calibration
    from handful.saved import archive
    from handful.saved.history import history_of
    from handful.saved.manifest import reading, visibility_of

    manifest, fields, entries = archive.read(inspector)
    calibration, history = Calibration.from_dict(fields), history_of(entries)
    with reading(inspector):
        seen = visibility_of(manifest, calibration, history)
    if as_json:
        facts = {**manifest, "visibility": seen and seen.as_dict(), "calibration": fields}
        basis, revisions = history.basis(calibration), [asdict(one) for one in history.revisions]
        print_json({"path": str(inspector), **facts, "revisions": revisions, "basis": asdict(basis)})
        return
    with reading(inspector):
        rows = _info_rows(inspector, manifest, calibration, history, seen)
    for label, value in rows.items():
        if value is not None:
            say(f"{label:<11} {value}")


def _info_rows(
    inspector: Path,
    manifest: Mapping[str, Any],
    calibration: "Calibration",
    history: "History",
    seen: "Visibility | None",
) -> dict[str, str | None]:
    """The facts about an inspector by label, None for facts that it lacks; KeyError if the manifest lacks a field."""
    backbone, method, preprocessing = manifest["backbone"], manifest["method"], manifest["preprocessing"]
    head, turning = manifest.get("head"), manifest.get("turning")
    odd = "; ".join(f"{oddity['picture']} {oddity['words']}" for oddity in manifest.get("oddities") or ())
    settings = ", ".join(f"{name}={value}" for name, value in method["settings"].items())
    return {
        "inspector": f"{inspector}, {inspector.stat().st_size / 1e6:.1f} MB, saved by handful {manifest['handful']}",
        "method": f"{method['name']} ({settings})",
        "backbone": f"{backbone['name']}, levels {', '.join(backbone['levels'])}, weights {backbone['weights']}",
        "digest": f"{manifest['digest']} of the inspector with its calibration",
        "weights": f"sha256 {backbone['weights_sha256']}",
        "head": f"{head['name']}, sha256 {head['sha256']}" if head else None,
        "object": backbone.get("object_name") or None,
        "input": _input(preprocessing),
        "tiles": _tiles(preprocessing),
        "size": manifest.get("sizing") or None,
        "depth": _depth(preprocessing, manifest["references"]),
        "engine": f"{backbone['engine']}, {backbone['precision']}",
        "references": ", ".join(reference["name"] for reference in manifest["references"]),
        "odd": odd or None,
        "turned": f"{'yes' if turning['turned'] else 'no'}: {turning['why']}" if turning else None,
        "evidence": manifest.get("evidence") or None,
        "torch": _torch(manifest.get("graph")),
        "gate": ", ".join(manifest["gate"]) or "none",
        **basis_rows(history.basis(calibration)),
        "finds": seen.words if seen else None,
        "sees": seen.spot_words if seen else None,
        "revisions": _revisions(history),
    }


def _input(preprocessing: Mapping[str, Any]) -> str:
    """The frame of the model's input, and the treatment of pictures of another shape."""
    height, width = preprocessing["size"]
    treated = "keep their aspect" if preprocessing.get("keeps_aspect", False) else "are squeezed"
    return f"{width} x {height} pixels, width x height; pictures of another shape {treated}"


def _tiles(preprocessing: Mapping[str, Any]) -> str | None:
    """The tiles of pictures; None for an inspector without tiles."""
    from handful.ops.tiles import Tiles

    if "fine" not in preprocessing:
        return None
    (height, width), tile = preprocessing["fine"], preprocessing["size"]
    count = len(Tiles((height, width), (tile[0], tile[1])))
    return f"{count} of {tile[1]} x {tile[0]} pixels over {width} x {height}; a picture's score is its map's peak"


def _depth(preprocessing: dict[str, Any], references: list[dict[str, Any]]) -> str | None:
    """The references' depths in words; None if all have 8 bits, and for files of versions that recorded no depths."""
    bits = preprocessing["bits"]
    mixed = mixed_depths([(one["name"], one.get("bits")) for one in references])
    if "bright" not in preprocessing or (bits == 8 and not mixed):
        return None
    said = f"{bits} bits" + (f": values of 16-bit pictures are divided by {2**bits - 1}" if bits > 8 else "")
    return f"{said}; references: {mixed}" if mixed else said


def _torch(graph: dict[str, Any] | None) -> str:
    """A phrase on whether inspecting needs torch, and why."""
    if graph is None:
        return "needed to inspect: saved before inspectors held their own graph"
    return f"needed to inspect: {graph['why']}" if "why" in graph else "not needed to inspect: it holds its own graph"


def _revisions(history: "History") -> str:
    if not history.revisions:
        return "none"
    undone = f", {len(history.undone)} undone" if history.undone else ""
    return f"{len(history.revisions)}{undone}; `handful teach NAME.handful --log` shows them"
