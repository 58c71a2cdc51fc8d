"""The verbs that train: `handful train reb` and its like."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.options import BackboneOption, DeviceOption, JsonOption, WeightsOption
from handful.cli.output import print_json, say
from handful.errors import OutputError, SettingError

if TYPE_CHECKING:
    from handful.training import Progress, Training

SAY_EVERY = 10  # seconds between two words on the progress, where there is no terminal to show a bar

app = typer.Typer(no_args_is_help=True, help="Train a backbone, slowly, for `fit --weights` to use.")


# The trainings in TUNINGS (importing them takes seconds), and what their help says.
VERBS = {
    "reb": "Train a backbone on good pictures to tell them from synthetic defects (REB).",
    "coft": "Train a backbone on good pictures to see them alike, for `fit --method coft` (COFT-AD).",
}
RESUMED = "Interrupted, it goes on where it was when called again: NAME.safetensors.checkpoint holds how far it came."


def train(
    context: typer.Context,
    good: Annotated[list[Path], typer.Argument(help="1 to 8 pictures of good parts, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the weights, NAME.safetensors.")],
    set_: Annotated[
        list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the training.")
    ] = None,
    full: Annotated[
        bool, typer.Option("--full", help="The authors' own schedule, where it is known: hours on a CPU.")
    ] = False,
    backbone: BackboneOption = "tf_efficientnet_lite0",
    weights: WeightsOption = "auto",
    shots: Annotated[int | None, typer.Option(help="Draw this many of the pictures instead of using all.")] = None,
    seed: Annotated[int, typer.Option(help="Of the draw and the training.")] = 0,
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train by the tuning that the command is named after."""
    begin = time.perf_counter()
    if not output.parent.is_dir():
        raise OutputError(f"The folder of the weights must exist, got {output.parent}; create it first.")
    from handful.data.images import gather
    from handful.data.shots import draw
    from handful.methods import TUNINGS, create_tuning, parse_setting
    from handful.training import Training

    name = context.command.name or ""
    if full and not TUNINGS[name].authors:
        raise SettingError(f"`--full` must be given to a training whose authors' schedule is known, got {name}.")
    settings = dict(TUNINGS[name].authors) if full else {}
    settings |= dict(parse_setting(text) for text in set_ or ())
    references = [source for source, _ in gather(good, recursive=False)]
    if shots is not None:
        references = draw(references, shots=shots, seed=seed)
    training = Training(
        create_tuning(name, settings),
        references,
        backbone=backbone,
        weights=weights,
        seed=seed,
        device=device,  # type: ignore[arg-type]  # checked, with a sentence, where it is used
        checkpoint=output.with_name(f"{output.name}.checkpoint"),
    )
    last = None
    for last in _shown(training):  # noqa: B007 - the last one is spoken of below
        pass
    training.save(output)
    seconds = time.perf_counter() - begin
    loss = None if last is None else last.loss
    if as_json:
        print_json({"path": str(output), "seconds": seconds, "loss": loss, "settings": training.tuning.settings})
    else:
        said = "" if loss is None else f", loss {loss:.3f}"
        say(f"{output}: {backbone} trained by {name} on {len(references)} good pictures, {seconds:.0f} s{said}")


for _name, _help in VERBS.items():
    app.command(_name, help=f"{_help}\n\n{RESUMED}")(train)


def _shown(training: "Training") -> "Iterator[Progress]":
    """Run a training, telling on stderr its loss and how long it may take."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said = time.monotonic()
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=training.tuning.updates)
        for progress in training.run():
            bar.update(task, completed=progress.number, description=f"loss {progress.loss:.3f}")
            yield progress
            if not console.is_terminal and time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                print(
                    f"update {progress.number} of {progress.updates}, loss {progress.loss:.3f}, about "
                    f"{progress.seconds_left:.0f} s left",
                    file=sys.stderr,
                    flush=True,
                )
