"""A bar that shows how far work has come."""

from collections.abc import Iterable, Sequence
from typing import TypeVar

Item = TypeVar("Item")


def bar(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Pass a list of work on, with a bar on stderr where that is a terminal, or in a notebook."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not (console.is_terminal or console.is_jupyter)
    return track(items, description, console=console, transient=True, disable=hidden)
