"""Augmentation of labelled pictures: mosaics of four pictures, and enlarged parts of a picture."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def four_in_one(images: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The mosaic of four pictures (3, H, W) in [0, 1], each at half its side, and of their masks (H, W) bool."""
    image, mask = (torch.cat([torch.cat([*some[:2]], -1), torch.cat([*some[2:]], -1)], -2) for some in (images, masks))
    size = images[0].shape[1:]
    smaller = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return smaller.clamp(0, 1), F.adaptive_max_pool2d(mask[None].float(), size)[0] > 0


def enlarged_part(
    image: Tensor, mask: Tensor, *, share: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A random part of a picture (3, H, W) in [0, 1] and of its mask (H, W) bool, both enlarged to the picture's size.

    The part has a `share` in (0, 1] of each side. The part of an anomalous picture shows some of its defect.
    """
    marked = torch.nonzero(mask)
    chosen = marked[int(generator.integers(len(marked)))].tolist() if len(marked) else [None, None]
    cut = []
    for length, must in zip(mask.shape, chosen, strict=True):
        side = max(1, round(share * length))
        low = 0 if must is None else max(0, must - side + 1)
        high = length - side if must is None else min(length - side, must)
        start = int(generator.integers(low, high + 1))
        cut.append(slice(start, start + side))
    part, of_mask = image[:, cut[0], cut[1]], mask[cut[0], cut[1]]
    enlarged = F.interpolate(part[None], size=mask.shape, mode="bilinear", align_corners=False)[0]
    return enlarged.clamp(0, 1), F.interpolate(of_mask[None, None].float(), size=mask.shape)[0, 0] > 0
