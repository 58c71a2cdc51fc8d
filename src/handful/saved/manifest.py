"""The parts of an inspector from the manifest and the entries of its file. This module needs no torch."""

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from handful.backbones.base import BackboneSpec
from handful.data import images
from handful.data.preprocessing import Preprocessing
from handful.errors import HandfulError, InspectorError
from handful.fitting.revisions import CHANGING, History
from handful.fitting.visibility import Trials, Visibility
from handful.inspection.gate import Gate, ReferenceStatistics, check_names
from handful.inspection.threshold import Calibration
from handful.saved.archive import GATE_ENTRY, IGNORED_ENTRY, LEARNT_ENTRY
from handful.types import Reference

Arrays = tuple[NDArray[np.float32], ...]  # the levels of one picture, (h, w, D) each


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Convert errors of unreadable entries to an InspectorError with a sentence that names the file."""
    try:
        yield
    except HandfulError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        raise InspectorError(
            f"{path} must hold a whole inspector, got an unreadable inspector ({error}); fit it again."
        ) from error


def spec_of(manifest: Mapping[str, Any]) -> BackboneSpec:
    """The backbone that an inspector's manifest describes."""
    fields = manifest["backbone"]
    return BackboneSpec(**{**fields, "levels": tuple(fields["levels"]), "size": tuple(fields["size"])})


def preprocessing_of(manifest: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that an inspector's manifest describes."""
    fields = manifest["preprocessing"]
    limit = fields.get("max_pixels", images.MAX_PIXELS)
    aspect_kept, side = fields.get("keeps_aspect", False), fields.get("side", 0)  # format 2 squeezes all pictures
    fine = tuple(fields["fine"]) if "fine" in fields else None
    return Preprocessing(tuple(fields["size"]), fields["bits"], fields.get("bright"), limit, aspect_kept, side, fine)


def references_of(manifest: Mapping[str, Any], entries: Mapping[str, bytes]) -> tuple[Reference, ...]:
    """The references that an inspector's manifest describes, with their thumbnails."""
    return tuple(
        Reference(
            reference["name"],
            reference["sha256"],
            entries[thumbnail_entry(number)],
            reference.get("bits"),
            (size[0], size[1]) if (size := reference.get("size")) else None,
        )
        for number, reference in enumerate(manifest["references"])
    )


def gate_of(manifest: Mapping[str, Any], entries: Mapping[str, bytes]) -> Gate:
    """The gate that an inspector was saved with."""
    statistics = safetensors.numpy.load(entries[GATE_ENTRY])
    unknown = np.full(len(statistics["contrast"]), np.inf, np.float32)  # for files of versions that saved no `detail`
    return Gate(check_names(manifest["gate"]), ReferenceStatistics(**{"detail": unknown, **statistics}))


def visibility_of(manifest: Mapping[str, Any], calibration: Calibration, history: History) -> Visibility | None:
    """The detection rates of synthetic defects of a saved inspector; None if the file holds no scores of such defects.

    Raises:
        KeyError, TypeError, ValueError: if the manifest's scores cannot be read.
    """
    trials = Trials.from_manifest(manifest)
    return trials.at(calibration.threshold, changed=len(history.standing(*CHANGING))) if trials else None


def thumbnail_entry(number: int) -> str:
    """The name of a reference's thumbnail among the entries."""
    return f"reference-{number:03d}.jpg"


def reference_levels(entries: Mapping[str, bytes]) -> tuple[tuple[Arrays, ...], NDArray[np.bool_] | None]:
    """The features of every learnt picture, and the union of the ignored regions, None without ignored regions."""
    tensors = safetensors.numpy.load(entries[LEARNT_ENTRY])
    count = sum(name.removeprefix("level.").isdigit() for name in tensors)
    levels = [tensors[f"level.{number}"] for number in range(count)]
    return tuple(zip(*levels, strict=True)), ignored_of(entries)


def ignored_of(entries: Mapping[str, bytes]) -> NDArray[np.bool_] | None:
    """All ignored regions of a saved inspector as one: (H, W); None where there are none."""
    masks = safetensors.numpy.load(entries[IGNORED_ENTRY]) if IGNORED_ENTRY in entries else {}
    return np.any(list(masks.values()), 0) if masks else None
