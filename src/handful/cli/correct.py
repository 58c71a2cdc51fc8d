"""The verbs `threshold` and `teach`, with which a person corrects a saved inspector."""

import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from handful.cli.options import DeviceOption, HeadOption, JsonOption
from handful.cli.output import complain, pictures_of, print_json, say
from handful.errors import SettingError, needing, number_of

if TYPE_CHECKING:
    from handful.detector import Detector
    from handful.fitting.revisions import Basis, Correction, History, Revision
    from handful.inspection.threshold import Calibration
    from handful.saved.recalibration import SavedCalibration

InspectorArgument = Annotated[Path, typer.Argument(help="A saved inspector, NAME.handful.")]


def threshold(
    inspector: InspectorArgument,
    normals: Annotated[
        list[Path] | None, typer.Option(help="Further good pictures, or folders of them: all that came by.")
    ] = None,
    rate: Annotated[float | None, typer.Option(help="Share of good parts that may be rejected.")] = None,
    set_: Annotated[float | None, typer.Option("--set", metavar="VALUE", help="A raw threshold by hand.")] = None,
    accept_odd: Annotated[
        bool, typer.Option("--accept-odd", help="Let pictures count whose scores are unlike those of good ones.")
    ] = False,
    device: DeviceOption = "auto",
    head: HeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show the threshold and what it rests on; sharpen it with further good pictures, or set it anew.

    Further good pictures are scored by the inspector as it is, and not learnt: `teach --good` does that.
    """
    if set_ is not None and (normals or rate is not None):
        raise SettingError("`--set` must stand alone, got it with --normals or --rate; choose one way.")
    if not normals and rate is None and set_ is None:
        _show(inspector, as_json)
        return
    if not normals and (saved := _without_torch(inspector)):
        made = _set(saved, rate, set_)
        saved.save()
        _say_made(inspector, made, as_json)
        return
    subject = "`handful threshold --normals`" if normals else "To score recorded defects anew `handful threshold`"
    detector = _load(inspector, device, head, subject=subject)
    made = [detector.add_normals(_listed(normals), accept_odd=accept_odd, progress=True)] if normals else []
    _save(detector, inspector, made + _set(detector, rate, set_), as_json)


def teach(
    inspector: InspectorArgument,
    good: Annotated[
        list[Path] | None, typer.Option(help="False alarms: pictures, or folders of them, to learn as good.")
    ] = None,
    ignore: Annotated[
        Path | None, typer.Option(metavar="MASK", help="A picture, white where the frame never counts.")
    ] = None,
    defect: Annotated[list[Path] | None, typer.Option(help="Missed defects, to lower the threshold for.")] = None,
    accept_cost: Annotated[
        bool, typer.Option("--accept-cost", help="Lower it at the cost that is named without this.")
    ] = False,
    accept_odd: Annotated[
        bool,
        typer.Option(
            "--accept-odd", help="Learn a picture that is far from good, or ignore more than half of the frame."
        ),
    ] = False,
    undo: Annotated[int | None, typer.Option(metavar="REVISION", help="Take a revision back.")] = None,
    log: Annotated[bool, typer.Option("--log", help="Show all revisions.")] = False,
    device: DeviceOption = "auto",
    head: HeadOption = None,
    as_json: JsonOption = False,
) -> None:
    """Correct an inspector: a false alarm, a region that does not count, a missed defect. Every step can be undone."""
    ways: list[Callable[[Detector], Correction]] = []
    if good:
        ways.append(lambda detector: detector.teach_good(_listed(good), accept_odd=accept_odd))
    if ignore is not None:
        ways.append(lambda detector: detector.ignore(ignore, accept_odd=accept_odd))
    if defect:
        ways.append(lambda detector: detector.teach_defect(_listed(defect), accept_cost=accept_cost))
    if undo is not None:
        ways.append(lambda detector: detector.undo(undo))
    if len(ways) + log != 1:
        got = f"{len(ways) + log}; do one after the other" if ways or log else "none; see `handful teach --help`"
        raise SettingError(f"`teach` must be told one of --good, --ignore, --defect, --undo and --log, got {got}.")
    if log:
        _log(inspector, as_json)
        return
    detector = _load(inspector, device, head, subject="`handful teach`")
    begin = time.perf_counter()
    made = ways[0](detector)
    _save(detector, inspector, [made], as_json, seconds=lambda: time.perf_counter() - begin)


def _listed(paths: list[Path]) -> list[Any]:
    """The pictures at paths and in folders; other files in the folders are named on stderr."""
    return [source for source, _ in pictures_of(paths, recursive=False).sources]


def _read(inspector: Path) -> "tuple[Calibration, History]":
    from handful.inspection.threshold import Calibration
    from handful.saved import archive
    from handful.saved.history import history_of

    _, fields, entries = archive.read(inspector)
    return Calibration.from_dict(fields), history_of(entries)


def basis_rows(basis: "Basis") -> dict[str, str]:
    """The threshold, its basis and its false-alarm rate, by label, for people."""
    from handful.inspection.threshold import of_parts

    asked = f"for {of_parts(basis.false_alarm_rate)}"
    predict = f"{number_of(basis.pictures, 'good picture')} predict{'s' if basis.pictures == 1 else ''}"
    return {
        "threshold": f"{basis.raw_threshold:.4g} (typical good part {basis.typical:.4g})",
        "rejects": f"{of_parts(basis.predicted_rate)} good parts, as {predict}",
        "range": f"{basis.low:.4g} to {basis.high:.4g}: where the threshold {asked} lies, nine times in ten",
        "rests on": basis.rests_on,
    }


def _show(inspector: Path, as_json: bool) -> None:
    calibration, history = _read(inspector)
    basis = history.basis(calibration)
    edited = calibration.as_dict() != history.written
    if as_json:
        print_json({"path": str(inspector), **asdict(basis), "edited": edited})
        return
    rows = basis_rows(basis) | ({"edited": "by a person, in calibration.json"} if edited else {})
    for label, value in rows.items():
        say(f"{label:<11} {value}")


def _log(inspector: Path, as_json: bool) -> None:
    _, history = _read(inspector)
    for revision in history.revisions:
        standing = revision.number not in history.undone
        if as_json:
            print_json({**asdict(revision), "undone": not standing})
        else:
            say(f"{_line(revision)}{'' if standing else ' (undone)'}")
    if not history.revisions:
        print("no revisions", file=sys.stderr)


def _line(revision: "Revision") -> str:
    effect = f"threshold {revision.before:.4g}"
    if revision.after != revision.before:
        effect += f" → {revision.after:.4g}"
    return f"{revision.number:>3}  {revision.date}  {revision.words}; {effect}"


def _set(detector: "Detector | SavedCalibration", rate: float | None, by_hand: float | None) -> "list[Correction]":
    """Set the threshold for a false-alarm rate, or by hand; returns the corrections made."""
    made = [] if rate is None else [detector.set_rate(rate)]
    return made if by_hand is None else [*made, detector.set_threshold(by_hand)]


def _without_torch(inspector: Path) -> "SavedCalibration | None":
    """The calibration of an inspector, for work without torch; None if the scores of recorded defects have changed."""
    from handful.saved.recalibration import SavedCalibration

    saved = SavedCalibration(inspector)
    return saved if saved.history.scores_stand else None


def _load(inspector: Path, device: str, head: Path | None, *, subject: str) -> "Detector":
    with needing(subject, "fit"):
        from handful.detector import Detector

    return Detector.load(inspector, device=device, head=head)  # type: ignore[arg-type]  # checked where it is used


def _save(
    detector: "Detector",
    inspector: Path,
    made: "list[Correction]",
    as_json: bool,
    *,
    seconds: Callable[[], float] | None = None,
) -> None:
    """Save the corrected inspector in its place and print the changes; then add a missing graph, which takes longer."""
    detector.save(inspector, graph=False)
    _say_made(inspector, made, as_json, took=f", {seconds():.2f} s" if seconds else "")
    if not detector.has_graph:
        detector.save(inspector)  # takes seconds, during which the correction is already on the disk


def _say_made(inspector: Path, made: "list[Correction]", as_json: bool, *, took: str = "") -> None:
    """Print the changes that corrections have made; `took` is the time of the last correction, in words."""
    for number, correction in enumerate(made):
        if as_json:
            print_json({"path": str(inspector), **correction.as_dict()})
            continue
        say(f"{inspector}: revision {correction.revision.number}, {correction.revision.words}{took}")
        _say_scores(correction)
        if correction.ignored is not None and correction.revision.kind in ("ignore", "undo"):
            say(f"ignored now   {100 * correction.ignored:.1f} % of the frame")
        for sentence in correction.warnings:
            complain(sentence)
        if number == len(made) - 1:
            _say_change(made[0].before, correction.after)


def _say_scores(correction: "Correction") -> None:
    """Print the changed scores of the pictures of a correction, before and after."""
    for picture, (before, after) in zip(correction.revision.pictures, correction.scores, strict=False):
        if before != after and correction.revision.kind != "normals":
            say(f"score {before:.2f} → {after:.2f}  {picture.name}")


def _say_change(before: "Basis", after: "Basis") -> None:
    """Print the threshold before and after."""
    if before == after:
        say(f"threshold {after.raw_threshold:.4g}, as before")
        return
    old, new = basis_rows(before), basis_rows(after)
    for label in new:
        said = new[label]
        if label in ("threshold", "rejects", "range") and old[label] != said:
            said = f"{old[label].partition(' (')[0].partition(' good parts')[0].partition(':')[0]} → {said}"
        say(f"{label:<11} {said}")
