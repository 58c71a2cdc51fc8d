"""A backbone that computes features of crops of each picture besides the whole picture, for methods with crops."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from handful.backbones import at_size
from handful.backbones.base import Backbone, BackboneSpec
from handful.ops.crops import cut_crops
from handful.types import Crops, Features


class CroppingBackbone:
    """A backbone whose features include the features of crops.

    Args:
        plain: the backbone of whole pictures.
        crops: the size and stride of the crops.

    Raises:
        SettingError: at its first use, if crops are larger than pictures or the network cannot take the crops' size.
    """

    def __init__(self, plain: Backbone, crops: Crops) -> None:
        self.plain, self.crops = plain, crops
        self._of_crops: Backbone | None = None  # made for the first picture, as making the backbone takes seconds

    @property
    def spec(self) -> BackboneSpec:
        """The identity of the backbone of whole pictures."""
        return self.plain.spec

    @property
    def entries(self) -> Mapping[str, bytes]:
        """The files of the backbone of whole pictures; the network for crops has the same weights."""
        return self.plain.entries

    @property
    def device(self) -> str:
        """The device of the features: cpu or cuda."""
        return self.plain.device

    def __call__(self, images: Tensor) -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1] and of their crops."""
        return self.with_crops_of(self.plain(images), images)

    def with_crops_of(self, features: Features, images: Tensor) -> Features:
        """Add the features of the crops of (B, 3, H, W) images to the images' features."""
        height, width = features.levels[0].shape[1:3]
        cut = torch.stack([cut_crops(image, (height, width), self.crops) for image in images])  # (B, W, 3, h, w)
        if self._of_crops is None:
            self._of_crops = at_size(self.plain, (cut.shape[3], cut.shape[4]))
        seen = [self._of_crops(of_one) for of_one in cut]
        levels = tuple(torch.stack(level) for level in zip(*(one.levels for one in seen), strict=True))
        return replace(features, crops=Features(levels, self._of_crops.spec.size))


def with_crops(backbone: Backbone, crops: Crops | None) -> Backbone:
    """The backbone with the crops that a method wants, or without crops for None; earlier crops are replaced."""
    plain = backbone.plain if isinstance(backbone, CroppingBackbone) else backbone
    return plain if crops is None else CroppingBackbone(plain, crops)
