"""FASL: the difference of each patch from its nearest good patch, scored by heads trained on other products.

Paper: Feature discrepancy guided Anomaly Score Learning for few-shot anomaly detection, 2025. Reference code:
Follow-winds/FASL-fewshot-anomaly-detection at ba5bc75. Names are the paper's:

- FD, feature discrepancy: the absolute difference of a patch from the most similar patch of the references, both of
  length 1, at every level (`feature_discrepancy`).
- ASL, anomaly score learning: at every level a small network says of each patch's discrepancy how probably it is
  anomalous (`ASL`).
- NAM, neighbour aggregation module: two convolutions, shared by all levels, correct each probability by those around it
  (`NAM`).
- LFE, local-enhanced feature extraction: overlapping crops of the picture go through the backbone on their own, are
  compared with the crops of the references and judged by the same heads; their maps are laid together, the mean where
  they overlap (`FASL._lfe`).

The heads are trained once, on labelled pictures of other products, by focal and Dice loss on the maps of ASL and of NAM
alike. `fit` only keeps the references' patches. The map is the mean of the levels' maps. With M its highest value and R
the mean of the levels' highest values, the image score is (R + M) / 2.

The training is in `handful.methods.fasl.training`. Departures in scoring:
- The code scales M by the lowest and highest of the whole test set, which a single picture does not have. Its scores
  are there as `paper_compat`, for evaluation alone.
- Scores are -log(1 - p) of a probability p: p itself where it is small, and without the bound at 1 that a threshold
  could pass. It changes no order.
- LFE is off by default: it costs as many runs of the backbone as there are crops. On a CNN a crop at its own scale
  shows little that the whole picture does not; `win_zip_size` enlarges it.
- Each crop is compared with the references' `win_index` most similar crops alone, found by an index of one vector for
  each (the paper's image feature index memory bank). The code takes the single most similar of each crop and compares
  every crop with all that were taken; its shipped scripts leave the index out, which is `win_index=0`. The index is the
  last level averaged over places: not every backbone has the class token that the code takes.
- The network for crops interpolates CLIP's position embedding from that of whole pictures; the code does so from the
  weights' own, which is the same where pictures have the size that the weights were trained at.
- References are the same for pictures and for their crops; the code draws them anew, each time with replacement.
- The last crops of a row and of a column end at the picture's edge. The code's leave a rim without a value unless the
  numbers happen to fit, as 13 and 2 do on a grid of 37.
- On levels of several grids, the crops' maps meet on the finest one.
- Maps are enlarged with pixel centres half a step in; the code sets corners on corners, which moves its image scores by
  2 to 8 % of their range through M. `paper_compat` does so, too.

With `paper_compat` scores and maps are the code's, without crops and, with `win_index=0`, with them, but where two good
patches are equally like a patch and rounding chooses (tests/golden/fasl_whole.md, fasl_windows_whole.md).
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from handful.methods.base import Head, Method, Protocol, require
from handful.ops.crops import CropBank, overlap_mean
from handful.ops.maps import pixel_map, resize_grid
from handful.ops.residuals import ResidualBank
from handful.ops.seeding import seeded
from handful.types import Crops, Features, Scores

WinMode = Literal["none", "mul", "only"]
JudgedBy = Literal["heads", "cosine"]

HIDDEN = (512, 128, 32)  # channels of ASL's hidden layers
KERNEL, BETWEEN = 5, 6  # side of NAM's convolutions, and number of channels between them
CERTAIN = 1 - 1e-6  # the upper bound of a probability


class ASL(nn.Sequential):
    """Anomaly score learning at one level: batch norm of the discrepancy, then a network on each patch."""

    def __init__(self, depth: int) -> None:
        layers: list[nn.Module] = [nn.BatchNorm1d(depth)]
        for wide, narrow in zip((depth, *HIDDEN), HIDDEN, strict=False):
            layers += [nn.Linear(wide, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU()]
        super().__init__(*layers, nn.Linear(HIDDEN[-1], 2))

    def forward(self, discrepancies: Tensor) -> Tensor:
        """The probability that each patch is anomalous: (B, h, w, D) → (B, h, w)."""
        logits: Tensor = super().forward(discrepancies.flatten(0, 2))  # type: ignore[no-untyped-call]
        return logits.softmax(1)[:, 1].reshape(discrepancies.shape[:3])


class NAM(nn.Module):
    """Neighbour aggregation: corrects each probability of a map by the 9x9 probabilities around it."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(2, BETWEEN, KERNEL, padding="same"), nn.ReLU(), nn.Conv2d(BETWEEN, 2, KERNEL, padding="same")
        )

    def forward(self, maps: Tensor) -> Tensor:
        """(B, h, w) in [0, 1] → (B, h, w) in [0, 1]."""
        probabilities: Tensor = self.layers(torch.stack([1 - maps, maps], 1)).softmax(1)
        return probabilities[:, 1]


class FASLHead(Head):
    """The ASL of every level, and NAM with `nam`; the initial weights follow from the seed."""

    def __init__(self, depths: tuple[int, ...], *, nam: bool, seed: int) -> None:
        super().__init__("fasl", depths)
        with seeded(seed):
            self.asl = nn.ModuleList(ASL(depth) for depth in depths)
            self.nam = NAM() if nam else None


def unit(levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Every patch at length 1."""
    return tuple(F.normalize(level, dim=-1) for level in levels)


def feature_discrepancy(bank: ResidualBank, levels: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """FD: |q - m| of each patch q and its most similar patch m in the bank, both at length 1: (B, h, w, D) each.

    At length 1, the nearest row has the highest cosine.
    """
    return tuple(residual.abs() for residual in bank.residuals(levels, kind="signed"))


@dataclass(kw_only=True, eq=False)
class FASL(Method):
    """FASL on a trained head.

    Attributes:
        judged_by: "heads", or "cosine" for the plain distance (1 - cos) / 2 of a patch from its nearest good patch,
            which the code reports too.
        nam: whether NAM follows ASL, if the head has a NAM.
        winmode: LFE: "none", "mul" for the weighted mean of picture and crops, or "only" for crops alone.
        win_size: side of the crops, in patches of the finest grid.
        win_stride: distance between neighbouring crops, in patches of the finest grid.
        win_weight: weight of the crops in "mul".
        win_zip_size: side to which crops are resized for the backbone, in patches of the finest grid; None for
            `win_size`.
        win_index: the number of reference crops that each crop is compared with; 0 for all.
        paper_compat: whether evaluations scale image scores over the test set, and maps have corners on corners, as in
            the code.
        sigma: of the map's Gaussian blur, in model-input pixels; 0, no blur, as in the code.
    """

    name: ClassVar[str] = "fasl"
    protocol: ClassVar[Protocol] = "auxiliary-trained"
    reach: ClassVar[float] = 1.5  # NAM joins 9x9 places

    judged_by: JudgedBy = "heads"
    nam: bool = True
    winmode: WinMode = "none"
    win_size: int = 13
    win_stride: int = 2
    win_weight: float = 0.5
    win_zip_size: int | None = None
    win_index: int = 4
    paper_compat: bool = False
    sigma: float = 0.0

    bank_: ResidualBank = field(init=False, repr=False)
    crops_: CropBank | None = field(default=None, init=False, repr=False)
    _all_crops: ResidualBank | None = field(default=None, init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.win_size >= 1, "win_size", "at least 1", self.win_size)
        require(1 <= self.win_stride <= self.win_size, "win_stride", "from 1 to `win_size`", self.win_stride)
        require(0 <= self.win_weight <= 1, "win_weight", "in [0, 1]", self.win_weight)
        zipped = self.win_zip_size
        require(zipped is None or zipped >= 1, "win_zip_size", "None or at least 1", zipped)
        require(self.win_index >= 0, "win_index", "at least 0", self.win_index)
        require(self.sigma >= 0, "sigma", "at least 0", self.sigma)

    @property
    def crops_wanted(self) -> Crops | None:
        if self.winmode == "none":
            return None
        return Crops(self.win_size, self.win_stride, self.win_zip_size or self.win_size)

    @property
    def transductive(self) -> bool:
        return self.paper_compat

    def over_test_set(self, parts: Sequence[tuple[Tensor, ...]]) -> Iterator[Scores]:
        """The code's image score: the mean of the raw score and the map's peak, scaled over the test set to [0, 1]."""
        peaks = torch.cat([maps.amax((1, 2)) for maps, _ in parts])
        for (maps, raw), peak in zip(parts, peaks, strict=True):
            yield Scores(maps, 0.5 * (raw + (peak - peaks.min()) / (peaks.max() - peaks.min())))

    @property
    def _head(self) -> FASLHead:
        assert isinstance(self.head_, FASLHead)  # checked by `fit` and `take_head`
        return self.head_

    def _fit(self, references: Features) -> None:
        self._keep(unit(references.levels), _crops(references) if self.crops_wanted else None)

    def _keep(self, levels: tuple[Tensor, ...], crops: tuple[Tensor, ...] | None) -> None:
        self.bank_ = ResidualBank(levels, match="euclidean")
        self.crops_ = None if crops is None else CropBank(crops)
        self._all_crops = None if crops is None or self.win_index else ResidualBank(crops, match="euclidean")

    def _score(self, queries: Features) -> Scores:
        # Pictures are scored one by one, so that a picture gets the same scores alone and in a batch.
        found = [self._score_one(queries[[row]]) for row in range(len(queries))]
        maps, raw = torch.cat([one for one, _ in found]), torch.stack([one for _, one in found])
        if self.paper_compat:
            return Scores(maps, raw, (maps, raw))
        image = 0.5 * (raw + maps.amax((1, 2)))
        return Scores(-torch.log1p(-maps.clamp_max(CERTAIN)), -torch.log1p(-image.clamp_max(CERTAIN)))

    def _score_one(self, picture: Features) -> tuple[Tensor, Tensor]:
        """The map (1, H, W) of a picture, and the mean of its levels' highest probabilities ()."""
        crops = {"none": 0.0, "mul": self.win_weight, "only": 1.0}[self.winmode]
        maps, peaks = [], []
        for weight, levels in ((1 - crops, self._global), (crops, self._lfe)):
            if weight > 0:
                found = levels(picture)
                pixels = [
                    pixel_map(level, picture.size, sigma=self.sigma, corners=self.paper_compat) for level in found
                ]
                maps.append(weight * torch.stack(pixels).mean(0))
                peaks.append(weight * torch.stack([level.max() for level in found]).mean())
        return torch.stack(maps).sum(0), torch.stack(peaks).sum()

    def _global(self, picture: Features) -> tuple[Tensor, ...]:
        """The levels' maps of the whole picture: (1, h, w) each."""
        return self._aggregated(self._learnt(feature_discrepancy(self.bank_, unit(picture.levels))))

    def _lfe(self, picture: Features) -> tuple[Tensor, ...]:
        """LFE: the levels' maps from the picture's crops, on the finest grid: (1, h, w) each."""
        wanted, grid = self.crops_wanted, picture.levels[0].shape[1:3]
        assert wanted is not None
        size = (wanted.size, wanted.size)
        learnt = self._learnt(self._crop_discrepancies(_crops(picture)))
        placed = [resize_grid(maps[..., None], size, mode="bilinear")[..., 0] for maps in learnt]
        return self._aggregated(tuple(overlap_mean(maps, (grid[0], grid[1]), wanted)[None] for maps in placed))

    def _crop_discrepancies(self, crops: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """FD of a picture's crops against all crops of the references, or the most similar crops: (W, h, w, D) each."""
        if self._all_crops is not None:
            return feature_discrepancy(self._all_crops, crops)
        assert self.crops_ is not None
        nearest = self.crops_.nearest(crops, crops=self.win_index)
        return tuple((one - other).abs() for one, other in zip(crops, nearest, strict=True))

    def _learnt(self, discrepancies: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """ASL of every level, or the plain distance: (B, h, w, D) → (B, h, w) each."""
        if self.judged_by == "cosine":
            return tuple(one.square().sum(3) / 4 for one in discrepancies)  # |q - m|² = 2 (1 - cos) at length 1
        return tuple(asl(one) for asl, one in zip(self._head.eval().asl, discrepancies, strict=True))

    def _aggregated(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        """Every level's map (B, h, w) after NAM, unchanged without NAM."""
        nam = self._head.nam if self.nam and self.judged_by == "heads" else None
        return maps if nam is None else tuple(nam(one) for one in maps)

    def state(self) -> dict[str, Tensor]:
        rows = {f"rows.{number}": level for number, level in enumerate(self.bank_.rows)}
        crops = () if self.crops_ is None else self.crops_.levels
        windows = {f"windows.{number}": level for number, level in enumerate(crops)}
        return {"depths": torch.tensor(self.depths_ or ()), **rows, **windows}

    def _restore(self, state: dict[str, Tensor]) -> None:
        numbers = range(len(self.depths_ or ()))
        self._check_head(self.depths_ or ())
        crops = tuple(state[f"windows.{number}"] for number in numbers) if self.crops_wanted else None
        self._keep(tuple(state[f"rows.{number}"][None, None] for number in numbers), crops)


def _crops(features: Features) -> tuple[Tensor, ...]:
    """The crops of all pictures, patches at length 1: (B·W, h, w, D) each."""
    assert features.crops is not None  # checked by `fit` and `score`
    return unit(tuple(level.flatten(0, 1) for level in features.crops.levels))
