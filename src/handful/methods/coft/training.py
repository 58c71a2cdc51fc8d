"""COFT-AD's first half: contrastive fine-tuning of the backbone on the references.

Paper: Liao et al., COFT-AD: COntrastive Fine-Tuning for Few-Shot Anomaly Detection, IEEE Transactions on Image
Processing, 2024, https://arxiv.org/abs/2402.18998. The second half is `handful.methods.coft.scoring`. There is no
public code, and we know the paper only by its abstract and an earlier, anonymous version. From these:

- weights that were trained on a large source are tuned on the good target pictures, without labels, by
  L = L_con + λ_PP L_PP + λ_NP L_NP;
- L_con contrasts augmented views of the pictures;
- L_PP draws different good pictures together, as L_con pushes them apart;
- L_NP pushes synthetic negatives away, only where it is known what defects will look like: wrong ones do harm.

All the rest is our own choice:

- L_con is InfoNCE over rounds in which every reference stands once, in two views; up to four references are too few
  negatives, and their views are aligned with a stopped gradient instead (SimSiam: Chen and He, CVPR 2021).
- L_con sees a projector (512, 128; batch normalisation), and a predictor (64) where gradients are stopped; L_PP and
  L_NP see the embedding that is scored later on. At one reference L_PP pairs its own views.
- L_PP is the mean of 1 - cosine over all pairs of views of different references; λ_PP is 1.
- L_NP is the mean softplus of (cosine - margin) / τ over all pairs of a good view and a negative, one negative for each
  pair of views; λ_NP is 0. Negatives are made of augmented views, in three ways of which one is named.
- 60 updates of 32 views at 224 pixels; views are crops of 80 to 100 %, jittered, blurred, and turned only where asked.
- Every term's weight, temperature, rate and strength below; SGD with momentum 0.9 and weight decay 1e-4, half a cosine
  down to 0, the heads ten times as fast as the trunk; the trunk's normalisation keeps its statistics, and its layers up
  to stride 4 stay as they are.
- It stops early where fixed views of the references no longer come closer, and with an error where their embeddings
  have lost half of their effective rank: L_PP alone would map every picture to one point.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.errors import SettingError
from handful.methods.base import require
from handful.methods.base_training import Tuning, layers_up_to
from handful.ops.defects import RECIPES, cut_fill, make_defect
from handful.ops.foreground import foreground
from handful.ops.seeding import seeded
from handful.ops.views import random_view

Contrast = Literal["auto", "infonce", "stop_gradient"]
Negatives = Literal["none", "cutpaste", "defects", "noise"]

FEW = 4  # the most references at which "auto" means "stop_gradient"
WIDTHS = (512, 128, 64)  # widths of the projector's two layers and of the predictor's hidden layer
HEAD_LR = 10  # ratio of the heads' learning rate to the trunk's
MOMENTUM, WEIGHT_DECAY = 0.9, 1e-4
CHECK_EVERY = 10  # updates between two checks
CHECKED = 16  # fixed views of all references together, on which alignment and effective rank are measured
PATIENCE = 2  # checks in a row without better alignment after which the training stops
LEAST_RANK = 0.5  # least effective rank, as a share of the effective rank before the first update
NO_LENGTH = 1e-3  # root mean square length of differences below which embeddings of length 1 count as equal
CUT_AREA, CUT_ASPECT = (0.02, 0.15), 3.3  # "cutpaste": range of the piece's share of the picture; most extreme aspect
NOISE = (0.2, 0.4)  # "noise": range of the noise's standard deviation, for values in [0, 1]


def info_nce(first: Tensor, second: Tensor, *, temperature: float) -> Tensor:
    """InfoNCE: the mean cross-entropy of telling the other view of a picture from the 2 B - 2 views of other pictures.

    `first` and `second` (B, D) are the embeddings of two views of each of B different pictures; cosines are divided by
    the temperature τ. → ().
    """
    directions = F.normalize(torch.cat([first, second]))
    cosines = directions @ directions.T / temperature
    itself = torch.eye(len(cosines), dtype=torch.bool, device=cosines.device)
    partner = torch.arange(len(cosines), device=cosines.device).roll(len(first))
    return F.cross_entropy(cosines.masked_fill(itself, -torch.inf), partner)


def stop_gradient_alignment(prediction: Tensor, target: Tensor) -> Tensor:
    """The mean of 2 - 2 cos between predictions and targets: two of (B, D) → (). Targets get no gradient."""
    return (2 - 2 * F.cosine_similarity(prediction, target.detach())).mean()


def positive_pairs(embeddings: Tensor, instances: Tensor) -> Tensor:
    """L_PP: the mean of 1 - cos over all pairs of views of different pictures; with one picture, of any two views.

    `embeddings` are at least two, (N, D); `instances` (N,) gives the picture of each view. → ().
    """
    directions = F.normalize(embeddings)
    paired = instances[:, None] != instances
    if not paired.any():
        paired = ~torch.eye(len(paired), dtype=torch.bool, device=paired.device)
    return (1 - (directions @ directions.T)[paired]).mean()


def negative_pairs(normal: Tensor, negative: Tensor, *, margin: float, temperature: float) -> Tensor:
    """L_NP: the mean of softplus((cos - margin) / τ) over all pairs of a normal and a negative embedding.

    `normal` are embeddings (N, D), `negative` embeddings (M, D). Cosines above the margin are penalised, the more
    sharply the lower the temperature τ. → ().
    """
    cosines = F.normalize(normal) @ F.normalize(negative).T
    return F.softplus((cosines - margin) / temperature).mean()


def effective_rank(embeddings: Tensor) -> float:
    """The effective rank of embeddings (N, D): about the number of directions in which they differ from their mean.

    The embeddings are normalised to length 1. The rank is the exponential of the entropy of the singular values (Roy
    and Vetterli, The Effective Rank, EUSIPCO 2007), from 1 to N - 1; 0 for equal embeddings and embeddings that are not
    finite.
    """
    directions = F.normalize(embeddings.double())
    if not directions.isfinite().all():
        return 0.0
    values = torch.linalg.svdvals(directions - directions.mean(0))
    values = values[values > NO_LENGTH * math.sqrt(len(embeddings))]
    return float(torch.special.entr(values / values.sum()).sum().exp()) if len(values) else 0.0


def cut_paste(picture: NDArray[np.uint8], *, generator: np.random.Generator) -> NDArray[np.uint8]:
    """Copy a rectangle around a random place of the part to a random place of the picture: (H, W, 3) → (H, W, 3)."""
    height, width = picture.shape[:2]
    area = float(generator.uniform(*CUT_AREA)) * height * width
    aspect = math.exp(float(generator.uniform(-math.log(CUT_ASPECT), math.log(CUT_ASPECT))))  # width over height
    size = max(1, min(height, round(math.sqrt(area / aspect)))), max(1, min(width, round(math.sqrt(area * aspect))))
    pasted = picture.copy()
    top, left = (int(generator.integers(side - cut + 1)) for side, cut in zip((height, width), size, strict=True))
    cut = cut_fill(picture, foreground(picture), size=size, generator=generator)
    pasted[top : top + size[0], left : left + size[1]] = cut.astype(np.uint8)
    return pasted


@dataclass(kw_only=True, eq=False)
class ContrastiveTuning(Tuning):
    """COFT-AD's fine-tuning.

    Attributes:
        updates: the most updates of the optimiser.
        pictures: the number of augmented views of an update, even; two views of each reference in turn.
        size: the side of the pictures, in pixels.
        lr: the trunk's learning rate at the beginning.
        contrast: L_con: "infonce"; "stop_gradient"; or "auto", which is "stop_gradient" for up to four references and
            "infonce" for more.
        lambda_con, lambda_pp: the weights of L_con and L_PP.
        lambda_np: λ_NP; above 0 if and only if `negatives` is not "none".
        negatives: the kind of synthetic negatives, one for each pair of views: "cutpaste" for a piece of the picture in
            a wrong place, "defects" for REB's synthetic defects, "noise" for noise over the whole picture, or "none".
        temperature: τ, of InfoNCE and of L_NP.
        margin: the cosine above which L_NP penalises a pair.
        crop, jitter, blur: the strengths of the augmentations, see `handful.ops.views.random_view`.
        turn: whether augmentations turn and mirror; False for parts whose orientation may be a defect.
        frozen_stride: layers before the first layer of a greater stride keep their weights: colours and edges need no
            tuning, and their training would take half of the time. 0 tunes all layers.
        plateau: the training stops early if the alignment loss of fixed views has fallen by less than this share in 20
            updates; 0 to make all updates.
    """

    name: ClassVar[str] = "coft"

    updates: int = 60
    pictures: int = 32
    size: int = 224
    lr: float = 0.003
    contrast: Contrast = "auto"
    lambda_con: float = 1.0
    lambda_pp: float = 1.0
    lambda_np: float = 0.0
    negatives: Negatives = "none"
    temperature: float = 0.2
    margin: float = 0.0
    crop: float = 0.8
    jitter: float = 0.15
    blur: float = 1.0
    turn: bool = False
    frozen_stride: int = 4
    plateau: float = 0.02

    _images: list[Tensor] = field(init=False, repr=False)
    _fixed: Tensor = field(init=False, repr=False)
    _rank: float = field(init=False, repr=False)
    _seed: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.updates >= 1, "updates", "at least 1", self.updates)
        require(self.pictures >= 4 and self.pictures % 2 == 0, "pictures", "even, from 4", self.pictures)
        require(self.size >= 32, "size", "at least 32", self.size)
        for name in ("lr", "temperature"):
            require(getattr(self, name) > 0, name, "above 0", getattr(self, name))
        for name in ("lambda_con", "lambda_pp", "lambda_np", "blur"):
            require(getattr(self, name) >= 0, name, "at least 0", getattr(self, name))
        weights = self.lambda_con + self.lambda_pp + self.lambda_np
        require(weights > 0, "lambda_con", "above 0 where no other term is", self.lambda_con)
        rule = "cutpaste, defects or noise where `lambda_np` is above 0, and none elsewhere"
        require((self.negatives != "none") == (self.lambda_np > 0), "negatives", rule, self.negatives)
        require(-1 <= self.margin <= 1, "margin", "in [-1, 1]", self.margin)
        require(0 < self.crop <= 1, "crop", "in (0, 1]", self.crop)
        require(self.frozen_stride >= 0, "frozen_stride", "at least 0", self.frozen_stride)
        for name in ("jitter", "plateau"):
            require(0 <= getattr(self, name) < 1, name, "in [0, 1)", getattr(self, name))

    def start(self, trunk: nn.Module, pictures: Sequence[NDArray[np.uint8]], *, seed: int) -> None:
        many = len(pictures) > 1 or self.contrast != "infonce"
        require(many, "contrast", "auto or stop_gradient at one reference", self.contrast)
        self._images = [torch.from_numpy(picture).permute(2, 0, 1).float() / 255 for picture in pictures]
        self._seed = seed
        trunk.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
        device = next(trunk.parameters()).device
        for layer in layers_up_to(trunk, stride=self.frozen_stride, size=self.size):
            layer.requires_grad_(False)
        each = max(2, CHECKED // len(pictures))
        generator = np.random.default_rng([seed, self.updates])  # not the number of an update
        self._fixed = _batch([self._view(row, generator) for row in range(len(pictures)) for _ in range(each)], device)
        with torch.no_grad():
            embeddings = trunk(self._fixed)
        stopping = self.contrast == "stop_gradient" or (self.contrast == "auto" and len(pictures) <= FEW)
        with seeded(seed):
            heads = _heads(embeddings.shape[1], predictor=stopping)
        self.learnt_ = nn.ModuleDict({"trunk": trunk, **heads, "record": _Record(self.updates)}).to(device)
        groups: list[dict[str, Any]] = [
            {"params": [weight for weight in trunk.parameters() if weight.requires_grad]},
            {"params": [weight for head in heads.values() for weight in head.parameters()]},
        ]
        self.optimiser_ = torch.optim.SGD(groups, lr=self.lr, momentum=MOMENTUM, weight_decay=WEIGHT_DECAY)
        self._rank = effective_rank(embeddings)
        self._losses[0] = self._alignment(embeddings)

    def update(self, number: int) -> float:
        for group, factor in zip(self.optimiser_.param_groups, (1, HEAD_LR), strict=True):
            group["lr"] = factor * self.lr * (1 + math.cos(math.pi * number / self.updates)) / 2
        self.learnt_.train()["trunk"].eval()
        self.optimiser_.zero_grad(set_to_none=True)
        loss = self._loss(np.random.default_rng([self._seed, number]))
        loss.backward()
        self.optimiser_.step()
        if (number + 1) % CHECK_EVERY == 0 or number + 1 == self.updates:
            self._check(number)
        return loss.item()

    def done(self, number: int) -> bool:
        known = self._losses[~self._losses.isnan()].tolist()
        return super().done(number) or settled(known, share=self.plateau)

    @property
    def _losses(self) -> Tensor:
        """The alignment losses before the first update and at each check; NaN for checks that are still to come."""
        return self.learnt_["record"].get_buffer("losses")

    def _loss(self, generator: np.random.Generator) -> Tensor:
        """The loss L of freshly drawn views."""
        pairs, count = self.pictures // 2, len(self._images)
        of_round = min(pairs, count)
        rows = [int(row) for _ in range(pairs // of_round) for row in generator.permutation(count)[:of_round]]
        views = [self._view(row, generator) for row in (*rows, *rows)]
        negatives = [self._negative(row, generator) for row in rows] if self.negatives != "none" else []
        device = self._fixed.device
        embeddings: Tensor = self.learnt_["trunk"](_batch([*views, *negatives], device))
        normal, negative = embeddings[: len(views)], embeddings[len(views) :]  # (2 S, D), (0 or S, D)
        loss = embeddings.new_zeros(())
        if self.lambda_con:
            loss = loss + self.lambda_con * self._contrastive(normal, of_round)
        if self.lambda_pp:
            loss = loss + self.lambda_pp * positive_pairs(normal, torch.tensor([*rows, *rows], device=device))
        if self.lambda_np:
            apart = negative_pairs(normal, negative, margin=self.margin, temperature=self.temperature)
            loss = loss + self.lambda_np * apart
        return loss

    def _contrastive(self, embeddings: Tensor, of_round: int) -> Tensor:
        """L_con of embeddings (2 S, D): S first views, then the S second views, in rounds of `of_round` pictures."""
        projected: Tensor = self.learnt_["projector"](embeddings)
        first, second = projected.chunk(2)
        if "predictor" in self.learnt_:
            return stop_gradient_alignment(self.learnt_["predictor"](projected), torch.cat([second, first]))
        rounds = zip(first.split(of_round), second.split(of_round), strict=True)
        return torch.stack([info_nce(one, other, temperature=self.temperature) for one, other in rounds]).mean()

    def _view(self, row: int, generator: np.random.Generator) -> Tensor:
        return random_view(
            self._images[row], generator=generator, crop=self.crop, jitter=self.jitter, blur=self.blur, turn=self.turn
        )

    def _negative(self, row: int, generator: np.random.Generator) -> Tensor:
        """A negative: an augmented view with a defect or noise of the kind `negatives`."""
        view = self._view(row, generator)
        if self.negatives == "noise":
            channels = 1 if (view == view[:1]).all() else 3  # coloured noise would be too easy to see on a grey picture
            noise = generator.standard_normal((channels, *view.shape[1:]), dtype=np.float32)
            return (view + float(generator.uniform(*NOISE)) * torch.from_numpy(noise)).clamp(0, 1)
        pixels = (255 * view).round().byte().permute(1, 2, 0).numpy()
        if self.negatives == "cutpaste":
            made = cut_paste(pixels, generator=generator)
        else:
            recipe = RECIPES[int(generator.integers(len(RECIPES)))]
            made, _ = make_defect(pixels, foreground(pixels), recipe=recipe, generator=generator)
        return torch.from_numpy(made).permute(2, 0, 1).float() / 255

    def _alignment(self, embeddings: Tensor) -> Tensor:
        """The alignment loss: the mean of 1 - cos over all pairs of fixed views of the same picture."""
        of_each = embeddings.unflatten(0, (len(self._images), -1))  # (k, V, D)
        same = torch.zeros(of_each.shape[1], device=embeddings.device)
        return torch.stack([positive_pairs(of_one, same) for of_one in of_each]).mean()

    def _check(self, number: int) -> None:
        """Record the alignment loss after an update; raise SettingError if the embeddings have collapsed."""
        with torch.no_grad():
            embeddings = self.learnt_["trunk"](self._fixed)
        rank = effective_rank(embeddings)
        if rank < max(1, LEAST_RANK * self._rank):
            raise SettingError(
                f"The embeddings must keep half of their effective rank, {self._rank:.1f} before training, got "
                f"{rank:.1f} after update {number + 1}; lower `lr`."
            )
        self._losses[1 + number // CHECK_EVERY] = self._alignment(embeddings)


def settled(losses: Sequence[float], *, share: float) -> bool:
    """Whether none of the last `PATIENCE` losses is below the least earlier loss by a share; False for a share of 0."""
    before, last = losses[:-PATIENCE], losses[-PATIENCE:]
    return share > 0 and len(before) > 0 and min(last) > (1 - share) * min(before)


class _Record(nn.Module):
    """The losses for the rule of early stopping, as a module so that checkpoints include them."""

    def __init__(self, updates: int) -> None:
        super().__init__()
        self.register_buffer("losses", torch.full((1 + math.ceil(updates / CHECK_EVERY),), torch.nan))


def _heads(width: int, *, predictor: bool) -> dict[str, nn.Module]:
    """The projector and, if wanted, the predictor; the projector takes pooled features (B, width)."""
    hidden, projected, narrow = WIDTHS
    heads: dict[str, nn.Module] = {"projector": _two_layers(width, hidden, projected)}
    return heads | ({"predictor": _two_layers(projected, narrow, projected)} if predictor else {})


def _two_layers(before: int, hidden: int, after: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(before, hidden), nn.BatchNorm1d(hidden), nn.ReLU(), nn.Linear(hidden, after))


def _batch(views: Sequence[Tensor], device: torch.device) -> Tensor:
    return torch.stack(list(views)).to(device, memory_format=torch.channels_last)
