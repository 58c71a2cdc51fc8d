"""COFT-AD's second half: scores by the distance from a Gaussian over random views of the references.

Paper: Liao et al., COFT-AD: COntrastive Fine-Tuning for Few-Shot Anomaly Detection, IEEE Transactions on Image
Processing, 2024, https://arxiv.org/abs/2402.18998. There is no public code. The first half, the fine-tuning, is
`handful.methods.coft.training`. From the paper's abstract and an earlier, anonymous version: a picture's score is its
Mahalanobis distance from one Gaussian, fitted to the L2-normalised embeddings of random augmentations of the
references.

All the rest is our own choice:

- N_A is 50 views, those of `handful.ops.views.random_views`, and the reference itself counts as one more.
- The covariance is always shrunk: there are fewer views than channels. By Ledoit and Wolf (2004), or by OAS as
  scikit-learn has it, without the terms 2 / D of Chen et al. (2010); 1e-12 on its diagonal keeps it invertible where
  views do not differ.
- The score is the distance, not its square, of the picture itself: no views of it are averaged.
- The embedding is the spatial mean of every level, one after another. With one level, the network's last stage, it is
  the paper's: `--levels -1` on a ResNet, `--levels bn2` on an EfficientNet, whose last stage -1 lies one layer below
  the one that is tuned.
- The paper has no map. Ours is PatchCore's on the same features, and the image score does not depend on it.
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from handful.errors import needing
from handful.methods.base import Method, require
from handful.ops.maps import pixel_map
from handful.ops.neighbors import Bank
from handful.ops.patches import LevelWeights, level_scales, patch_vectors
from handful.types import Features, Scores

Shrinkage = Literal["ledoit_wolf", "oas"]

LEAST_VARIANCE = 1e-12  # least variance of a channel of embeddings of length 1, far below the variance over views


@dataclass(kw_only=True, eq=False)
class COFT(Method):
    """COFT-AD's score: the Mahalanobis distance from a Gaussian over embeddings of random views of the references.

    Attributes:
        views: N_A, the number of random views of each reference to which the Gaussian is fitted, besides the reference
            itself.
        shrinkage: the shrinkage of the covariance: "ledoit_wolf", or "oas" for oracle approximating shrinkage.
        neighbourhood: for the map, the side of the window over which each patch is pooled, odd; 1 for no pooling.
        level_weights: for the map, "equal" to bring the levels to a common scale, see
            `handful.ops.patches.level_scales`, or "raw".
        sigma: the standard deviation of the map's Gaussian blur, in model-input pixels.
    """

    name: ClassVar[str] = "coft"
    traceable: ClassVar[bool] = True

    views: int = 50
    shrinkage: Shrinkage = "ledoit_wolf"
    neighbourhood: int = 3
    level_weights: LevelWeights = "equal"
    sigma: float = 4.0

    mean_: Tensor = field(init=False, repr=False)
    whitening_: Tensor = field(init=False, repr=False)
    bank_: Bank = field(init=False, repr=False)
    scales_: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.views >= 1, "views", "at least 1", self.views)
        odd = self.neighbourhood >= 1 and self.neighbourhood % 2 == 1
        require(odd, "neighbourhood", "odd, from 1", self.neighbourhood)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    @property
    def views_wanted(self) -> int:
        return self.views

    def _fit(self, references: Features) -> None:
        self.scales_ = level_scales(references.levels, weights=self.level_weights)
        self.bank_ = Bank(self._patches(references).flatten(0, 2).contiguous())  # (B·h·w, D)

    def _fit_augmented(self, references: Features, augmented: Features) -> None:
        vectors = torch.cat([embedding(references), embedding(augmented)])  # (B + B·views, D)
        mean, whitening = gaussian(vectors.cpu().double().numpy(), shrinkage=self.shrinkage)
        self.mean_, self.whitening_ = (torch.from_numpy(values).to(vectors) for values in (mean, whitening))

    def _score(self, queries: Features) -> Scores:
        # Pictures are scored one at a time, so a picture's scores do not depend on its batch.
        scored = [self._score_one(queries[[row]]) for row in range(len(queries))]
        patch_scores, image = (torch.stack(values) for values in zip(*scored, strict=True))
        return Scores(pixel_map(patch_scores, queries.size, sigma=self.sigma), image)

    def _score_one(self, picture: Features) -> tuple[Tensor, Tensor]:
        """The patch scores (h, w) and the image score () of one picture."""
        patches = self._patches(picture)[0]  # (h, w, D)
        distances, _ = self.bank_.nearest(patches.flatten(0, 1))
        image = torch.linalg.vector_norm(self.whitening_ @ (embedding(picture)[0] - self.mean_), dim=0)
        return distances[:, 0].reshape(patches.shape[:2]), image

    def _patches(self, features: Features) -> Tensor:
        """The patch vectors on the finest grid: (B, h, w, D)."""
        return patch_vectors(features.levels, self.scales_, neighbourhood=self.neighbourhood, dimensions=None)

    def state(self) -> dict[str, Tensor]:
        learnt = {"mean": self.mean_, "whitening": self.whitening_, "bank": self.bank_.rows, "scales": self.scales_}
        return {"depths": torch.tensor(self.depths_ or ()), **learnt}

    def _restore(self, state: dict[str, Tensor]) -> None:
        self.mean_, self.whitening_ = state["mean"], state["whitening"]
        self.bank_, self.scales_ = Bank(state["bank"]), state["scales"]


def embedding(features: Features) -> Tensor:
    """The embeddings of pictures, of length 1: the spatial means of all levels, concatenated: (B, sum of D)."""
    return F.normalize(torch.cat([level.mean((1, 2)) for level in features.levels], dim=1))


def gaussian(vectors: NDArray[np.float64], *, shrinkage: Shrinkage) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Fit a Gaussian of shrunk covariance to at least two vectors (N, D).

    Returns:
        The mean (D,), and a matrix W (D, D) such that |W (x - mean)| is the Mahalanobis distance of x.
    """
    with needing("Fitting coft", "sklearn"):  # takes a second to import, and loading an inspector does not need it
        from sklearn.covariance import ledoit_wolf, oas

    covariance, _ = {"ledoit_wolf": ledoit_wolf, "oas": oas}[shrinkage](vectors)
    factor = np.linalg.cholesky(covariance + LEAST_VARIANCE * np.eye(len(covariance)))
    return vectors.mean(0), np.linalg.inv(factor)
