"""CLIP's vision transformer up to the last block that a level needs, with blocks, patches and windows as levels."""

import copy
import re
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Model = Any  # open_clip's networks: nn.Modules with attributes that nn.Module does not declare


class VisualTower(nn.Module):
    """A CLIP vision transformer cut off after the last block that a level needs.

    Attributes:
        level_names: `blockN`, the output of the N-th block; `tokens`, the last block's output after the network's last
            normalisation; `patches`, the last block's output in the embedding space that pictures share with texts;
            `windowsK`, the embeddings in that space of all windows of K x K patches.
        size: (H, W) of the input.
        grid: (h, w) of the patches.
        shared: whether any level needs the layers after the last block; the network then gives the embedding of the
            whole picture too.
    """

    def __init__(self, visual: Model, level_names: Sequence[str], mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        self.level_names = tuple(level_names)
        self.size: tuple[int, int] = visual.image_size
        self.grid: tuple[int, int] = visual.grid_size
        self.model = visual
        self.mean = nn.Buffer(torch.tensor(mean).view(1, 3, 1, 1))
        self.std = nn.Buffer(torch.tensor(std).view(1, 3, 1, 1))
        self.shared = any(block_of(name) is None for name in level_names)
        if not self.shared:
            visual.transformer.resblocks = visual.transformer.resblocks[: max(map(_number, level_names))]
            visual.ln_post, visual.proj = nn.Identity(), None
        for name in level_names:
            if side := side_of(name):
                setattr(self, name, nn.Buffer(window_tokens(self.grid, side), persistent=False))
        self.eval().requires_grad_(False)

    def forward(self, images: Tensor) -> tuple[tuple[Tensor, ...], Tensor | None]:
        """Compute the levels of (B, 3, H, W) images in [0, 1], each (B, h, w, D), and the images' embeddings (B, E).

        The embeddings are None unless `shared`.
        """
        first = self._embed(images)
        blocks = [first]
        for block in self.model.transformer.resblocks:
            blocks.append(block(blocks[-1]))
        levels = tuple(self._level(name, blocks) for name in self.level_names)
        return levels, self._share(blocks[-1][:, 0]) if self.shared else None

    def _embed(self, images: Tensor) -> Tensor:
        """The tokens before the first block, the class token first: (B, 1 + h·w, D)."""
        patches = self.model.conv1((images - self.mean) / self.std).flatten(2).transpose(1, 2)  # (B, h·w, D)
        own = self.model.class_embedding.expand(len(patches), 1, -1)
        tokens: Tensor = self.model.ln_pre(torch.cat([own, patches], 1) + self.model.positional_embedding)
        return tokens

    def _level(self, name: str, blocks: Sequence[Tensor]) -> Tensor:
        height, width = self.grid
        if side := side_of(name):
            windows = blocks[0][:, getattr(self, name)]  # (B, windows, 1 + side², D)
            own = self._share(self.model.transformer(windows.flatten(0, 1))[:, 0])  # (B·windows, E)
            return own.reshape(len(windows), height - side + 1, width - side + 1, -1)
        number = block_of(name)
        patches = blocks[-1 if number is None else number][:, 1:]  # (B, h·w, D)
        if name == "tokens":
            patches = self.model.ln_post(patches)
        elif number is None:
            patches = self._share(patches)  # (B, h·w, E)
        return patches.reshape(len(patches), height, width, -1)

    def _share(self, tokens: Tensor) -> Tensor:
        """Project tokens of the last block into the shared space: (…, D) → (…, E)."""
        shared: Tensor = self.model.ln_post(tokens) @ self.model.proj
        return shared

    def at_size(self, size: tuple[int, int], grid: tuple[int, int]) -> "VisualTower":
        """A copy of the network for pictures of (H, W), cut into a grid of patches.

        The position embedding is interpolated from this network's, as in open_clip.
        """
        visual = copy.deepcopy(self.model)
        visual.positional_embedding = nn.Parameter(resized_positions(visual.positional_embedding, self.grid, grid))
        visual.image_size, visual.grid_size = size, grid
        return VisualTower(visual, self.level_names, self.mean.flatten().tolist(), self.std.flatten().tolist())


def window_tokens(grid: tuple[int, int], side: int) -> Tensor:
    """The numbers of the tokens of each window of side x side patches; the first is the class token, number 0.

    Returns:
        (windows, 1 + side²) int64, the windows row by row.
    """
    numbers = torch.arange(1, grid[0] * grid[1] + 1, dtype=torch.float64).reshape(1, 1, *grid)
    windows = F.unfold(numbers, side)[0].T.long()  # (windows, side²)
    return torch.cat([torch.zeros(len(windows), 1, dtype=torch.long), windows], 1)


def resized_positions(positions: Tensor, grid: tuple[int, int], to: tuple[int, int]) -> Tensor:
    """Interpolate a position embedding (1 + h·w, D) from a grid to another; the class token's row, the first, stays."""
    own, patches = positions[:1], positions[1:].T.reshape(1, -1, *grid)
    patches = F.interpolate(patches, size=to, mode="bicubic", antialias=True, align_corners=False)
    return torch.cat([own, patches[0].flatten(1).T])


def block_of(name: str) -> int | None:
    """The number of a level's block; None for a level that needs the layers behind the last block."""
    return _number(name) if name.startswith("block") else None


def side_of(name: str) -> int:
    """The side of a level's windows in patches; 0 for a level without windows."""
    return _number(name) if name.startswith("windows") else 0


def _number(name: str) -> int:
    return int(re.sub(r"\D", "", name))
