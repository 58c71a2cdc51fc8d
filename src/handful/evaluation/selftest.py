"""Tests a saved inspector on its own references: on the original pictures, or on what its file keeps of them.

The file's digests are checked whenever it is read. Beyond that a computer may compute other features than the computer
that the inspector was fitted on. The file keeps the features of each reference at full precision, so the features of
the original picture must be the same within rounding. Of the pictures themselves it keeps thumbnails alone: their
features differ by the detail that a thumbnail loses, so that thumbnails tell a broken graph, not one that is a little
off. Where torch is installed, the thumbnails also tell how far the graph is from the method itself.
"""

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

import handful
from handful.data.images import Picture
from handful.data.thumbnails import thumbnail_picture
from handful.inspector import Inspector
from handful.saved import archive

# By how much features of the original picture may differ, as a share of their length. Float32 sums in another order
# make 1e-6 to 1e-4 of it; bf16 keeps 8 bits of each value.
TOLERANCE = {"f32": 1e-3, "bf16": 3e-2}
# Thumbnails of five products differ by 0.17 to 0.71 from their references, other references of a product by 0.5 to 1.2,
# and features that have nothing to do with each other by 1.4.
THUMBNAIL_TOLERANCE = 1.0
GRAPH_TOLERANCE = 1e-3  # as `handful.saved.scoring_graph.TOLERANCE`, which needs torch; a test compares the two


@dataclass(frozen=True)
class ReferenceTest:
    """The answer of an inspector to a reference of its own.

    Attributes:
        number: from 1, in the order in which they were learnt.
        picture: whether the original was looked at, or its thumbnail.
        verdict, score: as in `handful.Inspection`; score is None where there is none.
        difference: of its features from those that are kept, as a share of their length.
    """

    number: int
    picture: Literal["original", "thumbnail"]
    verdict: str
    score: float | None
    difference: float


@dataclass(frozen=True)
class SelfTest:
    """The result of the test of a saved inspector.

    Attributes:
        digest: the inspector's.
        facts: about it, by label, ready for JSON; no name of a file or a picture is among them.
        references: those tested.
        graph: by how much the kept graph differs from torch in score and map, on the calibrated scale; None without
            torch or without a graph.
        problems: what does not hold, a sentence each; no name of a file or a picture is among them.
    """

    digest: str
    facts: dict[str, Any]
    references: tuple[ReferenceTest, ...]
    graph: tuple[float, float] | None
    problems: tuple[str, ...]


def self_test(path: Path, originals: Sequence[Path] | None = None) -> SelfTest:
    """Test a saved inspector.

    Args:
        path: of the inspector.
        originals: pictures among which its references are, told by their digests; None to look at the thumbnails.

    Raises:
        InspectorError: if the file is missing, damaged, altered or no inspector; other errors as `handful.load`.
        ImageError: if one of the originals cannot be read.
    """
    manifest, _, _ = archive.read(path)
    inspector = handful.load(path)
    problems: list[str] = []
    if originals is None:
        tests = [
            _test(inspector, number, thumbnail_picture(reference.thumbnail, name=reference.name), "thumbnail")
            for number, reference in enumerate(inspector.references)
        ]
    else:
        tests = _of_originals(inspector, originals, problems)
    limit = THUMBNAIL_TOLERANCE if originals is None else TOLERANCE[inspector.backbone_spec.precision]
    problems += [
        f"Features of reference {test.number} must be within {limit:g} of those in the file, got "
        f"{test.difference:.2g}; the picture is not computed here as it was by `fit`: fit "
        "the inspector again on this computer."
        for test in tests
        if not test.difference <= limit
    ]
    with_graph = "score" in (manifest.get("graph") or {})
    graph = _against_torch(path, inspector) if with_graph and find_spec("torch") else None
    if graph is not None and not max(graph) <= GRAPH_TOLERANCE:
        problems.append(
            f"The graph in the file must answer as its method in torch within {GRAPH_TOLERANCE:g} of the score, got "
            f"{graph[0]:.2g} in a score and {graph[1]:.2g} in a map; fit the inspector again on this computer."
        )
    spec, kept = inspector.backbone_spec, manifest.get("graph") or {}
    facts = {
        "bytes": path.stat().st_size,
        "format": manifest["format_version"],
        "saved by": manifest["handful"],
        "method": inspector.method_name,
        "backbone": spec.name if "/" not in spec.name else "another one",
        "input": list(spec.size),
        "engine": spec.engine,
        "precision": spec.precision,
        "references": len(inspector.references),
        "graph as saved": [kept["score"], kept["map"]] if with_graph else None,
    }
    return SelfTest(inspector.digest, facts, tuple(tests), graph, tuple(problems))


def _of_originals(inspector: Inspector, originals: Sequence[Path], problems: list[str]) -> list[ReferenceTest]:
    """Test the references that are among some pictures; each that is not is a problem."""
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in originals}
    tests = []
    for number, reference in enumerate(inspector.references):
        if reference.sha256 not in found:
            problems.append(
                f"Reference {number + 1} must be among the pictures, got none with its digest "
                f"{reference.sha256[:12]}; give the folder that `fit` was given, its files unchanged."
            )
            continue
        path = found[reference.sha256]
        tests.append(_test(inspector, number, inspector.preprocessing.read(path, path.name), "original"))
    return tests


def _test(inspector: Inspector, number: int, picture: Picture, kind: Literal["original", "thumbnail"]) -> ReferenceTest:
    answer = inspector(picture)
    levels = inspector._forward(inspector.preprocessing(picture)).levels
    return ReferenceTest(number + 1, kind, answer.verdict, answer.score, _difference(levels, inspector._learnt[number]))


def _difference(levels: Sequence[NDArray[np.float32]], kept: Sequence[NDArray[np.float32]]) -> float:
    """The length of the difference of two pictures' features, as a share of the length of those that are kept."""
    apart = sum(float(np.square(one - other, dtype=np.float64).sum()) for one, other in zip(levels, kept, strict=True))
    return math.sqrt(apart / sum(float(np.square(one, dtype=np.float64).sum()) for one in kept))


def _against_torch(path: Path, inspector: Inspector) -> tuple[float, float]:
    """By how much the kept graph differs from the method in torch on the references' thumbnails, in score and map."""
    from handful.detector import Detector
    from handful.saved.scoring_graph import relative_difference

    state, scale = Detector.load(path)._needed, inspector.calibration
    scores, maps = [], []
    for reference in inspector.references:
        image = inspector.preprocessing(thumbnail_picture(reference.thumbnail, name=reference.name))
        found, own = inspector._forward(image), state.forward(image)
        scores.append(relative_difference(found.score, own.score, scale.typical, scale.threshold))
        maps.append(relative_difference(found.map, own.map, scale.map_typical, scale.map_threshold))
    return max(scores), max(maps)
