"""Bars in terminals and notebooks, and silence elsewhere."""

import sys
import types

import pytest

from handful.data import progress


@pytest.fixture
def notebook(monkeypatch):
    """Let this be a notebook; what it shows, in order."""
    shown = []

    class Handle:
        def update(self, element):
            shown.append(element)

    def display(element, *, display_id):
        assert display_id is True
        shown.append(element)
        return Handle()

    shell = type("ZMQInteractiveShell", (), {})()
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    elements = types.ModuleType("IPython.display")
    elements.display, elements.HTML = display, str
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", elements)
    monkeypatch.setattr(progress, "NOTEBOOK_EVERY", -1.0)
    return shown


def test_a_notebook_shows_a_bar_that_vanishes(notebook, capsys):
    assert list(progress.bar([4, 5], "scoring <good>")) == [4, 5]
    assert notebook == [
        'scoring &lt;good&gt; <progress value="0" max="2"></progress> 0 of 2',
        'scoring &lt;good&gt; <progress value="0" max="2"></progress> 0 of 2',
        'scoring &lt;good&gt; <progress value="1" max="2"></progress> 1 of 2',
        "",
    ]
    assert capsys.readouterr() == ("", "")


def test_the_bar_vanishes_when_the_work_fails(notebook):
    with pytest.raises(ValueError, match="no"):
        for _ in progress.bar([1, 2], "work"):
            raise ValueError("no")
    import gc

    gc.collect()
    assert notebook[-1] == ""


def test_ipython_in_a_terminal_is_no_notebook(notebook, monkeypatch):
    monkeypatch.setattr(sys.modules["IPython"], "get_ipython", lambda: type("TerminalInteractiveShell", (), {})())
    assert list(progress.bar([1], "work")) == [1]
    assert notebook == []


def test_no_terminal_no_bar(capsys):
    assert list(progress.bar([1, 2], "work")) == [1, 2]
    assert capsys.readouterr() == ("", "")


def test_a_terminal_shows_a_bar(capsys, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")  # which rich takes for a terminal
    monkeypatch.setenv("TERM", "xterm")
    assert list(progress.bar([1, 2], "work")) == [1, 2]
    out, err = capsys.readouterr()
    assert out == ""
    assert "work" in err
