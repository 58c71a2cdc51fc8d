"""A backbone that sees crops of each picture besides the whole, for a method that wants them."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from handful.backbones import at_size
from handful.backbones.base import Backbone, BackboneSpec
from handful.ops.crops import cut_crops
from handful.types import Crops, Features


class CroppingBackbone:
    """A backbone whose features hold those of crops.

    Args:
        plain: of whole pictures.
        crops: which crops.

    Raises:
        SettingError: when it is first used, if crops are larger than pictures or the network cannot take their size.
    """

    def __init__(self, plain: Backbone, crops: Crops) -> None:
        self.plain, self.crops = plain, crops
        self._of_crops: Backbone | None = None  # made for the first picture: it takes seconds

    @property
    def spec(self) -> BackboneSpec:
        """That of whole pictures."""
        return self.plain.spec

    @property
    def entries(self) -> Mapping[str, bytes]:
        """Those of whole pictures; the network for crops has the same weights."""
        return self.plain.entries

    @property
    def device(self) -> str:
        """Where the features lie."""
        return self.plain.device

    def __call__(self, images: Tensor) -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1] and of their crops."""
        return self.with_crops_of(self.plain(images), images)

    def with_crops_of(self, features: Features, images: Tensor) -> Features:
        """The features of images, and those of their crops beside them."""
        height, width = features.levels[0].shape[1:3]
        cut = torch.stack([cut_crops(image, (height, width), self.crops) for image in images])  # (B, W, 3, h, w)
        if self._of_crops is None:
            self._of_crops = at_size(self.plain, (cut.shape[3], cut.shape[4]))
        seen = [self._of_crops(of_one) for of_one in cut]
        levels = tuple(torch.stack(level) for level in zip(*(one.levels for one in seen), strict=True))
        return replace(features, crops=Features(levels, self._of_crops.spec.size))


def with_crops(backbone: Backbone, crops: Crops | None) -> Backbone:
    """The backbone as a method with these `crops_wanted` needs it, whatever it was before."""
    plain = backbone.plain if isinstance(backbone, CroppingBackbone) else backbone
    return plain if crops is None else CroppingBackbone(plain, crops)
