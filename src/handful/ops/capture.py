"""How a picture was taken: how sharp it is, how bright, where its part lies; of whole pictures, not of patches.

Everything is measured on a picture's `blocks`, (h, w) in [0, 1]: the mean of its channels at half the model-input's
size. What is finer is noise, and interpolation where a small picture was enlarged.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

BLOCK = 2  # pixels a side of a block
COARSE = 4  # blocks a side of the places whose detail the fine detail is compared with
CELLS = 5  # sharpness is measured in this many cells a side
FLAT = 1e-5  # mean square of the coarse Laplacian below which a cell shows nothing to be sharp or blurred
ROUNDING = 20 / (12 * 255**2 * BLOCK**2)  # mean square of the fine Laplacian of 8-bit rounding alone
NO_DETAIL = 1e-9
SHARPEST = 0.25  # the share of what shows that must be sharp
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
LAYOUT = 32  # cells a side of a layout
FURTHEST = 12  # cells that a displacement is looked for either way


def blocks_of(image: Tensor) -> Tensor:
    """A picture's blocks: (3, H, W) → (H / 2, W / 2), rounded down."""
    return F.avg_pool2d(image.mean(0)[None, None], BLOCK)[0, 0]


def sharpness(blocks: Tensor) -> Tensor:
    """How much fine detail comes with the coarse, as a natural logarithm; higher is sharper, NaN where nothing shows.

    In each cell the energy of the Laplacian of the blocks over that at `COARSE` blocks, which light and contrast leave
    as it is. Of the cells that are not flat, the value that the sharpest quarter reaches: a quarter by number (a soft
    stain may outweigh all else) or by coarse energy (what is left of a small part counts), whichever is higher. A stain
    or a smear leaves the places beside it sharp; a blurred picture has no sharp place.

    Returns:
        () float32.
    """
    fine, coarse = _detail(blocks[None, None]), _detail(F.avg_pool2d(blocks[None, None], COARSE))
    shown = coarse > FLAT
    if not shown.any():
        return blocks.new_tensor(torch.nan)
    ratios, order = ((fine[shown] - ROUNDING).clamp(min=NO_DETAIL) / coarse[shown]).log().sort(descending=True)
    energy = coarse[shown][order].cumsum(0)
    by_number, by_energy = int(SHARPEST * (len(ratios) - 1)), int((energy < SHARPEST * energy[-1]).sum())
    return ratios[min(by_number, by_energy)]


def _detail(blocks: Tensor) -> Tensor:
    """The mean square of the Laplacian in each cell: (1, 1, h, w) → (CELLS²,)."""
    around = blocks[..., :-2, 1:-1] + blocks[..., 2:, 1:-1] + blocks[..., 1:-1, :-2] + blocks[..., 1:-1, 2:]
    return F.adaptive_avg_pool2d((4 * blocks[..., 1:-1, 1:-1] - around).square(), CELLS).flatten()


def brightness(blocks: Tensor) -> Tensor:
    """The `QUANTILES` of the brightness of places of two blocks a side, so that specks are none: (h, w) → (5,)."""
    return torch.quantile(F.avg_pool2d(blocks[None, None], 2).flatten(), blocks.new_tensor(QUANTILES))


def layout(blocks: Tensor) -> Tensor:
    """Where what lies, coarsely: (h, w) → (LAYOUT, LAYOUT)."""
    return F.adaptive_avg_pool2d(blocks[None, None], LAYOUT)[0, 0]


def correlations(reference: Tensor, moved: Tensor) -> Tensor:
    """The correlation coefficient of two layouts where they overlap, for every displacement of the second.

    Padfield, Masked Object Registration in the Fourier Domain, IEEE TIP 21(5), 2012, section II-B, with masks of ones.

    Args:
        reference, moved: (LAYOUT, LAYOUT).

    Returns:
        (2 FURTHEST + 1, 2 FURTHEST + 1): at [FURTHEST + y, FURTHEST + x] that of `moved` lying y cells further down and
        x further right.
    """
    size = [2 * LAYOUT, 2 * LAYOUT]
    one, two = (layout - layout.mean() for layout in (reference, moved))
    a, b, aa, bb, whole = (
        torch.fft.rfft2(values, s=size) for values in (one, two, one.square(), two.square(), torch.ones_like(one))
    )

    def overlap(first: Tensor, second: Tensor) -> Tensor:
        """The sum of products over the overlap at every displacement."""
        sums = torch.fft.irfft2(first.conj() * second, s=size)
        near: Tensor = sums.roll((FURTHEST, FURTHEST), (0, 1))[: 2 * FURTHEST + 1, : 2 * FURTHEST + 1]
        return near

    count = overlap(whole, whole)
    of_one, of_two = overlap(a, whole), overlap(whole, b)
    shared = overlap(a, b) - of_one * of_two / count
    spread_one = (overlap(aa, whole) - of_one.square() / count).clamp(min=1e-6)
    spread_two = (overlap(whole, bb) - of_two.square() / count).clamp(min=1e-6)
    found: Tensor = shared / (spread_one * spread_two).sqrt()
    return found
