"""ResAD: the scoring, and the training of the head."""

from handful.methods.resad.scoring import ResAD
from handful.methods.resad.training import ResidualTraining

__all__ = ["ResAD", "ResidualTraining"]
