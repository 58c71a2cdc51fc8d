"""The command line: parse, call, print. Results go to stdout, everything else to stderr.

torch takes seconds to import, so the verbs import it, not this module.
"""

import io
import json
import os
import re
import sys
import time
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn, TypeVar

import typer

from handful.errors import HandfulError, OutputError, SettingError
from handful.version import __version__

if TYPE_CHECKING:
    from handful.data.images import Picture
    from handful.detector import Detector
    from handful.types import Inspection

OK, DEFECT, FAILED = 0, 1, 2  # exit codes

Item = TypeVar("Item")

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
# What typer raises for a wrong command line; it has no public name, and its home differs between typer's versions.
UsageError: type[Exception] = typer.BadParameter.__mro__[1]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of words.")]
EngineOption = Annotated[str | None, typer.Option(help="auto, openvino or torch.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda, for the torch engine.")]


def _print_version(wanted: bool) -> None:
    if wanted:
        print(f"handful {__version__}")
        raise typer.Exit


@app.callback()
def _handful(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
    debug: Annotated[bool, typer.Option("--debug", help="Show a traceback with an error.")] = False,
) -> None:
    """Handful teaches a visual inspector from a handful of good pictures.

    Exit codes: 0 every picture is OK, 1 at least one is a DEFECT, 2 an error, or a picture that could not be judged.
    """


@app.command()
def fit(
    good: Annotated[list[Path], typer.Argument(help="1 to 8 pictures of good parts, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the inspector, NAME.handful.")],
    method: Annotated[str, typer.Option(help="patchcore or fastrecon.")] = "patchcore",
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the method.")
    ] = None,
    backbone: Annotated[str, typer.Option(help="Any timm name.")] = "tf_efficientnet_lite0",
    levels: Annotated[
        str | None, typer.Option(help="Modules or indices, with commas; default: strides 8 and 16.")
    ] = None,
    weights: Annotated[str, typer.Option(help="auto (on board, else timm's hub), random, or a file.")] = "auto",
    size: Annotated[
        str | None, typer.Option(help="Model input: 320, or HEIGHTxWIDTH; default: 320.", metavar="SIZE")
    ] = None,
    engine: EngineOption = "auto",
    precision: Annotated[str, typer.Option(help="f32, or bf16 with openvino on a CPU that has it.")] = "f32",
    device: DeviceOption = "auto",
    rate: Annotated[float, typer.Option(help="Share of good parts that may be rejected.")] = 0.01,
    shots: Annotated[int | None, typer.Option(help="Draw this many of the pictures instead of using all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw.")] = 0,
    as_json: JsonOption = False,
) -> None:
    """Teach an inspector from good pictures and save it."""
    start = time.perf_counter()
    if not output.parent.is_dir():
        raise OutputError(f"The folder of the inspector must exist, got {output.parent}; create it first.")
    from handful.data.images import gather
    from handful.data.shots import draw
    from handful.detector import Detector

    detector = Detector(
        method,
        settings=dict(_setting(text) for text in set_ or ()),
        backbone=backbone,
        levels=None if levels is None else [_level(text) for text in levels.split(",")],
        size=None if size is None else _size(size),
        weights=weights,
        engine=engine,  # type: ignore[arg-type]  # checked, with a sentence, where they are used
        precision=precision,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
        false_alarm_rate=rate,
    )
    references = [source for source, _ in gather(good, recursive=False)]
    if shots is not None:
        references = draw(references, shots=shots, seed=seed)
    detector.fit(references, track=_track)
    detector.save(output)
    seconds = time.perf_counter() - start
    if as_json:
        _print_json({"path": str(output), "seconds": seconds, **_facts_json(detector)})
        return
    pictures = f"{len(references)} good picture{'s' if len(references) > 1 else ''}"
    _say(f"{output}: {detector.method.name} on {detector.backbone.name}, {pictures}, {seconds:.1f} s")
    _say(f"threshold {detector.calibration.threshold:.4g}: {detector.calibration.rests_on}")


@app.command()
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
    as_json: JsonOption = False,
) -> None:
    """Inspect pictures: a verdict, a score and the defect regions for each."""
    from handful.data.images import gather
    from handful.detector import Detector

    sources = gather(pictures, recursive=True)
    detector = Detector.load(inspector, engine=engine, device=device)  # type: ignore[arg-type]
    counts: dict[str, int] = {}
    with ExitStack() as stack:
        page = stack.enter_context(_page(report, inspector, detector)) if report else None
        names = _HeatmapNames(pictures, heatmaps) if heatmaps else None
        for source, name in stack.enter_context(_progress(sources)):
            inspection, picture = detector.inspect_source(source, name=name)
            counts[inspection.verdict] = counts.get(inspection.verdict, 0) + 1
            _print_json(inspection.as_dict()) if as_json else _say(_line(inspection))
            if inspection.reason and not as_json:
                _complain(inspection.reason)
            if page:
                page.add(inspection, picture)
            if names and picture and inspection.heatmap is not None:
                names.write(picture, inspection)
    order = ("OK", "DEFECT", "RETAKE", "ERROR")
    said = ", ".join(f"{counts[verdict]} {verdict}" for verdict in order if verdict in counts)
    print(said + (f"; report: {_one_line(str(page.path))}" if page else ""), file=sys.stderr)
    raise typer.Exit(FAILED if counts.keys() & {"RETAKE", "ERROR"} else DEFECT if "DEFECT" in counts else OK)


@app.command()
def info(
    inspector: Annotated[Path, typer.Argument(help="A saved inspector, NAME.handful.")], as_json: JsonOption = False
) -> None:
    """Say what a saved inspector is and what its threshold rests on."""
    from handful import artifact
    from handful.decision import Calibration

    manifest, fields, _ = artifact.read(inspector)
    calibration = Calibration.from_dict(fields)
    if as_json:
        _print_json({"path": str(inspector), **manifest, "calibration": fields})
        return
    backbone, method = manifest["backbone"], manifest["method"]
    settings = ", ".join(f"{name}={value}" for name, value in method["settings"].items())
    rows = {
        "inspector": f"{inspector}, {inspector.stat().st_size / 1e6:.1f} MB, saved by handful {manifest['handful']}",
        "method": f"{method['name']} ({settings})",
        "backbone": f"{backbone['name']}, levels {', '.join(backbone['levels'])}, weights {backbone['weights']}",
        "digest": f"sha256 {backbone['weights_sha256']} of its weights",
        "input": f"{backbone['size'][0]} x {backbone['size'][1]} pixels, height x width",
        "engine": f"{backbone['engine']}, {backbone['precision']}",
        "references": ", ".join(reference["name"] for reference in manifest["references"]),
        "threshold": f"{calibration.threshold:.4g} (typical good part {calibration.typical:.4g})",
        "rests on": calibration.rests_on,
    }
    for label, value in rows.items():
        _say(f"{label:<11} {value}")


def main() -> None:
    """Run the command line; an error is one sentence on stderr and exit code 2."""
    # Threads that wait should sleep, not spin: beside another busy program spinning slows everything several times.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")  # read when torch is first imported
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name may hold what the terminal cannot show
    try:
        code = app(prog_name="handful", standalone_mode=False)  # else typer exits with 1, DEFECT, for some errors
    except UsageError as error:
        _fail(_usage(error))
    except HandfulError as error:
        _fail("" if isinstance(error.__cause__, BrokenPipeError) else str(error))
    except typer.Abort:
        _fail("interrupted.")
    except OSError as error:
        _fail(
            f"Files must be readable and writable, got: {error.strerror or error} ({error.filename}); check the path."
        )
    except Exception as error:
        _fail(f"this should not have happened: {type(error).__name__}: {error}; run `handful --debug …` and report it.")
    sys.exit(code)


def _fail(sentence: str) -> NoReturn:
    if "--debug" in sys.argv:
        traceback.print_exc()
    if sentence:
        _complain(sentence)
    sys.exit(FAILED)


def _usage(error: Exception) -> str:
    """What typer says of a wrong command line, in one sentence; nothing where it has printed its help instead."""
    said, context = error.format_message(), error.ctx  # type: ignore[attr-defined]
    return f"{said.rstrip('.')}; see `{context.command_path} --help`." if said else ""


def _print_json(value: dict[str, Any]) -> None:
    _say(json.dumps(value))  # plain ASCII: the same whatever stdout's encoding


def _say(line: str) -> None:
    """Print one line of the answer at once: a program may be waiting for it."""
    try:
        print(_one_line(line), flush=True)
    except OSError as error:
        with suppress(OSError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else Python tries once more when it ends
        raise OutputError(f"Standard output must be writable, got: {error.strerror}; send it elsewhere.") from error


def _complain(sentence: str) -> None:
    print(f"handful: {_one_line(sentence)}", file=sys.stderr)


def _one_line(text: str) -> str:
    """The text with control characters spelled out: a file's name may hold line breaks, or commands to the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", lambda found: found[0].encode("unicode_escape").decode(), text)


def _setting(text: str) -> tuple[str, Any]:
    """Split NAME=VALUE; a value that reads as JSON (a number, true, null) is that, else text."""
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingError(f"`--set` must be NAME=VALUE, got {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def _size(text: str) -> int | tuple[int, int]:
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})?", text.lower()):
        raise SettingError(f"`--size` must be one number or HEIGHTxWIDTH, got {text!r}.")
    height, _, width = text.lower().partition("x")
    return (int(height), int(width)) if width else int(height)


def _level(text: str) -> int | str:
    return int(text) if re.fullmatch(r"-?[0-9]{1,9}", text) else text


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
        "references": [reference.name for reference in detector.references],
        "threshold": calibration.threshold,
        "false_alarm_rate": calibration.false_alarm_rate,
        "rests_on": calibration.rests_on,
    }


def _page(folder: Path, inspector: Path, detector: "Detector") -> Any:
    from handful.report import Report

    facts = {
        "Inspector": str(inspector),
        "Method": detector.method.name,
        "Backbone": f"{detector.backbone.name}, weights {detector.backbone.weights}",
        "Threshold": f"{detector.calibration.threshold:.4g}",
        "Rests on": detector.calibration.rests_on,
    }
    return Report(folder, facts, [(reference.name, reference.thumbnail) for reference in detector.references])


class _HeatmapNames:
    """Where each picture's heatmap goes: FOLDER/…/NAME.heatmap.png, subfolders kept, no name used twice."""

    def __init__(self, pictures: Sequence[Path], folder: Path) -> None:
        self.roots = [path for path in pictures if path.is_dir()]
        self.folder = folder
        self.used: set[Path] = set()

    def write(self, picture: "Picture", inspection: "Inspection") -> None:
        from handful.report import write_heatmap

        path = Path(picture.name)
        inside = next((path.relative_to(root) for root in self.roots if path.is_relative_to(root)), Path(path.name))
        if ".." in inside.parts:  # it would lead out of the folder
            inside = Path(path.name)
        file, number = self.folder / f"{inside}.heatmap.png", 1
        while file in self.used:
            number += 1
            file = self.folder / f"{inside}.{number}.heatmap.png"
        self.used.add(file)
        write_heatmap(file, picture, inspection)


@contextmanager
def _progress(items: Sequence[Item]) -> Iterator[Iterable[Item]]:
    """A bar with the time left on stderr, where that is a terminal; lines printed meanwhile stand above it."""
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True)
    quiet = not console.is_terminal or len(items) < 2
    with Progress(console=console, transient=True, disable=quiet, redirect_stdout=sys.stdout.isatty()) as bar:
        yield bar.track(items, description="inspecting")


def _track(items: Sequence[Item], description: str) -> Iterable[Item]:
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, description, console=console, transient=True, disable=not console.is_terminal)
