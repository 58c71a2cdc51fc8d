"""Options that several verbs share."""

import re
from typing import Annotated

import typer

from handful.errors import SettingError

JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON, one object a line, instead of words.")]
EngineOption = Annotated[str | None, typer.Option(help="auto, openvino or torch.")]
DeviceOption = Annotated[str, typer.Option(help="auto, cpu or cuda, for the torch engine.")]
BackboneOption = Annotated[str, typer.Option(help="Any timm name.")]
LevelsOption = Annotated[str | None, typer.Option(help="Modules or indices, with commas; default: strides 8 and 16.")]
WeightsOption = Annotated[str, typer.Option(help="auto (on board, else timm's hub), random, or a file.")]
SizeOption = Annotated[
    str | None, typer.Option(help="Model input: 320, or HEIGHTxWIDTH; default: 320.", metavar="SIZE")
]
PrecisionOption = Annotated[str, typer.Option(help="f32, or bf16 with openvino on a CPU that has it.")]
RateOption = Annotated[float, typer.Option(help="Share of good parts that may be rejected.")]


def parse_size(text: str | None) -> int | tuple[int, int] | None:
    """What `--size` says; None where it was left out.

    Raises:
        SettingError: if it has another form.
    """
    if text is None:
        return None
    if not re.fullmatch(r"[0-9]{1,9}(x[0-9]{1,9})?", text.lower()):
        raise SettingError(f"`--size` must be one number or HEIGHTxWIDTH, got {text!r}.")
    height, _, width = text.lower().partition("x")
    return (int(height), int(width)) if width else int(height)


def parse_levels(text: str | None) -> list[str | int] | None:
    """What `--levels` says; None where it was left out."""
    if text is None:
        return None
    return [int(level) if re.fullmatch(r"-?[0-9]{1,9}", level) else level for level in text.split(",")]
