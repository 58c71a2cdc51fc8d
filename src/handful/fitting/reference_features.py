"""The features of references that an inspector keeps, to be fitted again without the pictures."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from handful import methods
from handful.fitting import calibration
from handful.fitting.calibration import join
from handful.types import Features


@dataclass(frozen=True, eq=False)
class ReferenceFeatures:
    """Features as the backbone gave them, float32, so that fitting to them again gives the same to the bit.

    Attributes:
        learnt: of every picture that the method has learnt, one each: the references, then those taught since.
        augmented: of each of these the averaged features of the random variations that the method wants, as one batch;
            empty where it wants none.
        turned: of each of these the patches of its turned copies, see `handful.fitting.rotation.turned_patches`; empty
            where parts do not turn.
        defects: of every missed defect, one each.
        masks: (H, W) bool, the ignored regions by the number of their revision.
        tiles: of each picture learnt the patches kept of its tiles, (1, 1, N, D) at every level, which the method has
            learnt; empty where pictures are not looked at in tiles. `learnt` is then of each picture as a whole, and
            `defects` of the strangest tile of each.
    """

    learnt: tuple[Features, ...]
    augmented: tuple[Features, ...] = ()
    turned: tuple[Features, ...] = ()
    defects: tuple[Features, ...] = ()
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    tiles: tuple[Features, ...] = ()

    @cached_property
    def ignored(self) -> NDArray[np.bool_] | None:
        """All ignored regions as one: (H, W) bool, or None."""
        return np.any(list(self.masks.values()), 0) if self.masks else None

    @property
    def good(self) -> Features:
        """The features of the picture that stands in for the ignored region."""
        return self.learnt[0]

    def with_learnt(
        self,
        features: Sequence[Features],
        augmented: Sequence[Features],
        turned: Sequence[Features],
        tiles: Sequence[Features] = (),
    ) -> "ReferenceFeatures":
        """A copy with more pictures learnt."""
        return replace(
            self,
            learnt=(*self.learnt, *features),
            augmented=(*self.augmented, *augmented),
            turned=(*self.turned, *turned),
            tiles=(*self.tiles, *tiles),
        )

    def without_learnt(self, rows: Sequence[int]) -> "ReferenceFeatures":
        """A copy without the pictures of some rows."""
        kept = [row for row in range(len(self.learnt)) if row not in rows]
        learnt, augmented, turned, tiles = (
            tuple(found[row] for row in kept) if found else ()
            for found in (self.learnt, self.augmented, self.turned, self.tiles)
        )
        return replace(self, learnt=learnt, augmented=augmented, turned=turned, tiles=tiles)

    def fitted(self, method: methods.Method) -> methods.Method:
        """A new method of the same settings and scale, fitted to all that was learnt."""
        augmented, turned = (join(found) if found else None for found in (self.augmented, self.turned))
        learnt = join(self.tiles or self.learnt)
        return method.unfitted().fit(learnt, augmented=augmented, turned=turned).weighed_as(method)

    def factors(
        self, method: methods.Method, references: int, image: Sequence[float], peaks: Sequence[float]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """By how much the ignored region changes the score that each reference has where it is left out.

        Measured on the picture itself, and taken for its variations too, whose features are not kept. A single
        reference cannot be left out: its scores stay as they are, and the threshold errs towards fewer false alarms.

        Args:
            references: k, how many of the pictures learnt are references.
            image, peaks: (k,) image score and highest map value of each, all counting.
        """
        if self.ignored is None or references == 1:
            return (1.0,) * references, (1.0,) * references
        views = [[features] for features in self.learnt[:references]]
        augmented = [[features] for features in self.augmented[:references]]
        now_image, now_peaks = calibration.good_scores(
            method, views, augmented, self.turned[:references], ignored=self.ignored
        )
        return (
            tuple(now / max(before, 1e-12) for now, before in zip(now_image[:, 0].tolist(), image, strict=True)),
            tuple(now / max(before, 1e-12) for now, before in zip(now_peaks[:, 0].tolist(), peaks, strict=True)),
        )
