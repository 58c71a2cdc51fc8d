"""The verb `fit`: teach an inspector from good pictures."""

import time
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.options import (
    DEFAULT_RATE,
    BackboneOption,
    DeviceOption,
    EngineOption,
    GateOption,
    JsonOption,
    LevelsOption,
    MaxPixelsOption,
    PrecisionOption,
    RateOption,
    SizeOption,
    SqueezeOption,
    WeightsOption,
    complete_method,
    method_names,
    parse_fit_size,
    parse_gate,
    parse_levels,
)
from handful.cli.output import command_of, complain, mixed_depths, pictures_of, print_json, say, suggest
from handful.errors import needing, number_of
from handful.files import check_place

if TYPE_CHECKING:
    from handful.detector import Detector
    from handful.evaluation.budget import Kept


def fit(
    good: Annotated[list[Path], typer.Argument(help="1 to 8 pictures of good parts, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the inspector, NAME.handful.")],
    method: Annotated[
        str,
        typer.Option(
            help=f"{', '.join(method_names())}; a method that needs a clip: backbone says so.",
            autocompletion=complete_method,
        ),
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
    head: Annotated[
        Path | None,
        typer.Option(
            help="A head that `handful train` wrote, for resad or fasl; default: the shipped head, on the default "
            "backbone and size."
        ),
    ] = None,
    object_name: Annotated[
        str | None,
        typer.Option(
            "--object",
            metavar="NAME",
            help="What the part is, for a method that reads text: metal nut; default: object.",
        ),
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
    with needing("`handful fit`", "fit"):
        from handful.data.shots import draw
        from handful.detector import Detector
        from handful.evaluation import budget
        from handful.methods import parse_setting
    from handful.data.images import MAX_PIXELS
    from handful.fitting import oddity
    from handful.saved import archive

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
        detector.fit(references, accept_odd=accept_odd, progress=True)
    else:
        kept = budget.fit(detector, references, limits, accept_odd=accept_odd, progress=True)
    detector.save(output)
    graph = archive.read(output)[0]["graph"]
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
    pictures = number_of(len(references), "good picture")
    if mixed := mixed_depths([(r.name, r.bits) for r in detector.references]):
        pictures += f", {mixed}"
    elif detector.bits > 8:
        pictures += f" of {detector.bits} bits"
    height, width = detector.backbone_spec.size
    if detector.reshaped:
        way = "lying whole in it" if detector.keeps_aspect else "squeezed to it"
        pictures += f", {len(detector.reshaped)} of another shape than the input's {width} x {height} and {way}"
    without = f"; no graph, so inspecting needs torch: {graph['why']}" if "why" in graph else ""
    say(f"{output}: {detector.method.name} on {detector.backbone_spec.name}, {pictures}, {seconds:.1f} s{without}")
    say(f"threshold {detector.calibration.threshold:.4g}: {detector.calibration.rests_on}")
    if detector.sizing:
        say(f"size {detector.sizing}")
    if seen:
        say(f"finds {seen.words}; sees {seen.spot_words}")
    if detector.turning and detector.turning.turned:
        say(f"learnt in turned copies: {detector.turning.why}")
    if kept:
        say(_kept_line(kept, max_mb, latency_ms))
    suggest(f"inspect pictures: {command_of('inspect', output, 'PICTURES', '--report', 'report')}")


def _kept_line(kept: "Kept", max_mb: float | None, latency_ms: float | None) -> str:
    """A line for people: the share of patches kept within a budget, size and time of the inspector, and the effect."""
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
    return (
        f"{line}; a good part's typical score {way} (benchmarks/default/budget.md has the price on labelled pictures)"
    )


def _facts_json(detector: "Detector") -> dict[str, Any]:
    calibration = detector.calibration
    return {
        "method": detector.method.name,
        "settings": detector.method.settings,
        "backbone": detector.backbone_spec.name,
        "weights_sha256": detector.backbone_spec.weights_sha256,
        "engine": detector.backbone_spec.engine,
        "precision": detector.backbone_spec.precision,
        "object": detector.backbone_spec.object_name,
        "references": [reference.name for reference in detector.references],
        "bits": detector.bits,
        "depths": [reference.bits for reference in detector.references],
        "input": list(detector.backbone_spec.size[::-1]),
        "sizing": detector.sizing,
        "tiles": {"frame": list(tiles.frame[::-1]), "count": len(tiles)} if (tiles := detector.tiles) else None,
        "reshaped": list(detector.reshaped),
        "raw_threshold": calibration.threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
        "rests_on": calibration.rests_on,
        "turning": asdict(detector.turning) if detector.turning else None,
        "evidence": detector.evidence,
        "oddities": [asdict(one) for one in detector.oddities],
        "gate": list(detector.gate),
        "visibility": seen.as_dict() if (seen := detector.visibility) else None,
    }
