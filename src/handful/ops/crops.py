"""Crops of a picture on a regular grid, nearest patches among similar crops, and maps of crops joined to one map."""

from itertools import product

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.errors import SettingError
from handful.ops.neighbors import CHUNK_ELEMENTS
from handful.types import Crops


def starts(patches: int, crops: Crops) -> tuple[int, ...]:
    """The first patch of each crop along a side of `patches` patches; the last crop ends at the edge.

    Raises:
        SettingError: if a crop is longer than the side.
    """
    if crops.size > patches:
        raise SettingError(
            f"`win_size` must be at most the {patches} patches of the backbone's finest grid, got {crops.size}; "
            f"lower it, or use larger pictures."
        )
    last = patches - crops.size
    return tuple(dict.fromkeys((*range(0, last + 1, crops.stride), last)))


def cut_crops(image: Tensor, grid: tuple[int, int], crops: Crops) -> Tensor:
    """Cut the crops out of a picture in [0, 1], row by row, by the finest level's grid: (3, H, W) → (W, 3, h, w)."""
    down, across = (side / patches for side, patches in zip(image.shape[1:], grid, strict=True))  # pixels per patch
    height, width = round(crops.size * down), round(crops.size * across)
    found = []
    for row, column in product(*(starts(side, crops) for side in grid)):
        top, left = min(round(row * down), image.shape[1] - height), min(round(column * across), image.shape[2] - width)
        found.append(image[:, top : top + height, left : left + width])
    cut = torch.stack(found)
    if crops.seen == crops.size:
        return cut
    seen = (round(crops.seen * down), round(crops.seen * across))
    return F.interpolate(cut, size=seen, mode="bilinear", align_corners=False).clamp(0, 1)


def overlap_mean(maps: Tensor, grid: tuple[int, int], crops: Crops) -> Tensor:
    """Join the maps of all crops on the finest grid, averaged where crops overlap: (W, size, size) → (h, w)."""
    total, count = maps.new_zeros(2, *grid)
    for number, (row, column) in enumerate(product(*(starts(side, crops) for side in grid))):
        place = (slice(row, row + crops.size), slice(column, column + crops.size))
        total[place] += maps[number]
        count[place] += 1
    mean: Tensor = total / count
    return mean


class CropBank:
    """Crops of references, in whose most similar crops the nearest patches of a crop are searched.

    Patches and index vectors have length 1, so that the highest dot product is the highest cosine similarity.

    Args:
        levels: (M, h, w, D) of M crops of references.
    """

    def __init__(self, levels: tuple[Tensor, ...]) -> None:
        self.levels = levels
        self._rows = tuple(level.flatten(1, 2) for level in levels)  # (M, h·w, D)
        self.index = image_index(levels)

    def nearest(self, levels: tuple[Tensor, ...], *, crops: int) -> tuple[Tensor, ...]:
        """The reference patch most similar to each patch, among the patches of the `crops` most similar crops.

        Args:
            levels: (W, h, w, D) each, of the W crops of a picture.
            crops: the number of reference crops searched for each crop.

        Returns:
            The reference patches, in the shapes of `levels`.
        """
        similar = image_index(levels) @ self.index.T  # (W, M)
        chosen = similar.topk(min(crops, len(self.index)), dim=1).indices  # (W, T)
        return tuple(self._nearest(level, rows, chosen) for level, rows in zip(levels, self._rows, strict=True))

    def _nearest(self, level: Tensor, rows: Tensor, chosen: Tensor) -> Tensor:
        patches = level.flatten(1, 2)  # (W, h·w, D)
        block = max(1, CHUNK_ELEMENTS // (patches.shape[1] * chosen.shape[1] * rows.shape[1]))
        found = []
        for some, of_them in zip(patches.split(block), chosen.split(block), strict=True):
            bank = rows[of_them].flatten(1, 2)  # (b, T·h·w, D)
            best = (some @ bank.transpose(1, 2)).argmax(2)  # (b, h·w)
            found.append(bank.gather(1, best[..., None].expand(-1, -1, bank.shape[2])))
        return torch.cat(found).reshape(level.shape)


def image_index(levels: tuple[Tensor, ...]) -> Tensor:
    """A vector of length 1 for each picture or crop, the mean of its last level over places: (M, D)."""
    return F.normalize(levels[-1].mean((1, 2)))
