"""The contracts of what is trained before a method is fitted: a head on auxiliary data, or a backbone on references."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.methods.base import Configured, Head
from handful.types import AuxiliaryClass


@dataclass(kw_only=True, eq=False)
class HeadTraining(Configured, ABC):
    """How a paper trains a head on an auxiliary labelled data set.

    A subclass is a dataclass whose fields are its settings. `start` is called once, then `update` with the numbers 0,
    1, 2, … below `updates`. All that an update draws at random comes from the seed and its number, so that a training
    that was stopped goes on as if it had not been. A training that wants augmented pictures says how many in
    `augmented_wanted` and implements `augment`; they are made, and their features computed, once and before `start`.

    Attributes:
        name: of the method whose head it is.
        authors: the settings of the paper's own schedule, where they differ from the defaults.
        quick: the settings of a training of seconds, on small features, that tells anomalies from good places.
        updates: of the optimiser.
        head_: what is trained.
    """

    name: ClassVar[str]
    authors: ClassVar[Mapping[str, Any]] = {}
    quick: ClassVar[Mapping[str, Any]] = {}
    updates: int
    head_: Head = field(init=False, repr=False)
    optimiser_: torch.optim.Optimizer = field(init=False, repr=False)

    @property
    def augmented_wanted(self) -> int:
        """How many augmented pictures of each class it wants to learn from besides."""
        return 0

    def augment(
        self, images: Sequence[Tensor], masks: Sequence[Tensor], *, generator: np.random.Generator
    ) -> tuple[Tensor, Tensor]:
        """Make a picture and its mask of a class's labelled ones: to be written where `augmented_wanted` is above 0.

        Pictures are (3, H, W) in [0, 1], masks (H, W) bool, True where anomalous; the generator draws at random.
        """
        raise NotImplementedError

    @abstractmethod
    def make_head(self, depths: tuple[int, ...], *, seed: int) -> Head:
        """A head as it is before training, for levels of these channels."""

    @abstractmethod
    def start(self, classes: Sequence[AuxiliaryClass], *, seed: int, device: str) -> None:
        """Make the head, on `device`, and the optimiser; all that is random comes from the seed."""

    @abstractmethod
    def update(self, number: int, classes: Sequence[AuxiliaryClass]) -> float:
        """Make one update of the optimiser; its loss."""


@dataclass(kw_only=True, eq=False)
class Tuning(Configured, ABC):
    """How a paper trains a backbone on the references, before any method is fitted on its features.

    A subclass is a dataclass whose fields are its settings. `start` is called once, then `update` with the numbers 0,
    1, 2, … until `done`. All that an update draws at random comes from the seed and its number, so that a training
    that was stopped goes on as if it had not been.

    Attributes:
        name: what the command line calls the training.
        authors: the settings of the paper's own schedule, where they differ from the defaults.
        updates: of the optimiser, at most.
        size: side of the square pictures that `start` wants, in pixels.
        learnt_: what is trained: the trunk as `learnt_["trunk"]`, and heads.
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
            seed: of all that is random.
        """

    @abstractmethod
    def update(self, number: int) -> float:
        """Make one update of the optimiser; its loss."""

    def done(self, number: int) -> bool:
        """Whether to stop before the update of this number."""
        return number >= self.updates


def layers_up_to(trunk: nn.Module, *, stride: int, size: int) -> list[nn.Module]:
    """The layers of a network that run before the first one that brings its grid to a stride above this one.

    They are found in one pass of a blank picture of `size` pixels a side. A network that never reaches such a stride by
    a convolution or by pooling, as a vision transformer does not, has none; for a stride of 0 there is none either.
    """
    ran: list[nn.Module] = []
    ends: list[int] = []  # how many had run before each layer that goes beyond the stride

    def hook(module: nn.Module, inputs: tuple[Tensor, ...], output: object) -> None:
        if isinstance(output, Tensor) and isinstance(inputs[0], Tensor) and output.ndim == inputs[0].ndim == 4:
            before, after = inputs[0].shape[-1], output.shape[-1]
            if 1 < after < before and after * stride < size:  # one place alone is a pooled picture, no grid
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
