"""REB's first half: train a backbone to tell good pictures and six kinds of synthetic defects apart.

Paper: Lyu, Mo and Wong, REB: Reducing Biases in Representation for Industrial Anomaly Detection, Knowledge-Based
Systems, 2024, https://arxiv.org/abs/2308.12577. Reference code: ShuaiLYU/REB at 438314c. The second half, LDKNN, is
`handful.methods.reb.scoring`; each half works without the other.

The code freezes the trunk, its statistics too, in the first 39 of 300 updates. With the authors' settings and the
code's batches, initial weights and head, our losses, final weights and scores of LDKNN equal the code's
(tests/golden/reb_training_whole.md). Departures:

- The default schedule is a small part of the authors' (100 updates of 28 pictures at 128 pixels for 300 of 504 at 256,
  and the layers up to stride 4 stay as they are), which a CPU needs hours for; `handful train reb --full` is theirs.
- The head's logits go into a numerically stable cross-entropy. The code's clamps sigmoids to within 1e-6 of 0 and 1,
  beyond which a mistake costs no more and teaches nothing; below a loss of 13.8 for a sigmoid they are equal.
- Each reference comes as often as the others in every forward pass. The code draws from 2,000 rows, in which they take
  turns, so that one may come more often by chance.
- The whole network is trained, up to its last stage before pooling: of a ResNet that is the code's layer 4, of an
  EfficientNet the convolution behind the last block too.
- Where the part is, `handful.ops.foreground` says; the code reads saliency maps, which its data set does not hold.
- How synthetic defects depart is said in `handful.ops.defects`.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.methods.base import require
from handful.methods.base_training import Tuning, layers_up_to
from handful.ops.defects import RECIPES, seven_variants
from handful.ops.foreground import foreground
from handful.ops.seeding import seeded

# The authors' few-shot settings.
AUTHORS = {"updates": 300, "sources": 36, "accumulate": 2, "size": 256, "frozen_stride": 0}
CLASSES = 1 + len(RECIPES)
HIDDEN = (512, 256)
SMALLEST_LR = 1e-5


@dataclass(kw_only=True, eq=False)
class DefectClassification(Tuning):
    """REB's self-supervised training.

    Attributes:
        updates: the number of updates of the optimiser. Authors: 300.
        sources: the number of pictures drawn for a forward pass; each gives seven variants. Authors, few-shot: 36.
        accumulate: the number of forward passes of an update. Authors, few-shot: 2.
        size: the side of the pictures, in pixels. Authors: 256.
        warmup: the share of the updates, at the beginning, in which only the head learns. Authors: 39 of 300.
        lr: the learning rate at the beginning. Authors: 0.03.
        turn: whether pictures are turned and mirrored; False for parts whose orientation may be a defect.
        frozen_stride: layers before the first layer of a greater stride keep weights and statistics: colours and edges
            need no adapting, and their training would take nearly half of the time. 0 trains all layers. Authors: 0.
        frozen_norms: whether normalisation layers of the trunk keep their statistics. Authors: no.
    """

    name: ClassVar[str] = "reb"
    authors: ClassVar[Mapping[str, Any]] = AUTHORS

    updates: int = 100
    sources: int = 4
    accumulate: int = 1
    size: int = 128
    warmup: float = 39 / 300
    lr: float = 0.03
    turn: bool = True
    frozen_stride: int = 4
    frozen_norms: bool = False

    _pictures: list[NDArray[np.uint8]] = field(init=False, repr=False)
    _foregrounds: list[NDArray[np.bool_] | None] = field(init=False, repr=False)
    _frozen: list[nn.Module] = field(init=False, repr=False)
    _seed: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("updates", "sources", "accumulate"):
            require(getattr(self, name) >= 1, name, "at least 1", getattr(self, name))
        require(self.size >= 32, "size", "at least 32", self.size)
        require(0 <= self.warmup <= 1, "warmup", "in [0, 1]", self.warmup)
        require(self.lr > 0, "lr", "above 0", self.lr)
        require(self.frozen_stride >= 0, "frozen_stride", "at least 0", self.frozen_stride)

    def start(self, trunk: nn.Module, pictures: Sequence[NDArray[np.uint8]], *, seed: int) -> None:
        self._pictures, self._seed = list(pictures), seed
        self._foregrounds = [foreground(picture) for picture in pictures]
        device = next(trunk.parameters()).device
        trunk.to(memory_format=torch.channels_last)  # type: ignore[call-overload]  # torch's annotations lack it
        with torch.no_grad():
            width = trunk.eval()(torch.zeros(1, 3, self.size, self.size, device=device)).shape[1]
        self._frozen = layers_up_to(trunk, stride=self.frozen_stride, size=self.size)
        with seeded(seed):
            head = _head(width)
        self.learnt_ = nn.ModuleDict({"trunk": trunk, "head": head}).to(device)
        self.optimiser_ = torch.optim.SGD(self.learnt_.parameters(), lr=self.lr, momentum=0.9, weight_decay=3e-5)

    def update(self, number: int) -> float:
        generator = np.random.default_rng([self._seed, number])
        warming = number < round(self.warmup * self.updates)
        trunk, head = self.learnt_["trunk"], self.learnt_["head"]
        for weight in trunk.parameters():
            weight.requires_grad_(not warming)
        for layer in self._frozen:
            layer.requires_grad_(False)
        self.learnt_.train()
        if self.frozen_norms or warming:
            trunk.eval()
        for layer in self._frozen:
            layer.eval()
        for group in self.optimiser_.param_groups:
            group["lr"] = _learning_rate(number, self.updates, self.lr)
        self.optimiser_.zero_grad(set_to_none=True)
        total = 0.0
        for _ in range(self.accumulate):
            loss = defect_loss(head(trunk(self._batch(generator)))) / self.accumulate
            loss.backward()
            total += loss.item()
        self.optimiser_.step()
        trunk.eval()
        return total

    def _batch(self, generator: np.random.Generator) -> Tensor:
        """Seven variants of each of `sources` references; the numbers of draws of two references differ by at most 1.

        Returns:
            (7 · sources, 3, size, size) in [0, 1]; seven pictures in a row have the classes 0 to 6.
        """
        count = len(self._pictures)
        rows = np.concatenate([generator.permutation(count) for _ in range(math.ceil(self.sources / count))])
        variants = [
            seven_variants(self._pictures, self._foregrounds, row=int(row), generator=generator, turn=self.turn)[0]
            for row in rows[: self.sources]
        ]
        pixels = torch.from_numpy(np.concatenate(variants)).permute(0, 3, 1, 2)  # (7 · sources, 3, H, W), channels last
        return pixels.to(next(self.learnt_.parameters()).device).float() / 255


def defect_loss(logits: Tensor) -> Tensor:
    """The mean binary cross-entropy of seven sigmoids against the class of each picture: (7 · n, 7) → ().

    Seven pictures in a row have the classes 0 to 6, see `seven_variants`. The authors' code has sigmoids, no softmax,
    too.
    """
    truth = torch.eye(CLASSES, device=logits.device).repeat(len(logits) // CLASSES, 1)
    return F.binary_cross_entropy_with_logits(logits, truth)


def _head(width: int) -> nn.Sequential:
    """Two hidden layers with batch normalisation, then the seven logits."""
    layers: list[nn.Module] = []
    for before, after in zip((width, *HIDDEN), HIDDEN, strict=False):
        layers += [nn.Linear(before, after), nn.BatchNorm1d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(HIDDEN[-1], CLASSES))


def _learning_rate(number: int, updates: int, highest: float) -> float:
    """The learning rate of an update: half a cosine from `highest` down to `SMALLEST_LR`, over 1.1 times the updates.

    In the authors' schedule the cosine takes 330 updates, of which 300 are made.
    """
    return SMALLEST_LR + (highest - SMALLEST_LR) * (1 + math.cos(math.pi * number / (1.1 * updates))) / 2
