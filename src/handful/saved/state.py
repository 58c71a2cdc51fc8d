"""What an inspector consists of once it is fitted."""

from dataclasses import dataclass

from handful.backbones.base import Backbone
from handful.data.preprocessing import Preprocessing
from handful.fitting.oddity import Oddity
from handful.fitting.reference_features import ReferenceFeatures
from handful.fitting.revisions import History
from handful.fitting.rotation import Rotation
from handful.fitting.visibility import Trials
from handful.graphs.scoring import KeptGraph
from handful.inspection import threshold
from handful.inspection.gate import Gate
from handful.methods import Method
from handful.types import Reference


@dataclass(frozen=True, eq=False)
class InspectorState:
    """What `fit` adds to a detector, whole or not at all."""

    method: Method  # fitted
    backbone: Backbone
    preprocessing: Preprocessing
    calibration: threshold.Calibration
    references: tuple[Reference, ...]  # in the order in which the method has learnt them
    gate: Gate
    turning: Rotation | None  # None for an inspector saved before parts could turn
    memory: ReferenceFeatures | None  # None for an inspector of format 1, as `history`
    history: History | None
    graph: KeptGraph | None = None  # that it was saved with
    oddities: tuple[Oddity, ...] = ()  # references that are unlike the others
    trials: Trials | None = None  # of synthetic defects; None where none were planted
    sizing: str | None = None  # which size `auto` chose, and why
