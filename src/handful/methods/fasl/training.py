"""The training of FASL's heads on labelled pictures of other products, for `handful.methods.fasl.scoring`.

Departures in training:
- The backbone stays as it is, so features are computed once: those of the pictures, and of `pool` augmented ones of
  each class. The code augments anew in every epoch: mosaics of four pictures of a class on one data set, enlarged parts
  on the other. Both are made here, at `mosaic` and `part`.
- Good training pictures are learnt from besides the labelled ones. Half of the pictures of an update are anomalous, and
  every class comes as often as any other.
- Twelve made products (`handful.training.products`) are learnt from beside the data sets: with few source classes they
  help on other products (benchmarks/papers/decisive.md). `--full` leaves them out.
- The head has no NAM unless `nam` is true: from NAM's random start a short training loses more than NAM adds, in the
  authors' training too (benchmarks/papers/decisive.md). `--full` trains NAM.
- References are drawn without replacement; the code may draw one twice.
- What is kept is chosen on classes held out. The code's scripts train for 5 and 11 epochs and test the 11th of the
  former, which never exists; another tests the 5th of both.
- Left out, as the shipped scripts switch them off: adapters, squeeze-and-excitation, the classifier without references
  and its fusion, signed discrepancies, levels of any length, matching by loops over distances (the same patches, on
  rows of length 1). Their switch for NAM on crops changes nothing in their code: NAM follows the crops' laying together
  either way.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor

from handful.methods.base import require
from handful.methods.base_training import HeadTraining
from handful.methods.fasl.scoring import FASLHead, feature_discrepancy, unit
from handful.ops.maps import resize_grid
from handful.ops.mosaic import enlarged_part, four_in_one
from handful.ops.residuals import ResidualBank
from handful.types import AuxiliaryClass

BETAS = (0.5, 0.999)  # of Adam
GAMMA, SMOOTH = 2, 1e-5  # of the focal loss
PARTS = (50 / 518, 100 / 518)  # shares of the side kept in enlarged parts; of good pictures only the larger share
SMALLER = 0.6  # probability of the smaller share for an anomalous picture


@dataclass(kw_only=True, eq=False)
class ScoreLearning(HeadTraining):
    """FASL's training.

    Attributes:
        updates: the number of updates of the optimiser.
        pictures: the number of pictures in each update.
        shots: the number of references, drawn once for each class.
        lr: the learning rate.
        nam: whether the head has a NAM, as in the paper.
        pool: the number of augmented pictures of each class.
        mosaic: the probability that a picture is a mosaic of four.
        part: the probability that a picture is an enlarged part of a picture.
    """

    name: ClassVar[str] = "fasl"
    authors: ClassVar[dict[str, Any]] = {
        "updates": 3000,  # 11 epochs of their longer data set
        "products": 0,
        "pool": 200,
        "nam": True,
    }
    quick: ClassVar[dict[str, Any]] = {"updates": 200, "pictures": 4, "lr": 3e-3}

    updates: int = 600
    pictures: int = 8
    shots: int = 10
    lr: float = 1e-3
    nam: bool = False
    pool: int = 40
    mosaic: float = 0.3
    part: float = 0.3

    _seed: int = field(init=False, repr=False)
    _discrepancies: list[tuple[Tensor, ...]] = field(init=False, repr=False)
    _usable: list[Tensor] = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("updates", "shots"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.pictures >= 2, "pictures", "at least 2", self.pictures)
        require(self.lr > 0, "lr", "above 0", self.lr)
        require(self.pool >= 0, "pool", "at least 0", self.pool)
        require(self.mosaic >= 0, "mosaic", "at least 0", self.mosaic)
        require(0 <= self.part <= 1 - self.mosaic, "part", "at least 0, and at most 1 with `mosaic`", self.part)

    @property
    def augmented_wanted(self) -> int:
        return self.pool if self.mosaic + self.part > 0 else 0

    def augment(
        self, images: Sequence[Tensor], masks: Sequence[Tensor], *, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        if generator.uniform(0, self.mosaic + self.part) < self.mosaic:
            rows = generator.integers(len(images), size=4)
            return four_in_one([images[row] for row in rows], [masks[row] for row in rows])
        anomalous = bool(generator.integers(2))
        rows = np.array([row for row, mask in enumerate(masks) if bool(mask.any()) == anomalous])
        row = int(generator.choice(rows)) if len(rows) else int(generator.integers(len(images)))
        share = PARTS[0] if masks[row].any() and generator.uniform() < SMALLER else PARTS[1]
        return enlarged_part(images[row], masks[row], share=share, generator=generator)

    def make_head(self, depths: tuple[int, ...], *, seed: int) -> FASLHead:
        return FASLHead(depths, nam=self.nam, seed=seed)

    def start(self, classes: Sequence[AuxiliaryClass], *, seed: int, device: str) -> None:
        self._seed = seed
        self.head_ = self.make_head(classes[0].references.depths, seed=seed).to(device)
        self.optimiser_ = torch.optim.Adam(self.head_.parameters(), lr=self.lr, betas=BETAS)
        self._discrepancies, self._usable = [], []
        generator = np.random.default_rng(seed)
        for one in classes:
            drawn = generator.permutation(len(one.references))[: self.shots]
            bank = ResidualBank(unit(one.references[drawn.tolist()].levels), match="euclidean")
            self._discrepancies.append(feature_discrepancy(bank, unit(one.queries.levels)))
            self._usable.append(~torch.isin(one.own, torch.from_numpy(drawn)))  # no query is its own reference

    def update(self, number: int, classes: Sequence[AuxiliaryClass]) -> float:
        generator = np.random.default_rng([self._seed, number])
        drawn = self._draw(classes, generator)
        truth = torch.stack([classes[one].pixels[query] for one, query in drawn]).to(next(self.head_.parameters()))
        head = self.head_.train()
        assert isinstance(head, FASLHead)
        maps = []
        for level, asl in enumerate(head.asl):
            maps.append(asl(torch.stack([self._discrepancies[one][level][query] for one, query in drawn])))
            if head.nam is not None:
                maps.append(head.nam(maps[-1]))
        self.optimiser_.zero_grad(set_to_none=True)
        loss = map_loss(maps, truth)
        loss.backward()
        self.optimiser_.step()
        return loss.item()

    def _draw(self, classes: Sequence[AuxiliaryClass], generator: np.random.Generator) -> list[tuple[int, int]]:
        """The class and the query of each picture, drawn at random.

        Half of the pictures are anomalous and a share `mosaic` + `part` is augmented, if the class has such queries.
        """
        rounds = [generator.permutation(len(classes)) for _ in range(-(-self.pictures // len(classes)))]
        drawn = []
        for number in np.concatenate(rounds)[: self.pictures].tolist():
            one, rows = classes[number], self._usable[number]
            for kind, wanted in (
                (one.augmented, generator.uniform() < self.mosaic + self.part),
                (one.anomalous, bool(generator.integers(2))),
            ):
                rows = rows & (kind == wanted) if (rows & (kind == wanted)).any() else rows
            able = torch.nonzero(rows)[:, 0]
            drawn.append((number, int(able[generator.integers(len(able))])))
        return drawn


def map_loss(maps: Sequence[Tensor], truth: Tensor) -> Tensor:
    """The sum over maps (B, h, w) of focal and Dice loss in the model-input frame of the truth (B, H, W), 0 or 1."""
    size = truth.shape[1:]
    enlarged = [resize_grid(one[..., None], size, mode="bilinear")[..., 0] for one in maps]
    return torch.stack([focal_loss(one, truth) + dice_loss(one, truth) for one in enlarged]).sum()


def focal_loss(maps: Tensor, truth: Tensor) -> Tensor:
    """The mean of -(1 - p)² log p over pixels, p the probability of the true label: (B, H, W), (B, H, W) → ().

    Labels are smoothed by 1e-5 and 1e-5 is added to p, as in the code.
    """
    certain = truth * maps + (1 - truth) * (1 - maps)
    given = (1 - SMOOTH) * certain + SMOOTH * (1 - certain) + SMOOTH
    return -((1 - given) ** GAMMA * given.log()).mean()


def dice_loss(maps: Tensor, truth: Tensor) -> Tensor:
    """1 - (2 |p y| + 1) / (|p| + |y| + 1), the mean over pictures: (B, H, W), (B, H, W) → ()."""
    both, either = (maps * truth).sum((1, 2)), maps.sum((1, 2)) + truth.sum((1, 2))
    return 1 - ((2 * both + 1) / (either + 1)).mean()
