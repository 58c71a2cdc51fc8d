"""Steps from levels to scores: pooled patches, joined levels, pixel maps and image scores."""

from functools import lru_cache
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor


def pool_neighbourhood(level: Tensor, *, size: int) -> Tensor:
    """Average each patch with its neighbours in a size x size window, stride 1: (B, h, w, D) → (B, h, w, D).

    Places outside the grid count as zero, so border patches are damped, as in FastRecon's and anomalib's code. The
    damping also keeps the backbone's border artefacts from standing out as anomalies.
    """
    if size == 1:
        return level
    channels_first = level.permute(0, 3, 1, 2)
    return F.avg_pool2d(channels_first, size, stride=1, padding=size // 2).permute(0, 2, 3, 1)


def merge_levels(levels: tuple[Tensor, ...], *, mode: Literal["bilinear", "nearest"]) -> Tensor:
    """Resize every level to the first level's grid and concatenate the channels: → (B, h, w, sum of D)."""
    grid = levels[0].shape[1:3]
    return torch.cat([resize_grid(level, grid, mode=mode) for level in levels], dim=3)


def resize_grid(level: Tensor, grid: tuple[int, ...], *, mode: Literal["area", "bilinear", "nearest"]) -> Tensor:
    """Resize (B, h, w, D) to another grid with torch's `align_corners` false; mode "area" averages."""
    if level.shape[1:3] == grid:
        return level
    channels_first = level.permute(0, 3, 1, 2)
    aligned = {"align_corners": False} if mode == "bilinear" else {}
    return F.interpolate(channels_first, size=grid, mode=mode, **aligned).permute(0, 2, 3, 1)


def pixel_map(patch_scores: Tensor, size: tuple[int, int], *, sigma: float, corners: bool = False) -> Tensor:
    """Resize patch scores to the model-input frame by bilinear interpolation, then blur by a Gaussian.

    Both steps are linear and separable, so that a small matrix for each axis does both. The blur is that of
    `scipy.ndimage.gaussian_filter`: cut off at 4 sigma, borders mirrored.

    Args:
        patch_scores: (B, h, w).
        size: (H, W) of the frame.
        sigma: of the blur, in model-input pixels; the papers' 4 is for 224 to 256 pixels; 0 for no blur.
        corners: whether the corner patches' centres lie on the corner pixels (torch's `align_corners`), as in some
            authors' code; else each patch covers its share of the frame.

    Returns:
        (B, H, W).
    """
    grid = patch_scores.shape[1:]
    down, across = (_enlargement(*sides, sigma, corners).to(patch_scores) for sides in zip(grid, size, strict=True))
    # Pictures are computed one by one, so that a picture gets the same map alone and in a batch.
    return torch.stack([down @ picture @ across.T for picture in patch_scores])


@lru_cache(maxsize=32)
def _enlargement(grid: int, pixels: int, sigma: float, corners: bool) -> Tensor:
    """The weight of each of `grid` patches in a row in each of `pixels`: (pixels, grid) float64."""
    patches = torch.eye(grid, dtype=torch.float64)
    rows = F.interpolate(patches[:, None], size=pixels, mode="linear", align_corners=corners)  # (grid, 1, pixels)
    if sigma > 0:
        radius = int(4 * sigma + 0.5)
        kernel = torch.exp(-0.5 * (torch.arange(-radius, radius + 1, dtype=torch.float64) / sigma).square())
        rows = F.conv1d(rows[..., _mirrored(pixels, radius)], (kernel / kernel.sum())[None, None])
    return rows[:, 0].T


def _mirrored(length: int, radius: int) -> Tensor:
    """Positions -radius to length + radius - 1, reflected into 0 to length - 1 with the border pixel repeated."""
    positions = torch.arange(-radius, length + radius) % (2 * length)
    return torch.where(positions < length, positions, 2 * length - 1 - positions)


def top_share(patch_scores: Tensor, *, share: float) -> Tensor:
    """The image score, the mean of the highest `share` of the patch scores: (B, h, w) → (B,).

    At least one patch counts, so that a share of 0 gives the maximum.
    """
    flat = patch_scores.flatten(1)
    return flat.topk(max(1, round(share * flat.shape[1])), dim=1).values.mean(1)
