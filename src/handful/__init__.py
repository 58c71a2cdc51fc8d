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
    """Load a saved inspector; its own graph inspects if the file holds a graph, else torch.

        inspector = handful.load("part.handful")
        print(inspector("incoming/001.png").score)

    Args:
        source: the path of a saved inspector, or the bytes of its file.
        engine: the engine that runs the backbone; None for the engine of the fit.
        device: the device that torch runs on.
        head: the head of the fit, for a method that needs a head: a file, or a head read before; None for the shipped
            head if the fit had that head, else for the file of the head's name beside the inspector.
        threads: the largest number of threads that the graph computes with; None for a thread per core.

    Raises:
        InspectorError: if the file is missing, damaged, altered, newer than this version, or no inspector, or if the
            head is not the head of the fit.
        WeightsError: if the head cannot be read.
        SettingError: if the engine, device or precision is not available here, or for `threads` if torch inspects.
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
    """Import a public name at its first use, so that `import handful` alone does not import torch."""
    if name not in _HOMES:
        raise AttributeError(f"module 'handful' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    """The public names, for tab completion."""
    return __all__
