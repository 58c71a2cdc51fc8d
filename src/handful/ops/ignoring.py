"""A region of the frame that never counts: what a picture shows there is taken as what a good one shows there."""

from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.types import Features, Scores


def hidden(queries: Features, ignored: Tensor, good: Features) -> Features:
    """The features of pictures, with those of a good picture wherever a patch touches the ignored region.

    Args:
        queries: of B pictures.
        ignored: (H, W) bool, in the model-input frame.
        good: of one picture that the scoring method has learnt.
    """
    levels = []
    for level, of_good in zip(queries.levels, good.levels, strict=True):
        # Of how many pixels of the region each patch consists; a patch that holds any is hidden.
        touched = F.adaptive_max_pool2d(ignored[None, None].float(), level.shape[1:3])[0, 0] > 0  # (h, w)
        levels.append(torch.where(touched[None, :, :, None].to(level.device), of_good.to(level), level))
    return replace(queries, levels=tuple(levels))


def lowered(scores: Scores, ignored: Tensor) -> Scores:
    """The scores with every map at 0 in the ignored region (H, W), or at its lowest value if that is below."""
    lowest = scores.maps.amin((1, 2), keepdim=True).clamp_max(0)
    return replace(scores, maps=torch.where(ignored.to(scores.maps.device), lowest, scores.maps))
