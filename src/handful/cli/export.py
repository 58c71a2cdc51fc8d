"""The verb `export`: write an inspector as a graph."""

import time
import warnings
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from handful.cli.options import JsonOption, NewFolderOption
from handful.cli.output import print_json, say
from handful.errors import needing, number_of


def export(
    inspector: Annotated[Path, typer.Argument(help="A saved inspector, NAME.handful.")],
    output: NewFolderOption,
    formats: Annotated[
        list[str], typer.Option("--format", metavar="FORMAT", help="openvino, onnx (needs the extra export), or both.")
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
    with needing("`handful export`", "fit"):
        from handful.detector import Detector
        from handful.saved.export import DESCRIPTION

    # torch's ONNX writer warns about a class of torch's. No other command shares the process, so a filter does no harm.
    warnings.filterwarnings("ignore", "`isinstance\\(treespec, LeafSpec", FutureWarning)
    detector = Detector.load(inspector, device="cpu")
    written = detector.export(output, formats=formats, check=check)  # type: ignore[arg-type]  # `export` checks
    seconds = time.perf_counter() - start
    if as_json:
        agreements = [asdict(agreement) for agreement in written.agreements]
        print_json({"path": str(output), "seconds": seconds, "files": written.files, "agreements": agreements})
        return
    files = ", ".join(f"{name} {size / 1e6:.1f} MB" for name, size in written.files.items() if name != DESCRIPTION)
    say(f"{output}: {detector.method.name} on {detector.backbone_spec.name}, {files}, {seconds:.1f} s")
    for one in written.agreements:
        say(
            f"{one.format}: within {one.score:.1g} of the inspector's scores and {one.map:.1g} of its heatmaps on "
            + number_of(one.pictures, "picture")
        )
    say(f"not in the graph: the capture gate, regions and evidence; {DESCRIPTION} says how a program uses it")
