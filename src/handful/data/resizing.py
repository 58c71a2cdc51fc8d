"""Bicubic, anti-aliased resizing of 8-bit pictures: what Pillow computes, in products of matrices.

A value is a weighted sum of its neighbours, first across and then down, rounded to 8 bits after each. Pillow adds up
one value after the other. Here a band of the picture and a matrix of weights, most of them 0, give a few columns or
rows by one product: far more multiplications, which vectors make up for.

The weights are Pillow's (12.3, src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc), rounded to 22 bits
as there, and its sums are of whole numbers. Those here are of float32: whatever may lie on either side of the middle
between two levels, a value in some thousands, is added up again in whole numbers. So values are Pillow's to the bit;
but it takes another order where a picture is tall, from version 13 on, and here that is always the same.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import pairwise
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

SUPPORT = 2.0  # of the filter to either side, in pixels of the smaller picture
BITS = 22  # of a weight
OUTPUTS = 5  # values of an axis that come out of one band, about
ROWS, BANDS = 120, 40  # that are worked on at once, so that they stay in a core's cache
CHANNELS = 3

_rooms = threading.local()


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

    Args:
        pixels: of the picture.
        size: (H, W).
        halves: whether two threads make a half each, to the same values; where the second thread works for another
            picture already, the calling thread makes both.
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
    narrow = _room("narrow", (end - start) * down.step + 2 * down.margin, mixed.shape[0] * mixed.shape[2])
    strip = _room("strip", ROWS, across.padded * CHANNELS)
    windows = _windows(strip.T, mixed.shape[1], across.step * CHANNELS).transpose(0, 2, 1)
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

    bands = _windows(narrow, down.weights.shape[2], down.step)
    columns = CHANNELS * across.places + np.arange(CHANNELS)[:, None]  # (3, W)
    for first, after in _pieces(start, end, BANDS):
        weights = down.weights[first:after]
        before = first * weights.shape[1]
        found = _room("found", len(weights) * weights.shape[1], narrow.shape[1])
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
    edges = [start + (end - start) * number // count for number in range(count + 1)]
    return list(pairwise(edges))


def _windows(rows: NDArray[np.float32], length: int, step: int) -> NDArray[np.float32]:
    """Windows of so many rows, from each to the next a step: (n, C) → (B, length, C), the same memory."""
    count = (len(rows) - length) // step + 1
    return as_strided(rows, (count, length, rows.shape[1]), (step * rows.strides[0], *rows.strides))


def _rounded(values: NDArray[np.float32], doubt: float) -> NDArray[np.intp]:
    """Round to 8 bits in place: → the flat numbers of those of which another level may be right."""
    buffer = _room("rounding", *values.shape)
    np.floor(np.add(values, np.float32(0.5 + doubt), out=buffer), out=values)
    doubtful = np.flatnonzero(np.subtract(buffer, values, out=buffer) < np.float32(2 * doubt))
    np.clip(values, 0, 255, out=values)
    return doubtful


def _room(use: str, *shape: int) -> NDArray[np.float32]:
    """This thread's memory for one use, zeros or what was left in it.

    Where large pieces go back to the system when they are done with, having them anew takes long beside what is done
    in them.
    """
    kept: NDArray[np.float32] | None = getattr(_rooms, use, None)
    if kept is None or len(kept) < prod(shape):
        kept = np.zeros(prod(shape), np.float32)
        setattr(_rooms, use, kept)
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
    parts = _bicubic((at - centres[:, None] + 0.5) / max(scale, 1.0)) * (at < end[:, None])
    parts *= 2**BITS / parts.sum(1, keepdims=True)
    shares = np.trunc(parts + np.copysign(0.5, parts)).astype(np.int64)
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
