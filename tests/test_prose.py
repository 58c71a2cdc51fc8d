"""A docstring begins with its subject: the part of the house's rule for prose that a test can hold."""

import ast
import re
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "handful"
# Words without a referent, and words that lean on the docstring above; verbs and conditions may begin a docstring.
RIDDLE = re.compile(r"(What|How|As|Where|Which|Who|Likewise|Those|It|The same|The ones?)\b")


def riddles(code):
    """The first lines of docstrings in a module's code, private docstrings too, that begin with a riddle."""
    kinds = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef
    texts = [ast.get_docstring(node) or "" for node in ast.walk(ast.parse(code)) if isinstance(node, kinds)]
    return [text.splitlines()[0] for text in texts if RIDDLE.match(text)]


@pytest.mark.parametrize("file", sorted(SOURCE.rglob("*.py")), ids=lambda file: file.relative_to(SOURCE).as_posix())
def test_docstrings_begin_with_their_subject(file):
    assert riddles(file.read_text("utf-8")) == []


def test_a_docstring_that_begins_with_a_riddle_is_noticed():
    assert riddles('"""It is a module."""\nclass A:\n    """As B."""\n') == ["It is a module.", "As B."]
    assert riddles('class A:\n    def _f(self):\n        """The same.\n\n        More."""\n') == ["The same."]
    assert riddles('def f():\n    """Assemble the items of `g`."""\n') == []
