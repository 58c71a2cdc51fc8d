"""The preprocessing: from a picture's pixels to the model's input, and the picture's place in the input's frame."""

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

# Resizing gives Pillow's values to the bit. Pillow (12.3, src/libImaging/Resample.c: precompute_coeffs,
# normalize_coeffs_8bpc) rounds weights to 22 bits and sums integers, first across and then down, each rounded to 8
# bits. Here the product of a band of the picture and a matrix of weights, most of them 0, gives a few columns or rows
# at once: many more multiplications, but on vector units. Sums are in float32; a sum so near to the middle between two
# levels that rounding errors could decide its level, one in some thousands, is computed again in integers. From version
# 13 on Pillow resizes tall pictures in another order; here the order is always the same.
SUPPORT = 2.0  # radius of the filter, in pixels of the smaller picture
BITS = 22  # of a weight
OUTPUTS = 5  # about the number of outputs of a band along an axis
ROWS, BANDS = 120, 40  # rows, and bands, computed at once, so that they stay in a core's cache
CHANNELS = 3

_buffers = threading.local()


@dataclass(frozen=True)
class Preprocessing:
    """The steps from a picture to the input of the model.

    The whole picture is resized (bicubic, anti-aliased, first across and then down), without cropping. With
    `keeps_aspect`, a picture of another aspect ratio than the frame is fitted whole into the frame, and its mirror
    image fills the rest, see `handful.ops.frames.placement_of`; otherwise every picture is squeezed to the frame. 8-bit
    pixels are divided by 255, deeper pixels by the highest value of their depth, see `depth_of`; higher pixels count as
    that value.

    Attributes:
        size: (H, W) of the model's input.
        bits: the depth of the references, see `handful.data.depths.bits_of`.
        bright: the brightness of the references' bright pixels, as a share of the highest value; None if unknown.
        max_pixels: the largest number of pixels of a picture's file, see `handful.data.images.read_picture`.
        keeps_aspect: whether a picture of another aspect ratio than the frame keeps its aspect ratio.
        side: the side from which the frame was chosen to suit the references, see `handful.ops.frames.frame_size`; 0
            for a frame of a given size.
        fine: (H, W) of the larger frame that tiles of `size` cover; None without tiles.
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
        """The preprocessing for the depth and brightness of references."""
        bits = bits_of(references)
        shares = [bright_value(picture) / (2 ** own_bits(picture, bits) - 1) for picture in references]
        bright = max(statistics.median(shares), 0.01) if shares else None
        return cls(size, bits, bright, max_pixels, keeps_aspect, side, fine)

    @property
    def detail(self) -> int:
        """The argument `detail` of `handful.data.images.read_picture`."""
        return LONGEST if self.fine else self.side or max(self.size)

    @property
    def tiles(self) -> Tiles | None:
        """The tiles that each picture is divided into; None if each picture is a single input."""
        return Tiles(self.fine, self.size) if self.fine else None

    def read(self, source: PictureSource, name: str | None = None) -> Picture:
        """Read a picture for this frame, see `handful.data.images.read_picture`."""
        return read_picture(source, name=name, detail=self.detail, max_pixels=self.max_pixels)

    def placement(self, size: tuple[int, int]) -> Placement:
        """The rectangle of the frame that a picture of `size` (width, height) fills."""
        return placement_of(size, self.size) if self.keeps_aspect else whole(self.size)

    def fine_placement(self, size: tuple[int, int]) -> Placement:
        """The rectangle of the frame of tiles that a picture of `size` (width, height) fills.

        Raises ValueError without tiles.
        """
        if self.fine is None:
            raise ValueError("A preprocessing must have tiles for a place in their frame.")
        return placement_of(size, self.fine) if self.keeps_aspect else whole(self.fine)

    def in_detail(self, picture: Picture) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Resize a picture to the frame of tiles: (3, H, W), 8-bit pixels as uint8, deeper pixels in [0, 1].

        The values equal the output of `__call__` for a frame of that size. Raises ValueError without tiles.
        """
        placement = self.fine_placement(picture.size)
        if picture.pixels.dtype == np.uint8:
            found = picture.pixels
            if found.shape[:2] != placement.size:  # in two steps, as their order depends on Pillow's version
                across = Image.fromarray(found).resize((placement.width, len(found)), Image.Resampling.BICUBIC)
                found = np.asarray(across.resize((placement.width, placement.height), Image.Resampling.BICUBIC))
            return placement.mirrored(found.transpose(2, 0, 1))
        return placement.mirrored(self._deep(picture, placement))

    def inputs(self, image: NDArray[np.uint8] | NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """The tiles of a picture in their frame: (3, H, W) → (3, h, w) in [0, 1]; raises ValueError without tiles."""
        if self.tiles is None:
            raise ValueError("A preprocessing must have tiles to cut a picture into tiles.")
        for cut in self.tiles.cuts(image):
            yield np.divide(cut, np.float32(255)) if cut.dtype == np.uint8 else cut

    def aspect(self, picture: Picture) -> float:
        """Width to height of the content of the picture's frame, for `handful.ops.views.turned_view`."""
        return picture.aspect if self.placement(picture.size).is_whole else self.size[1] / self.size[0]

    def __call__(self, picture: Picture, *, halves: bool = False) -> NDArray[np.float32]:
        """Resize a picture to the input of the model: (3, H, W) in [0, 1], contiguous.

        With `halves`, 8-bit pixels are resized in two threads, to equal values, in less time if a core is idle.
        """
        placement = self.placement(picture.size)
        if picture.pixels.dtype == np.uint8:
            return placement.mirrored(resize(picture.pixels, placement.size, halves=halves))
        return placement.mirrored(self._deep(picture, placement))

    def _deep(self, picture: Picture, placement: Placement) -> NDArray[np.float32]:
        """A picture of 16 bits at the size of its rectangle in the frame: (3, h, w) in [0, 1], contiguous."""
        most = 2 ** self.depth_of(picture) - 1
        deep = np.clip(_resize_deep(np.minimum(picture.pixels, most), placement.size) / most, 0, 1)
        return np.ascontiguousarray(deep.transpose(2, 0, 1))

    def depth_of(self, picture: Picture) -> int:
        """The bit depth that a picture's pixels are scaled by.

        The depth is 8 for 8-bit pixels, and the depth stated in the file if that is below 16. Otherwise the depth is
        the references', unless the picture is far brighter or darker than the references at that depth and as bright as
        they are at another depth, which is then taken for the depth of another camera or program.
        """
        return 8 if picture.pixels.dtype == np.uint8 else depth_of(picture, self.bits, self.bright)

    def notes(self, picture: Picture, references: Iterable[Reference] = ()) -> tuple[str, ...]:
        """Sentences on a picture whose depth differs from the references', or its aspect ratio from the frame's."""
        return tuple(note for note in (self.note(picture, references), self.shape_note(picture)) if note)

    def shape_note(self, picture: Picture) -> str | None:
        """A sentence on a picture of another aspect ratio than the frame; None for a picture that fills the frame."""
        if self.placement(picture.size).is_whole:
            return None
        (width, height), (down, across) = picture.size, self.size
        return (
            f"{picture.name} has {width} x {height} pixels, another shape than the input's {across} x {down}; it lies "
            f"in the input as a whole, its aspect kept, and is mirrored around."
        )

    def note(self, picture: Picture, references: Iterable[Reference] = ()) -> str | None:
        """A sentence on a picture whose depth is not the depth of any reference; otherwise None."""
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
    """The plan for resizing an axis to n outputs, by B overlapping bands of inputs.

    Attributes:
        summed: (n, T) the numbers of the T inputs whose weighted sum is each output.
        shares: (n, T) the integer weights of these inputs; the weights of an output sum to about 2^BITS, and an output
            of fewer than T inputs has weights of 0 at the end.
        doubt: the largest error of a float32 sum, in levels.
        step: distance between the starts of neighbouring bands, in inputs.
        margin: inputs of a band before and after its step.
        weights: (B, S, step + 2 margin) the weights of each band's inputs in its S outputs, as shares of 1.
        places: (n,) the position of each output among the B · S outputs of the bands; unused positions have weights of
            0.
        values: (B · S,) the number of the output at each position, the inverse of `places`.
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
        """The number of inputs that the bands cover, beginning `margin` before the first input of the axis."""
        return len(self.weights) * self.step + 2 * self.margin

    def exactly(self, values: NDArray[np.intp], summed: NDArray[Any]) -> NDArray[np.int64]:
        """The levels of some outputs, computed in integers, from their numbers (m,) and their inputs (m, T): → (m,)."""
        sums = (summed.astype(np.int64) * self.shares[values]).sum(1)
        levels: NDArray[np.int64] = np.clip((sums + (1 << BITS - 1)) >> BITS, 0, 255)
        return levels


def resize(pixels: NDArray[np.integer], size: tuple[int, int], *, halves: bool) -> NDArray[np.float32]:
    """Resize a picture: (h, w, 3) → (3, H, W) in [0, 1].

    With `halves`, two threads compute a half each, to equal values; if the second thread is busy with another picture,
    the calling thread computes both halves.
    """
    image = np.empty((CHANNELS, *size), np.float32)
    bands = len(_axis(len(pixels), size[0]).weights)
    second = _second_thread(os.getpid())  # by process, as a forked process lacks its parent's threads
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
    """Compute the rows of the resized image that the bands from `start` to `end` of the picture's rows give."""
    height, width = pixels.shape[:2]
    (across, mixed), down = _across(width, image.shape[2]), _axis(height, image.shape[1])
    origin = start * down.step - down.margin  # the picture's row at the start of `narrow`; negative for rows of zeros
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
        levels = found.astype(np.uint8)[down.places[top:bottom] - before]  # uint8, so that fewer bytes are moved
        np.divide(levels.take(columns, 1).transpose(1, 0, 2), np.float32(255), out=image[:, top:bottom])


def _pieces(start: int, end: int, most: int) -> list[tuple[int, int]]:
    """The starts and ends of the fewest pieces of at most `most` items, of sizes as equal as possible."""
    count = ceil((end - start) / most)
    return list(pairwise(start + (end - start) * number // count for number in range(count + 1)))


def _overlapping(rows: NDArray[np.float32], length: int, step: int) -> NDArray[np.float32]:
    """Windows of `length` rows at distances of `step` rows, as a view: (n, C) → (B, length, C)."""
    count = (len(rows) - length) // step + 1
    return as_strided(rows, (count, length, rows.shape[1]), (step * rows.strides[0], *rows.strides))


def _rounded(values: NDArray[np.float32], doubt: float) -> NDArray[np.intp]:
    """Round values to 8 bits in place; return the flat positions of values whose level the error `doubt` may change."""
    buffer = _buffer("rounding", *values.shape)
    np.floor(np.add(values, np.float32(0.5 + doubt), out=buffer), out=values)
    doubtful = np.flatnonzero(np.subtract(buffer, values, out=buffer) < np.float32(2 * doubt))
    np.clip(values, 0, 255, out=values)
    return doubtful


def _buffer(use: str, *shape: int) -> NDArray[np.float32]:
    """This thread's scratch buffer for a use, filled with zeros or values of earlier calls.

    The buffer is reused between pictures, as page faults make a new large allocation slow.
    """
    kept: NDArray[np.float32] | None = getattr(_buffers, use, None)
    if kept is None or len(kept) < prod(shape):
        kept = np.zeros(prod(shape), np.float32)
        setattr(_buffers, use, kept)
    return kept[: prod(shape)].reshape(shape)


class _SecondThread:
    """A thread that resizes half of a picture, for a single picture at a time."""

    def __init__(self) -> None:
        self.idle = threading.Lock()
        self.pool = ThreadPoolExecutor(1, thread_name_prefix="handful-resize")


@cache
def _second_thread(process: int) -> _SecondThread:
    """The second thread of a process, which starts at its first use."""
    return _SecondThread()


@lru_cache(maxsize=8)
def _across(length: int, resized: int) -> tuple[Axis, NDArray[np.float32]]:
    """The plan for the axis of a row, and its weights (B, window · 3, S · 3) for interleaved channels."""
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
    # One rounding error for each of the T summed inputs, of about 256 levels, and one for the addition of a half.
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
    """The weights of Keys's bicubic filter with a = -1/2 at distances from its centre."""
    x = np.abs(distances)
    outer = np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, outer)
