"""Writes docs/cli.md, all verbs with their arguments, flags and defaults, out of the program itself."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer

from handful.cli.main import app

PAGE = Path(__file__).resolve().parent.parent / "docs" / "cli.md"
HEAD = """\
# The command line

Every verb with its arguments, flags and defaults. `python3 scripts/cli-reference` writes this page out of the program,
and a test tells where the two differ. Results go to stdout, everything else to stderr. What ends with … may be given
several times: `--set A=1 --set B=2`.

**Completion.** `handful --install-completion`, once, lets your shell (bash, zsh, fish or PowerShell) complete verbs,
flags, the names of methods and engines, and after `--data NAME:FOLDER` the names of categories; open a new terminal
then. `handful --show-completion` prints the script instead.
"""


def page() -> str:
    """The whole page."""
    program = typer.main.get_command(app)
    return "\n".join([HEAD, *_lines(program, "handful")])


def _lines(command: Any, path: str) -> Iterator[str]:
    """A command's part of the page, and those of the commands below it."""
    below = getattr(command, "commands", {})
    arguments = [one for one in command.params if one.param_type_name == "argument"]
    options = [one for one in command.params if one.param_type_name == "option" and not one.hidden]
    yield f"## {path}\n"
    words = [path, *(_shown(one) for one in arguments)]
    words += [f"{one.opts[-1]} {_shown(one)}" for one in options if one.required]
    words += ["[OPTIONS]"] * any(not one.required for one in options) + ["COMMAND"] * bool(below)
    yield f"    {' '.join(words)}\n"
    yield f"{_cell(command.help or '', paragraphs=True)}\n"
    if command.params:
        yield "| | what it is | default |\n|---|---|---|"
        for one in arguments:
            yield f"| `{_shown(one)}` | {_cell(one.help or '')} | {_default(one)} |"
        for one in options:
            names = ", ".join(f"`{name}`" for name in (*one.opts, *one.secondary_opts))
            value = "" if one.is_flag else f" `{_shown(one)}`"
            yield f"| {names}{value} | {_cell(one.help or '')} | {_default(one)} |"
        yield ""
    for name, other in below.items():
        yield from _lines(other, f"{path} {name}")


def _shown(parameter: Any) -> str:
    """What stands for a parameter's value."""
    shown = parameter.metavar or parameter.name.strip("_").upper()
    if parameter.nargs == -1 or getattr(parameter, "multiple", False):
        shown = f"{shown}…"
    return shown if parameter.required or parameter.param_type_name == "option" else f"[{shown}]"


def _default(parameter: Any) -> str:
    """The default as a person would type it; empty where there is none, or the flag is off."""
    value = parameter.default
    if parameter.required or value is None or value is False or callable(value) or value == []:
        return "required" if parameter.required else ""
    if value is True:
        return "on"
    values = value if isinstance(value, list | tuple) else [value]
    return f"`{' '.join(str(one) for one in values)}`" if values else ""


def _cell(text: str, *, paragraphs: bool = False) -> str:
    """Help as Markdown, each paragraph on a line."""
    said = [" ".join(part.split()) for part in text.split("\n\n")]
    joined = ("\n\n" if paragraphs else " ").join(said)
    return joined.replace("|", "\\|").replace("<", "&lt;")


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
    print(PAGE, file=sys.stderr)
