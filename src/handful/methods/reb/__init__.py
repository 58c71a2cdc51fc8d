"""REB: the scoring method LDKNN, and the training that tunes a backbone for it."""

from handful.methods.reb.scoring import REB
from handful.methods.reb.training import DefectClassification

__all__ = ["REB", "DefectClassification"]
