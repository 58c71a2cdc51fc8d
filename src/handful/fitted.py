"""What an inspector consists of once it is fitted."""

from dataclasses import dataclass
from functools import cached_property

from handful import capture, decision
from handful.backbones.base import Backbone
from handful.data.preprocessing import Preprocessing
from handful.evidence import Evidence
from handful.memory import Memory
from handful.revisions import History
from handful.turning import Turning


@dataclass(frozen=True)
class Reference:
    """One good picture that an inspector has learnt from.

    Attributes:
        name: its path, or the name given to a picture in memory.
        sha256: of its file, or of its pixels.
        thumbnail: a small JPEG of it.
    """

    name: str
    sha256: str
    thumbnail: bytes


@dataclass(frozen=True, eq=False)
class Fitted:
    """What `fit` adds to a detector, whole or not at all."""

    backbone: Backbone
    preprocessing: Preprocessing
    calibration: decision.Calibration
    references: tuple[Reference, ...]  # in the order in which the method has learnt them
    gate: capture.Gate
    turning: Turning | None  # None for an inspector saved before parts could turn
    memory: Memory | None  # None for an inspector of format 1, as `history`
    history: History | None

    @cached_property
    def evidence(self) -> Evidence | None:
        """Where to look up what a defect was compared with; None where the good pictures' features are not kept."""
        if self.memory is None:
            return None
        learnt = [features.arrays(0) for features in self.memory.learnt]
        return Evidence(learnt, [reference.name for reference in self.references])
