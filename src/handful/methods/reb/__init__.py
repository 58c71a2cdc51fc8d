"""REB: LDKNN, on a backbone that a training may have tuned."""

from handful.methods.reb.scoring import REB
from handful.methods.reb.training import DefectClassification

__all__ = ["REB", "DefectClassification"]
