"""The features that an inspector keeps of its references, so that corrections can fit again without the pictures."""

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
    """Features in the backbone's own float32, so that a second fit to them gives the same method to the last bit.

    Attributes:
        learnt: the features of every learnt picture: the references, then the pictures taught later.
        augmented: for each learnt picture the averaged features of the random views that the method wants, as a batch;
            empty if the method wants none.
        turned: for each learnt picture the patches of its turned copies, see
            `handful.fitting.rotation.turned_patches`; empty without turned copies.
        defects: the features of every recorded missed defect.
        masks: (H, W) bool, the ignored regions by the number of their revision.
        tiles: with tiles, for each learnt picture the patches kept of its tiles, (1, 1, N, D) at every level, which the
            method has learnt; empty without tiles. With tiles, `learnt` holds the features of each picture as a whole,
            and `defects` the features of each defect's highest tile.
    """

    learnt: tuple[Features, ...]
    augmented: tuple[Features, ...] = ()
    turned: tuple[Features, ...] = ()
    defects: tuple[Features, ...] = ()
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    tiles: tuple[Features, ...] = ()

    @cached_property
    def ignored(self) -> NDArray[np.bool_] | None:
        """The union of all ignored regions: (H, W) bool; None without ignored regions."""
        return np.any(list(self.masks.values()), 0) if self.masks else None

    @property
    def good(self) -> Features:
        """The features of the reference whose patches replace the patches of ignored regions."""
        return self.learnt[0]

    def with_learnt(
        self,
        features: Sequence[Features],
        augmented: Sequence[Features],
        turned: Sequence[Features],
        tiles: Sequence[Features] = (),
    ) -> "ReferenceFeatures":
        """A copy with further learnt pictures."""
        return replace(
            self,
            learnt=(*self.learnt, *features),
            augmented=(*self.augmented, *augmented),
            turned=(*self.turned, *turned),
            tiles=(*self.tiles, *tiles),
        )

    def without_learnt(self, rows: Sequence[int]) -> "ReferenceFeatures":
        """A copy without the learnt pictures of some rows."""
        kept = [row for row in range(len(self.learnt)) if row not in rows]
        learnt, augmented, turned, tiles = (
            tuple(found[row] for row in kept) if found else ()
            for found in (self.learnt, self.augmented, self.turned, self.tiles)
        )
        return replace(self, learnt=learnt, augmented=augmented, turned=turned, tiles=tiles)

    def fitted(self, method: methods.Method) -> methods.Method:
        """A new method with the settings and evidence weights of `method`, fitted to all learnt pictures."""
        augmented, turned = (join(found) if found else None for found in (self.augmented, self.turned))
        learnt = join(self.tiles or self.learnt)
        return method.unfitted().fit(learnt, augmented=augmented, turned=turned).weighed_as(method)

    def factors(
        self, method: methods.Method, references: int, image: Sequence[float], peaks: Sequence[float]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """The factors by which the ignored region changes each reference's leave-one-out image score and map peak.

        The factors are measured on the unchanged references and hold for their variations too, whose features are not
        kept. A single reference cannot be left out: its factors are 1, and the threshold errs towards fewer false
        alarms.

        Args:
            method: gives class and settings of the methods to fit.
            references: k, the number of learnt pictures that are references.
            image, peaks: (k,) image score and map peak of each reference without an ignored region.
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
