"""Pixels → the model-input frame, and the way back to the original's pixels."""

import io
import math
import statistics
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.images import MAX_PIXELS, Picture, PictureSource, read_picture
from handful.data.resizing import resize
from handful.ops.frames import LONGEST, Part, part_of, whole
from handful.ops.tiles import Tiles
from handful.types import Reference

THUMBNAIL_SIDE = 420  # a report shows parts of it beside those of pictures of this size
DEPTHS = (10, 12, 14, 16)  # bits that cameras use inside 16-bit files
MOST = 0.995  # the share of pixels that says how bright a picture is: a stamped counter, line or hot pixel says nothing
_ALIKE = 2.5  # pictures of one camera differ less in how bright they are; two bits of depth are a factor of 4
_SAME = 1.5  # by which a picture of another depth may differ from the references, once its depth is allowed for


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes a model input.

    The whole picture is resized (bicubic, anti-aliased, first across and then down), and nothing is cropped away. With
    `keeps_aspect` a picture of another shape than the frame lies in it undistorted, see `handful.ops.frames.part_of`,
    and is mirrored around; else every picture is squeezed to the frame. 8-bit pixels are divided by 255, others by the
    most that their depth holds, see `depth_of`; pixels beyond that count as that.

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
        shares = [_bright(picture) / (2 ** _own_bits(picture, bits) - 1) for picture in references]
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

    def part(self, size: tuple[int, int]) -> Part:
        """Where a picture of this width and height lies in the frame."""
        return part_of(size, self.size) if self.keeps_aspect else whole(self.size)

    def fine_part(self, size: tuple[int, int]) -> Part:
        """Where a picture of this width and height lies in the frame of tiles.

        Raises:
            ValueError: without tiles.
        """
        if self.fine is None:
            raise ValueError("Pictures must be looked at in tiles to lie in their frame.")
        return part_of(size, self.fine) if self.keeps_aspect else whole(self.fine)

    def in_detail(self, picture: Picture) -> NDArray[np.uint8] | NDArray[np.float32]:
        """Bring a picture into the frame of tiles: (3, H, W), of 8-bit pixels as they are, of others in [0, 1].

        Resized as by `__call__`, to the same values.

        Raises:
            ValueError: without tiles.
        """
        part = self.fine_part(picture.size)
        if picture.pixels.dtype == np.uint8:
            found = picture.pixels
            if found.shape[:2] != part.size:  # by two steps, in whose order Pillow's versions differ
                across = Image.fromarray(found).resize((part.width, len(found)), Image.Resampling.BICUBIC)
                found = np.asarray(across.resize((part.width, part.height), Image.Resampling.BICUBIC))
            return part.mirrored(found.transpose(2, 0, 1))
        return part.mirrored(self._deep(picture, part))

    def inputs(self, image: NDArray[np.uint8] | NDArray[np.float32]) -> Iterator[NDArray[np.float32]]:
        """The tiles of a picture that is in their frame (3, H, W), one after the other: (3, h, w) in [0, 1] each.

        Raises:
            ValueError: without tiles.
        """
        if self.tiles is None:
            raise ValueError("Pictures must be looked at in tiles to be cut into them.")
        for cut in self.tiles.cuts(image):
            yield np.divide(cut, np.float32(255)) if cut.dtype == np.uint8 else cut

    def aspect(self, picture: Picture) -> float:
        """What `handful.ops.views.turned_view` takes: width to height of what the picture's frame shows."""
        return picture.aspect if self.part(picture.size).is_whole else self.size[1] / self.size[0]

    def __call__(self, picture: Picture, *, halves: bool = False) -> NDArray[np.float32]:
        """Bring a picture into the model-input frame: (3, H, W) in [0, 1], contiguous.

        Args:
            picture: of 8 or 16 bits.
            halves: whether 8-bit pixels are resized in two threads: to the same values, in less time where a core is
                idle.
        """
        part = self.part(picture.size)
        if picture.pixels.dtype == np.uint8:
            return part.mirrored(resize(picture.pixels, part.size, halves=halves))
        return part.mirrored(self._deep(picture, part))

    def _deep(self, picture: Picture, part: Part) -> NDArray[np.float32]:
        """A picture of 16 bits at the size of its part: (3, h, w) in [0, 1], contiguous."""
        most = 2 ** self.depth_of(picture) - 1
        deep = np.clip(_resize_deep(np.minimum(picture.pixels, most), part.size) / most, 0, 1)
        return np.ascontiguousarray(deep.transpose(2, 0, 1))

    def depth_of(self, picture: Picture) -> int:
        """The bits that a picture's pixels are scaled by.

        8 for 8-bit pixels, and the depth that a file states where that is less than 16. Else the references' depth,
        unless the picture is far too bright or dark for that and another depth makes it as bright as they are: then it
        comes from a camera or program of that depth. A picture that no depth makes so is dark or bright, and stays so.
        """
        if picture.pixels.dtype == np.uint8:
            return 8
        if picture.bits < 16:
            return picture.bits
        value = max(1, _bright(picture))
        holding = [bits for bits in DEPTHS if value < 2**bits]
        if self.bright is None:
            return self.bits if self.bits in holding else holding[0]
        apart = {bits: abs(math.log(value / (2**bits - 1) / self.bright)) for bits in (*holding, self.bits)}
        nearest = min(holding, key=lambda bits: apart[bits])
        if self.bits == 8 or apart[self.bits] <= math.log(_ALIKE):
            return nearest if self.bits == 8 else self.bits
        return nearest if self.bits not in holding or apart[nearest] <= math.log(_SAME) else self.bits

    def notes(self, picture: Picture, references: Iterable[Reference] = ()) -> tuple[str, ...]:
        """A sentence each on a picture's depth and shape where they are not those of the references and the frame."""
        return tuple(note for note in (self.note(picture, references), self.shape_note(picture)) if note)

    def shape_note(self, picture: Picture) -> str | None:
        """A sentence on a picture of another shape than the frame; None for one that fills it."""
        if self.part(picture.size).is_whole:
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


def bits_of(pictures: list[Picture]) -> int:
    """The fewest bits of `DEPTHS` that hold most pixels of most 16-bit references; 8 where none has 16-bit pixels.

    A 12-bit camera writes 0 to 4095 into a 16-bit file; scaled by 65535 its pictures would be almost black. The
    brightest 0.5 % of a picture's pixels do not count, nor does a picture far brighter than the others: cameras stamp
    counters, and one picture of another camera must not darken the rest. A depth that the files state goes before.
    """
    deep = [picture for picture in pictures if picture.pixels.dtype == np.uint16]
    if not deep:
        return 8
    highest = [2**picture.bits - 1 if picture.bits < 16 else _bright(picture) for picture in deep]
    usual = [value for value in highest if value <= _ALIKE * max(1, statistics.median_low(highest))]
    stated = {picture.bits for picture, value in zip(deep, highest, strict=True) if value in usual} - {16}
    if stated:
        return max(stated)
    return next(bits for bits in DEPTHS if max(usual) < 2**bits)


def _own_bits(picture: Picture, bits: int) -> int:
    """The bits of a reference: 8, those that its file states, the references', or more where these hold it not."""
    if picture.pixels.dtype == np.uint8:
        return 8
    if picture.bits < 16:
        return picture.bits
    return next(depth for depth in (bits, *DEPTHS) if _bright(picture) < _ALIKE * 2**depth)


def _bright(picture: Picture) -> int:
    """The value that all but the brightest 0.5 % of a picture's pixels, by their brightest channel, do not exceed."""
    values = picture.pixels.max(axis=2).ravel()
    reached = np.bincount(values).cumsum()
    return int(np.searchsorted(reached, MOST * values.size))


def thumbnail(picture: Picture, *, longest: int) -> NDArray[np.uint8]:
    """An 8-bit copy to look at, its longer side at most `longest`; most of 16-bit pixels' range is stretched to it."""
    pixels = picture.pixels
    if pixels.dtype != np.uint8:
        low, high = int(pixels.min()), _bright(picture)
        pixels = ((np.clip(pixels, low, high).astype(np.float32) - low) * (255 / max(1, high - low))).astype(np.uint8)
    image = Image.fromarray(pixels)
    image.thumbnail((longest, longest), Image.Resampling.LANCZOS)
    return np.asarray(image)


def thumbnail_jpeg(picture: Picture) -> bytes:
    """A small copy to keep."""
    buffer = io.BytesIO()
    Image.fromarray(thumbnail(picture, longest=THUMBNAIL_SIDE)).save(buffer, "JPEG", quality=85)
    return buffer.getvalue()


def thumbnail_picture(jpeg: bytes, *, name: str) -> Picture:
    """A kept copy as a picture again."""
    return read_picture(Image.open(io.BytesIO(jpeg), formats=("JPEG",)), name=name)
