"""Progress of long work."""

import html
import sys
import time
from collections.abc import Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any, Protocol, TypeVar

NOTEBOOK_EVERY = 0.2  # seconds between two updates of a notebook's bar: each is sent to the browser

Item = TypeVar("Item")


class Track(Protocol):
    """Yields the items of a list and shows the progress, like `rich.progress.track`."""

    def __call__(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        """Yield the items in turn."""


def quietly(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Return the items and show no progress."""
    return items


def bar(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Yield the items, with a progress bar in a notebook, or on stderr if stderr is a terminal."""
    if _in_notebook():
        return _notebook_bar(items, description)
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    return track(items, description, console=console, transient=True, disable=not console.is_terminal)


def _in_notebook() -> bool:
    """Whether this program runs in a notebook: Jupyter, VS Code, Colab and others like them."""
    ipython = sys.modules.get("IPython")
    shell = type(ipython.get_ipython()) if ipython else None
    return shell is not None and (
        shell.__name__ == "ZMQInteractiveShell" or shell.__module__.startswith("google.colab")
    )


def _notebook_bar(items: Sequence[Item], description: str) -> Iterator[Item]:
    """Yield the items, with a progress bar of HTML in a notebook: rich would need ipywidgets, and warn without."""
    display: Any = import_module("IPython.display")
    handle = display.display(display.HTML(_element(description, 0, len(items))), display_id=True)
    shown = time.monotonic()
    try:
        for done, item in enumerate(items):
            if time.monotonic() - shown > NOTEBOOK_EVERY:
                shown = time.monotonic()
                handle.update(display.HTML(_element(description, done, len(items))))
            yield item
    finally:
        handle.update(display.HTML(""))


def _element(description: str, done: int, count: int) -> str:
    return f'{html.escape(description)} <progress value="{done}" max="{count}"></progress> {done} of {count}'
