"""A method's scoring as a graph in the saved inspector, for inspection without torch.

    levels (1, h, w, D) each, the method's state  →  map (1, H, W) and score (1,)

The graph is traced from the method's own `score`, so no scoring is implemented twice; `Method.traceable` tells whether
a method can be traced. The method's state is an input of the graph, not a part of it, so the graph is the same for all
inspectors of the same method, settings and shapes.
"""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful import methods
from handful.backbones.base import Backbone
from handful.errors import HandfulError, SettingError, conversion_error
from handful.fitting.calibration import score_ignoring
from handful.fitting.reference_features import ReferenceFeatures
from handful.graphs.names import GOOD_INPUT, LEVEL_INPUT, SCORING_CONSTANTS_ENTRY, SCORING_ENTRY, STATE_INPUT
from handful.inspection.threshold import Calibration
from handful.types import Features, ModelOutput, Scores

if TYPE_CHECKING:
    from handful.backbones.openvino_engine import WholeGraph

# The largest accepted difference between a graph's answers and the inspector's on the calibrated scale, relative for
# values above 1: a tenth of the last printed digit. The order of float32 sums alone gives differences of 1e-6 to 2e-4
# (docs/export.md); a larger difference means a different computation.
TOLERANCE = 1e-3

Shape = tuple[int, ...]
_Values = NDArray[np.float32] | float


@dataclass(frozen=True, eq=False)
class KeptGraph:
    """The graph in a saved inspector.

    Attributes:
        entries: the files of the graph.
        score, map: the largest differences from the inspector's image scores and maps on the references' thumbnails,
            see `TOLERANCE`.
    """

    entries: dict[str, bytes]
    score: float
    map: float


class Scoring(nn.Module):
    """A method's scores of one picture, with the method's state as inputs.

    Args:
        method: gives class and settings; its own state does not matter.
        state: the shapes of the state's tensors; empty tensors are not inputs.
        depths: D of each level.
        score: (method, features, good=features of a good picture) → scores.
        size: (H, W) of the frame.
    """

    def __init__(
        self,
        method: methods.Method,
        state: dict[str, Shape],
        depths: Shape,
        score: Callable[..., Scores],
        size: tuple[int, int],
    ) -> None:
        super().__init__()
        self.method, self.shapes, self.depths, self.score, self.size = method, state, depths, score, size

    def forward(self, *tensors: Tensor) -> tuple[Tensor, Tensor]:
        """Levels, then state, then, with an ignored region, a good picture's levels → map (1, H, W), score (1,)."""
        rest = iter(tensors)
        levels = tuple(next(rest) for _ in self.depths)
        state = {name: torch.empty(shape) if 0 in shape else next(rest) for name, shape in self.shapes.items()}
        method = self.method.unfitted().restore(state, depths=self.depths)
        scores = self.score(method, Features(levels, self.size), good=Features(tuple(rest), self.size))
        return scores.maps, scores.image


def keep(
    method: methods.Method,
    features: ReferenceFeatures,
    backbone: Backbone,
    calibration: Calibration,
    look: Callable[[NDArray[np.float32]], ModelOutput],
    images: Sequence[NDArray[np.float32]],
) -> KeptGraph:
    """Make the graph of a fitted method's scoring, and check that its answers agree with the inspector's.

    Args:
        method: the fitted method.
        features: of the learnt pictures.
        backbone: computes the features of pictures.
        calibration: defines the scale of `TOLERANCE`.
        look: the inspector's output for a picture (3, H, W), computed by torch.
        images: pictures on which both are compared.

    Raises:
        SettingError, InspectorError: if there can be no graph, or if its answers differ; the sentence says why.
    """
    check_traceable(method)
    if backbone.spec.engine != "openvino":
        raise SettingError(
            f"The engine must be openvino for a graph, got {backbone.spec.engine}; fit with the openvino engine."
        )
    entries = traced(method, features)
    graph = opened(entries, method, features, backbone)
    both = [(graph(image), look(image)) for image in images]
    kept = KeptGraph(
        entries,
        max(relative_difference(a.score, b.score, calibration.typical, calibration.threshold) for a, b in both),
        max(relative_difference(a.map, b.map, calibration.map_typical, calibration.map_threshold) for a, b in both),
    )
    if not max(kept.score, kept.map) <= TOLERANCE:
        raise SettingError(
            f"A graph must answer as its inspector within {TOLERANCE:g} of the calibrated score, got one off by "
            f"{kept.score:.2g} in a score and {kept.map:.2g} in a map."
        )
    return kept


def check_traceable(method: methods.Method) -> None:
    """Raise SettingError, naming traceable methods, for a method whose scoring cannot be traced into a graph."""
    if not method.traceable:
        able = ", ".join(name for name, known in methods.METHODS.items() if known.traceable)
        raise SettingError(
            f"A method must be traceable to have a graph, as {able} are, got {method.name}; fit one of these."
        )


def traced(method: methods.Method, features: ReferenceFeatures) -> dict[str, bytes]:
    """The files of the graph of a fitted method's scoring, for pictures of the size of the learnt pictures."""
    return _entries(
        type(method),
        json.dumps(method.settings),
        method.head_,
        tuple((name, tuple(value.shape)) for name, value in method.state().items() if name != "depths"),
        tuple(tuple(level.shape) for level in features.good.levels),
        features.good.size,
        None if features.ignored is None else features.ignored.tobytes(),
    )


def opened(
    entries: Mapping[str, bytes], method: methods.Method, features: ReferenceFeatures, backbone: Backbone
) -> "WholeGraph":
    """A graph ready to run, with the method's state as inputs.

    Raises:
        InspectorError: if the graph cannot be read; SettingError: if this CPU cannot compute in its precision.
    """
    from handful.backbones.openvino_engine import WholeGraph

    given = {f"{STATE_INPUT}{name}": value.numpy() for name, value in method.state().items()}
    given |= {f"{GOOD_INPUT}{number}": level.numpy() for number, level in enumerate(features.good.levels)}
    return WholeGraph(backbone.spec, {**backbone.entries, **entries}, given)


def from_entries(manifest: Mapping[str, Any], entries: Mapping[str, bytes]) -> KeptGraph | None:
    """The graph of a saved inspector; None if the file holds no graph."""
    if SCORING_ENTRY not in entries:
        return None
    found = {name: entries[name] for name in (SCORING_ENTRY, SCORING_CONSTANTS_ENTRY)}
    return KeptGraph(found, manifest["graph"]["score"], manifest["graph"]["map"])


@lru_cache(maxsize=8)
def _entries(
    kind: type[methods.Method],
    settings: str,
    head: methods.Head | None,
    state: tuple[tuple[str, Shape], ...],
    levels: tuple[Shape, ...],
    size: tuple[int, int],
    ignored: bytes | None,
) -> dict[str, bytes]:
    """The files of a graph; cached, as a process may save many inspectors of the same method, settings and shapes."""
    from handful.graphs.openvino_writer import scoring_entries

    mask = None if ignored is None else np.frombuffer(ignored, np.bool_).reshape(size).copy()
    whole = Scoring(
        kind(**json.loads(settings)).take_head(head),
        dict(state),
        tuple(shape[-1] for shape in levels),
        partial(score_ignoring, ignored=mask),
        size,
    )
    inputs = {f"{LEVEL_INPUT}{number}": shape for number, shape in enumerate(levels)}
    inputs |= {f"{STATE_INPUT}{tensor}": shape for tensor, shape in state if 0 not in shape}
    inputs |= {f"{GOOD_INPUT}{number}": shape for number, shape in enumerate(levels) if mask is not None}
    with operations_of(kind.name, "openvino"):
        return scoring_entries(whole.eval(), {tensor: torch.ones(shape) for tensor, shape in inputs.items()})


@contextmanager
def operations_of(subject: str, writer: str) -> Iterator[None]:
    """Convert errors of a package that writes graphs to a SettingError, see `handful.errors.conversion_error`."""
    try:
        yield
    except (HandfulError, OSError):
        raise
    except Exception as error:
        remedy = "fit it with other settings or on another backbone"
        raise conversion_error(subject, writer, error, remedy=remedy) from error


def relative_difference(found: _Values, own: _Values, typical: float, threshold: float) -> float:
    """The largest difference on the calibrated scale, relative for values of magnitude above 1 on that scale."""
    scale = np.maximum(threshold - typical, np.abs(own - typical))
    return float(np.max(np.abs(found - own) / scale))
