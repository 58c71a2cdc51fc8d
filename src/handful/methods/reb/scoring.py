"""REB's LDKNN: the squared distance of each patch to the nearest good patch, corrected by the density of good patches.

Paper: Lyu, Mo and Wong, REB: Reducing Biases in Representation for Industrial Anomaly Detection, Knowledge-Based
Systems, 2024, https://arxiv.org/abs/2308.12577. Reference code: ShuaiLYU/REB at 438314c.

With d² the squared Euclidean distance, n the nearest row of the bank to a patch q, and LD(m) the mean of d² from a row
m to its K nearest other rows, the patch score is

    d²(q, n) - α LD(n).

All good patches stay in the bank. LDKNN is the scoring half of REB; the other half trains the backbone.

Departures, each a setting. They were chosen on good pictures and synthetic defects
(benchmarks/papers/reb/ldknn_references.md), where LDKNN matters little: with α 0 the image
AUROC is 85.4 %, and ours adds 0.4 ± 0.2.
- `alpha` 0.25. The authors' is 1, which with their K and no `exclude_radius` adds nothing sure: 0.3 ± 0.3 in image
  AUROC (0.6 ± 0.4 by their image score), and nothing in pixel AP.
- `exclude_radius` 2. With a few references the nearest others of a patch are mostly its neighbours in the same picture,
  whose windows overlap it, and say nothing about how parts differ. The authors' 0 leaves out the patch alone. With
  α 0.25 it is a little better (85.9 against 85.6 % in image AUROC), with α 1 it costs 0.8 % of pixel AP.
- `neighbours` 9 is the authors' K, which they chose on test pictures; 3 is no better.
- `correction` "ratio", d² / LD^α, is ours, and loses 0.8 to 3.9 % of image AUROC and 4 to 14 % of pixel AP.
- `image_score` "top_share", as PatchCore's. The authors' highest mean of windows that lie side by side ("authors") is
  0.8 ± 0.4 % worse; windows around every patch ("mended") are level, and the plain maximum (`share` 0) is
  0.5 ± 0.3 % better, less than two errors.
- `dimensions` None and `level_weights` "equal", as PatchCore's; the authors re-sample every window to 512 values.

Ours too: thresholds are set on logarithms of distances, and their assumptions (handful/inspection/threshold.py) were
measured on PatchCore's. So every patch score is moved up by α times the highest LD in the bank, and of the final map
and image score the root is taken. Neither changes an order. How the threshold then does has not been measured at size.

A row is never its own neighbour. The code leaves it out only where its distance to itself comes out as 0: of real
pictures 40 % of the rows count themselves where faiss computes by products, as it does unless told otherwise, which
moves scores by up to 6 % of their range; where faiss computes differences, scores and maps are ours
(tests/golden/reb_whole.md).
"""

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.methods.base import Method, require
from handful.ops.maps import pixel_map, top_share
from handful.ops.neighbors import Bank, neighbourhoods
from handful.ops.patches import LevelWeights, level_scales, patch_vectors
from handful.types import Features, Scores

Correction = Literal["difference", "ratio"]
ImageScore = Literal["authors", "mended", "top_share"]


@dataclass(kw_only=True, eq=False)
class REB(Method):
    """LDKNN with a bank of all good patches.

    Attributes:
        neighbourhood: the side of the window over which each patch is pooled, odd; 1 for no pooling.
        dimensions: the length to which each patch vector is re-sampled, as in the authors' code, where it is 512; None
            for no re-sampling.
        level_weights: "equal" to bring the levels to a common scale, see `handful.ops.patches.level_scales`, or "raw";
            "equal" has no effect with `dimensions`.
        neighbours: K, the number of other bank rows over which LD is the mean. Authors: 9.
        alpha: α, the weight of LD; 0 leaves the plain squared distance. Authors: 1.
        exclude_radius: patches of the same reference within this number of grid steps, also diagonally, do not count
            for LD; 0 excludes only the patch itself.
        correction: "difference" for d² - α LD, or "ratio" for d² / LD^α.
        image_score: "top_share", the mean of the highest patch scores; "mended", the highest mean of the 3x3 patches
            around any patch; or "authors", the highest mean of 3x3 windows that lie side by side.
        share: the share of the patches over which "top_share" averages.
        sigma: the standard deviation of the map's Gaussian blur, in model-input pixels.
    """

    name: ClassVar[str] = "reb"
    traceable: ClassVar[bool] = True

    neighbourhood: int = 3
    dimensions: int | None = None
    level_weights: LevelWeights = "equal"
    neighbours: int = 9
    alpha: float = 0.25
    exclude_radius: int = 2
    correction: Correction = "difference"
    image_score: ImageScore = "top_share"
    share: float = 0.01
    sigma: float = 4.0

    bank_: Bank = field(init=False, repr=False)
    scales_: Tensor = field(init=False, repr=False)
    densities_: Tensor = field(init=False, repr=False)
    offset_: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        odd = self.neighbourhood >= 1 and self.neighbourhood % 2 == 1
        require(odd, "neighbourhood", "odd, from 1", self.neighbourhood)
        require(self.dimensions is None or self.dimensions >= 1, "dimensions", "None or at least 1", self.dimensions)
        require(self.neighbours >= 1, "neighbours", "at least 1", self.neighbours)
        require(self.alpha >= 0, "alpha", "at least 0", self.alpha)
        require(self.exclude_radius >= 0, "exclude_radius", "at least 0", self.exclude_radius)
        require(0 <= self.share <= 1, "share", "in [0, 1]", self.share)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    def _fit(self, references: Features) -> None:
        self.scales_ = level_scales(references.levels, weights=self.level_weights)
        patches = self._patches(references)  # (B, h, w, D)
        self.bank_ = Bank(patches.flatten(0, 2).contiguous())  # (B·h·w, D)
        self.densities_ = self._densities(patches)
        peak = self.densities_.max()
        self.offset_ = self.alpha * peak if self.correction == "difference" else torch.zeros_like(peak)

    def _densities(self, patches: Tensor) -> Tensor:
        """LD of each bank row: (B·h·w,); 0 for all rows if α is 0, as LD costs more time than the rest of `fit`."""
        if self.alpha == 0:
            return patches.new_zeros(len(self.bank_.rows))
        grid = patches.shape[1:3]
        side = 2 * self.exclude_radius + 1
        others = len(self.bank_.rows) - min(side, grid[0]) * min(side, grid[1])
        rule = f"at most the {others} other rows of the bank"
        require(self.neighbours <= others, "neighbours", rule, self.neighbours)
        return squares_to_others(patches, neighbours=self.neighbours, exclude_radius=self.exclude_radius).mean(1)

    def _score(self, queries: Features) -> Scores:
        patches = self._patches(queries)
        # Pictures are scored one at a time, so a picture's scores do not depend on its batch.
        patch_scores = torch.stack([self._patch_scores(picture) for picture in patches])  # (B, h, w)
        if self.image_score == "top_share":
            image = top_share(patch_scores, share=self.share)
        else:
            image = window_peak(patch_scores, mended=self.image_score == "mended")
        maps = pixel_map(patch_scores, queries.size, sigma=self.sigma).clamp_min(0)  # blurred zeros may round below 0
        return Scores(maps.sqrt(), image.clamp_min(0).sqrt())

    def _patch_scores(self, picture: Tensor) -> Tensor:
        """The patch scores of a picture: (h, w, D) → (h, w)."""
        distances, indices = self.bank_.nearest(picture.flatten(0, 1))
        squares, densities = distances[:, 0].square(), self.densities_[indices[:, 0]]
        values = corrected(squares, densities, alpha=self.alpha, correction=self.correction)
        return (values + self.offset_).reshape(picture.shape[:2])

    def _patches(self, features: Features) -> Tensor:
        """The patch vectors on the finest grid: (B, h, w, D)."""
        return patch_vectors(
            features.levels, self.scales_, neighbourhood=self.neighbourhood, dimensions=self.dimensions
        )

    def state(self) -> dict[str, Tensor]:
        return {
            "depths": torch.tensor(self.depths_ or ()),
            "bank": self.bank_.rows,
            "scales": self.scales_,
            "densities": self.densities_,
            "offset": self.offset_,
        }

    def _restore(self, state: dict[str, Tensor]) -> None:
        self.bank_, self.scales_ = Bank(state["bank"]), state["scales"]
        self.densities_, self.offset_ = state["densities"], state["offset"]


def squares_to_others(patches: Tensor, *, neighbours: int, exclude_radius: int) -> Tensor:
    """The squared distances of each patch to its K nearest other patches, nearest first: (B, h, w, D) → (B·h·w, K).

    Their mean is LD. Patches of the same picture within `exclude_radius` grid steps, also diagonally, do not count as
    other patches; nor does the patch itself, even if rounding makes its distance to itself differ from 0.
    """
    rows = patches.flatten(0, 2)
    excluded = neighbourhoods(*patches.shape[:3], radius=exclude_radius).to(patches.device)
    distances, _ = Bank(rows).nearest(rows, neighbours=neighbours, excluded=excluded)
    return distances.square()


def corrected(squares: Tensor, densities: Tensor, *, alpha: float, correction: Correction) -> Tensor:
    """The patch scores: squared distances to rows of the bank, corrected by LD of these rows.

    `squares`, `densities` and the result have the same shape. For a "ratio" LD is at least 1.2e-7, because LD is 0 for
    equal references.
    """
    if correction == "ratio":
        return squares / densities.clamp_min(torch.finfo(densities.dtype).eps) ** alpha
    return squares - alpha * densities


def window_peak(patch_scores: Tensor, *, mended: bool) -> Tensor:
    """The image score of the authors' code, the highest mean of a 3x3 window of patches: (B, h, w) → (B,).

    If `mended`, a window lies around every patch and is smaller at the border. In the authors' code windows lie side by
    side, so up to four windows may share a defect, and the last one or two rows and columns may not count.

    Raises:
        SettingError: unless `mended`, for a grid below 3x3 patches.
    """
    if mended:
        means = F.avg_pool2d(patch_scores, 3, stride=1, padding=1, count_include_pad=False)
    else:
        rule = "mended or top_share on a grid below 3x3 patches"
        require(min(patch_scores.shape[1:]) >= 3, "image_score", rule, "authors")
        means = F.avg_pool2d(patch_scores, 3)
    return means.flatten(1).amax(1)
