"""Which good patch each region of a defect was compared with, and what good pictures show that a picture lacks."""

from collections.abc import Sequence
from dataclasses import replace

from handful.learning import join
from handful.ops.evidence import Place, least_found, nearest_places
from handful.ops.patches import level_scales, patch_vectors
from handful.types import Features, Likeness, Region

NEIGHBOURHOOD = 3  # patches a side that a place is seen with


class Evidence:
    """Finds it among the pictures that an inspector has learnt, by the backbone's features, each level with one say.

    Args:
        learnt: one picture each.
        names: of these.
    """

    def __init__(self, learnt: Sequence[Features], names: Sequence[str]) -> None:
        levels = join(learnt).levels
        self._names = tuple(names)
        self._scales = level_scales(levels, weights="equal")
        self._references = patch_vectors(levels, self._scales, neighbourhood=NEIGHBOURHOOD, dimensions=None)

    def explain(
        self, regions: Sequence[Region], features: Features, size: tuple[int, int]
    ) -> tuple[tuple[Region, ...], Likeness]:
        """Add to each region the good patch nearest to its peak; beside them, what may be missing.

        Args:
            regions: of the picture.
            features: of the picture alone (B = 1).
            size: width, height of the original picture, in whose pixels the regions are given.
        """
        query = patch_vectors(features.levels, self._scales, neighbourhood=NEIGHBOURHOOD, dimensions=None)[0]
        height, width, _ = query.shape
        at = [(y * height // size[1], x * width // size[0]) for x, y in (region.peak_at for region in regions)]
        nearest = [self._likeness(place) for place in nearest_places(query, self._references, at)]
        explained = tuple(replace(region, nearest=one) for region, one in zip(regions, nearest, strict=True))
        return explained, self._likeness(least_found(query, self._references))

    def _likeness(self, place: Place) -> Likeness:
        _, height, width, _ = self._references.shape
        at = ((place.column + 0.5) / width, (place.row + 0.5) / height)
        return Likeness(self._names[place.picture], at, place.distance)
