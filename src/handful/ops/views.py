"""Mild variations of a good picture: what the next photograph of a good part may look like."""

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor


def mild_views(image: Tensor, count: int) -> list[Tensor]:
    """The picture itself and then up to six mild variations of it, always the same ones in the same order.

    Moved by 1 % of the side, turned by 2 degrees either way, 2 % nearer, 5 % brighter, 5 % darker. These amounts are
    ours: what a fixed camera and a hand-placed part vary by. Borders are mirrored, values stay in [0, 1].

    Args:
        image: (3, H, W) in [0, 1].
        count: how many to return, 1 to 7.

    Returns:
        `count` tensors (3, H, W).
    """
    recipes: tuple[Callable[[], Tensor], ...] = (
        lambda: image,
        lambda: _moved(image, shift=0.01),
        lambda: _moved(image, degrees=2.0),
        lambda: (image * 1.05).clamp(0, 1),
        lambda: _moved(image, degrees=-2.0),
        lambda: image * 0.95,
        lambda: _moved(image, zoom=1.02),
    )
    return [recipe() for recipe in recipes[:count]]


def _moved(image: Tensor, *, shift: float = 0.0, degrees: float = 0.0, zoom: float = 1.0) -> Tensor:
    """Shift both ways by a share of the side, turn about the centre, enlarge; bilinear, mirrored borders."""
    height, width = image.shape[1:]
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    # affine_grid works in [-1, 1] on both axes: the aspect keeps a turn a turn on an oblong picture.
    aspect = width / height
    matrix = torch.tensor([[[cosine, -sine / aspect, 2 * shift], [sine * aspect, cosine, 2 * shift]]])
    grid = F.affine_grid(matrix, [1, 3, height, width], align_corners=False)
    return F.grid_sample(image[None], grid, padding_mode="reflection", align_corners=False)[0]
