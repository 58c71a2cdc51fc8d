"""Reads references: at which size, by which backbone, and into which frame."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from handful import backbones
from handful.backbones.base import Backbone
from handful.backbones.crops import with_crops
from handful.data import images
from handful.data.images import Picture, PictureSource
from handful.data.preprocessing import Preprocessing
from handful.fitting import sizing
from handful.fitting.sizing import Sizing
from handful.methods import Method
from handful.ops.frames import LONGEST, frame_size, shared_aspect

Sources = Sequence[tuple[PictureSource, str]]  # pictures, and the name of each


@dataclass(frozen=True, eq=False)
class References:
    """Good pictures and the input that they become.

    Attributes:
        digests: sha256 of each picture.
        preprocessing: from pixels to the input of the backbone.
        sizing: the size that `auto` chose, and why; None where a size was asked for.
    """

    pictures: Sequence[Picture]
    digests: Sequence[str]
    backbone: Backbone
    preprocessing: Preprocessing
    sizing: str | None


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads references for a detector.

    Attributes:
        options: of `handful.backbones.create`, and "auto" as a `size`.
        backbone: that the detector was given, fitted before with, or loaded with; None to create it.
        given: whether the detector was given the backbone, whose own size then holds where none is asked for.
        squeeze: whether pictures of any shape are squeezed to the input.
        max_pixels: that a picture's file may have.
    """

    options: Mapping[str, Any]
    backbone: Backbone | None
    given: bool
    squeeze: bool
    max_pixels: int

    def read(self, sources: Sources, method: Method) -> References:
        """Read references for a method.

        Raises:
            InputError: for the same picture twice; ImageError for a picture that cannot be read.
            SettingError, WeightsError: as `handful.backbones.create`.
        """
        asked, fine, why = self.options["size"], 0, None
        if asked == "auto":
            sources = [(images.held(source), name) for source, name in sources]
            chosen = self._sized(sources, method)
            asked, fine, why = chosen.side, chosen.fine, chosen.why
        exact = self.squeeze or isinstance(asked, tuple) or (asked is None and self.given)
        options, backbone = {**self.options, "size": asked}, self.backbone
        if exact and backbone is None:
            backbone = backbones.create(**options)
        side = 0 if exact else backbones.square_side(options["name"], asked)
        detail = LONGEST if fine else max(backbone.spec.size) if exact and backbone else side
        pictures = [
            images.read_picture(source, name=name, detail=detail, max_pixels=self.max_pixels)
            for source, name in sources
        ]
        shared = shared_aspect([picture.aspect for picture in pictures]) if side else None
        aspect = 1.0 if shared is None else shared
        if side and backbone is None:
            backbone = backbones.create(**options, aspect=aspect)
        elif side and backbone is not None:
            plain = with_crops(backbone, None)
            backbone = backbones.at_size(plain, backbones.frame_of(plain.spec.name, side, aspect))
        assert backbone is not None
        digests = [images.digest(source, picture) for (source, _), picture in zip(sources, pictures, strict=True)]
        images.check_distinct(pictures, digests)
        preprocessing = Preprocessing.learnt(
            backbone.spec.size,
            pictures,
            max_pixels=self.max_pixels,
            keeps_aspect=not self.squeeze and (exact or shared is not None),
            side=side,
            fine=frame_size(fine, aspect) if fine else None,
        )
        return References(pictures, digests, with_crops(backbone, method.crops_wanted), preprocessing, why)

    def _sized(self, sources: Sources, method: Method) -> Sizing:
        """The size that the references are worth; they are read with all their pixels, one at a time."""
        name = self.backbone.spec.name if self.backbone else self.options["name"]
        pictures = (images.read_picture(source, name=name, max_pixels=self.max_pixels) for source, name in sources)
        least = backbones.square_side(name, None)
        return sizing.choose(pictures, least=least, tiled=method.takes_loose_patches)
