"""PatchCore: the distance of each patch to the nearest good patch.

Paper: Roth et al., Towards Total Recall in Industrial Anomaly Detection, CVPR 2022, sections 3.1 to 3.3.
Reference code: amazon-science/patchcore-inspection at fcaa92f.

Departures, each a setting:
- `dimensions` None keeps the channels that the backbone has and averages the 3x3 neighbourhood. The code's
  re-sampling of every neighbourhood to a fixed 1024 values is there as `dimensions=1024`. On a small backbone it
  spreads 40 channels over 1024 and costs accuracy (benchmarks/papers/few_shot.md).
- `level_weights` "equal" divides each level by its root mean square on the references, so that no level rules because
  its values happen to be large; the paper's is "raw".
- `image_score` "top_share", the mean of the highest 1 % of the patch distances, is steadier with few references than
  the paper's re-weighted maximum ("reweighted") or the code's plain maximum ("max").
- All good patches stay in the bank (`coreset_ratio` 1): a handful of pictures leaves no need to drop any.
- `squared` False takes Euclidean distances as in the paper. The code's search returns their squares, which it averages
  over neighbours and blurs: True does so, and takes the root of the final map and image score, on which the threshold's
  assumptions rest (handful/inspection/threshold.py).

Departures without a setting:
- Pictures come in whole, resized bicubically. The code resizes the shorter side to 256 bilinearly and keeps the middle
  224 x 224: pictures that are so resized and cut before they are given, at a `size` of 224, go in as they are.
- A coreset is chosen exactly, from the first patch on. The code's choice begins with ten random patches and goes by 128
  random projections, so another seed gives other scores: with a tenth of the bank these differ from ours as they do
  from one another (tests/golden/patchcore_whole.md). At `coreset_ratio` 1 nothing is chosen in either.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
from torch import Tensor

from handful.methods.base import Method, require
from handful.ops.coreset import greedy_coreset
from handful.ops.maps import pixel_map, top_share
from handful.ops.neighbors import Bank, distance
from handful.ops.patches import LevelWeights, level_scales, patch_vectors
from handful.types import Features, Scores

ImageScore = Literal["top_share", "max", "reweighted"]


@dataclass(kw_only=True, eq=False)
class PatchCore(Method):
    """PatchCore with a bank of good patches.

    Attributes:
        neighbourhood: side of the window that each patch is pooled over, odd; 1 for no pooling.
        dimensions: None, or the length to which each patch is re-sampled as in the authors' code.
        level_weights: "equal" or "raw", see the module's departures; "equal" has no effect with `dimensions`.
        coreset_ratio: share of the good patches kept in the bank, by greedy k-centre selection that begins with the
            first patch; below 1 the order of the references matters.
        neighbours: the number of nearest bank rows whose mean distance is the patch score.
        squared: whether squared distances are averaged and blurred, and the root is taken at the end.
        image_score: "top_share", "max", or the paper's "reweighted" maximum (equation 7).
        share: the share of patches that "top_share" averages.
        reweight_neighbours: b of equation 7.
        sigma: of the map's Gaussian blur, in model-input pixels.
    """

    name: ClassVar[str] = "patchcore"
    traceable: ClassVar[bool] = True

    neighbourhood: int = 3
    dimensions: int | None = None
    level_weights: LevelWeights = "equal"
    coreset_ratio: float = 1.0
    neighbours: int = 1
    squared: bool = False
    image_score: ImageScore = "top_share"
    share: float = 0.01
    reweight_neighbours: int = 9
    sigma: float = 4.0

    bank_: Bank = field(init=False, repr=False)
    scales_: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        odd = self.neighbourhood >= 1 and self.neighbourhood % 2 == 1
        require(odd, "neighbourhood", "odd, from 1", self.neighbourhood)
        require(self.dimensions is None or self.dimensions >= 1, "dimensions", "None or at least 1", self.dimensions)
        require(0 < self.coreset_ratio <= 1, "coreset_ratio", "in (0, 1]", self.coreset_ratio)
        require(self.neighbours >= 1, "neighbours", "at least 1", self.neighbours)
        require(0 <= self.share <= 1, "share", "in [0, 1]", self.share)
        require(self.reweight_neighbours >= 2, "reweight_neighbours", "at least 2", self.reweight_neighbours)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    def _fit(self, references: Features) -> None:
        self.scales_ = level_scales(references.levels, weights=self.level_weights)
        patches = self._patches(references)  # (B, h, w, D)
        bank = patches.flatten(0, 2)  # (B·h·w, D)
        if self.coreset_ratio < 1:
            bank = bank[greedy_coreset(bank, max(1, int(self.coreset_ratio * len(bank))))]
        needed = max(self.neighbours, self.reweight_neighbours if self.image_score == "reweighted" else 1)
        require(needed <= len(bank), "neighbours", f"at most the bank's {len(bank)} rows", needed)
        self.bank_ = Bank(bank.contiguous())

    def _score(self, queries: Features) -> Scores:
        patches = self._patches(queries)
        patch_scores, image = zip(*(self._score_one(picture) for picture in patches), strict=True)
        maps = pixel_map(torch.stack(patch_scores), queries.size, sigma=self.sigma)
        return Scores(maps.sqrt() if self.squared else maps, torch.stack(image))

    def _score_one(self, picture: Tensor) -> tuple[Tensor, Tensor]:
        """The patch scores and image score of one picture: (h, w, D) → (h, w), ().

        Pictures are scored one by one, so that a picture gets the same scores alone and in a batch.
        """
        rows = picture.flatten(0, 1)  # (h·w, D)
        distances, indices = self.bank_.nearest(rows, neighbours=self.neighbours)
        patch_scores = (distances.square() if self.squared else distances).mean(1).reshape(picture.shape[:2])
        if self.image_score == "reweighted":
            return patch_scores, self._reweighted(rows, distances[:, 0], indices[:, 0])
        share = self.share if self.image_score == "top_share" else 0.0
        image = top_share(patch_scores[None], share=share)[0]
        return patch_scores, image.sqrt() if self.squared else image

    def _reweighted(self, rows: Tensor, distances: Tensor, indices: Tensor) -> Tensor:
        """Equation 7: the largest distance, reduced if the bank is dense around the nearest row."""
        peak = distances.argmax(0, keepdim=True)  # (1,)
        bank = self.bank_.rows
        around = self.bank_.nearest(bank[indices[peak]], neighbours=self.reweight_neighbours)[1][0]
        to_them = distance(rows[peak].expand(len(around), -1), bank[around])  # (b,), the nearest row first
        return (1 - to_them.softmax(0)[0]) * distances[peak][0]

    def _patches(self, features: Features) -> Tensor:
        """The patch vectors on the finest grid: (B, h, w, D)."""
        return patch_vectors(
            features.levels, self.scales_, neighbourhood=self.neighbourhood, dimensions=self.dimensions
        )

    def state(self) -> dict[str, Tensor]:
        return {"depths": torch.tensor(self.depths_ or ()), "bank": self.bank_.rows, "scales": self.scales_}

    def _restore(self, state: dict[str, Tensor]) -> None:
        self.bank_, self.scales_ = Bank(state["bank"]), state["scales"]
