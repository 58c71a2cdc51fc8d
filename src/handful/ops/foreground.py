"""The region of the part in a good picture, from the border's colour alone.

REB uses the maps of a saliency network, computed beforehand and shipped with its data, which a user's pictures lack.
The foreground of this module is simpler and needs no weights; it covers the whole picture if no part stands out.
"""

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy import ndimage

GRID = 64  # pixels of the shorter side of the reduced picture in which the part is searched
RING = 3  # pixels of the reduced picture: width of the border whose colour is the background's
# Share of the border that may belong to the part: none in pictures of a part on a ground, nearly always an eighth or
# more in pictures of a surface or of a part that is cut off (measured on 18 development categories).
RING_SHARE = 0.1
SEPARATION = 0.75  # Otsu's measure of evenly spread distances; a lower measure shows no two groups
SMALLEST = 0.05  # least share of the picture that a part fills


def foreground(picture: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Mark the part in front of an even background; the whole picture if there is no such background.

    The distances of colours from the border's median colour are split in two by Otsu's threshold (A Threshold Selection
    Method from Gray-Level Histograms, 1979), and holes in the part are filled. The whole picture is marked if part of
    the border itself is above the threshold, the distances form no two groups, or the part would fill less than 5 %: a
    texture, a close-up, a crowded scene. A surface lit much brighter in the middle is taken for a part there.

    Args:
        picture: (H, W, 3).

    Returns:
        (H, W), true on the part; true somewhere in every picture.
    """
    height, width = picture.shape[:2]
    scale = min(1.0, GRID / min(height, width))
    grid = (max(1, round(scale * height)), max(1, round(scale * width)))
    channels = torch.from_numpy(np.array(picture, dtype=np.float32).transpose(2, 0, 1))
    small = F.interpolate(channels[None], size=grid, mode="bilinear", antialias=True, align_corners=False)
    colours = small[0].permute(1, 2, 0).numpy()  # (h, w, 3)
    ring = np.ones(grid, dtype=bool)
    ring[RING:-RING, RING:-RING] = False
    distances = np.linalg.norm(colours - np.median(colours[ring], axis=0), axis=2)
    threshold, separation = _otsu(distances)
    part = distances > threshold
    split = separation < SEPARATION or part[ring].mean() > RING_SHARE
    part = ndimage.binary_fill_holes(part)
    if split or part.mean() < SMALLEST:
        return np.ones((height, width), dtype=bool)
    rows = (np.arange(height) * grid[0]) // height
    columns = (np.arange(width) * grid[1]) // width
    enlarged: NDArray[np.bool_] = part[rows[:, None], columns]
    return enlarged


def _otsu(values: NDArray[np.float32]) -> tuple[float, float]:
    """The threshold that splits the values best, and the share of their variance that lies between the two groups."""
    counts, edges = np.histogram(values, 256, range=(0.0, max(1.0, float(values.max()))))
    middles = (edges[1:] + edges[:-1]) / 2
    shares = counts / counts.sum()
    below = np.cumsum(shares)[:-1]
    partial = np.cumsum(shares * middles)[:-1]
    mean = float((shares * middles).sum())
    between = (mean * below - partial) ** 2 / np.maximum(below * (1 - below), 1e-9)
    best = int(between.argmax())
    return float(edges[best + 1]), float(between[best] / max(float((shares * (middles - mean) ** 2).sum()), 1e-9))
