"""Masks → the true regions of a picture, in the frame of its map.

A mask holds labels (0 for the background, a number or a colour for each type of defect), and then every label counts.
Or it has soft edges or the noise of a lossy format, and then values from half of its largest count. `marked` tells
which of the two a mask is.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from handful.data.images import PictureSource, digest, gather, read_picture
from handful.data.layouts.tree import relative, some
from handful.errors import ImageError, InputError
from handful.ops.frames import placement_of, whole
from handful.types import Dataset, Sample, Saturation, TrueRegion

# How labels are told from soft edges and noise: chosen on masks of real data sets that were enlarged, reduced, blurred,
# anti-aliased and saved as JPEG and WebP, and on labels made of them (tests/data/test_masks.py, benchmarks/trust.md).
SMALL = 16  # labels that are counted up, as those of VisA and BraTS, are no larger
TOUCHING = 4  # so many of these may touch each other
TOUCHING_LARGE = 8  # so many labels of larger values may; a soft edge goes through more
NOISE = 16  # noise and ripples beside an edge stay below this part of the largest value
EIGHT = np.ones((3, 3), np.bool_)  # a pixel and its eight neighbours


def read_regions(
    sample: Sample, size: tuple[int, int], saturation: tuple[Saturation, ...] = ()
) -> tuple[TrueRegion, ...]:
    """The defects of one picture as its masks mark them, see `marked`.

    Without saturation all masks are united into one region. With it each mask is one region, and its largest value
    says which type of defect it marks (MVTec LOCO); in a mask with soft edges or noise, its most frequent value does.
    Masks are resized to nearest neighbours; a region that vanishes in that is dropped.

    Args:
        sample: a picture; one that is not anomalous, or has no masks, has no regions.
        size: (H, W) of the map.
        saturation: of each type of defect.

    Raises:
        ImageError: if a mask cannot be read.
        InputError: if `saturation` lacks the type of a mask.
    """
    if not sample.anomalous:
        return ()
    masks = {path: _grey(path) for path in sample.masks}
    if saturation:
        regions = [
            TrueRegion(_resize(marked(values)[0], size), _share(path, values, saturation))
            for path, values in masks.items()
            if values.any()
        ]
    else:
        united = np.zeros(size, bool)
        for values in masks.values():
            united |= _resize(marked(values)[0], size)
        regions = [TrueRegion(united)]
    return tuple(region for region in regions if region.mask.any())


def marked(values: NDArray[np.integer]) -> tuple[NDArray[np.bool_], bool]:
    """The pixels (h, w) that a mask (h, w) marks, and whether its lower values were left out as soft edges or noise."""
    low = (values > 0) & _below_half(values)
    if not low.any() or (values.min() == 0 and 2 * int((low & _labels(values)).sum()) >= int(low.sum())):
        return values > 0, False
    return ~_below_half(values), True


def _below_half(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    largest = int(values.max())
    return values < largest - largest // 2


def _labels(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Where the values of a mask look like labels: (h, w) → (h, w).

    Labels stand alone or touch a few others. A pixel of a soft edge touches its neighbours' other values, and its edge
    goes through many; noise is scattered, of low values.
    """
    components, count = ndimage.label(values > 0, EIGHT)
    pairs = np.unique((components[components > 0].astype(np.int64) << 16) + values[components > 0])
    kinds = np.bincount(pairs >> 16, minlength=count + 1)[components]  # (h, w) how many values the connected part holds
    largest = int(values.max())
    if largest <= SMALL:
        few: NDArray[np.bool_] = kinds <= TOUCHING
        return few
    highest = ndimage.maximum_filter(values, size=3, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(values > 0, values, largest), size=3, mode="nearest")  # 0 left aside
    alone = (highest == values) & (lowest == values)
    flat = ndimage.maximum_filter(values, size=5) == ndimage.minimum_filter(values, size=5)
    beyond_noise = (values > largest // NOISE) | ndimage.binary_dilation(flat, EIGHT, iterations=2)
    labels: NDArray[np.bool_] = alone & (kinds <= TOUCHING_LARGE) & beyond_noise
    return labels


def softened(dataset: Dataset) -> tuple[str, ...]:
    """A sentence on each category whose masks have soft edges or noise, and on masks that cannot be read.

    All masks of the data set are read.
    """
    root = Path(dataset.root)
    said = []
    for category in dataset.categories:
        soft, unreadable = [], []
        for path in (mask for sample in category.test if sample.anomalous for mask in sample.masks):
            try:
                if marked(_grey(path))[1]:
                    soft.append(relative(path, root))
            except ImageError:
                unreadable.append(relative(path, root))
        if soft:
            said.append(
                f"{category.name}: masks with soft edges or noise count from half of their largest value "
                f"({len(soft)}): {some(soft)}."
            )
        if unreadable:
            said.append(f"{category.name}: masks that cannot be read ({len(unreadable)}): {some(unreadable)}.")
    return tuple(said)


def read_ignored(
    source: PictureSource, size: tuple[int, int], *, keeps_aspect: bool = False
) -> tuple[NDArray[np.bool_], str, str]:
    """A region to ignore, as one picture marks it: white on black, see `marked`.

    Where no value is below half of the largest, the picture is not white on black, and white is what is above half of
    what the picture's type holds.

    Args:
        source: of any size; it covers of the frame what a picture of its shape does, and is mirrored around likewise.
        size: (H, W) of the frame.
        keeps_aspect: whether a picture of another shape than the frame's keeps its aspect in it.

    Returns:
        (H, W), the picture's name, and its sha256.

    Raises:
        ImageError: if it cannot be read.
        InputError: if it marks nothing, or everything.
    """
    ((found, name), *others) = gather(source, recursive=False)
    if others:
        raise InputError(
            f"A region to ignore must be one picture, got {len(others) + 1} in {Path(name).parent}; name one."
        )
    picture = read_picture(found, name=name)
    values = picture.pixels.max(axis=2)
    white_on_black = _below_half(values).any()
    white = marked(values)[0] if white_on_black else values > np.iinfo(values.dtype).max // 2
    placement = placement_of(picture.size, size) if keeps_aspect else whole(size)
    region = placement.mirrored(_resize(white, placement.size))
    if region.all() or not region.any():
        came = "everything" if region.all() else "nothing"
        raise InputError(f"A region to ignore must be white on black, got {came} marked in {name}; correct it.")
    return np.ascontiguousarray(region), picture.name, digest(found, picture)


def _grey(path: str) -> NDArray[np.integer]:
    """A mask's values: (h, w), of colours the largest channel."""
    values: NDArray[np.integer] = read_picture(path).pixels.max(axis=2)
    return values


def _resize(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Take for each pixel of the new frame the one that its middle lies in: (h, w) → (H, W)."""
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, mask.shape, strict=True))
    resized: NDArray[np.bool_] = mask[rows][:, columns]
    return resized


def _share(path: str, values: NDArray[np.integer], saturation: tuple[Saturation, ...]) -> float:
    """The share of a defect's pixels that must be found."""
    region, soft = marked(values)
    largest = int(np.bincount(values[region]).argmax()) if soft else int(values.max())
    known = {entry.pixel_value: entry for entry in saturation}
    if largest not in known:
        raise InputError(
            f"The mask {path} must hold one of the values {', '.join(map(str, sorted(known)))}, got {largest}; "
            f"add its saturation or correct the mask."
        )
    entry = known[largest]
    return entry.area if entry.relative else min(1.0, entry.area / int(region.sum()))
