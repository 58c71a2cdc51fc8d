"""The reading of masks: the true regions of a picture in the frame of its map, and ignored regions.

A mask holds either labels (0 for the background, a number or a colour for each type of defect), of which all count; or
soft edges or the noise of a lossy format, and then only values from half of the largest value on count. `marked`
decides between the two.
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

# Bounds that tell labels from soft edges and noise, chosen on masks of real data sets that were enlarged, reduced,
# blurred, anti-aliased and saved as JPEG and WebP, and on labels made from these masks (tests/data/test_masks.py,
# benchmarks/trust.md).
SMALL = 16  # the largest value of consecutively numbered labels, as in VisA and BraTS
TOUCHING = 4  # largest number of consecutively numbered labels in a connected part
TOUCHING_LARGE = 8  # largest number of labels of larger values in a connected part; a soft edge has more values
NOISE = 16  # noise and ripples beside an edge stay below the largest value divided by this
EIGHT = np.ones((3, 3), np.bool_)  # a pixel and its eight neighbours


def read_regions(
    sample: Sample, size: tuple[int, int], saturation: tuple[Saturation, ...] = ()
) -> tuple[TrueRegion, ...]:
    """The true regions of a picture from its masks, see `marked`.

    Without saturation, all masks are united into a single region. With saturation (MVTec LOCO), each mask is a region,
    and its largest value tells the type of defect; in a mask with soft edges or noise, its most frequent value does.
    Masks are resized by nearest neighbours; a region that vanishes by resizing is dropped.

    Args:
        sample: a picture; a picture that is not anomalous, or has no masks, has no regions.
        size: (H, W) of the map.
        saturation: of each type of defect; empty without saturation.

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
    """The marked pixels (h, w) of a mask (h, w), and whether lower values were left out as soft edges or noise."""
    low = (values > 0) & _below_half(values)
    if not low.any() or (values.min() == 0 and 2 * int((low & _labels(values)).sum()) >= int(low.sum())):
        return values > 0, False
    return ~_below_half(values), True


def _below_half(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    largest = int(values.max())
    return values < largest - largest // 2


def _labels(values: NDArray[np.integer]) -> NDArray[np.bool_]:
    """The pixels of a mask whose values look like labels: (h, w) → (h, w).

    Labels stand alone or touch a few other labels. A pixel of a soft edge touches pixels of other values, and the edge
    has many values; noise is scattered and of low values.
    """
    components, count = ndimage.label(values > 0, EIGHT)
    pairs = np.unique((components[components > 0].astype(np.int64) << 16) + values[components > 0])
    kinds = np.bincount(pairs >> 16, minlength=count + 1)[components]  # (h, w) number of values in the connected part
    largest = int(values.max())
    if largest <= SMALL:
        few: NDArray[np.bool_] = kinds <= TOUCHING
        return few
    highest = ndimage.maximum_filter(values, size=3, mode="nearest")
    lowest = ndimage.minimum_filter(np.where(values > 0, values, largest), size=3, mode="nearest")  # without 0
    alone = (highest == values) & (lowest == values)
    flat = ndimage.maximum_filter(values, size=5) == ndimage.minimum_filter(values, size=5)
    beyond_noise = (values > largest // NOISE) | ndimage.binary_dilation(flat, EIGHT, iterations=2)
    labels: NDArray[np.bool_] = alone & (kinds <= TOUCHING_LARGE) & beyond_noise
    return labels


def softened(dataset: Dataset) -> tuple[str, ...]:
    """Sentences on categories whose masks have soft edges or noise, and on masks that cannot be read.

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
    """A region to ignore from a picture of the region, white on black, see `marked`.

    If no value is below half of the largest value, pixels above half of the range of the picture's type count as white.

    Args:
        source: a picture of any size, placed in the frame like an inspected picture of its aspect ratio.
        size: (H, W) of the frame.
        keeps_aspect: whether a picture of another aspect ratio than the frame keeps its aspect ratio.

    Returns:
        (H, W), the picture's name, and its sha256.

    Raises:
        ImageError: if it cannot be read.
        InputError: if it marks nothing, or everything.
    """
    ((found, name), *others) = gather(source, recursive=False)
    if others:
        raise InputError(
            f"A region to ignore must be one picture, got {len(others) + 1} in {Path(name).parent}; name one picture."
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
    """A mask's values (h, w), the largest channel of colours."""
    values: NDArray[np.integer] = read_picture(path).pixels.max(axis=2)
    return values


def _resize(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Resize by nearest neighbours, the pixel at the centre of each new pixel: (h, w) → (H, W)."""
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
