"""Bicubic, anti-aliased resizing of 8-bit pictures: what Pillow computes, in products of matrices.

A value is a weighted sum of its neighbours, first across and then down, rounded to 8 bits after each. Pillow adds up
one value after the other. Here a band of the picture and a matrix of weights, most of them 0, give a few columns or
rows by one product: far more multiplications, in half the time.

The weights are Pillow's (12.3, src/libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc), rounded to 22 bits
as there. Sums are of float32 instead of whole numbers, so that what lies within 1e-4 of the middle between two levels
may come out as the other one: a few values in 100,000. Pillow takes another order where a picture is tall, from version
13 on; here it is always the same.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import cache, lru_cache
from math import ceil

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

SUPPORT = 2.0  # of the filter to either side, in pixels of the smaller picture
BITS = 22  # of a weight
OUTPUTS = 5  # values of an axis that come out of one band, about
ROWS, BANDS = 90, 16  # that are worked on at once, so that they stay in a core's cache
CHANNELS = 3


@dataclass(frozen=True, eq=False)
class Bands:
    """How an axis is resized by bands of it that overlap.

    Attributes:
        step: from the start of a band to that of the next.
        margin: of a band before and after its step.
        weights: (B, S, step + 2 margin) of the S values that come out of each of B bands.
        places: of the resized axis's values among these B · S; the others, of bands with fewer, are 0.
    """

    step: int
    margin: int
    weights: NDArray[np.float32]
    places: NDArray[np.intp]

    @property
    def padded(self) -> int:
        """The length of the axis that the bands cover, which starts `margin` before its first value."""
        return len(self.weights) * self.step + 2 * self.margin


def resize(pixels: NDArray[np.integer], size: tuple[int, int], *, halves: bool) -> NDArray[np.float32]:
    """Resize a picture: (h, w, 3) → (3, H, W) in [0, 1].

    Args:
        pixels: of the picture.
        size: (H, W).
        halves: whether two threads share the work, to the same values.
    """
    height, width = pixels.shape[:2]
    (across, mixed), down = _across(width, size[1]), _bands(height, size[0])
    narrow = np.empty((down.padded, mixed.shape[0] * mixed.shape[2]), np.float32)
    narrow[: down.margin] = narrow[down.margin + height :] = 0
    image = np.empty((CHANNELS, *size), np.float32)

    def go_across(start: int, end: int) -> None:
        strip = np.zeros((ROWS, across.padded * CHANNELS), np.float32)
        bands = sliding_window_view(strip, mixed.shape[1], 1)[:, :: across.step * CHANNELS].transpose(1, 0, 2)
        for first in range(start * ROWS, min(end * ROWS, height), ROWS):
            some = pixels[first : first + ROWS].reshape(-1, width * CHANNELS)
            rows, begin = len(some), across.margin * CHANNELS
            strip[:rows, begin : begin + width * CHANNELS] = some
            found = narrow[down.margin + first : down.margin + first + rows]
            np.matmul(bands[:, :rows], mixed, out=found.reshape(rows, len(mixed), -1).transpose(1, 0, 2))
            np.floor(_rounded(found), out=found)

    def go_down(start: int, end: int) -> None:
        bands = sliding_window_view(narrow, down.weights.shape[2], 0)[:: down.step].transpose(0, 2, 1)
        columns = CHANNELS * across.places + np.arange(CHANNELS)[:, None]  # (3, W)
        for band in range(start * BANDS, min(end * BANDS, len(bands)), BANDS):
            some = slice(band, band + BANDS)
            levels = _rounded(np.matmul(down.weights[some], bands[some])).astype(np.uint8)  # fewer bytes to move
            outputs, before = levels.shape[1], band * levels.shape[1]
            first, last = np.searchsorted(down.places, (before, before + len(levels) * outputs))
            rows = levels.reshape(len(levels) * outputs, -1)[down.places[first:last] - before]
            np.divide(rows.take(columns, 1).transpose(1, 0, 2), np.float32(255), out=image[:, first:last])

    _share(go_across, ceil(height / ROWS), halves=halves)
    _share(go_down, ceil(len(down.weights) / BANDS), halves=halves)
    return image


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


def _rounded(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """What rounds down to the nearest of 256 levels, in place."""
    np.add(values, np.float32(0.5), out=values)
    return np.clip(values, 0, 255, out=values)


@lru_cache(maxsize=8)
def _across(length: int, resized: int) -> tuple[Bands, NDArray[np.float32]]:
    """Bands of a row, and their weights (B, window · 3, S · 3) for the three channels of each pixel in a row."""
    bands = _bands(length, resized)
    count, outputs, window = bands.weights.shape
    mixed = np.zeros((count, window, CHANNELS, outputs, CHANNELS), np.float32)
    for channel in range(CHANNELS):
        mixed[:, :, channel, :, channel] = bands.weights.transpose(0, 2, 1)
    return bands, mixed.reshape(count, window * CHANNELS, outputs * CHANNELS)


@lru_cache(maxsize=8)
def _bands(length: int, resized: int) -> Bands:
    scale = length / resized
    reach = SUPPORT * max(scale, 1.0)
    centres = (np.arange(resized) + 0.5) * scale
    first = np.maximum(0, centres - reach + 0.5).astype(int)
    last = np.minimum(length, centres + reach + 0.5).astype(int)  # exclusive
    at = first[:, None] + np.arange((last - first).max())  # (resized, taps)
    weights = _bicubic((at - centres[:, None] + 0.5) / max(scale, 1.0)) * (at < last[:, None])
    weights /= weights.sum(1, keepdims=True)
    weights = np.trunc(weights * 2**BITS + np.copysign(0.5, weights)) / 2**BITS

    step = max(1, round(OUTPUTS * scale))
    count = ceil(length / step)
    band = np.minimum((centres / step).astype(int), count - 1)
    slot = np.arange(resized) - np.searchsorted(band, band)
    margin = int(max(0, (band * step - first).max(), (last - (band + 1) * step).max()))
    into = np.zeros((count, slot.max() + 1, step + 2 * margin + at.shape[1]), np.float32)  # taps of weight 0 overhang
    into[band[:, None], slot[:, None], at - (band * step - margin)[:, None]] = weights
    return Bands(step, margin, np.ascontiguousarray(into[:, :, : step + 2 * margin]), band * into.shape[1] + slot)


def _bicubic(distances: NDArray[np.float64]) -> NDArray[np.float64]:
    """The filter at distances from its centre, Keys's with a = -1/2."""
    x = np.abs(distances)
    outer = np.where(x < 2, ((-0.5 * x + 2.5) * x - 4) * x + 2, 0.0)
    return np.where(x < 1, (1.5 * x - 2.5) * x * x + 1, outer)
