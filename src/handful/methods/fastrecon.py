"""FastRecon: reconstruct each patch from a few good patches, kept near the mean good patch of its place.

Paper: Fang et al., FastRecon: Few-shot Industrial Anomaly Detection via Fast Feature Reconstruction, ICCV 2023.
Reference code: FzJun26th/FastRecon at fcffadb.

With Q the query's patches (N, C), S the coreset of the good patches (n, C) and mu the position-wise mean of the
references (N, C), the reconstruction is W S where W minimises

    || Q - W S ||² + λ || W S - mu ||²,   so   W = (Q + λ mu) Sᵀ [(1 + λ) S Sᵀ]⁻¹,

and W S is the projection of (Q + λ mu) / (1 + λ) onto the rows of S. The patch score is the distance of Q from W S.

Left out, because they are errors of the released code: only the last batch of references stays in its memory (one
picture at its default batch size); its default input of 7200x2400 belongs to a private data set; its plain float32
inverse of S Sᵀ, which near-duplicate patches make singular, is a float64 Cholesky solve with a small ridge here.
Its un-fitted random projection, which fails and is skipped there too, has no counterpart.

Pictures come in whole, resized bicubically; the code squeezes them to a square by Lanczos' filter and keeps its middle.
Pictures that are so brought to `size` before they are given go in as they are, and then scores and maps are the code's
(tests/golden/fastrecon_whole.md).

Ours: the coreset never has more rows than half the channels. With n ≥ C rows S spans the whole space, the projection is
the identity and the method collapses into a position-wise difference from the mean (into 0 everywhere for λ = 0).

Ours too: `gate`. The mean of a place says something only where the references show the same thing there; for a part
that lies anyhow it is a blur, and a large λ hurts. The references tell which it is: the cosine between two references
at the same place, once the mean of all good patches has been taken off, is 1 for equal pictures and about 0 for
unrelated ones. The gate multiplies λ by its mean over places and pairs, at least 0. One reference alone cannot tell,
and its λ stays.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.methods.base import Method, require
from handful.ops.coreset import greedy_coreset
from handful.ops.maps import merge_levels, pixel_map, pool_neighbourhood, top_share
from handful.types import Features, Scores

RIDGE = 1e-6  # of the mean diagonal of S Sᵀ


@dataclass(kw_only=True, eq=False)
class FastRecon(Method):
    """FastRecon in closed form; the order of the references matters through the coreset's first row.

    Attributes:
        lam: λ, the weight that holds the reconstruction to the position-wise mean; the code's default is 2. Parts that
            lie anywhere and at any angle need a small λ, as their position-wise mean is a blur.
        coreset_ratio: share of the good patches in the coreset; the published description says 1 %, the code's default
            is 0.1 %.
        share: the share of patch scores that the image score averages; 0 for the maximum, as in the code.
        gate: whether λ is multiplied by the agreement of the references place by place, see `alignment`.
        sigma: of the map's Gaussian blur, in model-input pixels.
    """

    name: ClassVar[str] = "fastrecon"
    traceable: ClassVar[bool] = True
    order_matters: ClassVar[bool] = True

    lam: float = 2.0
    coreset_ratio: float = 0.01
    share: float = 0.0
    gate: bool = False
    sigma: float = 4.0

    lam_: Tensor = field(init=False, repr=False)
    coreset_: Tensor = field(init=False, repr=False)
    mean_: Tensor = field(init=False, repr=False)
    solver_: Tensor = field(init=False, repr=False)
    _mean_coefficients: Tensor = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.lam >= 0, "lam", "at least 0", self.lam)
        require(0 < self.coreset_ratio <= 1, "coreset_ratio", "in (0, 1]", self.coreset_ratio)
        require(0 <= self.share <= 1, "share", "in [0, 1]", self.share)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    def _fit(self, references: Features) -> None:
        patches = _patches(references)  # (B, h, w, C)
        rows = patches.flatten(0, 2)  # (B·h·w, C)
        size = min(int(self.coreset_ratio * len(rows)), rows.shape[1] // 2)
        self.coreset_ = rows[greedy_coreset(rows, max(1, size))]
        self.mean_ = patches.mean(0)
        self.lam_ = self.lam * alignment(patches) if self.gate and len(patches) > 1 else rows.new_tensor(self.lam)
        self.solver_ = reconstruction_solver(self.coreset_)
        self._prepare()

    def _prepare(self) -> None:
        """Compute the part of W that comes from λ mu, equal for every picture: (h·w, n)."""
        self._mean_coefficients = (self.lam_ / (1 + self.lam_)) * (self.mean_.flatten(0, 1) @ self.solver_)

    def _score(self, queries: Features) -> Scores:
        patches = _patches(queries)
        residuals = torch.stack([self._residuals(picture) for picture in patches])
        return Scores(pixel_map(residuals, queries.size, sigma=self.sigma), top_share(residuals, share=self.share))

    def _residuals(self, picture: Tensor) -> Tensor:
        """The distance of each patch of one picture from its reconstruction: (h, w, C) → (h, w)."""
        if picture.shape != self.mean_.shape:
            picture_grid, mean_grid = tuple(picture.shape[:2]), tuple(self.mean_.shape[:2])
            require(False, "size", f"that of `fit`, which gave a grid of {mean_grid}", picture_grid)
        rows = picture.flatten(0, 1)  # (h·w, C)
        coefficients = torch.addmm(self._mean_coefficients, rows, self.solver_ / (1 + self.lam_))  # W: (h·w, n)
        residuals = torch.addmm(rows, coefficients, self.coreset_, alpha=-1)  # Q - W S: (h·w, C)
        lengths: Tensor = torch.linalg.vector_norm(residuals, dim=1)
        return lengths.reshape(picture.shape[:2])

    def state(self) -> dict[str, Tensor]:
        learnt = {"lam": self.lam_, "coreset": self.coreset_, "mean": self.mean_, "solver": self.solver_}
        return {"depths": torch.tensor(self.depths_ or ()), **learnt}

    def _restore(self, state: dict[str, Tensor]) -> None:
        self.lam_, self.coreset_ = state["lam"], state["coreset"]
        self.mean_, self.solver_ = state["mean"], state["solver"]
        self._prepare()


def reconstruction_solver(coreset: Tensor) -> Tensor:
    """B = Sᵀ (S Sᵀ + εI)⁻¹ of a coreset S (n, C): coefficients of any rows X are X B, their projection X B S.

    B is (C, n) in the coreset's dtype, solved in float64; ε is `RIDGE` of the mean diagonal, far below the differences
    of features.
    """
    wide = coreset.double()
    gram = wide @ wide.T  # (n, n)
    # An all-zero coreset (a blank picture through a ReLU) has a mean diagonal of 0.
    ridge = (RIDGE * gram.diagonal().mean()).clamp_min(torch.finfo(torch.float64).tiny)
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(len(gram), dtype=gram.dtype, device=gram.device))
    return torch.cholesky_solve(wide, factor).T.to(coreset.dtype)


def alignment(patches: Tensor) -> Tensor:
    """The agreement of two or more pictures place by place: (B, h, w, C) → (), from 0 for none to 1 for equal pictures.

    The agreement is the mean, over places and pairs of different pictures, of the cosine between patches, the mean of
    all patches subtracted before; a negative mean counts as 0.
    """
    directions = F.normalize(patches - patches.mean((0, 1, 2)), dim=3)
    pictures = len(patches)
    # The sum over all pairs, including pairs of a picture with itself, is the squared length of the sum.
    pairs = directions.sum(0).square().sum(2) - directions.square().sum((0, 3))  # (h, w)
    return (pairs / (pictures * (pictures - 1))).mean().clamp_min(0)


def _patches(features: Features) -> Tensor:
    """Average 3x3 neighbourhoods, repeat coarse levels on the finest grid, concatenate the channels: (B, h, w, C)."""
    return merge_levels(tuple(pool_neighbourhood(level, size=3) for level in features.levels), mode="nearest")
