"""docs/glossary.md is true: its terms are in order, and the names that it gives exist."""

import re
from dataclasses import fields, is_dataclass
from importlib import import_module
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "glossary.md").read_text("utf-8")
ENTRIES = re.findall(r"^- \*\*(.+?)\*\*: (.+(?:\n  .+)*)$", PAGE, re.M)
NAMES = sorted(set(re.findall(r"`([^`]+)`", PAGE)))


def exists(name):
    """Whether a name of the package, with all its modules, can be imported; fields of dataclasses count."""
    found, path = None, ""
    for part in name.split("."):
        path = f"{path}.{part}".lstrip(".")
        if is_dataclass(found) and part in {field.name for field in fields(found)}:
            return path == name
        if hasattr(found, part):
            found = getattr(found, part)
            continue
        try:
            found = import_module(path)
        except ModuleNotFoundError:
            return False
    return name.startswith("handful.")


def test_every_line_of_the_list_is_read():
    assert len(ENTRIES) == PAGE.count("\n- ") > 30


def test_terms_are_in_alphabetical_order_and_each_is_given_once():
    terms = [term.casefold() for term, _ in ENTRIES]
    assert terms == sorted(set(terms))


@pytest.mark.parametrize(("term", "text"), ENTRIES)
def test_an_entry_is_a_sentence_or_two_with_a_name_of_the_api(term, text):
    assert "`handful." in text and text.endswith(".")
    prose = re.sub(r"`[^`]+`", "NAME", text)
    assert 1 <= len(re.findall(r"[a-zA-Z0-9]\.(?:\s|$)", prose)) <= 2


@pytest.mark.parametrize("name", NAMES)
def test_a_name_in_backticks_exists(name):
    assert exists(name), f"docs/glossary.md speaks of {name}"


def test_a_name_that_does_not_exist_is_noticed():
    assert not exists("handful.Inspection.sore") and not exists("handful.artifact.read") and not exists("pathlib.Path")


def test_the_readme_links_the_glossary():
    assert "(docs/glossary.md)" in (ROOT / "README.md").read_text("utf-8")
