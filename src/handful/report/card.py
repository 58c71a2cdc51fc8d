"""The pictures of a card of a report: the inspected picture, its heatmap, and good places beside its regions."""

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
_EXPLAINED_REGIONS = 3  # regions that are shown beside their nearest good place, at most
_CLOSEST, _WIDEST = 0.2, 0.6  # least and largest side of a crop, as shares of the picture's longer side
_CROP = 132  # side of a crop in the page's pixels


@dataclass(frozen=True)
class Figure:
    """A picture with its caption.

    Attributes:
        caption: the words under the picture.
        address: the picture's address from the page.
        size: width, height in the page's pixels.
    """

    caption: str
    address: str
    size: tuple[int, int]


@dataclass(frozen=True)
class Shown:
    """The pictures of a card.

    Attributes:
        address: the address of a small copy of the inspected picture.
        size: width, height of the small copy in the page's pixels.
        original: width, height of the upright inspected picture.
        tiny: whether the small copy is enlarged, each pixel a square.
        layer: the address of the heatmap that lies over the small copy; None without a heatmap, and if the heatmap is
            transparent everywhere.
        outlines: the outlines of the regions.
        large: the address of the picture that is shown when the card is opened.
        large_words: a sentence that says whether the large picture has the file's own pixels or a copy's.
        pairs: places of the inspected picture and of good pictures, side by side.
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
        inspection: the inspection of the picture.
        picture: the picture as read for the inspection.
        files: takes the pictures.
        number: the number of the card, for the names of the pictures.
        good: for each good picture its name and the bytes of an image file.
        since: the time at which the inspection began, see `large`.

    Raises:
        OSError: if the pictures cannot be written.
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
    """The strongest regions beside their nearest good places, and the good place that may be missing here."""
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
    """The square around a place (x, y), moved inside the picture, at _CROP pixels: (h, w, 3) → (_CROP, _CROP, 3).

    The place is given as shares of width and height, the square's side as a share of the picture's longer side.
    """
    height, width = pixels.shape[:2]
    side = min(height, width, max(4, round(share * max(height, width))))
    left, top = (
        min(max(0, round(place * length - side / 2)), length - side)
        for place, length in zip(at, (width, height), strict=True)
    )
    cut = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(cut.resize((_CROP, _CROP), Image.Resampling.BICUBIC))


def _file(pixels: NDArray[np.uint8], *, lossless: bool = False) -> bytes:
    """The bytes of pixels (h, w, 3) as a JPEG, or as a PNG if lossless."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if lossless else "JPEG", quality=82)
    return buffer.getvalue()


def _pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def split(path: str) -> tuple[str, str]:
    """The folder of a path, with the last separator, and the file's name."""
    cut = max(path.rfind("/"), path.rfind(os.sep)) + 1
    return path[:cut], path[cut:]
