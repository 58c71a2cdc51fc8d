"""Labelled pictures made of labelled pictures: four in one, and a part of one enlarged."""

from collections.abc import Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor


def four_in_one(images: Sequence[Tensor], masks: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """Four pictures two by two, each at half its side, and their masks likewise.

    Args:
        images: four of (3, H, W) in [0, 1].
        masks: four of (H, W) bool.

    Returns:
        (3, H, W) and (H, W).
    """
    image, mask = (
        torch.cat([torch.cat(list(those[:2]), -1), torch.cat(list(those[2:]), -1)], -2) for those in (images, masks)
    )
    size = images[0].shape[1:]
    smaller = F.interpolate(image[None], size=size, mode="bilinear", align_corners=False, antialias=True)[0]
    return smaller.clamp(0, 1), F.adaptive_max_pool2d(mask[None].float(), size)[0] > 0


def enlarged_part(
    image: Tensor, mask: Tensor, *, share: float, generator: np.random.Generator
) -> tuple[Tensor, Tensor]:
    """A part of a picture, brought to the whole's size; of an anomalous picture one that shows some of its defect.

    Args:
        image: (3, H, W) in [0, 1].
        mask: (H, W) bool.
        share: of the side that is kept, in (0, 1].
        generator: of all that is random.

    Returns:
        (3, H, W) and (H, W).
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
