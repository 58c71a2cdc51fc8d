"""The verbs about one inspector: fit, inspect, info, export."""

import sys
import time
import warnings
from collections import Counter
from collections.abc import Mapping
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.correct import basis_rows, describe_revisions, info_json
from handful.cli.options import (
    DEFAULT_RATE,
    BackboneOption,
    DeviceOption,
    EngineOption,
    GateOption,
    HeadOption,
    JsonOption,
    LevelsOption,
    MaxPixelsOption,
    NewFolderOption,
    PrecisionOption,
    RateOption,
    SizeOption,
    SqueezeOption,
    WeightsOption,
    parse_fit_size,
    parse_gate,
    parse_levels,
)
from handful.cli.output import DEFECT, FAILED, OK, complain, one_line, pictures_of, print_json, progress, say, track
from handful.files import check_place

if TYPE_CHECKING:
    from handful.budget import Kept
    from handful.cli.heatmaps import HeatmapNames
    from handful.decision import Calibration
    from handful.detector import Detector
    from handful.inspector import Inspector
    from handful.revisions import History
    from handful.types import Inspection
    from handful.visibility import Visibility


def fit(
    good: Annotated[list[Path], typer.Argument(help="1 to 8 pictures of good parts, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the inspector, NAME.handful.")],
    method: Annotated[
        str, typer.Option(help="handful, patchcore, fastrecon, reb or coft; with --head resad; on clip: winclip.")
    ] = "handful",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method.")
    ] = None,
    backbone: BackboneOption = "tf_efficientnet_lite0",
    levels: LevelsOption = None,
    weights: WeightsOption = "auto",
    size: SizeOption = None,
    squeeze: SqueezeOption = False,
    engine: EngineOption = "auto",
    precision: PrecisionOption = "f32",
    device: DeviceOption = "auto",
    rate: RateOption = DEFAULT_RATE,
    head: Annotated[Path | None, typer.Option(help="A head that `handful train resad` wrote.")] = None,
    object_name: Annotated[
        str | None,
        typer.Option("--object", metavar="NAME", help="What the part is, for winclip: metal nut; default: object."),
    ] = None,
    gate: GateOption = "all",
    accept_odd: Annotated[
        bool, typer.Option("--accept-odd", help="Learn pictures too that are clearly unlike the others.")
    ] = False,
    shots: Annotated[int | None, typer.Option(help="Draw this many of the pictures instead of using all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    max_mb: Annotated[
        float | None, typer.Option(metavar="MB", help="Leave out good patches until the saved file is no larger.")
    ] = None,
    latency_ms: Annotated[
        float | None,
        typer.Option(metavar="MS", help="Leave out good patches until an inspection takes no longer on this computer."),
    ] = None,
    max_pixels: MaxPixelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Teach an inspector from good pictures and save it."""
    start = time.perf_counter()
    check_place(output, "inspector")
    from handful import artifact, budget, oddity
    from handful.data.images import MAX_PIXELS
    from handful.data.shots import draw
    from handful.detector import Detector
    from handful.methods import parse_setting

    limits = budget.Budget(max_mb, latency_ms)

    detector = Detector(
        method,
        settings=dict(parse_setting(text) for text in set_ or ()),
        backbone=backbone,
        levels=parse_levels(levels),
        size=parse_fit_size(size),
        squeeze=squeeze,
        weights=weights,
        engine=engine,  # type: ignore[arg-type]  # checked, with a sentence, where they are used
        precision=precision,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        false_alarm_rate=rate,
        head=head,
        object_name=object_name,
        gate=parse_gate(gate),
        max_pixels=MAX_PIXELS if max_pixels is None else max_pixels,
    )
    found = pictures_of(good, recursive=False)
    references = [source for source, _ in found.sources]
    if shots is not None:
        references = draw(references, shots=shots, seed=seed)
    kept = None
    if limits == budget.Budget():
        detector.fit(references, accept_odd=accept_odd, track=track)
    else:
        kept = budget.fit(detector, references, limits, accept_odd=accept_odd, track=track)
    detector.save(output)
    graph = artifact.read(output)[0]["graph"]
    seconds = time.perf_counter() - start
    seen = detector.visibility
    notes = oddity.sentences(detector.oddities, references=len(references))
    notes += (seen.caution,) if seen and seen.caution else ()
    if as_json:
        left_out = [asdict(one) for one in found.left_out]
        facts = {**_facts_json(detector), "graph": graph, "budget": kept and asdict(kept), "left_out": left_out}
        print_json({"path": str(output), "seconds": seconds, **facts, "notes": notes})
        return
    for sentence in notes:
        complain(sentence)
    pictures = f"{len(references)} good picture{'s' if len(references) > 1 else ''}"
    if mixed := _mixed_depths([(r.name, r.bits) for r in detector.references]):
        pictures += f", {mixed}"
    elif detector.bits > 8:
        pictures += f" of {detector.bits} bits"
    height, width = detector.backbone.size
    if detector.reshaped:
        way = "lying whole in it" if detector.keeps_aspect else "squeezed to it"
        pictures += f", {len(detector.reshaped)} of another shape than the input's {width} x {height} and {way}"
    without = f"; no graph, so inspecting needs torch: {graph['why']}" if "why" in graph else ""
    say(f"{output}: {detector.method.name} on {detector.backbone.name}, {pictures}, {seconds:.1f} s{without}")
    say(f"threshold {detector.calibration.threshold:.4g}: {detector.calibration.rests_on}")
    if detector.sizing:
        say(f"size {detector.sizing}")
    if seen:
        say(f"finds {seen.words}; sees {seen.spot_words}")
    if detector.turning and detector.turning.turned:
        say(f"learnt in turned copies: {detector.turning.why}")
    if kept:
        say(_kept_line(kept, max_mb, latency_ms))


def inspect(
    inspector: Annotated[Path, typer.Argument(help="A saved inspector, NAME.handful.")],
    pictures: Annotated[list[Path], typer.Argument(help="Pictures, or folders of them with their subfolders.")],
    report: Annotated[
        Path | None, typer.Option(help="Write a page for people, FOLDER/index.html.", metavar="FOLDER")
    ] = None,
    heatmaps: Annotated[
        Path | None, typer.Option(help="Write each picture with its heatmap laid over.", metavar="FOLDER")
    ] = None,
    engine: EngineOption = None,
    device: DeviceOption = "auto",
    head: HeadOption = None,
    max_pixels: MaxPixelsOption = None,
    as_json: JsonOption = False,
) -> None:
    """Inspect pictures: a verdict, a score and the defect regions for each.

    With --json the last line counts the verdicts and names what the folders hold besides pictures.
    """
    found = pictures_of(pictures, recursive=True)
    sources = found.sources
    opened = _opened(inspector, engine, device, head)
    if max_pixels is not None:
        opened = replace(opened, preprocessing=replace(opened.preprocessing, max_pixels=max_pixels))
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        page = stack.enter_context(_page(report, inspector, opened)) if report else None
        names = _names(pictures, heatmaps) if heatmaps else None
        answers = opened.stream_sources(sources)
        for inspection, picture in stack.enter_context(progress(answers, count=len(sources))):
            counts[inspection.verdict] = counts.get(inspection.verdict, 0) + 1
            print_json(inspection.as_dict()) if as_json else say(_line(inspection))
            for sentence in () if as_json else (inspection.reason, *inspection.notes):
                if sentence:
                    complain(sentence)
            if page:
                page.add(inspection, picture)
            if names and picture and inspection.heatmap is not None:
                names.write(picture, inspection)
    if as_json:
        left_out = [asdict(one) for one in found.left_out]
        print_json({"pictures": len(sources), "verdicts": counts, "left_out": left_out})
    order = ("OK", "DEFECT", "RETAKE", "ERROR")
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if verdict in counts)
    print(said + (f"; report: {one_line(str(page.path))}" if page else ""), file=sys.stderr)
    raise typer.Exit(FAILED if counts.keys() & {"RETAKE", "ERROR"} else DEFECT if "DEFECT" in counts else OK)


def info(
    inspector: Annotated[Path, typer.Argument(help="A saved inspector, NAME.handful.")], as_json: JsonOption = False
) -> None:
    """Say what a saved inspector is and what its threshold rests on."""
    from handful import artifact, revisions
    from handful.decision import Calibration
    from handful.inspector import reading

    manifest, fields, parts = artifact.read(inspector)
    calibration, history = Calibration.from_dict(fields), revisions.from_parts(parts)
    with reading(inspector):
        seen = _visibility(manifest, calibration, history)
    if as_json:
        facts = {**manifest, "visibility": seen and seen.as_dict()}
        print_json({"path": str(inspector), **facts, "calibration": fields, **info_json(history, calibration)})
        return
    with reading(inspector):
        rows = _info_rows(inspector, manifest, calibration, history, seen)
    for label, value in rows.items():
        say(f"{label:<11} {value}")


def _visibility(manifest: Mapping[str, Any], calibration: "Calibration", history: "History") -> "Visibility | None":
    """What a saved inspector finds of synthetic defects; None where it keeps no scores of any.

    Raises:
        KeyError, TypeError, ValueError: if the manifest's cannot be read.
    """
    from handful.revisions import CHANGING
    from handful.visibility import Trials

    trials = Trials.from_manifest(manifest)
    return trials.at(calibration.threshold, changed=len(history.standing(*CHANGING))) if trials else None


def _info_rows(
    inspector: Path,
    manifest: Mapping[str, Any],
    calibration: "Calibration",
    history: "History",
    seen: "Visibility | None",
) -> dict[str, str]:
    """What `info` says to people, by label.

    Raises:
        KeyError: if the manifest lacks a field.
    """
    backbone, method = manifest["backbone"], manifest["method"]
    settings = ", ".join(f"{name}={value}" for name, value in method["settings"].items())
    return {
        "inspector": f"{inspector}, {inspector.stat().st_size / 1e6:.1f} MB, saved by handful {manifest['handful']}",
        "method": f"{method['name']} ({settings})",
        "backbone": f"{backbone['name']}, levels {', '.join(backbone['levels'])}, weights {backbone['weights']}",
        "digest": f"{manifest['digest']} of the inspector with its calibration",
        "weights": f"sha256 {backbone['weights_sha256']}",
        **({"head": f"{head['name']}, sha256 {head['sha256']}"} if (head := manifest.get("head")) else {}),
        **({"object": spoken} if (spoken := backbone.get("object_name")) else {}),
        "input": _input(manifest["preprocessing"]),
        **({"tiles": said} if (said := _tiles(manifest["preprocessing"])) else {}),
        **({"size": said} if (said := manifest.get("sizing")) else {}),
        **({"depth": said} if (said := _depth(manifest["preprocessing"], manifest["references"])) else {}),
        "engine": f"{backbone['engine']}, {backbone['precision']}",
        "references": ", ".join(reference["name"] for reference in manifest["references"]),
        **(
            {"odd": "; ".join(f"{o['picture']} {o['words']}" for o in odd)} if (odd := manifest.get("oddities")) else {}
        ),
        **({"turned": f"{_yes(turns['turned'])}: {turns['why']}"} if (turns := manifest.get("turning")) else {}),
        **({"evidence": said} if (said := manifest.get("evidence")) else {}),
        "torch": _torch(manifest.get("graph")),
        "gate": ", ".join(manifest["gate"]) or "none",
        **basis_rows(history.basis(calibration)),
        **({"finds": seen.words, "sees": seen.spot_words} if seen else {}),
        "revisions": describe_revisions(history),
    }


def export(
    inspector: Annotated[Path, typer.Argument(help="A saved inspector, NAME.handful.")],
    output: NewFolderOption,
    formats: Annotated[
        list[str],
        typer.Option("--format", metavar="FORMAT", help="openvino, onnx (needs the extra export), or both."),
    ] = ["openvino"],  # noqa: B006 - typer copies it
    check: Annotated[
        list[Path] | None,
        typer.Option(
            help="Pictures, or folders of them, to compare graph and inspector on, besides the references' thumbnails."
        ),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Write an inspector as a graph for programs without Handful: a picture goes in, map and score come out.

    The graph is run beside the inspector before it is written in place; inspector.json says what goes in, what the
    threshold is, and what the graph leaves out.
    """
    start = time.perf_counter()
    from handful.detector import Detector
    from handful.exporting import DESCRIPTION

    # torch's ONNX writer warns of a class of its own. The process is this command's alone, so its filters may change.
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec", FutureWarning)
    detector = Detector.load(inspector, device="cpu")
    written = detector.export(output, formats=formats, check=check)  # type: ignore[arg-type]  # checked there
    seconds = time.perf_counter() - start
    if as_json:
        agreements = [asdict(agreement) for agreement in written.agreements]
        print_json({"path": str(output), "seconds": seconds, "files": written.files, "agreements": agreements})
        return
    files = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in written.files.items() if name != DESCRIPTION)
    say(f"{output}: {detector.method.name} on {detector.backbone.name}, {files}, {seconds:.1f} s")
    for one in written.agreements:
        say(
            f"{one.format}: within {one.score:.1g} of the inspector's scores and {one.map:.1g} of its heatmaps on "
            f"{one.pictures} pictures"
        )
    say(f"not in the graph: the capture gate, regions and evidence; {DESCRIPTION} says how a program uses it")


def _opened(path: Path, engine: str | None, device: str, head: Path | None) -> "Inspector":
    """What inspects: without torch, which takes more than a second to import, where the inspector has its own graph."""
    from handful.inspector import Inspector

    if engine in (None, "auto", "openvino") and device in ("auto", "cpu") and head is None:
        opened = Inspector.load_graph(path)
        if opened is not None:
            return opened

    from handful.detector import Detector

    return Detector.load(path, engine=engine, device=device, head=head).inspector  # type: ignore[arg-type]


def _kept_line(kept: "Kept", max_mb: float | None, latency_ms: float | None) -> str:
    """Which share of the patches a budget has left, what it takes, and what it costs."""
    asked, takes = [], []
    if kept.megabytes is not None:
        asked.append(f"--max-mb {max_mb:g}")
        takes.append(f"{kept.megabytes:.1f} MB")
    if kept.milliseconds is not None:
        asked.append(f"--latency-ms {latency_ms:g}")
        takes.append(f"{kept.milliseconds:.0f} ms")
    line = f"kept {100 * kept.share:g} % of the patches for {' and '.join(asked)}: {', '.join(takes)}"
    if kept.rise == 0:
        return line
    way = f"{'rose' if kept.rise > 0 else 'fell'} by {100 * abs(kept.rise):.0f} % of the way to the threshold"
    return f"{line}; a good part's typical score {way} (benchmarks/budget.md has the price on labelled pictures)"


def _input(preprocessing: Mapping[str, Any]) -> str:
    """The frame of the model's input, and what becomes of pictures of another shape."""
    height, width = preprocessing["size"]
    kept = preprocessing.get("keeps_aspect", False)
    others = "pictures of another shape keep their aspect" if kept else "pictures of another shape are squeezed"
    return f"{width} x {height} pixels, width x height; {others}"


def _tiles(preprocessing: Mapping[str, Any]) -> str | None:
    """The tiles that pictures are looked at in; None where they are looked at in one input."""
    from handful.ops.tiles import Tiles

    if "fine" not in preprocessing:
        return None
    (height, width), tile = preprocessing["fine"], preprocessing["size"]
    count = len(Tiles((height, width), (tile[0], tile[1])))
    return f"{count} of {tile[1]} x {tile[0]} pixels over {width} x {height}; a picture's score is its map's peak"


def _depth(preprocessing: dict[str, Any], references: list[dict[str, Any]]) -> str | None:
    """The references' depths; None where all have 8 bits, and where an older version did not tell."""
    bits = preprocessing["bits"]
    mixed = _mixed_depths([(one["name"], one.get("bits")) for one in references])
    if "bright" not in preprocessing or (bits == 8 and not mixed):
        return None
    said = f"{bits} bits" + (f": values of 16-bit pictures are divided by {2**bits - 1}" if bits > 8 else "")
    return f"{said}; references: {mixed}" if mixed else said


def _mixed_depths(references: list[tuple[str, int | None]]) -> str | None:
    """How many references, by name and bits, have which depth, and which are not of the usual one; None if all are."""
    from handful.data.tree import some

    counts = Counter(bits for _, bits in references).most_common()
    if len(counts) < 2 or None in dict(counts):
        return None
    (usual, count), *others = counts
    said = [f"{count} of {usual} bits"]
    for bits, count in others:
        said.append(f"{count} of {bits} ({some([name for name, own in references if own == bits])})")
    return " and ".join(said)


def _yes(holds: bool) -> str:
    return "yes" if holds else "no"


def _torch(graph: dict[str, Any] | None) -> str:
    """Whether an inspector is inspected with through torch, and why."""
    if graph is None:
        return "needed to inspect: saved before inspectors held their own graph"
    if "why" in graph:
        return f"needed to inspect: {graph['why']}"
    return "not needed to inspect: it holds its own graph"


def _line(inspection: "Inspection") -> str:
    """One answer for people: verdict, calibrated score, path, regions."""
    score = "" if inspection.calibrated_score is None else f"{inspection.calibrated_score:.2f}"
    line = f"{inspection.verdict:<6} {score:>6}  {inspection.path}"
    if inspection.regions:
        x, y, width, height = inspection.regions[0].box
        more = f" and {len(inspection.regions) - 1} more" if len(inspection.regions) > 1 else ""
        line += f"  region {width}x{height} at ({x}, {y}){more}"
    return line


def _facts_json(detector: "Detector") -> dict[str, Any]:
    calibration = detector.calibration
    return {
        "method": detector.method.name,
        "settings": detector.method.settings,
        "backbone": detector.backbone.name,
        "weights_sha256": detector.backbone.weights_sha256,
        "engine": detector.backbone.engine,
        "precision": detector.backbone.precision,
        "object": detector.backbone.object_name,
        "references": [reference.name for reference in detector.references],
        "bits": detector.bits,
        "depths": [reference.bits for reference in detector.references],
        "input": list(detector.backbone.size[::-1]),
        "sizing": detector.sizing,
        "tiles": {"frame": list(tiles.frame[::-1]), "count": len(tiles)} if (tiles := detector.tiles) else None,
        "reshaped": list(detector.reshaped),
        "threshold": calibration.threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
        "rests_on": calibration.rests_on,
        "turning": asdict(detector.turning) if detector.turning else None,
        "evidence": detector.evidence,
        "oddities": [asdict(one) for one in detector.oddities],
        "gate": list(detector.gate),
        "visibility": seen.as_dict() if (seen := detector.visibility) else None,
    }


def _names(pictures: list[Path], folder: Path) -> "HeatmapNames":
    from handful.cli.heatmaps import HeatmapNames

    return HeatmapNames(pictures, folder)


def _page(folder: Path, inspector: Path, opened: "Inspector") -> Any:
    from handful.report import Report

    facts = {
        "Inspector": str(inspector),
        "Method": opened.method,
        "Backbone": f"{opened.backbone.name}, weights {opened.backbone.weights}",
        "Threshold": f"{opened.calibration.threshold:.4g}",
        "Rests on": opened.calibration.rests_on,
    }
    return Report(folder, facts, [(reference.name, reference.thumbnail) for reference in opened.references])
