"""The verb `inspect`: inspect pictures, and write their heatmaps and a report."""

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

import handful
from handful.cli.options import DeviceOption, EngineOption, HeadOption, JsonOption, MaxPixelsOption
from handful.cli.output import (
    DEFECT,
    FAILED,
    OK,
    command_of,
    complain,
    one_line,
    pictures_of,
    print_json,
    progress,
    say,
    suggest,
)

if TYPE_CHECKING:
    from handful.cli.heatmaps import HeatmapNames
    from handful.data.images import Picture
    from handful.inspector import Inspector
    from handful.report.html import Report
    from handful.report.result import Inspection
    from handful.scale.inspecting import Sources


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
    from handful.types import Verdict  # imports NumPy, which takes a tenth of a second and which help does not need

    found = pictures_of(pictures, recursive=True)
    sources = found.sources
    opened = handful.load(inspector, engine=engine, device=device, head=head)  # type: ignore[arg-type]  # `load` checks
    opened = opened._limited(max_pixels)
    counts: dict[Verdict, int] = {}
    rejected: str | None = None  # the first picture with a defect
    with ExitStack() as stack:
        page = stack.enter_context(_page(report, inspector, opened)) if report else None
        names = _names(pictures, heatmaps) if heatmaps else None
        drawn = page is not None or names is not None
        answers = _answers(opened, inspector, sources, max_pixels=max_pixels, drawn=drawn)
        for inspection, picture in stack.enter_context(progress(answers, count=len(sources))):
            rejected = rejected or (inspection.path if inspection.is_defect else None)
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
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in Verdict if verdict in counts)
    print(said + (f"; {_written(page)}" if page else ""), file=sys.stderr)
    if not as_json:
        _suggest_next(inspector, page.path if page else None, rejected)
    failed = counts.keys() & {Verdict.RETAKE, Verdict.ERROR}
    raise typer.Exit(FAILED if failed else DEFECT if Verdict.DEFECT in counts else OK)


def _answers(
    opened: "Inspector", inspector: Path, sources: "Sources", *, max_pixels: int | None, drawn: bool
) -> "Iterator[tuple[Inspection, Picture | None]]":
    """Inspect pictures, many of them by processes where the inspector's own graph inspects.

    Args:
        opened: the inspector.
        inspector: its file.
        sources: the pictures and their names.
        max_pixels: that the command names.
        drawn: whether the pictures are needed with their answers.
    """
    from handful.inspector import MANY

    if len(sources) < MANY:  # so few that the modules below need not be imported
        return opened._stream(sources)

    from handful.saved import archive
    from handful.scale.inspecting import by_processes, is_quicker

    if opened._side_by_side is not None and is_quicker(opened, len(sources)):
        content, _ = archive.content_of(inspector)
        return by_processes(content, sources, max_pixels=max_pixels, keep_pictures=drawn)
    return opened._stream(sources)


def _suggest_next(inspector: Path, page: Path | None, rejected: str | None) -> None:
    """Suggest how to look at the answers and how to correct a wrong answer."""
    if page:
        suggest(f"open {page} in a browser")
    else:
        suggest("see where the defects are: the same command with --report FOLDER")
    if rejected:
        suggest(f"if {rejected} is good: {command_of('teach', inspector, '--good', rejected)}")


def _line(inspection: "Inspection") -> str:
    """A line for people about an inspection: verdict, score, path, strongest region and number of further regions."""
    score = "" if inspection.score is None else f"{inspection.score:.2f}"
    line = f"{inspection.verdict:<6} {score:>6}  {inspection.path}"
    if inspection.regions:
        x, y, width, height = inspection.regions[0].box
        more = f" and {len(inspection.regions) - 1} more" if len(inspection.regions) > 1 else ""
        line += f"  region {width}x{height} at ({x}, {y}){more}"
    return line


def _names(pictures: list[Path], folder: Path) -> "HeatmapNames":
    from handful.cli.heatmaps import HeatmapNames

    return HeatmapNames(pictures, folder)


def _written(page: "Report") -> str:
    """A line on the path of the report, and on the folder of its pictures if they lie beside the page."""
    said = f"report: {one_line(str(page.path))}"
    if page.pictures is None:
        return said
    return f"{said} with its pictures beside it in {one_line(str(page.pictures))} ({page.size / 1e6:.0f} MB)"


def _page(folder: Path, inspector: Path, opened: "Inspector") -> "Report":
    from handful.report.html import Report

    facts = {
        "Inspector": str(inspector),
        "Method": opened.method_name,
        "Backbone": f"{opened.backbone_spec.name}, weights {opened.backbone_spec.weights}",
        "Threshold": f"{opened.calibration.threshold:.4g}",
        "Rests on": opened.calibration.rests_on,
    }
    return Report(folder, facts, [(reference.name, reference.thumbnail) for reference in opened.references])
