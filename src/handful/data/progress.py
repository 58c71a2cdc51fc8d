"""Progress of long work."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

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
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not (console.is_terminal or console.is_jupyter)
    return track(items, description, console=console, transient=True, disable=hidden)
