"""The pictures of one card of a report: the inspected picture, its heatmap, and good places beside its regions."""

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.images import Picture
from handful.data.thumbnails import thumbnail
from handful.report.overlay import Outline, layer, outlines
from handful.report.pictures import PictureFiles, large
from handful.report.result import Inspection

LONGEST = 420  # pixels of the longer side of a card's picture
_TINY = 105  # up to this longer side a card's picture is enlarged by a whole factor, and a PNG
_EXPLAINED_REGIONS = 3  # how many are shown beside the good place that they were compared with
_CLOSEST, _WIDEST = 0.2, 0.6  # shares of the longer side that a crop shows
_CROP = 132  # its side in the page's pixels


@dataclass(frozen=True)
class Figure:
    """A picture with the words under it.

    Attributes:
        address: where the page finds it.
        size: width, height in the page's pixels.
    """

    caption: str
    address: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """A picture as its card shows it.

    Attributes:
        address: of a small copy.
        size: width, height in the page's pixels.
        original: width, height of the upright picture itself.
        tiny: whether the copy is enlarged, its pixels as squares.
        layer: address of the heatmap to lay over it; None where nothing of the heatmap would show.
        outlines: of the regions.
        large: address of the picture that is shown when the card is opened.
        large_words: a sentence that says which pixels these are.
        pairs: places here beside places of good pictures.
    """

    address: str
    size: tuple[int, int]
    original: tuple[int, int]
    tiny: bool
    layer: str | None
    outlines: tuple[Outline, ...]
    large: str
    large_words: str
    pairs: tuple[tuple[Figure, Figure], ...]


def show(
    inspection: Inspection,
    picture: Picture,
    files: PictureFiles,
    *,
    number: int,
    good: Mapping[str, bytes],
    since: float,
) -> Shown:
    """Write the pictures of a card.

    Args:
        inspection: of the picture.
        picture: as it was read.
        files: where the pictures go.
        number: of the card, for their names.
        good: the good pictures as files, by name.
        since: when the inspection began, as `large` takes it.

    Raises:
        OSError: if they cannot be written.
    """
    pixels = thumbnail(picture, longest=LONGEST)
    height, width = pixels.shape[:2]
    factor = max(1, 2 * _TINY // max(height, width))
    small = files.add(f"{number:06d}-small.{'png' if factor > 1 else 'jpg'}", _file(pixels, lossless=factor > 1))
    heat = layer(inspection)
    opened = large(inspection, picture, since=since)
    return Shown(
        address=small,
        size=(width * factor, height * factor),
        original=inspection.size or picture.size,
        tiny=factor > 1,
        layer=None if heat is None else files.add(f"{number:06d}-heatmap.png", heat),
        outlines=tuple(outlines(inspection, (width * factor, height * factor))),
        large=files.add(f"{number:06d}-large.{opened.suffix}", opened.data),
        large_words=opened.words,
        pairs=tuple(_evidence(inspection, pixels, good, files, number)),
    )


def _evidence(
    inspection: Inspection, pixels: NDArray[np.uint8], good: Mapping[str, bytes], files: PictureFiles, number: int
) -> list[tuple[Figure, Figure]]:
    """The strongest regions beside the good places that they were compared with, and what may be missing."""
    crops: list[tuple[str, NDArray[np.uint8]]] = []
    for place, region in enumerate(inspection.regions[:_EXPLAINED_REGIONS], 1):
        if inspection.size is not None and region.nearest is not None and region.nearest.picture in good:
            here = tuple(at / side for at, side in zip(region.peak_at, inspection.size, strict=True))
            extent = max(length / side for length, side in zip(region.box[2:], inspection.size, strict=True))
            share = min(_WIDEST, max(_CLOSEST, 1.2 * extent))
            crops.append((f"region {place}", _crop(pixels, here, share)))
            there = _crop(_pixels(good[region.nearest.picture]), region.nearest.at, share)
            crops.append((f"nearest good place: {split(region.nearest.picture)[1]}", there))
    if (lacking := inspection.missing) is not None and lacking.picture in good:
        shown = _crop(_pixels(good[lacking.picture]), lacking.at, _CLOSEST)
        crops.append((f"found least here: {split(lacking.picture)[1]}", shown))
        crops.append(("the same place here", _crop(pixels, lacking.at, _CLOSEST)))
    figures = [
        Figure(caption, files.add(f"{number:06d}-place-{place}.jpg", _file(crop)), (_CROP, _CROP))
        for place, (caption, crop) in enumerate(crops, 1)
    ]
    return list(zip(figures[::2], figures[1::2], strict=True))


def _crop(pixels: NDArray[np.uint8], at: tuple[float, ...], share: float) -> NDArray[np.uint8]:
    """The square of this share of the longer side around a place (x, y in shares), moved inside: (_CROP, _CROP, 3)."""
    height, width = pixels.shape[:2]
    side = min(height, width, max(4, round(share * max(height, width))))
    left, top = (
        min(max(0, round(place * length - side / 2)), length - side)
        for place, length in zip(at, (width, height), strict=True)
    )
    cut = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(cut.resize((_CROP, _CROP), Image.Resampling.BICUBIC))


def _file(pixels: NDArray[np.uint8], *, lossless: bool = False) -> bytes:
    """(h, w, 3) as a JPEG, or as a PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if lossless else "JPEG", quality=82)
    return buffer.getvalue()


def _pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def split(path: str) -> tuple[str, str]:
    """The folder, with its last separator, and the name."""
    cut = max(path.rfind("/"), path.rfind(os.sep)) + 1
    return path[:cut], path[cut:]
