"""COFT-AD: scores by a Gaussian over random views of the references, and the training that tunes a backbone for it."""

from handful.methods.coft.scoring import COFT
from handful.methods.coft.training import ContrastiveTuning

__all__ = ["COFT", "ContrastiveTuning"]
