"""A method's scoring as a graph that lies in the saved inspector, so that pictures are inspected without torch.

    levels (1, h, w, D) each, what the method has learnt  →  map (1, H, W) and score (1,)

No scoring is written a second time: torch follows the method's own `score`, as it does for `handful.saved.export`; of
which methods it can, their `traceable` says.
What the method has learnt goes in as it lies in the inspector, so that the graph holds none of it and is the same for
all inspectors of one method, settings and shapes.
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

# What a graph's answers may differ by from the inspector's, where 1 is from a typical good part to the threshold, or
# as a share of what is farther than that: a tenth of the last digit that is printed. The order of float32's sums alone
# makes 1e-6 to 2e-4 of it (docs/export.md); what is more is another computation.
TOLERANCE = 1e-3

Shape = tuple[int, ...]
_Values = NDArray[np.float32] | float


@dataclass(frozen=True, eq=False)
class KeptGraph:
    """The graph in a saved inspector.

    Attributes:
        entries: its files.
        score, map: how far its answers lay from the inspector's on the references' thumbnails, see `TOLERANCE`.
    """

    entries: dict[str, bytes]
    score: float
    map: float


class Scoring(nn.Module):
    """A method's scores of one picture, with what it has learnt as inputs.

    Args:
        method: of these settings; what it has learnt itself does not matter.
        state: the shapes of its state; those that hold nothing are no inputs.
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
        """Levels, then the state, then the levels of a good picture, if they count → map (1, H, W), score (1,)."""
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
    """Make the graph of a fitted method's scoring, and check that it answers as the inspector does.

    Args:
        look: what the inspector sees in a picture (3, H, W) by torch.
        images: pictures to compare the two on.

    Raises:
        SettingError, InspectorError: where there can be none, or where it answers otherwise; the sentence says why.
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
    """Raise SettingError, naming traceable methods, for one whose scoring torch cannot follow into a graph."""
    if not method.traceable:
        able = ", ".join(name for name, known in methods.METHODS.items() if known.traceable)
        raise SettingError(
            f"A method must be traceable to have a graph, as {able} are, got {method.name}; fit one of these."
        )


def traced(method: methods.Method, features: ReferenceFeatures) -> dict[str, bytes]:
    """The files of the graph of a fitted method's scoring, for pictures like those that it has learnt."""
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
    """A graph ready to run, with what the method has learnt.

    Raises:
        InspectorError: if it cannot be read; SettingError: if this CPU does not compute in its precision.
    """
    from handful.backbones.openvino_engine import WholeGraph

    given = {f"{STATE_INPUT}{name}": value.numpy() for name, value in method.state().items()}
    given |= {f"{GOOD_INPUT}{number}": level.numpy() for number, level in enumerate(features.good.levels)}
    return WholeGraph(backbone.spec, {**backbone.entries, **entries}, given)


def from_entries(manifest: Mapping[str, Any], entries: Mapping[str, bytes]) -> KeptGraph | None:
    """Out of a saved inspector; None where it holds none."""
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
    """The graph, remembered for a process that saves many alike."""
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
    """Turn any error of a package that writes graphs into one sentence, see `handful.errors.conversion_error`."""
    try:
        yield
    except (HandfulError, OSError):
        raise
    except Exception as error:
        remedy = "fit it with other settings or on another backbone"
        raise conversion_error(subject, writer, error, remedy=remedy) from error


def relative_difference(found: _Values, own: _Values, typical: float, threshold: float) -> float:
    """The largest difference, on the calibrated scale, or as a share of values above 1 on it."""
    scale = np.maximum(threshold - typical, np.abs(own - typical))
    return float(np.max(np.abs(found - own) / scale))
