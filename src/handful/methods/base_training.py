"""The contracts of trainings before a fit: of a head on auxiliary data, and of a backbone on the references."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.methods.base import Configured, Head, require
from handful.types import AuxiliaryClass


@dataclass(kw_only=True, eq=False)
class HeadTraining(Configured, ABC):
    """The training of a head on an auxiliary labelled data set.

    A subclass is a dataclass whose fields are its settings. `start` is called once, then `update` with the numbers 0,
    1, 2, … below `updates`. The random draws of an update follow from the seed and the update's number, so that a
    stopped training continues as if it had never stopped. A training with augmented pictures gives their number in
    `augmented_wanted` and implements `augment`; augmented pictures and their features are made once, before `start`.

    Attributes:
        name: the name of the method that the head is for.
        authors: the settings of the paper's own schedule that differ from the defaults.
        quick: the settings of a training of seconds, on small features, that tells anomalies from good places.
        updates: the number of updates of the optimiser.
        products: the number of made products (`handful.training.products`) that are learnt from beside the data sets.
        head_: the head.
    """

    name: ClassVar[str]
    authors: ClassVar[Mapping[str, Any]] = {}
    quick: ClassVar[Mapping[str, Any]] = {}
    updates: int
    products: int = 12
    head_: Head = field(init=False, repr=False)
    optimiser_: torch.optim.Optimizer = field(init=False, repr=False)

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.products >= 0, "products", "at least 0", self.products)

    @property
    def augmented_wanted(self) -> int:
        """The number of augmented pictures of each class that the training needs besides."""
        return 0

    def augment(
        self, images: Sequence[Tensor], masks: Sequence[Tensor], *, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Make an augmented picture and its mask; a training with `augmented_wanted` above 0 overrides this.

        Args:
            images: the labelled pictures of a class, (3, H, W) in [0, 1].
            masks: their masks, (H, W) bool, True where anomalous.
            generator: the source of random numbers.
        """
        raise NotImplementedError

    @abstractmethod
    def make_head(self, depths: tuple[int, ...], *, seed: int) -> Head:
        """An untrained head for levels of the given channels."""

    @abstractmethod
    def start(self, classes: Sequence[AuxiliaryClass], *, seed: int, device: str) -> None:
        """Make the head, on `device`, and the optimiser; all random draws follow from the seed."""

    @abstractmethod
    def update(self, number: int, classes: Sequence[AuxiliaryClass]) -> float:
        """Make an update of the optimiser, and return its loss."""


@dataclass(kw_only=True, eq=False)
class Tuning(Configured, ABC):
    """The training of a backbone on the references, before any method is fitted to its features.

    A subclass is a dataclass whose fields are its settings. `start` is called once, then `update` with the numbers 0,
    1, 2, … until `done`. The random draws of an update follow from the seed and the update's number, so that a stopped
    training continues as if it had never stopped.

    Attributes:
        name: the training's name in the command line.
        authors: the settings of the paper's own schedule that differ from the defaults.
        updates: the largest number of updates of the optimiser.
        size: side of the square pictures for `start`, in pixels.
        learnt_: the trained modules: the trunk as `learnt_["trunk"]`, and heads.
    """

    name: ClassVar[str]
    authors: ClassVar[Mapping[str, Any]] = {}
    updates: int
    size: int
    learnt_: nn.ModuleDict = field(init=False, repr=False)
    optimiser_: torch.optim.Optimizer = field(init=False, repr=False)

    @abstractmethod
    def start(self, trunk: nn.Module, pictures: Sequence[NDArray[np.uint8]], *, seed: int) -> None:
        """Make the heads and the optimiser.

        Args:
            trunk: (B, 3, H, W) in [0, 1] → (B, C), the pooled features of the network's last stage.
            pictures: the references, each (size, size, 3).
            seed: the seed of all random draws.
        """

    @abstractmethod
    def update(self, number: int) -> float:
        """Make an update of the optimiser, and return its loss."""

    def done(self, number: int) -> bool:
        """Whether to stop before the update of a number."""
        return number >= self.updates


def layers_up_to(trunk: nn.Module, *, stride: int, size: int) -> list[nn.Module]:
    """The layers of a network that run before the first layer whose output grid has a stride above `stride`.

    The layers are found in a forward pass of a blank picture of `size` pixels a side. The list is empty for a stride of
    0, and for a network that reaches no such stride by convolution or pooling, as a vision transformer.
    """
    ran: list[nn.Module] = []
    ends: list[int] = []  # for each layer beyond the stride, the number of layers that ran before

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and isinstance(inputs[0], Tensor) and output.ndim == inputs[0].ndim == 4:
            before, after = inputs[0].shape[-1], output.shape[-1]
            if 1 < after < before and after * stride < size:  # an output of 1 x 1 is a pooled picture, no grid
                ends.append(len(ran))
        ran.append(module)

    layers = [layer for layer in trunk.modules() if not list(layer.children()) or list(layer.parameters(recurse=False))]
    hooks = [layer.register_forward_hook(hook) for layer in layers]
    try:
        with torch.no_grad():
            trunk.eval()(torch.zeros(1, 3, size, size, device=next(trunk.parameters()).device))
    finally:
        for handle in hooks:
            handle.remove()
    return ran[: min(ends, default=0)] if stride else []
