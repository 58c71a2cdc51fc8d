"""The bit depth of 16-bit pictures: cameras of 10 to 14 bits write 16-bit files."""

import math
import statistics

import numpy as np

from handful.data.images import Picture

DEPTHS = (10, 12, 14, 16)  # bits that cameras use inside 16-bit files
MOST = 0.995  # quantile of pixels that measures brightness: stamped counters, lines and hot pixels do not count
_ALIKE = 2.5  # bound of the factor in brightness between pictures of a camera; two bits of depth are a factor of 4
_SAME = 1.5  # largest factor in brightness between the references and a picture of another depth, both scaled by depth


def bits_of(pictures: list[Picture]) -> int:
    """The least depth of `DEPTHS` that holds most pixels of most 16-bit references; 8 without 16-bit references.

    A 12-bit camera writes 0 to 4095 into a 16-bit file; scaled by 65535 its pictures would be almost black. The
    brightest 0.5 % of a picture's pixels do not count, as cameras stamp counters, nor does a picture far brighter than
    the others, as a picture of another camera must not darken the rest. A depth stated in the files takes precedence.
    """
    deep = [picture for picture in pictures if picture.pixels.dtype == np.uint16]
    if not deep:
        return 8
    highest = [2**picture.bits - 1 if picture.bits < 16 else bright_value(picture) for picture in deep]
    usual = [value for value in highest if value <= _ALIKE * max(1, statistics.median_low(highest))]
    stated = {picture.bits for picture, value in zip(deep, highest, strict=True) if value in usual} - {16}
    if stated:
        return max(stated)
    return next(bits for bits in DEPTHS if max(usual) < 2**bits)


def own_bits(picture: Picture, bits: int) -> int:
    """The depth of a reference: 8, or the depth stated in its file, or the references' depth, or a greater depth.

    A greater depth is taken if the references' depth is far too small for the picture's values.
    """
    if picture.pixels.dtype == np.uint8:
        return 8
    if picture.bits < 16:
        return picture.bits
    return next(depth for depth in (bits, *DEPTHS) if bright_value(picture) < _ALIKE * 2**depth)


def bright_value(picture: Picture) -> int:
    """The value that 99.5 % of a picture's pixels, by their brightest channel, do not exceed."""
    values = picture.pixels.max(axis=2).ravel()
    reached = np.bincount(values).cumsum()
    return int(np.searchsorted(reached, MOST * values.size))


def depth_of(picture: Picture, bits: int, bright: float | None) -> int:
    """The depth that a 16-bit picture's values are scaled by, see `handful.data.preprocessing.Preprocessing.depth_of`.

    Args:
        picture: a 16-bit picture.
        bits, bright: of the references, see `handful.data.preprocessing.Preprocessing`.
    """
    if picture.bits < 16:
        return picture.bits
    value = max(1, bright_value(picture))
    holding = [depth for depth in DEPTHS if value < 2**depth]
    if bright is None:
        return bits if bits in holding else holding[0]
    apart = {bits: abs(math.log(value / (2**bits - 1) / bright)) for bits in (*holding, bits)}
    nearest = min(holding, key=lambda bits: apart[bits])
    if bits == 8 or apart[bits] <= math.log(_ALIKE):
        return nearest if bits == 8 else bits
    return nearest if bits not in holding or apart[nearest] <= math.log(_SAME) else bits
