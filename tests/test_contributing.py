"""CONTRIBUTING.md is true: its table is the layer test's, and the names it gives exist."""

import re
from importlib import import_module
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "CONTRIBUTING.md").read_text()
SOURCE = ROOT / "src" / "handful"
COMMANDS = re.compile(r"(python3|handful|git|pip)( .*)?")
# Words of the language, settings of the environment, and placeholders, which are no names of the project.
WORDS = {"eval", "HANDFUL_DATA"}


def rows():
    spec = spec_from_file_location("layers", ROOT / "tests" / "test_layers.py")
    layers = module_from_spec(spec)
    spec.loader.exec_module(layers)
    return layers.ROWS


def exists(name):
    """Whether a file or folder of the project, a module, a member of a module, or a method or field has this name."""
    if any((base / name).exists() for base in (ROOT, SOURCE, ROOT.parent)):
        return True
    parts = name.removeprefix("handful.").split(".")
    for length in range(len(parts), 0, -1):
        try:
            found = import_module(".".join(("handful", *parts[:length])))
        except ModuleNotFoundError:
            continue
        for part in parts[length:]:
            found = getattr(found, part, None)
        return found is not None
    bare = re.escape(name.split("(")[0].rpartition(".")[2])
    defined = re.compile(rf"^\s*(def|class) {bare}\b|^\s*{bare}\b *[:=]", re.M)
    return any(defined.search(file.read_text()) for folder in (SOURCE, ROOT / "tests") for file in folder.rglob("*.py"))


def test_the_table_is_the_layer_tests():
    table = re.findall(r"^\| (\d+) \| (.*) \|$", PAGE, re.M)
    assert [set(re.findall(r"`(\w+)`", modules)) for _, modules in reversed(table)] == rows()
    assert [int(number) for number, _ in reversed(table)] == list(range(1, len(table) + 1))


NAMES = sorted(set(re.findall(r"`([^`\n]+)`", PAGE)))


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_backticks_exists(name):
    if name in WORDS or "NAME" in name or COMMANDS.fullmatch(name):
        return
    assert exists(name.rstrip("/")), f"CONTRIBUTING.md speaks of {name}"


def test_a_name_that_does_not_exist_is_noticed():
    assert not exists("EXPORTABLE") and not exists("handful.artifact") and exists("handful.files.replacing")
