"""Patch vectors: a vector for each patch of the finest grid, from the patch's neighbourhood in every level."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.ops.maps import merge_levels, pool_neighbourhood, resize_grid

LevelWeights = Literal["equal", "raw"]


def level_scales(levels: tuple[Tensor, ...], *, weights: LevelWeights) -> Tensor:
    """The divisor of each of the references' L levels (B, h, w, D): (L,), above 0.

    With "equal" weights the divisor is the level's root mean square length, so that no level dominates by the magnitude
    of its values; with "raw" weights the divisor is 1.
    """
    if weights == "raw":
        return levels[0].new_ones(len(levels))
    tiny = torch.finfo(levels[0].dtype).tiny
    return torch.stack([level.square().sum(-1).mean().sqrt().clamp_min(tiny) for level in levels])


def patch_vectors(levels: tuple[Tensor, ...], scales: Tensor, *, neighbourhood: int, dimensions: int | None) -> Tensor:
    """Describe each patch by its neighbourhood in every level, on the finest level's grid.

    Args:
        levels: each (B, h, w, D), finest grid first.
        scales: (L,) the divisor of each level; not used with `dimensions`.
        neighbourhood: side of the window, odd; 1 for the patch alone.
        dimensions: None to average each window and concatenate the levels' channels, coarse levels resized to the
            finest grid bilinearly; or the length of the vectors of `resampled_neighbourhoods`.

    Returns:
        (B, h, w, sum of D), or (B, h, w, dimensions).
    """
    if dimensions is not None:
        return resampled_neighbourhoods(levels, neighbourhood=neighbourhood, dimensions=dimensions)
    pooled = tuple(
        pool_neighbourhood(level, size=neighbourhood) / scale for level, scale in zip(levels, scales, strict=True)
    )
    return merge_levels(pooled, mode="bilinear")


def resampled_neighbourhoods(levels: tuple[Tensor, ...], *, neighbourhood: int, dimensions: int) -> Tensor:
    """The patch vectors of PatchCore's and REB's code: each window unfolded and re-sampled to a fixed length.

    Every level is unfolded, resized to the finest grid and re-sampled to `dimensions` values; then the concatenated
    levels are re-sampled to `dimensions` values once more.

    Returns:
        (B, h, w, dimensions).
    """
    grid = levels[0].shape[1:3]
    per_level = []
    for level in levels:
        windows = F.unfold(level.permute(0, 3, 1, 2), neighbourhood, padding=neighbourhood // 2)  # (B, D·n·n, h·w)
        windows = resize_grid(windows.transpose(1, 2).reshape(*level.shape[:3], -1), grid, mode="bilinear")
        per_level.append(F.adaptive_avg_pool1d(windows.flatten(0, 2)[:, None], dimensions))  # (B·h·w, 1, dimensions)
    joined = F.adaptive_avg_pool1d(torch.cat(per_level, 2), dimensions)
    return joined.reshape(len(levels[0]), *grid, dimensions)
