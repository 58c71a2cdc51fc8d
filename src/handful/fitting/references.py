"""The reading of references: pictures, backbone, input size and frame."""

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

Sources = Sequence[tuple[PictureSource, str]]  # each a picture and its name


@dataclass(frozen=True, eq=False)
class References:
    """Good pictures, with the backbone and the preprocessing chosen for them.

    Attributes:
        pictures: the good pictures.
        digests: sha256 of each picture.
        backbone: the backbone at the size of the input.
        preprocessing: the steps from pixels to the input of the backbone.
        sizing: the size that `auto` chose, and why, in words; None if the size was given.
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
        options: the arguments of `handful.backbones.create`; `size` may also be "auto".
        backbone: the backbone that the detector was given, or has from an earlier fit or a file; None to create it.
        given: whether the detector was given the backbone, whose own size then holds unless a size is asked for.
        squeeze: whether pictures of any aspect ratio are squeezed to the input.
        max_pixels: the largest number of pixels that a picture's file may have.
    """

    options: Mapping[str, Any]
    backbone: Backbone | None
    given: bool
    squeeze: bool
    max_pixels: int

    def read(self, sources: Sources, method: Method) -> References:
        """Read references for a method.

        Raises:
            InputError: for a picture given twice; ImageError for an unreadable picture.
            SettingError, WeightsError: see `handful.backbones.create`.
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
        """The size that `auto` chooses; each reference is read with all its pixels, and only one is held at a time."""
        name = self.backbone.spec.name if self.backbone else self.options["name"]
        pictures = (images.read_picture(source, name=name, max_pixels=self.max_pixels) for source, name in sources)
        least = backbones.square_side(name, None)
        return sizing.choose(pictures, least=least, tiled=method.takes_loose_patches)
