"""A normalising flow over patch vectors, conditioned on the patch's position."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.errors import needing
from handful.ops.seeding import seeded

_drawing = threading.Lock()

LOG_2_PI = 1.8378770664093453


class ConditionalFlow(nn.Module):
    """Coupling blocks that map vectors to a standard Gaussian, given a condition.

    The blocks are FrEIA's: affine coupling with soft clamping, a global scale, and a fixed random rotation of the
    channels, as CFLOW-AD, BGAD and ResAD use them. Each sub-network has a hidden layer of twice its input's width.

    Args:
        depth: D, channels of the vectors, at least 2.
        condition: channels of the condition.
        blocks: the number of coupling blocks.
        clamp: the largest logarithm of a coupling's scale.
        seed: the seed of the rotations and the initial weights.
    """

    def __init__(self, depth: int, *, condition: int, blocks: int, clamp: float = 1.9, seed: int = 0) -> None:
        # Imported here, as the import takes half a second and other methods do not need FrEIA.
        with needing("A head of resad", "fit"):
            from FrEIA.framework import SequenceINN
            from FrEIA.modules import AllInOneBlock

        super().__init__()
        self.depth = depth
        with seeded(seed), _rotations(seed):
            self.blocks = SequenceINN(depth)
            for _ in range(blocks):
                self.blocks.append(
                    AllInOneBlock,
                    cond=0,
                    cond_shape=(condition,),
                    subnet_constructor=_subnet,
                    affine_clamping=clamp,
                    global_affine_type="SOFTPLUS",
                    permute_soft=True,
                )

    def forward(self, vectors: Tensor, condition: Tensor) -> Tensor:
        """The log-likelihood of vectors divided by D, in nats: (N, D), (N, C) → (N,); lower is more anomalous."""
        codes, log_determinant = self.to_gaussian(vectors, condition)
        return (log_determinant - 0.5 * codes.square().sum(1)) / self.depth - 0.5 * LOG_2_PI

    def to_gaussian(self, vectors: Tensor, condition: Tensor) -> tuple[Tensor, Tensor]:
        """The vectors' codes (N, D) and the logarithm of the Jacobian's determinant (N,)."""
        codes, log_determinant = self.blocks(vectors, [condition])
        return codes, log_determinant


def position_code(grid: tuple[int, int], *, width: int) -> Tensor:
    """A fixed code of each place on a grid (h, w): (h, w, width) in [-1, 1], the width a multiple of 4.

    The code is CFLOW-AD's: a quarter of the channels each for sine and cosine of the column, then of the row, at
    wavelengths from 2 π to 20,000 π places.
    """
    frequencies = 10_000 ** (-torch.arange(0, width // 2, 2) / (width // 2))  # (width / 4,)
    down, across = (torch.arange(side)[:, None] * frequencies for side in grid)  # (h or w, width / 4)
    columns = torch.cat([across.sin(), across.cos()], 1)[None].expand(grid[0], -1, -1)
    rows = torch.cat([down.sin(), down.cos()], 1)[:, None].expand(-1, grid[1], -1)
    return torch.cat([columns, rows], 2)


def _subnet(inputs: int, outputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, 2 * inputs), nn.ReLU(), nn.Linear(2 * inputs, outputs))


class _Rotations:
    """Random rotations from a seed, in place of SciPy's rotations, which draw from NumPy's global generator."""

    def __init__(self, seed: int) -> None:
        self.generator = np.random.RandomState(seed)

    def rvs(self, depth: int) -> NDArray[np.float64]:
        """A rotation of `depth` channels, (depth, depth)."""
        from scipy.stats import special_ortho_group

        rotation: NDArray[np.float64] = special_ortho_group.rvs(depth, random_state=self.generator)
        return rotation


@contextmanager
def _rotations(seed: int) -> Iterator[None]:
    """Let FrEIA's blocks draw their rotations from a seed, one thread at a time."""
    from FrEIA.modules import all_in_one_block

    with _drawing:
        original = all_in_one_block.special_ortho_group
        all_in_one_block.special_ortho_group = _Rotations(seed)
        try:
            yield
        finally:
            all_in_one_block.special_ortho_group = original
