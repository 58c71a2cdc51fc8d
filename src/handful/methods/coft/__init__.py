"""COFT-AD: a Gaussian over random views of the references, on a backbone that a training may have tuned."""

from handful.methods.coft.scoring import COFT
from handful.methods.coft.training import ContrastiveTuning

__all__ = ["COFT", "ContrastiveTuning"]
