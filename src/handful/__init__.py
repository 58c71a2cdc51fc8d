"""Handful teaches a visual inspector from a handful of good pictures."""

from typing import TYPE_CHECKING, Any

from handful.version import __version__

if TYPE_CHECKING:
    from handful.detector import Detector
    from handful.inspector import Inspector
    from handful.types import Inspection, Region

__all__ = ["Detector", "Inspection", "Inspector", "Region", "__version__"]

_HOMES = {
    "Detector": "handful.detector",
    "Inspection": "handful.types",
    "Inspector": "handful.inspector",
    "Region": "handful.types",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import handful` itself does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)
