"""Masks → the true regions of a picture, in the frame of its map."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handful.data.images import PictureSource, digest, gather, read_picture
from handful.errors import InputError
from handful.types import Sample, Saturation, TrueRegion


def read_regions(
    sample: Sample, size: tuple[int, int], saturation: tuple[Saturation, ...] = ()
) -> tuple[TrueRegion, ...]:
    """The defects of one picture as its masks mark them: any pixel that is not black belongs to a defect.

    Without saturation all masks are united into one region. With it each mask is one region, and its largest value
    says which type of defect it marks (MVTec LOCO). Masks are resized to nearest neighbours; a region that vanishes
    in that is dropped.

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
    grey = {path: read_picture(path).pixels.max(axis=2) for path in sample.masks}  # (h, w)
    if saturation:
        regions = [
            TrueRegion(_resize(values > 0, size), _share(path, values, saturation))
            for path, values in grey.items()
            if values.any()
        ]
    else:
        united = np.zeros(size, bool)
        for values in grey.values():
            united |= _resize(values > 0, size)
        regions = [TrueRegion(united)]
    return tuple(region for region in regions if region.mask.any())


def read_ignored(source: PictureSource, size: tuple[int, int]) -> tuple[NDArray[np.bool_], str, str]:
    """A region to ignore, as one picture marks it: white, or more than half of what it may be.

    Args:
        source: of any size; it covers the whole frame.
        size: (H, W) of the frame.

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
    region = _resize(picture.pixels.max(axis=2) > np.iinfo(picture.pixels.dtype).max // 2, size)
    if region.all() or not region.any():
        marked = "everything" if region.all() else "nothing"
        raise InputError(f"A region to ignore must be white on black, got {marked} marked in {name}; correct it.")
    return np.ascontiguousarray(region), picture.name, digest(found, picture)


def _resize(mask: NDArray[np.bool_], size: tuple[int, int]) -> NDArray[np.bool_]:
    """Take for each pixel of the new frame the one that its middle lies in: (h, w) → (H, W)."""
    rows, columns = ((np.arange(new) * 2 + 1) * old // (2 * new) for new, old in zip(size, mask.shape, strict=True))
    resized: NDArray[np.bool_] = mask[rows][:, columns]
    return resized


def _share(path: str, values: NDArray[np.integer], saturation: tuple[Saturation, ...]) -> float:
    """The share of a defect's pixels that must be found."""
    largest = int(values.max())
    known = {entry.pixel_value: entry for entry in saturation}
    if largest not in known:
        raise InputError(
            f"The mask {path} must hold one of the values {', '.join(map(str, sorted(known)))}, got {largest}; "
            f"add its saturation or correct the mask."
        )
    entry = known[largest]
    return entry.area if entry.relative else min(1.0, entry.area / int((values > 0).sum()))
