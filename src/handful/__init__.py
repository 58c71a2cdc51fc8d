"""Handful teaches a visual inspector from a handful of good pictures."""

from typing import TYPE_CHECKING, Any

from handful.errors import (
    HandfulError,
    ImageError,
    InputError,
    InspectorError,
    NotFittedError,
    OutputError,
    PackageError,
    ProcessError,
    SettingError,
    WeightsError,
    needing,
)
from handful.version import __version__

if TYPE_CHECKING:
    from handful.backbones import Device, EngineChoice
    from handful.detector import Detector
    from handful.fitting.revisions import Correction
    from handful.inspection.threshold import Calibration
    from handful.inspector import Inspector
    from handful.report.result import Inspection
    from handful.saved.archive import Source
    from handful.training.head_file import Head
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
    "PackageError",
    "ProcessError",
    "Reference",
    "Region",
    "SettingError",
    "Verdict",
    "WeightsError",
    "__version__",
    "load",
]

_HOMES = {
    "Calibration": "handful.inspection.threshold",
    "Correction": "handful.fitting.revisions",
    "Detector": "handful.detector",
    "Inspection": "handful.report.result",
    "Inspector": "handful.inspector",
    "NearestReference": "handful.types",
    "Reference": "handful.types",
    "Region": "handful.types",
    "Verdict": "handful.types",
}


def load(
    source: "Source",
    *,
    engine: "EngineChoice | None" = None,
    device: "Device" = "auto",
    head: "Head" = None,
    threads: int | None = None,
) -> "Inspector":
    """Load a saved inspector to inspect with whatever it needs: its own graph where it has one, else torch.

        inspector = handful.load("part.handful")
        print(inspector("incoming/001.png").score)

    Args:
        source: the path of a saved inspector, or the bytes of its file.
        engine: None for the one it was fitted with.
        device: where torch runs.
        head: that it was fitted with, where it needs one: a file, or one read before; None to look for the file of that
            name beside the inspector.
        threads: the most threads that its graph computes with; None for one a core.

    Raises:
        InspectorError: if it is missing, damaged, altered, newer than this version, or no inspector, or if the head is
            not the one that it was fitted with.
        WeightsError: if the head cannot be read.
        SettingError: if its engine, device or precision cannot be had here, or for `threads` where torch inspects.
        ProcessError: in a process that was forked after OpenVINO or torch had run.
        PackageError: where torch must inspect and is not installed.
    """
    from handful.inspector import Inspector

    subject = "Inspecting by torch"
    if engine in (None, "auto", "openvino") and device in ("auto", "cpu") and head is None:
        found = Inspector._load_graph(source, threads=threads)
        if found is not None:
            return found
        name = "an inspector in memory" if isinstance(source, bytes) else source
        subject = f"Inspecting with {name}, which holds no graph of its own,"
    if threads is not None:
        raise SettingError(
            f"`threads` must be left out where torch inspects, got {threads}; call `torch.set_num_threads` instead."
        )

    with needing(subject, "fit"):
        from handful.detector import Detector

    return Detector.load(source, engine=engine, device=device, head=head).inspector


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used: `import handful` itself does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return __all__
