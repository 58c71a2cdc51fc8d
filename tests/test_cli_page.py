"""docs/cli.md says what the program says of itself."""

from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import typer

from handful.cli.main import app

ROOT = Path(__file__).parents[1]


def reference():
    spec = spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_page_is_the_programs():
    assert (ROOT / "docs" / "cli.md").read_text() == reference().page(), "run python3 scripts/cli-reference"


def test_the_page_has_every_verb_and_flag_with_its_default():
    page = (ROOT / "docs" / "cli.md").read_text()
    program = typer.main.get_command(app)
    for name, command in program.commands.items():
        assert f"\n## handful {name}\n" in page
        for option in command.params:
            assert all(f"`{flag}`" in page for flag in option.opts if flag.startswith("-"))
    assert "| `--rate` `RATE` | Share of good parts that may be rejected. | `0.03` |" in page
    assert "| `--sheets`, `--no-sheets` | Write the sheets of pictures. | on |" in page
    assert "\n## handful train resad\n" in page
