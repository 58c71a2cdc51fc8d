"""Ignored regions of the frame: their patches are replaced by the patches of a good picture."""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from handful.ops.ignoring_numpy import touched
from handful.types import Features, Scores


def hidden(queries: Features, ignored: NDArray[np.bool_], good: Features) -> Features:
    """The features of B pictures, with a learnt picture's features wherever a patch touches the ignored region.

    Args:
        queries: the features of the pictures.
        ignored: (H, W) bool, the region in the model-input frame.
        good: the features of the learnt picture.
    """
    levels = []
    for level, of_good in zip(queries.levels, good.levels, strict=True):
        hides = torch.from_numpy(touched(ignored, (level.shape[1], level.shape[2])))  # (h, w)
        levels.append(torch.where(hides[None, :, :, None].to(level.device), of_good.to(level), level))
    return replace(queries, levels=tuple(levels))


def lowered(scores: Scores, ignored: NDArray[np.bool_]) -> Scores:
    """The scores with every map set to 0 in the ignored region (H, W), or to its lowest value if that is below 0."""
    lowest = scores.maps.amin((1, 2), keepdim=True).clamp_max(0)
    return replace(scores, maps=torch.where(torch.from_numpy(ignored).to(scores.maps.device), lowest, scores.maps))
