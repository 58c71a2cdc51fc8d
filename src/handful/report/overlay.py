"""The overlay: a heatmap and the outlines of regions over a picture, in the colour scale that all reports share."""

import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

if TYPE_CHECKING:
    from handful.report.result import Inspection

# The colour scale of every picture: a calibrated value, then red, green, blue (0 to 255) and opacity at that value.
# Colours darken and turn towards blue as values rise, so the order shows to people who cannot tell red from green.
CLEAR_UP_TO, SATURATED_FROM = 0.7, 2.5
SCALE = np.array(
    [
        (CLEAR_UP_TO, 255, 240, 110, 0.00),
        (1.00, 255, 225, 40, 0.24),
        (1.12, 255, 200, 0, 0.50),
        (1.50, 255, 125, 0, 0.64),
        (2.00, 225, 25, 35, 0.72),
        (SATURATED_FROM, 205, 0, 165, 0.80),
    ]
)
_STEPS = 255
_VALUES = np.linspace(CLEAR_UP_TO, SATURATED_FROM, _STEPS + 1)
_RAMP = np.stack([np.interp(_VALUES, SCALE[:, 0], channel) for channel in SCALE.T[1:]], 1)  # (256, 4), row 0 is clear

NUMBERED_REGIONS = 12  # regions that get a number, at most
_LAYER = 640  # pixels of the longer side of a layer at most; browsers enlarge the layer smoothly
_LARGE = 1024  # pixels of a map's longer side beyond which the map is reduced by the highest value of each block

_WHITE, _DARK = (255, 255, 255), (20, 20, 20)
_Box = tuple[int, int, int, int]  # left, top, right, bottom; the last two not included


def overlay(pixels: NDArray[np.uint8], inspection: "Inspection") -> NDArray[np.uint8]:
    """Lay the heatmap and the outlines of the regions over a picture, in the colour scale that all reports share.

    The scale is never fitted to a picture: fully transparent up to `CLEAR_UP_TO`, faint up to 1 (the threshold), strong
    above 1, and constant from `SATURATED_FROM` on. So a good part looks unchanged, and a colour means the same value in
    every picture.

    Args:
        pixels: (h, w, 3), a display copy, of any size, of the whole upright picture.
        inspection: the inspection of the picture; without a heatmap the result equals `pixels`.

    Returns:
        (h, w, 3), a new array.
    """
    laid = pixels.copy()
    height, width = laid.shape[:2]
    if inspection.heatmap is not None:
        step = _steps(inspection.heatmap, (width, height))
        shown = step > 0
        colour, opacity = _RAMP[step[shown], :3], _RAMP[step[shown], 3:]
        laid[shown] = np.rint(laid[shown] * (1 - opacity) + colour * opacity)
    if inspection.regions and inspection.size is not None:
        return _outlined(laid, _boxes(inspection, (width, height)))
    return laid


def layer(inspection: "Inspection") -> bytes | None:
    """The heatmap as a PNG to lay over the picture at any size, in the colours and opacities of `overlay`.

    Returns:
        A PNG of 256 colours with opacities, its longer side at most 640 pixels; None without a heatmap, and if the
        heatmap is transparent everywhere.
    """
    if inspection.heatmap is None:
        return None
    height, width = inspection.heatmap.shape
    factor = min(1.0, _LAYER / max(height, width))
    step = _steps(inspection.heatmap, (max(1, round(width * factor)), max(1, round(height * factor))))
    if not step.any():
        return None
    image = Image.fromarray(step).convert("P")
    colours = np.rint(_RAMP[:, :3]).astype(np.uint8)
    opacities = np.rint(255 * _RAMP[:, 3]).astype(np.uint8)
    image.putpalette(colours.tobytes())
    buffer = io.BytesIO()
    image.save(buffer, "PNG", transparency=opacities.tobytes())
    return buffer.getvalue()


@dataclass(frozen=True)
class Outline:
    """The box of a region, to be drawn over a picture of any size.

    Attributes:
        left, width: shares of the picture's width, in [0, 1].
        top, height: shares of the picture's height, in [0, 1].
        side: the place of the region's number: "above", "below", "right" or "left" of the box, or "inside"; None for a
            region without a number.
    """

    left: float
    top: float
    width: float
    height: float
    side: str | None


def outlines(inspection: "Inspection", size: tuple[int, int]) -> list[Outline]:
    """The regions' boxes, strongest first, with places of the numbers for a picture shown at a size (width, height)."""
    if inspection.size is None:
        return []
    boxes = _boxes(inspection, size)
    label_sizes = [(8 + 8 * len(str(number)), 18) for number in range(1, NUMBERED_REGIONS + 1)]  # by the page's styles
    sides = [side for _, side in _labels(boxes, label_sizes, size)]
    sides += [None] * (len(boxes) - len(sides))
    width, height = inspection.size
    return [
        Outline(x / width, y / height, w / width, h / height, side)
        for (x, y, w, h), side in zip((region.box for region in inspection.regions), sides, strict=True)
    ]


def _steps(heatmap: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.uint8]:
    """A map (H, W) resized to (width, height), in steps of the colour scale: (height, width), 0 for transparent."""
    level = (resized(heatmap, size) - CLEAR_UP_TO) * (_STEPS / (SATURATED_FROM - CLEAR_UP_TO))
    step: NDArray[np.uint8] = np.clip(np.rint(level), 0, _STEPS).astype(np.uint8)
    return step


def _boxes(inspection: "Inspection", size: tuple[int, int]) -> list[_Box]:
    """The regions' boxes in pixels of a picture shown at a size (width, height), edges rounded outwards."""
    if not inspection.regions or inspection.size is None:
        return []
    scale = np.tile(np.array(size) / inspection.size, 2)
    corners = np.array([(x, y, x + w, y + h) for x, y, w, h in (r.box for r in inspection.regions)]) * scale
    grown = np.concatenate((np.floor(corners[:, :2]), np.ceil(corners[:, 2:])), 1).astype(int)
    return [(x0, y0, x1, y1) for x0, y0, x1, y1 in grown.tolist()]


def resized(heatmap: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """A map resized to (width, height), a large map first reduced by each block's highest value: → (height, width)."""
    block = min(length // shown for length, shown in zip(heatmap.shape, size[::-1], strict=True))
    if max(heatmap.shape) > _LARGE and block > 1:  # small peaks keep their height
        rows, columns = (np.arange(0, length, block) for length in heatmap.shape)
        heatmap = np.maximum.reduceat(np.maximum.reduceat(heatmap, rows, axis=0), columns, axis=1)
    return np.asarray(Image.fromarray(heatmap).resize(size, Image.Resampling.BILINEAR))


def _outlined(pixels: NDArray[np.uint8], boxes: list[_Box]) -> NDArray[np.uint8]:
    """Draw a white line with a dark rim around each box, then the numbers of the strongest boxes where room is left."""
    image = Image.fromarray(pixels)
    draw = ImageDraw.Draw(image)
    line = max(1, round(max(image.size) / 400))
    for left, top, right, bottom in boxes:
        # The line runs around the box, so a small defect stays visible. At the picture's edge the line moves inwards.
        x0, y0 = max(0, left - line), max(0, top - line)
        x1, y1 = min(image.width, right + line) - 1, min(image.height, bottom + line) - 1
        draw.rectangle((x0 - 1, y0 - 1, x1 + 1, y1 + 1), outline=_DARK)
        draw.rectangle((x0, y0, x1, y1), outline=_WHITE, width=line)
    font = ImageFont.load_default(max(15, round(max(image.size) / 45)))
    extents = [
        tuple(round(edge) for edge in draw.textbbox((0, 0), str(number), font=font))
        for number in range(1, NUMBERED_REGIONS + 1)
    ]
    label_sizes = [(x1 - x0 + 8, y1 - y0 + 8) for x0, y0, x1, y1 in extents]
    for number, (label, _) in enumerate(_labels(boxes, label_sizes, image.size), 1):
        if label is not None:
            x0, y0 = extents[number - 1][:2]
            draw.rectangle((label[0], label[1], label[2] - 1, label[3] - 1), fill=_WHITE, outline=_DARK)
            draw.text((label[0] + 4 - x0, label[1] + 4 - y0), str(number), font=font, fill=_DARK)
    return np.array(image)


def _labels(
    boxes: Sequence[_Box], label_sizes: Sequence[tuple[int, int]], picture: tuple[int, int]
) -> list[tuple[_Box, str] | tuple[None, None]]:
    """For each of the strongest boxes the place of a label of a size (width, height), and its side of the box."""
    placed: list[tuple[_Box, str] | tuple[None, None]] = []
    for box, size in zip(boxes[:NUMBERED_REGIONS], label_sizes, strict=False):
        others = [b for b in boxes if b is not box]
        placed.append(_room(box, size, picture, [label for label, _ in placed if label is not None], others))
    return placed


def _room(
    box: _Box, size: tuple[int, int], picture: tuple[int, int], labels: list[_Box], others: list[_Box]
) -> tuple[_Box, str] | tuple[None, None]:
    """The place of a label and its side of the box: beside the box, else inside a large box, else None for both.

    A label beside its box covers no other box and no label, a label inside its box no label.
    """
    (left, top, right, bottom), (width, height), gap = box, size, 4
    if 40 * width * height > picture[0] * picture[1]:
        return None, None
    places = [
        ((left, top - height - gap), labels + others, "above"),
        ((left, bottom + gap), labels + others, "below"),
        ((right + gap, top), labels + others, "right"),
        ((left - width - gap, top), labels + others, "left"),
    ]
    if right - left > 3 * width and bottom - top > 3 * height:
        places.append(((left + gap, top + gap), labels, "inside"))
    for (x0, y0), obstacles, side in places:
        x1, y1 = x0 + width, y0 + height
        inside = min(x0, y0) >= 0 and x1 <= picture[0] and y1 <= picture[1]
        if inside and not any(x0 < o[2] and o[0] < x1 and y0 < o[3] and o[1] < y1 for o in obstacles):
            return (x0, y0, x1, y1), side
    return None, None


def write_png(pixels: NDArray[np.uint8], file: BinaryIO) -> None:
    """Write pixels (h, w, 3) as a PNG."""
    Image.fromarray(pixels).save(file, "PNG")
