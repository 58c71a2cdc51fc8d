"""The pages of docs/methods say of the code only what is there: names, settings, defaults, commands."""

import ast
import json
import re
import shlex
import struct
from dataclasses import fields
from itertools import pairwise
from pathlib import Path

import pytest
import typer.main

from handful import methods
from handful.cli.main import app
from handful.errors import SettingError

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "docs" / "methods"
METHOD_OF = {"coft-ad": "coft"}  # where a page is not named as its method
PAGES = sorted(path for path in FOLDER.glob("*.md") if path.name != "README.md")
EVERY = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]
MAKERS = (methods.create, methods.create_tuning, methods.create_head_training)


def method_of(page):
    return METHOD_OF.get(page.stem, page.stem)


def commands(page):
    """The commands of a page's console blocks, each as the arguments of `handful`."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
        for line in block.splitlines():
            if line.startswith("$ handful "):
                yield shlex.split(line.removeprefix("$ handful "), comments=True)


def defined(path):
    """The names that a module binds, a class's own as CLASS.NAME."""
    found = set()

    def visit(node, before):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.ClassDef):
                found.add(before + child.name)
                if isinstance(child, ast.ClassDef):
                    visit(child, f"{before}{child.name}.")
            elif isinstance(child, ast.Assign | ast.AnnAssign):
                targets = child.targets if isinstance(child, ast.Assign) else [child.target]
                found.update(before + target.id for target in targets if isinstance(target, ast.Name))

    visit(ast.parse(path.read_text()), "")
    return found


def makers(settings, name):
    """What takes these settings: the method of this name, its training, or both."""
    taken = []
    for make in MAKERS:
        try:
            make(name, settings)
        except SettingError:
            continue
        taken.append(make)
    return taken


def test_every_method_has_a_page_and_the_table_links_to_it():
    assert {method_of(page) for page in PAGES} == set(methods.METHODS)
    table = (FOLDER / "README.md").read_text()
    for page in PAGES:
        assert re.search(rf"\| `{method_of(page)}` \|.*\({page.name}\) \|", table), page.name


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_function_of_the_equations_is_in_the_module_that_is_linked(page):
    links = re.findall(r"\[`([A-Za-z_.]+)`\]\(([^)#]+\.py)\)", page.read_text())
    names = [(name, target) for name, target in links if not name.endswith(".py")]
    assert len(names) >= 5
    for name, target in names:
        assert name in defined(page.parent / target), f"{target} has no {name}"


@pytest.mark.parametrize("page", [*PAGES, FOLDER / "README.md"], ids=lambda page: page.stem)
def test_every_file_that_is_named_is_there(page):
    for path in re.findall(r"(?<![\w/.])((?:src|tests|scripts|benchmarks)/[\w/.-]+)", page.read_text()):
        if not path.startswith("benchmarks/papers/"):  # pages of a later commit
            assert (ROOT / path).exists(), path


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_table_of_settings_is_the_dataclass(page):
    kind = methods.METHODS[method_of(page)]
    (table,) = re.findall(r"\| setting \| default \| meaning \|\n\|[-|]+\n((?:\|.*\n)+)", page.read_text())
    rows = re.findall(r"^\| `(\w+)` \| `([^`]+)` \| \S.*\|$", table, re.MULTILINE)
    assert len(rows) == len(table.splitlines())
    known = {one.name: one.default for one in fields(kind) if one.init}
    assert dict(rows) == {name: value if isinstance(value, str) else json.dumps(value) for name, value in known.items()}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_every_setting_that_is_named_with_a_value_is_taken(page):
    prose = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    named = re.findall(r"`([a-z_]+=[^`]*)`", prose)
    assert named
    for text in named:
        settings = dict(methods.parse_setting(one) for one in text.split(","))
        assert makers(settings, method_of(page)), f"neither {method_of(page)} nor its training takes {text}"


@pytest.mark.parametrize("page", EVERY, ids=lambda page: page.name)
def test_every_command_parses(page):
    for arguments in commands(page):
        group = typer.main.get_command(app)
        context = group.make_context("handful", list(arguments), resilient_parsing=False)
        verb, command, rest = group.resolve_command(context, list(arguments))
        while hasattr(command, "commands"):
            context = command.make_context(verb, list(rest), parent=context)
            verb, command, rest = command.resolve_command(context, list(rest))
        command.make_context(verb, list(rest), parent=context)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_name_methods_and_settings_that_exist(page):
    found = list(commands(page))
    assert {arguments[0] for arguments in found} >= {"fit", "inspect"}
    for arguments in found:
        settings = dict(methods.parse_setting(value) for value in after(arguments, "--set"))
        if arguments[0] == "fit":
            methods.create(*after(arguments, "--method") or ["handful"], settings)
        if arguments[0] == "train":
            assert makers(settings, arguments[1])


def after(arguments, option):
    return [value for name, value in pairwise(arguments) if name == option]


def test_figures_are_small_and_all_are_shown():
    shown = {target for page in PAGES for target in re.findall(r"!\[[^]]{20,}\]\((figures/[^)]+)\)", page.read_text())}
    assert shown == {f"figures/{path.name}" for path in (FOLDER / "figures").iterdir()}
    for target in shown:
        content = (FOLDER / target).read_bytes()
        assert len(content) < 150_000, target
        width, _ = struct.unpack(">II", content[16:24])  # of PNG's first chunk
        assert content[:4] == b"\x89PNG" and width == 960, target
