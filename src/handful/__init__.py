"""Handful teaches a visual inspector from a handful of good pictures."""

from typing import TYPE_CHECKING, Any

from handful.version import __version__

if TYPE_CHECKING:
    from handful.corrections import Correction
    from handful.detector import Detector
    from handful.errors import (
        HandfulError,
        ImageError,
        InputError,
        InspectorError,
        NotFittedError,
        OutputError,
        ProcessError,
        SettingError,
        WeightsError,
    )
    from handful.inspection.threshold import Calibration
    from handful.inspector import Inspector
    from handful.report.result import Inspection
    from handful.types import NearestReference, Reference, Region, Verdict

__all__ = [
    "Calibration",
    "Correction",
    "Detector",
    "HandfulError",
    "ImageError",
    "InputError",
    "Inspection",
    "Inspector",
    "InspectorError",
    "NearestReference",
    "NotFittedError",
    "OutputError",
    "ProcessError",
    "Reference",
    "Region",
    "SettingError",
    "Verdict",
    "WeightsError",
    "__version__",
]

_HOMES = {
    "Calibration": "handful.inspection.threshold",
    "Correction": "handful.corrections",
    "Detector": "handful.detector",
    "Inspection": "handful.report.result",
    "Inspector": "handful.inspector",
    "NearestReference": "handful.types",
    "Reference": "handful.types",
    "Region": "handful.types",
    "Verdict": "handful.types",
}


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import handful` itself does not import torch."""
    if name not in __all__:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES.get(name, "handful.errors")), name)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return __all__
