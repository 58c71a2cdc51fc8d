"""Variations of a good picture, like further photographs of good parts."""

import math
from collections.abc import Callable

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.ops.tracing import computing


@computing()
def mild_views(image: Tensor, count: int) -> list[Tensor]:
    """A picture (3, H, W) in [0, 1], then mild variations of it in a fixed order: `count` tensors in all, 1 to 7.

    The variations are moved by 1 % of the side, turned by 2 degrees either way, 2 % nearer, 5 % brighter and 5 %
    darker. These amounts are our choice, for a fixed camera and a part placed by hand. Borders are mirrored, values
    stay in [0, 1].
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


def random_views(image: Tensor, count: int, *, seed: int = 0) -> list[Tensor]:
    """`count` random variations of a picture (3, H, W) in [0, 1] that leave a good part good, see `random_view`.

    The changes depend on the seed and the number of the variation alone, so that every picture varies in equal ways.
    """
    return [random_view(image, generator=np.random.default_rng([seed, number])) for number in range(count)]


@computing()
def random_view(
    image: Tensor,
    *,
    generator: np.random.Generator,
    crop: float = 0.8,
    jitter: float = 0.15,
    blur: float = 1.0,
    turn: bool = False,
) -> Tensor:
    """Crop a picture at random and enlarge the crop, change its light and blur it: (3, H, W) in [0, 1] → same shape.

    Args:
        image: the picture.
        generator: the source of random numbers; an equal state makes an equal view.
        crop: the least share of the picture's area that the crop keeps, in (0, 1]; the aspect stays.
        jitter: brightness and contrast change by a factor of 1 ± this.
        blur: the largest sigma of the Gaussian blur, in pixels.
        turn: whether to turn by quarters, an oblong picture by halves, and to mirror at random.
    """
    side = math.sqrt(float(generator.uniform(crop, 1)))
    across, down = (float((1 - side) * generator.uniform(-1, 1)) for _ in range(2))
    brightness, contrast = (float(generator.uniform(1 - jitter, 1 + jitter)) for _ in range(2))
    sigma = float(generator.uniform(0, blur))
    view = _sampled(image, [[side, 0, across], [0, side, down]])
    view = (brightness * (view.mean() + contrast * (view - view.mean()))).clamp(0, 1)
    if blur > 0:
        view = _blurred(view, sigma=sigma, radius=math.ceil(3 * blur))
    if turn:
        step = 1 if image.shape[1] == image.shape[2] else 2
        view = torch.rot90(view, step * int(generator.integers(4 // step)), (1, 2))
        view = view.flip(2) if generator.integers(2) else view
    return view.contiguous()


def turned_view(image: Tensor, degrees: float, *, aspect: float) -> Tensor:
    """Turn a picture (3, H, W) about its centre; pixels from beyond the picture's edge repeat the edge.

    `aspect` is width to height of the original picture, before it was resized to the frame, so that the part is rotated
    without shear.
    """
    return _moved(image, degrees=degrees, aspect=aspect, beyond="border")


def _moved(
    image: Tensor,
    *,
    shift: float = 0.0,
    degrees: float = 0.0,
    zoom: float = 1.0,
    aspect: float | None = None,
    beyond: str = "reflection",
) -> Tensor:
    """Shift by a share of the side along both axes, turn about the centre, enlarge; None for the image's own aspect."""
    height, width = image.shape[1:]
    angle = math.radians(degrees)
    cosine, sine = math.cos(angle) / zoom, math.sin(angle) / zoom
    # affine_grid works in [-1, 1] on both axes: the aspect keeps the rotation free of shear on an oblong picture.
    aspect = width / height if aspect is None else aspect
    return _sampled(image, [[cosine, -sine / aspect, 2 * shift], [sine * aspect, cosine, 2 * shift]], beyond=beyond)


def _sampled(image: Tensor, matrix: list[list[float]], *, beyond: str = "reflection") -> Tensor:
    """Sample the picture at places given by an affine matrix, both axes running from -1 to 1; bilinear."""
    grid = F.affine_grid(torch.tensor([matrix]), [1, *image.shape], align_corners=False)
    return F.grid_sample(image[None], grid, padding_mode=beyond, align_corners=False)[0]


def _blurred(image: Tensor, *, sigma: float, radius: int) -> Tensor:
    """Blur (3, H, W) by a Gaussian that reaches `radius` pixels, borders mirrored; a sigma of 0 changes nothing."""
    offsets = torch.arange(-radius, radius + 1, dtype=image.dtype)
    kernel = torch.exp(-0.5 * (offsets / max(sigma, 1e-3)).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(image[None], [radius] * 4, mode="reflect")[0][:, None]  # (3, 1, H + 2 r, W + 2 r)
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]
