"""Options that several verbs share, the parsing of their values, and completion in shells."""

import pkgutil
import re
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer
from typer.core import TyperCommand

from handful.errors import HandfulError, SettingError

if TYPE_CHECKING:
    from handful.backbones.base import Backbone
    from handful.types import Dataset


def among(*names: str) -> Callable[[str], list[str]]:
    """A function that completes the beginning of a word to the names given, in a shell."""
    return lambda incomplete: [name for name in names if name.startswith(incomplete)]


JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of words.")]
EngineOption = Annotated[
    str | None, typer.Option(help="auto, openvino or torch.", autocompletion=among("auto", "openvino", "torch"))
]
DeviceOption = Annotated[
    str,
    typer.Option(help="auto, cpu or cuda, for the torch engine.", autocompletion=among("auto", "cpu", "cuda")),
]
BackboneOption = Annotated[str, typer.Option(help="Any timm name, or clip:MODEL with a name of open_clip's.")]
LevelsOption = Annotated[
    str | None,
    typer.Option(
        help="Modules or indices, with commas; default: strides 8 and 16. Of clip: numbers of blocks from 1, tokens, "
        "patches, windows2, windows3, …; default: winclip's."
    ),
]
WeightsOption = Annotated[str, typer.Option(help="auto (on board, else from the hub), random, or a file.")]
SizeOption = Annotated[
    str | None,
    typer.Option(
        help="Model input in pixels: N, about N² of them at the references' aspect, or WIDTHxHEIGHT exactly; fit also "
        "takes auto, as many as the references show; default: 320, of clip: the model's own.",
        metavar="SIZE",
    ),
]
SqueezeOption = Annotated[
    bool, typer.Option("--squeeze", help="Resize every picture to --size (N x N) whatever its aspect, as papers do.")
]
PrecisionOption = Annotated[
    str,
    typer.Option(help="f32, or bf16 with openvino on a CPU that has it.", autocompletion=among("f32", "bf16")),
]
HeadOption = Annotated[
    Path | None,
    typer.Option(
        help="A trained head, for resad or fasl; default: the shipped head or the file beside the inspector, "
        "whichever the inspector was fitted with."
    ),
]
NewFolderOption = Annotated[
    Path, typer.Option("--output", "-o", help="The folder to write, new or empty.", metavar="FOLDER")
]
GateOption = Annotated[
    str, typer.Option(help="What a picture must pass to be judged: all, none, or blank,exposure,blur,shift,product.")
]
MaxPixelsOption = Annotated[
    int | None,
    typer.Option(
        metavar="N", help="Refuse pictures of more pixels before decoding; default: 50 million, or as fitted."
    ),
]
DEFAULT_RATE = 0.03  # equals `DEFAULT_RATE` of handful.inspection.threshold, which imports NumPy; a test compares both
RateOption = Annotated[float, typer.Option(help="Share of good parts that may be rejected.")]


def method_names() -> list[str]:
    """The names of the methods, taken from the names of their files, because importing the methods takes seconds."""
    files = pkgutil.iter_modules([str(Path(__file__).parents[1] / "methods")])
    return sorted(file.name for file in files if not file.name.startswith("base"))


def complete_method(incomplete: str) -> list[str]:
    """Complete the beginning of a word to the names of methods, in a shell."""
    return among(*method_names())(incomplete)


def complete_category(context: typer.Context, incomplete: str) -> list[str]:
    """Complete the beginning of a word to the categories of the data sets of an earlier `--data`, in a shell."""
    said = "\0".join(context.params.get("data") or ()).replace("\0:\0", ":")  # bash takes words apart at each colon
    with suppress(HandfulError, OSError):
        found = open_datasets(said.split("\0"), None, context.params.get("layout") or "auto")
        return among(*sorted({category.name for dataset in found.values() for category in dataset.categories}))(
            incomplete
        )
    return []


CategoriesOption = Annotated[
    list[str] | None,
    typer.Option(help="Only these, by name; default: all.", autocompletion=complete_category),
]


class ManyValues(TyperCommand):
    """A command whose repeatable options also take several values at once: `--shots 1 2 4`."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Put the option's name before each further value."""
        repeatable = {name for option in self.params if getattr(option, "multiple", False) for name in option.opts}
        spread: list[str] = []
        current = None
        for argument in args:
            if argument.startswith("-"):
                current = argument if argument in repeatable else None
                spread.append(argument)
            else:
                spread += [current, argument] if current and spread[-1] != current else [argument]
        return super().parse_args(ctx, spread)


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """The value of `--size`: N, or (H, W) for WIDTHxHEIGHT; None if `--size` was left out.

    Raises:
        SettingError: if the value has another form.
    """
    if text is None:
        return None
    if text.lower() == "auto":
        raise SettingError(
            "`--size` must be one number or WIDTHxHEIGHT here, got 'auto', which `fit` alone takes; name the size that "
            "`fit --size auto` chose."
        )
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})?", text.lower()):
        raise SettingError(f"`--size` must be one number or WIDTHxHEIGHT, got {text!r}.")
    width, _, height = text.lower().partition("x")
    return (int(height), int(width)) if height else int(width)


def parse_fit_size(text: str | None) -> int | tuple[int, int] | Literal["auto"] | None:
    """The value of `fit --size`: "auto", or else the value of `parse_size`."""
    return "auto" if text is not None and text.lower() == "auto" else parse_size(text)


def parse_levels(text: str | None) -> list[str | int] | None:
    """The value of `--levels`; None if `--levels` was left out."""
    if text is None:
        return None
    return [int(level) if re.fullmatch(r"-?[0-9]{1,9}", level) else level for level in text.split(",")]


def create_backbone(
    name: str,
    *,
    levels: str | None,
    size: str | None,
    weights: str,
    engine: str | None,
    device: str,
    precision: str = "f32",
) -> "Backbone":
    """Create the backbone that the options ask for.

    Raises:
        SettingError, WeightsError: see `handful.backbones.create`.
    """
    from handful import backbones

    return backbones.create(
        name,
        levels=parse_levels(levels),
        size=parse_size(size),
        weights=weights,
        engine=engine,  # type: ignore[arg-type]  # checked, with a sentence, where they are used
        precision=precision,  # type: ignore[arg-type]
        device=device,  # type: ignore[arg-type]
    )


def parse_gate(text: str) -> list[str]:
    """The value of `--gate` in the form for `handful.detector.Detector`."""
    from handful.inspection.gate import CHECKS

    return {"all": list(CHECKS), "none": []}.get(text, text.split(","))


def open_datasets(data: Sequence[str], categories: Sequence[str] | None, layout: str) -> "dict[str, Dataset]":
    """Open the data sets of `--data NAME:FOLDER`, by name, with the categories wanted.

    Raises:
        SettingError: if a value of `--data` has another form, a name comes twice, or no data set has a category.
        InputError: see `handful.data.layouts.registry.open_dataset`.
    """
    from handful.data.layouts.registry import open_dataset

    datasets = {}
    for text in data:
        name, colon, folder = text.partition(":")
        if not colon or not folder or not re.fullmatch(r"[\w.-]+", name):
            raise SettingError(f"`--data` must be NAME:FOLDER, the name of letters, digits and _.-, got {text!r}.")
        if name in datasets:
            raise SettingError(f"The names of `--data` must differ, got {name} twice.")
        datasets[name] = open_dataset(Path(folder), layout=layout)
    if not categories:
        return datasets
    check_categories(datasets, categories)
    chosen = {name: tuple(c for c in dataset.categories if c.name in categories) for name, dataset in datasets.items()}
    return {name: replace(datasets[name], categories=kept) for name, kept in chosen.items() if kept}


def check_categories(datasets: "Mapping[str, Dataset]", categories: Sequence[str]) -> None:
    """Raise SettingError for a category that no data set has."""
    known = {category.name for dataset in datasets.values() for category in dataset.categories}
    for wanted in categories:
        if wanted not in known:
            raise SettingError(f"`--categories` must be among {', '.join(sorted(known))}, got {wanted!r}.")
