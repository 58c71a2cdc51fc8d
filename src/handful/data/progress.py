"""Progress of long work."""

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar

Item = TypeVar("Item")


class Track(Protocol):
    """Passes a list of work on and shows the progress: `rich.progress.track` is one."""

    def __call__(self, items: Sequence[Item], description: str) -> Iterable[Item]:
        """Yield the items one by one."""


def quietly(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Show no progress."""
    return items


def bar(items: Sequence[Item], description: str) -> Iterable[Item]:
    """Pass a list of work on, with a bar on stderr where that is a terminal, or in a notebook."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    hidden = not (console.is_terminal or console.is_jupyter)
    return track(items, description, console=console, transient=True, disable=hidden)
