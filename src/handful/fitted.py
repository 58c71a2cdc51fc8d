"""What an inspector consists of once it is fitted."""

from dataclasses import dataclass

from handful import capture, decision
from handful.backbones.base import Backbone
from handful.data.preprocessing import Preprocessing
from handful.memory import Memory
from handful.methods import Method
from handful.oddity import Oddity
from handful.revisions import History
from handful.scoring import KeptGraph
from handful.turning import Turning
from handful.types import Reference
from handful.visibility import Trials


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` adds to a detector, whole or not at all."""

    method: Method  # fitted
    backbone: Backbone
    preprocessing: Preprocessing
    calibration: decision.Calibration
    references: tuple[Reference, ...]  # in the order in which the method has learnt them
    gate: capture.Gate
    turning: Turning | None  # None for an inspector saved before parts could turn
    memory: Memory
    history: History
    graph: KeptGraph | None = None  # that it was saved with
    oddities: tuple[Oddity, ...] = ()  # references that are unlike the others
    trials: Trials | None = None  # of synthetic defects; None where none were planted
    sizing: str | None = None  # which size `auto` chose, and why
