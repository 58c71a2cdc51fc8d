"""FASL: the scoring, and the training of the head."""

from handful.methods.fasl.scoring import FASL
from handful.methods.fasl.training import ScoreLearning

__all__ = ["FASL", "ScoreLearning"]
