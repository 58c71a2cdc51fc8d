"""ResAD: the likelihood of each patch's difference from its nearest good patch, by a flow trained on other products.

Paper: Yao et al., ResAD: A Simple Framework for Class Generalizable Anomaly Detection, NeurIPS 2024,
https://arxiv.org/abs/2410.20047. Reference code: xcyao00/ResAD at 0afc30e, which is no longer the paper's method but
its successor's (ResAD++); where the two differ, the paper's is the default. The boundary loss is that of Yao et al.,
Explicit Boundary Guided Semi-Push-Pull Contrastive Learning for Supervised Anomaly Detection, CVPR 2023.

At every level the residual r of a patch is its difference from the most similar patch of the references. Residuals of
different products are alike, so one head serves for all of them: a constraintor (a 3x3 convolution) makes x' of r and
draws the normal ones together, and a flow that knows the place gives the likelihood p of x'. The patch score is -log p
per channel, summed over levels. The head is trained once, on labelled pictures of other products, by

    L_occ + L_ml + λ L_bgspp,

of which L_occ trains the constraintor and the others the flow: no gradient passes from the flow to the constraintor.
`fit` only keeps the references' patches.

The training is in `handful.methods.resad.training`. Departures in scoring:
- The paper scores 1 - p, with p cut off at 1, and its code p's distance from the highest p of the whole test set, which
  a single picture does not have (`paper_compat` reports that in an evaluation). Both rank as -log p does at one level;
  ours sums the logarithms over levels.
- Levels meet on the finest grid rather than in the input frame, and their sum goes through a softplus: thresholds are
  set on logarithms of scores, so scores must be positive. It changes no order.
- The map is blurred by a `sigma` of 4, as the authors' code does and the paper does not say.
- Maps are enlarged with pixel centres half a step in; the code sets corners on corners, which moves its image scores by
  2 to 7 % of their range. `paper_compat` does so, too, and gives the code's scores and maps up to a constant
  (tests/golden/resad_whole.md).
- Pictures come in whole, resized bicubically; the code resizes the shorter side to 224, likewise, and keeps the middle.
  Pictures that are so cut before they are given, at a `size` of 224, go in as they are.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.base import Head, Method, Protocol, require
from handful.ops.flow import ConditionalFlow, position_code
from handful.ops.maps import pixel_map, resize_grid, top_share
from handful.ops.residuals import Match, Residual, ResidualBank
from handful.ops.seeding import seeded
from handful.types import Features, Scores


class ResADHead(Head):
    """The constraintors and the flows of all levels, with the settings of `ResidualTraining`."""

    def __init__(
        self,
        depths: tuple[int, ...],
        *,
        match: Match,
        residual: Residual,
        constraintor: bool,
        blocks: int,
        condition: int,
        seed: int,
    ) -> None:
        super().__init__("resad", depths)
        self.match, self.residual, self.condition = match, residual, condition
        self.scales = nn.Buffer(torch.ones(len(depths)))  # the divisor of each level, set at the start of the training
        with seeded(seed):
            self.constraintors = nn.ModuleList(
                _constraintor(depth) if constraintor else nn.Identity() for depth in depths
            )
        self.flows = nn.ModuleList(
            ConditionalFlow(depth, condition=condition, blocks=blocks, seed=seed + number)
            for number, depth in enumerate(depths)
        )

    def scaled(self, features: Features) -> tuple[Tensor, ...]:
        """The levels, each divided by its scale."""
        return tuple(level / scale for level, scale in zip(features.levels, self.scales, strict=True))

    def constrain(self, residuals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The constrained residuals: (B, h, w, D) → (B, h, w, D) each."""
        return tuple(
            constraintor(residual.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
            for constraintor, residual in zip(self.constraintors, residuals, strict=True)
        )

    def positions(self, grid: tuple[int, int]) -> Tensor:
        """The position codes of a grid: (h·w, condition)."""
        return position_code(grid, width=self.condition).flatten(0, 1).to(self.scales)

    def log_likelihoods(self, residuals: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """The log-likelihood per channel of every place of each level: (B, h, w, D) → (B, h, w) each."""
        found = []
        for flow, constrained in zip(self.flows, self.constrain(residuals), strict=True):
            batch, height, width, _ = constrained.shape
            positions = self.positions((height, width)).repeat(batch, 1)  # (B·h·w, condition)
            found.append(flow(constrained.flatten(0, 2), positions).reshape(batch, height, width))
        return tuple(found)


@dataclass(kw_only=True, eq=False)
class ResAD(Method):
    """ResAD on a trained head.

    Attributes:
        share: the share of patch scores that the image score averages; 0 for the maximum, as in the paper.
        sigma: of the map's Gaussian blur, in model-input pixels.
        paper_compat: whether an evaluation reports the scores and maps of the authors' code, which divides each level's
            likelihoods by the highest likelihood of the whole test set, see `over_test_set`. Verdicts do not change.
    """

    name: ClassVar[str] = "resad"
    protocol: ClassVar[Protocol] = "auxiliary-trained"
    reach: ClassVar[float] = 1.5  # the constraintor spreads a defect to neighbouring places

    share: float = 0.0
    sigma: float = 4.0
    paper_compat: bool = False

    bank_: ResidualBank = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(0 <= self.share <= 1, "share", "in [0, 1]", self.share)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    @property
    def _head(self) -> ResADHead:
        assert isinstance(self.head_, ResADHead)  # checked by `fit` and `take_head`
        return self.head_

    def _fit(self, references: Features) -> None:
        self.bank_ = ResidualBank(self._head.scaled(references), match=self._head.match)

    @property
    def transductive(self) -> bool:
        return self.paper_compat

    def _score(self, queries: Features) -> Scores:
        # Pictures are scored one by one, so that a picture gets the same scores alone and in a batch.
        pictures = [self._log_likelihoods(queries[[row]]) for row in range(len(queries))]
        levels = tuple(map(torch.cat, zip(*pictures, strict=True)))
        grid = levels[0].shape[1:]
        on_finest = [resize_grid(level[..., None], grid, mode="bilinear")[..., 0] for level in levels]
        patch_scores = -torch.stack(on_finest).sum(0)  # (B, h, w)
        image = top_share(patch_scores, share=self.share)
        maps = pixel_map(patch_scores, queries.size, sigma=self.sigma)
        parts = (*levels, torch.tensor([queries.size] * len(queries))) if self.paper_compat else ()
        return Scores(F.softplus(maps), F.softplus(image), parts)

    def _log_likelihoods(self, picture: Features) -> tuple[Tensor, ...]:
        """The log p per channel of every place of each level: (1, h, w) each."""
        head = self._head.eval()
        return head.log_likelihoods(self.bank_.residuals(head.scaled(picture), kind=head.residual))

    def over_test_set(self, parts: Sequence[tuple[Tensor, ...]]) -> Iterator[Scores]:
        """The first map of the code: likelihoods relative to the test set's highest, summed over levels and negated.

        The code subtracts the sums from the highest sum, we subtract them from the number of levels, which no sum
        exceeds; the maps differ by a constant. The code's second map belongs to the Gaussian for anomalies, which is
        left out.
        """
        highest = [torch.cat([level.flatten() for level in levels]).max() for levels in zip(*parts, strict=True)][:-1]
        for *levels, size in parts:
            height, width = size[0].tolist()
            shares = [
                pixel_map((lp - top).exp(), (height, width), sigma=self.sigma, corners=True)
                for lp, top in zip(levels, highest, strict=True)
            ]
            maps = len(levels) - torch.stack(shares).sum(0)
            yield Scores(maps, maps.amax((1, 2)))

    def state(self) -> dict[str, Tensor]:
        rows = {f"rows.{number}": level for number, level in enumerate(self.bank_.rows)}
        return {"depths": torch.tensor(self.depths_ or ()), **rows}

    def _restore(self, state: dict[str, Tensor]) -> None:
        self._check_head(self.depths_ or ())
        levels = tuple(state[f"rows.{number}"][None, None] for number in range(len(self.depths_ or ())))
        self.bank_ = ResidualBank(levels, match=self._head.match)


def _constraintor(depth: int) -> nn.Sequential:
    convolution = nn.Conv2d(depth, depth, 3, padding=1)
    nn.init.dirac_(convolution.weight)
    return nn.Sequential(convolution, nn.BatchNorm2d(depth), nn.ReLU())
