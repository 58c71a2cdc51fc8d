"""The verbs `train reb` and `train coft`, which train a backbone, and `train resad` and `train fasl`, for heads."""

import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from handful.cli.options import (
    BackboneOption,
    CategoriesOption,
    DeviceOption,
    EngineOption,
    JsonOption,
    LevelsOption,
    ManyValues,
    SizeOption,
    WeightsOption,
    create_backbone,
    open_datasets,
)
from handful.cli.output import pictures_of, print_json, say
from handful.data.progress import bar
from handful.errors import SettingError, needing, number_of
from handful.files import check_place

if TYPE_CHECKING:
    from handful.training.backbone import Progress

SetOption = Annotated[list[str] | None, typer.Option("--set", metavar="NAME=VALUE", help="A setting of the training.")]
SAY_EVERY = 10  # seconds between two lines on the progress, where no terminal can show a bar

ABOUT = "Train, slowly: a backbone for `fit --weights`, or a head for `fit --head`."

app = typer.Typer(no_args_is_help=True, help=ABOUT)

# The names of the trainings in TUNINGS and HEAD_TRAININGS, whose import takes seconds, and their help texts.
VERBS = {
    "reb": "Train a backbone on good pictures to tell them from synthetic defects (REB).",
    "coft": "Train a backbone on good pictures to see them alike, for `fit --method coft` (COFT-AD).",
}
HEAD_VERBS = {
    "resad": "Train a head on labelled pictures of other products, for `fit --method resad` (ResAD).",
    "fasl": "Train a head on labelled pictures of other products, for `fit --method fasl` (FASL).",
}
RESUMED = "Interrupted, it goes on where it was when called again: NAME.safetensors.checkpoint holds how far it came."


def train(
    context: typer.Context,
    good: Annotated[list[Path], typer.Argument(help="1 to 8 pictures of good parts, or a folder of them.")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the weights, NAME.safetensors.")],
    set_: SetOption = None,
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
    check_place(output, "weights")
    name = context.command.name or ""
    with needing(f"`handful train {name}`", "train"):
        from handful.data.shots import draw
        from handful.methods import TUNINGS, create_tuning, parse_setting
        from handful.training.backbone import BackboneTrainer

    if full and not TUNINGS[name].authors:
        raise SettingError(f"`--full` must be given to a training whose authors' schedule is known, got {name}.")
    settings = dict(TUNINGS[name].authors) if full else {}
    settings |= dict(parse_setting(text) for text in set_ or ())
    references = [source for source, _ in pictures_of(good, recursive=False).sources]
    if shots is not None:
        references = draw(references, shots=shots, seed=seed)
    training = BackboneTrainer(
        create_tuning(name, settings),
        references,
        backbone=backbone,
        weights=weights,
        seed=seed,
        device=device,  # type: ignore[arg-type]  # checked, with a sentence, where it is used
        checkpoint=output.with_name(f"{output.name}.checkpoint"),
    )
    loss = None
    for progress in shown(training.run(), training.tuning.updates):
        loss = progress.loss
    training.save(output)
    seconds = time.perf_counter() - begin
    if as_json:
        print_json({"path": str(output), "seconds": seconds, "loss": loss, "settings": training.tuning.settings})
    else:
        said = "" if loss is None else f", loss {loss:.3f}"
        pictures = number_of(len(references), "good picture")
        say(f"{output}: {backbone} trained by {name} on {pictures}, {seconds:.0f} s{said}")


def train_head(
    context: typer.Context,
    data: Annotated[list[str], typer.Option(help="NAME:FOLDER of a labelled data set.", metavar="NAME:FOLDER")],
    output: Annotated[Path, typer.Option("--output", "-o", help="Where to save the head, NAME.safetensors.")],
    categories: CategoriesOption = None,
    layout: Annotated[str, typer.Option(help="How the data sets are laid out; default: found out.")] = "auto",
    set_: SetOption = None,
    full: Annotated[bool, typer.Option("--full", help="The authors' own schedule: days on a CPU.")] = False,
    backbone: BackboneOption = "tf_efficientnet_lite0",
    levels: LevelsOption = None,
    weights: WeightsOption = "auto",
    size: SizeOption = None,
    seed: Annotated[int, typer.Option(help="Of all that is random.")] = 0,
    engine: EngineOption = "auto",
    device: DeviceOption = "auto",
    as_json: JsonOption = False,
) -> None:
    """Train the head of the method that the command is named after."""
    begin = time.perf_counter()
    check_place(output, "head")
    name = context.command.name or ""
    with needing(f"`handful train {name}`", "train"):
        from handful.methods import HEAD_TRAININGS, create_head_training, parse_setting
        from handful.training.head import HeadTrainer

    settings = dict(HEAD_TRAININGS[name].authors) if full else {}
    settings |= dict(parse_setting(text) for text in set_ or ())
    training = create_head_training(name, settings)
    datasets = open_datasets(data, categories, layout)  # fails before a backbone is loaded, which takes seconds
    network = create_backbone(backbone, levels=levels, size=size, weights=weights, engine=engine, device=device)
    checkpoint = output.with_name(f"{output.name}.checkpoint")
    auxiliary = HeadTrainer(training, datasets, network, seed=seed, checkpoint=checkpoint, track=bar)
    for _ in shown(auxiliary.run(), training.updates):
        pass
    auxiliary.save(output)
    seconds, validation = time.perf_counter() - begin, auxiliary.validation
    if as_json:
        facts = {"held_out": auxiliary.held_out, "validation": validation, "settings": training.settings}
        print_json({"path": str(output), "seconds": seconds, **facts})
    else:
        best = max(validation, key=lambda number: validation[number])
        chosen = f"chosen after {best} of {training.updates} updates by image AUROC {validation[best]:.1f}"
        say(f"{output}: a head of {name} on {backbone}, {seconds:.0f} s; {chosen} on {', '.join(auxiliary.held_out)}")


for _name, _help in VERBS.items():
    app.command(_name, help=f"{_help}\n\n{RESUMED}")(train)
for _name, _help in HEAD_VERBS.items():
    app.command(_name, help=f"{_help}\n\n{RESUMED}", cls=ManyValues)(train_head)


def shown(steps: "Iterator[Progress]", updates: int) -> "Iterator[Progress]":
    """Pass a training's steps on; show the loss and the time left on stderr."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    said = time.monotonic()
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("training", total=updates)
        for progress in steps:
            bar.update(task, completed=progress.number, description=f"loss {progress.loss:.3f}")
            yield progress
            if not console.is_terminal and time.monotonic() - said > SAY_EVERY:
                said = time.monotonic()
                done = f"update {progress.number} of {progress.updates}, loss {progress.loss:.3f}"
                print(f"{done}, about {progress.seconds_left:.0f} s left", file=sys.stderr, flush=True)
