"""Pixels → the model-input frame, and the way back to the original's pixels."""

import os
import statistics
import threading
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from math import ceil, prod
from typing import Any, Self

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray
from PIL import Image

from handful.data.depths import bits_of, bright_value, depth_of, own_bits
from handful.data.images import MAX_PIXELS, Picture, PictureSource, read_picture
from handful.ops.frames import LONGEST, Placement, placement_of, whole
from handful.ops.tiles import Tiles
from handful.types import Reference

# Resizing gives Pillow's values to the bit: its weights (12.3, src/libImaging/Resample.c: precompute_coeffs,
# normalize_coeffs_8bpc) are rounded to 22 bits as there, and its sums are of whole numbers, first across and then down,
# each rounded to 8 bits. Here a band of the picture times a matrix of weights, most of them 0, gives a few columns or
# rows at once: far more multiplications, which vector units make up for. Sums are of float32; a value that may lie on
# either side of the middle between two levels, a value in some thousands, is added up again in whole numbers. Pillow
# takes another order where a picture is tall, from version 13 on; here the order is always the same.
SUPPORT = 2.0  # of the filter to either side, in pixels of the smaller picture
BITS = 22  # of a weight
OUTPUTS = 5  # values of an axis that come out of one band, about
ROWS, BANDS = 120, 40  # that are worked on at once, so that they stay in a core's cache
CHANNELS = 3

_buffers = threading.local()


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model input.

    The whole picture is resized (bicubic, anti-aliased, first across and then down), and nothing is cropped away. With
    `keeps_aspect` a picture of another shape than the frame lies in it undistorted and is mirrored around, see
    `handful.ops.frames.placement_of`; else every picture is squeezed to the frame. 8-bit pixels are divided by 255,
    others by the highest value of their depth, see `depth_of`; pixels beyond that value count as that value.

    Attributes:
        size: (H, W) of the model input.
        bits: the depth of the references, see `bits_of`.
        bright: the share of that depth which the references' bright pixels reach; None where it is not known.
        max_pixels: that a picture's file may have, see `handful.data.images.read_picture`.
        keeps_aspect: whether a picture of another shape than the frame keeps its aspect.
        side: that the frame was chosen by where it follows the references, see `handful.ops.frames.frame_size`; 0 for
            a frame that was asked for.
        fine: (H, W) of a larger frame that is looked at in tiles of `size`, where pictures are; None where not.
    """

    size: tuple[int, int]
    bits: int = 16
    bright: float | None = None
    max_pixels: int = MAX_PIXELS
    keeps_aspect: bool = False
    side: int = 0
    fine: tuple[int, int] | None = None

    @classmethod
    def learnt(
        cls,
        size: tuple[int, int],
        references: list[Picture],
        *,
        max_pixels: int = MAX_PIXELS,
        keeps_aspect: bool = False,
        side: int = 0,
        fine: tuple[int, int] | None = None,
    ) -> Self:
        """The preprocessing for references' depth and brightness."""
        bits = bits_of(references)
        shares = [bright_value(picture) / (2 ** own_bits(picture, bits) - 1) for picture in references]
        bright = max(statistics.median(shares), 0.01) if shares else None
        return cls(size, bits, bright, max_pixels, keeps_aspect, side, fine)

    @property
    def detail(self) -> int:
        """What `handful.data.images.read_picture` takes: the longer side of the square that JPEGs are decoded for."""
        return LONGEST if self.fine else self.side or max(self.size)

    @property
    def tiles(self) -> Tiles | None:
        """The tiles that pictures are looked at in; None where they are looked at in one input alone."""
        return Tiles(self.fine, self.size) if self.fine else None

    def read(self, source: PictureSource, name: str | None = None) -> Picture:
        """Read a picture for this frame, see `handful.data.images.read_picture`."""
        return read_picture(source, name=name, detail=self.detail, max_pixels=self.max_pixels)

    def placement(self, size: tuple[int, int]) -> Placement:
        """Where a picture of this width and height lies in the frame."""
        return placement_of(size, self.size) if self.keeps_aspect else whole(self.size)

    def fine_placement(self, size: tuple[int, int]) -> Placement:
        """Where a picture of this width and height lies in the frame of tiles; raises ValueError without tiles."""
        if self.fine is None:
            raise ValueError("Pictures must be looked at in tiles to lie in their frame.")
        return placement_of(size, self.fine) if self.keeps_aspect else whole(self.fine)

    def in_detail(self, picture: Picture) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Bring a picture into the frame of tiles: (3, H, W), of 8-bit pixels as they are, of others in [0, 1].

        Resized as by `__call__`, to the same values. Raises ValueError without tiles.
        """
        placement = self.fine_placement(picture.size)
        if picture.pixels.dtype == np.uint8:
            found = picture.pixels
            if found.shape[:2] != placement.size:  # by two steps, in whose order Pillow's versions differ
                across = Image.fromarray(found).resize((placement.width, len(found)), Image.Resampling.BICUBIC)
                found = np.asarray(across.resize((placement.width, placement.height), Image.Resampling.BICUBIC))
            return placement.mirrored(found.transpose(2, 0, 1))
        return placement.mirrored(self._deep(picture, placement))

    def inputs(self, image: NDArray[np.uint8] | NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """The tiles of a picture in their frame: (3, H, W) → (3, h, w) in [0, 1]; raises ValueError without tiles."""
        if self.tiles is None:
            raise ValueError("Pictures must be looked at in tiles to be cut into them.")
        for cut in self.tiles.cuts(image):
            yield np.divide(cut, np.float32(255)) if cut.dtype == np.uint8 else cut

    def aspect(self, picture: Picture) -> float:
        """What `handful.ops.views.turned_view` takes: width to height of what the picture's frame shows."""
        return picture.aspect if self.placement(picture.size).is_whole else self.size[1] / self.size[0]

    def __call__(self, picture: Picture, *, halves: bool = False) -> NDArray[np.float32]:
        """Bring a picture into the model-input frame: (3, H, W) in [0, 1], contiguous.

        With `halves` 8-bit pixels are resized in two threads: to the same values, in less time where a core is idle.
        """
        placement = self.placement(picture.size)
        if picture.pixels.dtype == np.uint8:
            return placement.mirrored(resize(picture.pixels, placement.size, halves=halves))
        return placement.mirrored(self._deep(picture, placement))

    def _deep(self, picture: Picture, placement: Placement) -> NDArray[np.float32]:
        """A picture of 16 bits at the size of its part: (3, h, w) in [0, 1], contiguous."""
        most = 2 ** self.depth_of(picture) - 1
        deep = np.clip(_resize_deep(np.minimum(picture.pixels, most), placement.size) / most, 0, 1)
        return np.ascontiguousarray(deep.transpose(2, 0, 1))

    def depth_of(self, picture: Picture) -> int:
        """The bits that a picture's pixels are scaled by.

        8 for 8-bit pixels, and the depth that a file states where that is less than 16. Else the references' depth,
        unless the picture is far too bright or dark for that and another depth makes it as bright as they are: then it
        comes from a camera or program of that depth. A picture that no depth makes so is dark or bright, and stays so.
        """
        return 8 if picture.pixels.dtype == np.uint8 else depth_of(picture, self.bits, self.bright)

    def notes(self, picture: Picture, references: Iterable[Reference] = ()) -> tuple[str, ...]:
        """A sentence each on a picture's depth and shape where they are not those of the references and the frame."""
        return tuple(note for note in (self.note(picture, references), self.shape_note(picture)) if note)

    def shape_note(self, picture: Picture) -> str | None:
        """A sentence on a picture of another shape than the frame; None for one that fills it."""
        if self.placement(picture.size).is_whole:
            return None
        (width, height), (down, across) = picture.size, self.size
        return (
            f"{picture.name} has {width} x {height} pixels, another shape than the input's {across} x {down}; it lies "
            f"in the input as a whole, its aspect kept, and is mirrored around."
        )

    def note(self, picture: Picture, references: Iterable[Reference] = ()) -> str | None:
        """A sentence on a picture whose depth is not the references', nor that of one of them; None for another."""
        depth = self.depth_of(picture)
        known = {self.bits, *(reference.bits for reference in references)}
        if depth in known or (self.bright is None and depth == 8):
            return None
        return (
            f"{picture.name} holds values of {depth} bits where the references have {self.bits}; its own depth counts: "
            f"its values are divided by {2**depth - 1}."
        )


def _resize_deep(pixels: NDArray[np.integer], size: tuple[int, int]) -> NDArray[np.float32]:
    """Resize 16-bit channels one by one in floating point: (h, w, 3) → (H, W, 3)."""
    channels = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize((size[1], size[0]), Image.Resampling.BICUBIC))
        for channel in pixels.transpose(2, 0, 1)
    ]
    return np.stack(channels, axis=2)


@dataclass(frozen=True, eq=False)
class Axis:
    """How an axis is resized: by bands of it that overlap.

    Attributes:
        summed: (n, T) the values of the axis that each of the resized one's is the sum of.
        shares: (n, T) of these T values, whole numbers: 2^BITS for all of one; of fewer than T the last ones are 0.
        doubt: how far sums of float32 may be off, in levels.
        step: from the start of a band to that of the next.
        margin: of a band before and after its step.
        weights: (B, S, step + 2 margin) of the S values that come out of each of B bands: `shares` as they are.
        places: (n,) of the resized axis's values among these B · S; the others, of bands with fewer, are 0.
        values: (B · S,) the reverse of it.
    """

    summed: NDArray[np.intp]
    shares: NDArray[np.int64]
    doubt: float
    step: int
    margin: int
    weights: NDArray[np.float32]
    places: NDArray[np.intp]
    values: NDArray[np.intp]

    @property
    def padded(self) -> int:
        """The length of the axis that the bands cover, which starts `margin` before its first value."""
        return len(self.weights) * self.step + 2 * self.margin

    def exactly(self, values: NDArray[np.intp], summed: NDArray[Any]) -> NDArray[np.int64]:
        """The levels of some of the resized axis's values by whole numbers: (m,) and what is summed (m, T) → (m,)."""
        sums = (summed.astype(np.int64) * self.shares[values]).sum(1)
        levels: NDArray[np.int64] = np.clip((sums + (1 << BITS - 1)) >> BITS, 0, 255)
        return levels


def resize(pixels: NDArray[np.integer], size: tuple[int, int], *, halves: bool) -> NDArray[np.float32]:
    """Resize a picture: (h, w, 3) → (3, H, W) in [0, 1].

    With `halves` two threads make a half each, to the same values; where the second thread works for another picture
    already, the calling thread makes both.
    """
    image = np.empty((CHANNELS, *size), np.float32)
    bands = len(_axis(len(pixels), size[0]).weights)
    second = _second_thread(os.getpid())  # a forked process has none of its parent's threads
    if bands < 2 or not (halves and second.idle.acquire(blocking=False)):
        _resize_bands(pixels, image, 0, bands)
        return image
    try:
        other = second.pool.submit(_resize_bands, pixels, image, 0, bands // 2)
        _resize_bands(pixels, image, bands // 2, bands)
        other.result()
    finally:
        second.idle.release()
    return image


def _resize_bands(pixels: NDArray[np.integer], image: NDArray[np.float32], start: int, end: int) -> None:
    """Make those rows of the resized image that come out of some bands of the picture's rows."""
    height, width = pixels.shape[:2]
    (across, mixed), down = _across(width, image.shape[2]), _axis(height, image.shape[1])
    origin = start * down.step - down.margin  # the picture's row, or one of zeros before it, that `narrow` starts with
    narrow = _buffer("narrow", (end - start) * down.step + 2 * down.margin, mixed.shape[0] * mixed.shape[2])
    strip = _buffer("strip", ROWS, across.padded * CHANNELS)
    windows = _overlapping(strip.T, mixed.shape[1], across.step * CHANNELS).transpose(0, 2, 1)
    within = slice(across.margin * CHANNELS, (across.margin + width) * CHANNELS)
    doubtful = []
    for top, bottom in _pieces(max(0, origin), min(height, origin + len(narrow)), ROWS):
        strip[: bottom - top, within] = pixels[top:bottom].reshape(bottom - top, -1)
        found = narrow[top - origin : bottom - origin]
        out = found.reshape(len(found), len(mixed), -1).transpose(1, 0, 2)
        np.matmul(windows[:, : len(found)], mixed, out=out)
        doubtful.append(_rounded(found, across.doubt) + (top - origin) * found.shape[1])
    row, column = np.divmod(np.concatenate(doubtful), narrow.shape[1])
    value, channel = across.values[column // CHANNELS], column % CHANNELS
    narrow[row, column] = across.exactly(value, pixels[origin + row[:, None], across.summed[value], channel[:, None]])

    bands = _overlapping(narrow, down.weights.shape[2], down.step)
    columns = CHANNELS * across.places + np.arange(CHANNELS)[:, None]  # (3, W)
    for first, after in _pieces(start, end, BANDS):
        weights = down.weights[first:after]
        before = first * weights.shape[1]
        found = _buffer("found", len(weights) * weights.shape[1], narrow.shape[1])
        np.matmul(weights, bands[first - start : after - start], out=found.reshape(*weights.shape[:2], -1))
        row, column = np.divmod(_rounded(found, down.doubt), found.shape[1])
        value = down.values[before + row]
        found[row, column] = down.exactly(value, narrow[down.summed[value] - origin, column[:, None]])
        top, bottom = np.searchsorted(down.places, (before, before + len(found)))
        levels = found.astype(np.uint8)[down.places[top:bottom] - before]  # fewer bytes to move
        np.divide(levels.take(columns, 1).transpose(1, 0, 2), np.float32(255), out=image[:, top:bottom])


def _pieces(start: int, end: int, most: int) -> list[tuple[int, int]]:
    """Where pieces start and end, as few and as much alike as can be."""
    count = ceil((end - start) / most)
    return list(pairwise(start + (end - start) * number // count for number in range(count + 1)))


def _overlapping(rows: NDArray[np.float32], length: int, step: int) -> NDArray[np.float32]:
    """Windows of so many rows, from each to the next a step: (n, C) → (B, length, C), the same memory."""
    count = (len(rows) - length) // step + 1
    return as_strided(rows, (count, length, rows.shape[1]), (step * rows.strides[0], *rows.strides))


def _rounded(values: NDArray[np.float32], doubt: float) -> NDArray[np.intp]:
    """Round to 8 bits in place: → the flat numbers of those of which another level may be right."""
    buffer = _buffer("rounding", *values.shape)
    np.floor(np.add(values, np.float32(0.5 + doubt), out=buffer), out=values)
    doubtful = np.flatnonzero(np.subtract(buffer, values, out=buffer) < np.float32(2 * doubt))
    np.clip(values, 0, 255, out=values)
    return doubtful


def _buffer(use: str, *shape: int) -> NDArray[np.float32]:
    """This thread's memory for one use, zeros or what was left in it.

    Where large pieces go back to the system when they are done with, having them anew takes long beside what is done
    in them.
    """
    kept: NDArray[np.float32] | None = getattr(_buffers, use, None)
    if kept is None or len(kept) < prod(shape):
        kept = np.zeros(prod(shape), np.float32)
        setattr(_buffers, use, kept)
    return kept[: prod(shape)].reshape(shape)


class _SecondThread:
    """A thread that makes half of a picture, for one picture at a time."""

    def __init__(self) -> None:
        self.idle = threading.Lock()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="handful-resize")


@cache
def _second_thread(process: int) -> _SecondThread:
    """The second thread of a process; started when a picture first needs it."""
    return _SecondThread()


@lru_cache(maxsize=8)
def _across(length: int, resized: int) -> tuple[Axis, NDArray[np.float32]]:
    """The axis of a row, and its weights (B, window · 3, S · 3) for the three channels of each pixel one by one."""
    axis = _axis(length, resized)
    count, outputs, window = axis.weights.shape
    mixed = np.zeros((count, window, CHANNELS, outputs, CHANNELS), np.float32)
    for channel in range(CHANNELS):
        mixed[:, :, channel, :, channel] = axis.weights.transpose(0, 2, 1)
    return axis, mixed.reshape(count, window * CHANNELS, outputs * CHANNELS)


@lru_cache(maxsize=8)
def _axis(length: int, resized: int) -> Axis:
    scale = length / resized
    reach = SUPPORT * max(scale, 1.0)
    centres = (np.arange(resized) + 0.5) * scale
    first = np.maximum(0, centres - reach + 0.5).astype(int)
    end = np.minimum(length, centres + reach + 0.5).astype(int)
    at = first[:, None] + np.arange((end - first).max())  # (n, T)
    placements = _bicubic((at - centres[:, None] + 0.5) / max(scale, 1.0)) * (at < end[:, None])
    placements *= 2**BITS / placements.sum(1, keepdims=True)
    shares = np.trunc(placements + np.copysign(0.5, placements)).astype(np.int64)
    # One rounding for each of the T values that are summed, of 256 levels or a little more, and one for adding a half.
    doubt = 2.0**-24 * 256 * (float(np.abs(shares).sum(1).max()) / 2**BITS * at.shape[1] + 1)

    step = max(1, round(OUTPUTS * scale))
    count = ceil(length / step)
    band = np.minimum((centres / step).astype(int), count - 1)
    slot = np.arange(resized) - np.searchsorted(band, band)
    margin = int(max(0, (band * step - first).max(), (end - (band + 1) * step).max()))
    weights = np.zeros((count, slot.max() + 1, step + 2 * margin + at.shape[1]), np.float32)  # shares of 0 overhang
    weights[band[:, None], slot[:, None], at - (band * step - margin)[:, None]] = shares / 2**BITS
    places = band * weights.shape[1] + slot
    values = np.zeros(weights.shape[0] * weights.shape[1], int)
    values[places] = np.arange(resized)
    summed = np.where(shares != 0, at, first[:, None])
    weights = np.ascontiguousarray(weights[:, :, : step + 2 * margin])
    return Axis(summed, shares, doubt, step, margin, weights, places, values)


def _bicubic(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filter at distances from its centre, Keys's with a = -1/2."""
    x = np.abs(distances)
    outer = np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, outer)
