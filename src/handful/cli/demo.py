"""The verb `demo`: fit, inspect and report on solar cells or on a drawn product."""

import importlib.util
import io
import json
import os
import shutil
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from typing import Annotated, Any

import typer

from handful.cli.fit import fit
from handful.cli.inspect import inspect
from handful.cli.options import JsonOption
from handful.cli.output import command_of, print_json, say, suggest
from handful.errors import OutputError, check_packages, install_command

CELLS = {"good": 60, "defective": 40}  # solar cells; 4 references are drawn from 20 of the good cells
DRAWN = {"references": 4, "good": 12, "defective": 12}
RATE = 0.05  # people look at rejected parts a second time, so five false alarms in a hundred are acceptable


def demo(
    out: Annotated[Path, typer.Option(help="The folder to write, new or empty.", metavar="FOLDER")] = Path(
        "handful-demo"
    ),
    drawn: Annotated[bool, typer.Option("--drawn", help="Take drawn pictures even where real ones are there.")] = False,
    no_open: Annotated[bool, typer.Option("--no-open", help="Do not open the report in a browser.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Teach an inspector from 4 good pictures, inspect others, and open the report.

    The pictures are real ones of solar cells where the package elpv-dataset is installed (`pip install
    "handful[demo]"`), else a product that this command draws. A browser opens where a terminal is attached.
    """
    check_packages("`handful demo`", "fit")  # before anything is written
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        came = "a folder that is not empty" if out.is_dir() else "a file"
        raise OutputError(f"{out} must be new, or an empty folder, got {came}; choose another with --out FOLDER.")
    cells = None if drawn else _cells()
    said = _lay_out_cells(cells, out) if cells else _draw(out)
    if not as_json:
        say(said)
    taught = _called(as_json, fit, [out / "good"], output=out / "part.handful", rate=RATE, as_json=as_json)
    answers = _called(
        as_json, inspect, out / "part.handful", [out / "incoming"], report=out / "report", rate=None, as_json=True
    )
    *inspections, _ = (json.loads(line) for line in answers.splitlines())  # the last line counts the verdicts
    facts = _found(inspections)
    page = out / "report" / "index.html"
    if as_json:
        facts |= {"pictures": "drawn" if cells is None else "solar cells", "fit": json.loads(taught)}
        print_json({"report": str(page), **facts})
    else:
        _say_answers(inspections, facts, out)
    if not no_open and sys.stdout.isatty() and _has_screen():
        import webbrowser

        webbrowser.open(page.resolve().as_uri())


def _cells() -> Path | None:
    """The folder of elpv-dataset's pictures; None if the package is not installed."""
    found = importlib.util.find_spec("elpv_dataset")
    return Path(found.submodule_search_locations[0], "data") if found and found.submodule_search_locations else None


def _lay_out_cells(source: Path, out: Path) -> str:
    """Copy solar cells that experts are sure about, good and defective; returns a phrase about the pictures."""
    import csv

    from handful.data.shots import draw

    with (source / "labels.csv").open(encoding="utf-8") as file:
        rows = [row for row in csv.reader(file, delimiter=" ", skipinitialspace=True) if row]
    cells = {  # the experts' probability of a defect → file names
        probability: sorted(row[0] for row in rows if row[-1] == "mono" and float(row[1]) == probability)
        for probability in (0.0, 1.0)
    }
    good = draw(cells[0.0], shots=CELLS["good"], seed=0)
    drawn = {
        "good": draw(sorted(good[:20]), shots=4, seed=0),
        "incoming/good": good[20:],
        "incoming/defective": draw(cells[1.0], shots=CELLS["defective"], seed=0),
    }
    for place, names in drawn.items():
        (out / place).mkdir(parents=True)
        for name in names:
            shutil.copy(source / name, out / place)
    return (
        f"{len(drawn['good'])} good solar cells to learn from, {len(drawn['incoming/good'])} good and "
        f"{len(drawn['incoming/defective'])} defective ones to inspect: electroluminescence pictures of elpv-dataset "
        f"(Buerhop-Lutz et al., 2018, CC BY-NC-SA 4.0)"
    )


def _draw(out: Path) -> str:
    """Draw pictures of a product; returns a phrase about the pictures."""
    from handful.data import drawn
    from handful.data.progress import bar
    from handful.data.writing import write_png

    count = DRAWN["references"]
    named: list[tuple[str, int, str | None]] = [(f"good/{number:03d}.png", number, None) for number in range(count)]
    others = drawn.parts(DRAWN["good"], DRAWN["defective"], seed=count)
    named += [(f"incoming/{name}", seed, kind) for name, seed, kind in others]
    for name, seed, kind in bar(named, "drawing"):
        write_png(out / name, drawn.part(seed, kind))
    return (
        f"{count} good parts to learn from, {DRAWN['good']} good and {DRAWN['defective']} defective ones to inspect: "
        f"drawn by this program, so the verdicts say nothing about real parts; {install_command('demo')} brings real "
        "ones"
    )


def _called(quiet: bool, verb: Any, *arguments: Any, rate: float | None, **options: Any) -> str:
    """Show a verb's command line, call it, and return the text that it printed."""
    given = {**options, **({} if rate is None else {"rate": rate})}
    if not quiet:
        flags = [(f"--{name}", str(value)) for name, value in given.items() if name != "as_json"]
        paths = [str(path) for one in arguments for path in (one if isinstance(one, list) else [one])]
        say(f"$ {command_of(verb.__name__, *paths, *(word for flag in flags for word in flag))}")
    printed = io.StringIO()
    with redirect_stdout(printed), suppress(typer.Exit):  # the exit code only repeats whether a defect was found
        verb(*arguments, **given)
    if not (quiet or options["as_json"]):
        for line in printed.getvalue().splitlines():
            say(line)
    return printed.getvalue()


def _found(inspections: list[dict[str, Any]]) -> dict[str, Any]:
    """The numbers of defective and of good pictures, the numbers rejected of both, and the image AUROC in percent."""
    truth = [Path(one["path"]).parent.name == "defective" for one in inspections]
    rejected = [one["verdict"] == "DEFECT" for one in inspections]
    scores = [(one["score"], bad) for one, bad in zip(inspections, truth, strict=True)]
    # `handful.metrics` needs scikit-learn, which the demo does not require.
    pairs = [(bad > good) + 0.5 * (bad == good) for bad, b in scores if b for good, g in scores if not g]
    return {
        "defective": sum(truth),
        "defective_rejected": sum(bad and out for bad, out in zip(truth, rejected, strict=True)),
        "good": len(truth) - sum(truth),
        "good_rejected": sum(out and not bad for bad, out in zip(truth, rejected, strict=True)),
        "image_auroc": 100 * sum(pairs) / len(pairs),
    }


def _say_answers(inspections: list[dict[str, Any]], facts: dict[str, Any], out: Path) -> None:
    for one in inspections:
        path = Path(one["path"])
        say(f"{one['verdict']:<6} {one['score']:6.2f}  {path.parent.name}/{path.name}")
    say(
        f"{facts['defective_rejected']} of {facts['defective']} defective parts rejected, "
        f"{facts['good_rejected']} of {facts['good']} good ones; image AUROC {facts['image_auroc']:.1f} %"
    )
    say(f"report: {out / 'report' / 'index.html'}")
    suggest(f"your own part: {command_of('fit', 'GOOD_PICTURES', '-o', 'part.handful')}")


def _has_screen() -> bool:
    """Whether a browser would open a window; without a screen a browser might take over the terminal."""
    return os.name == "nt" or sys.platform == "darwin" or any(os.environ.get(n) for n in ("DISPLAY", "WAYLAND_DISPLAY"))
