"""Bicubic, anti-aliased resizing of 8-bit pictures: what Pillow computes, in products of matrices.

A value is a weighted sum of its neighbours, first across and then down, rounded to 8 bits after each. Pillow adds up
one value after the other. Here a band of the picture and a matrix of weights, most of them 0, give a few columns or
rows by one product: far more multiplications, which vectors make up for.

The weights are Pillow's (12.3, src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc), rounded to 22 bits
as there, and its sums are of whole numbers. Those here are of float32: whatever may lie on either side of the middle
between two levels, a value in some thousands, is added up again in whole numbers. So values are Pillow's to the bit;
but it takes another order where a picture is tall, from version 13 on, and here that is always the same.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SUPPORT = 2.0  # of the filter to either side, in pixels of the smaller picture
BITS = 22  # of a weight
OUTPUTS = 5  # values of an axis that come out of one band, about
ROWS, BANDS = 150, 32  # that are worked on at once, so that they stay in a core's cache
CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Axis:
    """How an axis is resized: by bands of it that overlap.

    Attributes:
        first: (n,) where the values start that each of the resized axis's is the sum of.
        shares: (n, T) of these T values, whole numbers: 2^BITS for all of one; of fewer than T the last ones are 0.
        doubt: how far sums of float32 may be off, in levels.
        step: from the start of a band to that of the next.
        margin: of a band before and after its step.
        weights: (B, S, step + 2 margin) of the S values that come out of each of B bands: `shares` as they are.
        places: (n,) of the resized axis's values among these B · S; the others, of bands with fewer, are 0.
        values: (B · S,) the reverse of it.
    """

    first: NDArray[np.intp]
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

    def summed(self, values: NDArray[np.intp]) -> NDArray[np.intp]:
        """Which values of the axis some of the resized one's are the sums of: (m,) → (m, T)."""
        numbers = self.first[values, None] + np.arange(self.shares.shape[1])
        return np.where(self.shares[values] != 0, numbers, 0)

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
        halves: whether two threads share the work, to the same values.
    """
    height, width = pixels.shape[:2]
    (across, mixed), down = _across(width, size[1]), _axis(height, size[0])
    narrow = np.empty((down.padded, mixed.shape[0] * mixed.shape[2]), np.float32)
    narrow[: down.margin] = narrow[down.margin + height :] = 0
    within = narrow[down.margin : down.margin + height]
    image = np.empty((CHANNELS, *size), np.float32)

    def go_across(start: int, end: int) -> None:
        strip = np.zeros((ROWS, across.padded * CHANNELS), np.float32)
        bands = sliding_window_view(strip, mixed.shape[1], 1)[:, :: across.step * CHANNELS].transpose(1, 0, 2)
        room, doubtful = np.empty((ROWS, narrow.shape[1]), np.float32), []
        for top in range(start * ROWS, min(end * ROWS, height), ROWS):
            some = pixels[top : top + ROWS].reshape(-1, width * CHANNELS)
            rows, begin = len(some), across.margin * CHANNELS
            strip[:rows, begin : begin + width * CHANNELS] = some
            found = within[top : top + rows]
            np.matmul(bands[:, :rows], mixed, out=found.reshape(rows, len(mixed), -1).transpose(1, 0, 2))
            doubtful.append(_rounded(found, across.doubt, room[:rows]) + found.shape[1] * top)
        row, column = np.divmod(np.concatenate(doubtful), narrow.shape[1])
        value, channel = across.values[column // CHANNELS], column % CHANNELS
        within[row, column] = across.exactly(value, pixels[row[:, None], across.summed(value), channel[:, None]])

    def go_down(start: int, end: int) -> None:
        bands = sliding_window_view(narrow, down.weights.shape[2], 0)[:: down.step].transpose(0, 2, 1)
        columns = CHANNELS * across.places + np.arange(CHANNELS)[:, None]  # (3, W)
        for top in range(start * BANDS, min(end * BANDS, len(bands)), BANDS):
            some = slice(top, top + BANDS)
            found = np.matmul(down.weights[some], bands[some]).reshape(-1, narrow.shape[1])
            before = top * down.weights.shape[1]
            row, column = np.divmod(_rounded(found, down.doubt, np.empty_like(found)), found.shape[1])
            value = down.values[before + row]
            found[row, column] = down.exactly(value, within[down.summed(value), column[:, None]])
            first, last = np.searchsorted(down.places, (before, before + len(found)))
            levels = found.astype(np.uint8)[down.places[first:last] - before]  # fewer bytes to move
            np.divide(levels.take(columns, 1).transpose(1, 0, 2), np.float32(255), out=image[:, first:last])

    _share(go_across, ceil(height / ROWS), halves=halves)
    _share(go_down, ceil(len(down.weights) / BANDS), halves=halves)
    return image


def _rounded(values: NDArray[np.float32], doubt: float, room: NDArray[np.float32]) -> NDArray[np.intp]:
    """Round to 8 bits in place, in room as large: → the flat numbers of those of which another level may be right."""
    np.floor(np.add(values, np.float32(0.5 + doubt), out=room), out=values)
    doubtful = np.flatnonzero(np.subtract(room, values, out=room) < np.float32(2 * doubt))
    np.clip(values, 0, 255, out=values)
    return doubtful


def _share(work: Callable[[int, int], None], count: int, *, halves: bool) -> None:
    """Have the pieces from 0 to a count worked on, by two threads or one."""
    half = count // 2 if halves else count
    other = _second_thread().submit(work, half, count) if half < count else None
    if half:
        work(0, half)
    if other:
        other.result()


@cache
def _second_thread() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(1, thread_name_prefix="handful-resize")


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
    return Axis(
        first, shares, doubt, step, margin, np.ascontiguousarray(weights[:, :, : step + 2 * margin]), places, values
    )


def _bicubic(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filter at distances from its centre, Keys's with a = -1/2."""
    x = np.abs(distances)
    outer = np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, outer)
