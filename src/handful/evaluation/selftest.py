"""The test of a saved inspector on its own references: on the original pictures, or on the thumbnails in its file.

The digests of the file are checked at every reading. An intact file may still give other features on this computer than
on the computer on which the inspector was fitted. The file keeps the features of each reference at full precision, so
the features of an original picture must be equal to the kept features within rounding. The file keeps no original
pictures, only thumbnails. The features of a thumbnail differ by the detail that the thumbnail has lost, so thumbnails
reveal a broken graph, but not a graph with small errors. If torch is installed, the thumbnails also measure the
difference between the scores of the graph and of the method in torch.
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

# The largest difference between the features of an original picture and the kept features, as a share of the length of
# the kept features. Float32 sums in another order give 1e-6 to 1e-4; bf16 keeps 8 bits of each value.
TOLERANCE = {"f32": 1e-3, "bf16": 3e-2}
# The features of thumbnails of five products differ by 0.17 to 0.71 from the features of their references, the features
# of two references of a product by 0.5 to 1.2, and unrelated features by 1.4.
THUMBNAIL_TOLERANCE = 1.0
GRAPH_TOLERANCE = 1e-3  # equals `handful.saved.scoring_graph.TOLERANCE`, which needs torch; a test compares the two


@dataclass(frozen=True)
class ReferenceTest:
    """The result of the test on a reference.

    Attributes:
        number: the number of the reference, from 1, in the order of fitting.
        picture: the picture that was inspected: the reference's original or its thumbnail.
        verdict, score: see `handful.Inspection`; the score is None for the verdict ERROR.
        difference: the length of the difference between the picture's features and the kept features, as a share of the
            length of the kept features.
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
        digest: the digest of the inspector.
        facts: facts about the inspector, by label, ready for JSON, without any name of a file or picture.
        references: the results of the tested references.
        graph: the largest differences between the kept graph and the method in torch, in score and map, on the
            calibrated scale; None without torch or without a graph.
        problems: a sentence on each failed check, without any name of a file or picture.
    """

    digest: str
    facts: dict[str, Any]
    references: tuple[ReferenceTest, ...]
    graph: tuple[float, float] | None
    problems: tuple[str, ...]


def self_test(path: Path, originals: Sequence[Path] | None = None) -> SelfTest:
    """Test a saved inspector.

    Args:
        path: the path of the inspector.
        originals: pictures that include the references, which are recognised by their digests; None to test on the
            thumbnails.

    Raises:
        InspectorError: if the file is missing, damaged, altered or no inspector.
        HandfulError: if the inspector cannot be loaded, see `handful.load`.
        ImageError: if an original cannot be read.
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
    """Test the references that are among the originals; add a problem for each reference that is not."""
    found = {hashlib.sha256(path.read_bytes()).hexdigest(): path for path in originals}
    tests = []
    for number, reference in enumerate(inspector.references):
        if reference.sha256 not in found:
            problems.append(
                f"Reference {number + 1} must be among the pictures, got none with its digest "
                f"{reference.sha256[:12]}; give the folder of `fit` and the pictures learnt since, unchanged."
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
    """The length of the difference between features and kept features, as a share of the kept features' length."""
    apart = sum(float(np.square(one - other, dtype=np.float64).sum()) for one, other in zip(levels, kept, strict=True))
    return math.sqrt(apart / sum(float(np.square(one, dtype=np.float64).sum()) for one in kept))


def _against_torch(path: Path, inspector: Inspector) -> tuple[float, float]:
    """The largest differences between the kept graph and the method in torch, over thumbnails, in score and map."""
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
