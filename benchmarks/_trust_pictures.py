"""The pictures among which references are drawn, and those that do not belong among them."""

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage
from torch import Tensor

from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.preprocessing import Preprocessing
from handful.types import Category, Sample

POOL, DEFECTS, RETAKEN = 20, 16, 4  # pictures of a category
GLANCE_AREA, GLANCE_CONTRAST = 0.01, 0.1
# Their masks do not show where a picture looks strange: boxes on boards whose crops each show another place, and
# things that are missing or swapped while every place looks good.
UNSEEN = ("deeppcb", "mvtec_loco")
# Categories that show as good as the same: papers of one kind, cells of two makes, crops of two boards.
NEAR = ("piped", "elpv", "deeppcb")


@dataclass(frozen=True)
class Given:
    """A picture that may be drawn, or that does not belong.

    Attributes:
        kind: "good", or what is wrong.
        image: (3, H, W).
        of: the category of another product's picture.
    """

    kind: str
    image: Tensor
    of: str = ""


def name_of(folder: Path) -> str:
    return f"{folder.parent.name}/{folder.name}"


def given_in(category: Category, backbone: Backbone) -> Iterator[Given]:
    yield from (Given("good", image_of(path, backbone)) for path in spread(category.train, POOL))
    defects = [sample for sample in category.test if sample.anomalous]
    for kind, chosen in (("glance", at_a_glance), ("other defect", lambda sample: not at_a_glance(sample))):
        some = [sample for sample in defects if chosen(sample)]
        yield from (Given(kind, image_of(sample.path, backbone)) for sample in spread(some, DEFECTS))
    good = [sample.path for sample in category.test if sample.anomalous is False]
    for path in spread(good, RETAKEN):
        image = image_of(path, backbone)
        yield Given("half the light", image * 0.5)
        yield Given("twice the light", image * 2)
        yield Given("blur, sigma 3 px", _blurred(image, 3))
    yield Given("blank", torch.full((3, *backbone.spec.size), 0.5))


def strangers_of(folder: Path, images: dict[Path, Tensor]) -> Iterator[Given]:
    for other, image in images.items():
        if other != folder:
            near = other.parent == folder.parent and folder.parent.name in NEAR
            yield Given("near product" if near else "another product", image, name_of(other))


def at_a_glance(sample: Sample) -> bool:
    """Whether a defect is visible at a glance: by its mask and its pixels, whatever any method makes of it.

    It covers 1 % of the frame or more, and its mean colour differs from that of a ring around it by a tenth of the
    scale or more in some channel; or its folder calls it broken_large.
    """
    if sample.kind == "broken_large":
        return True
    if not sample.masks or any(part in UNSEEN for part in Path(sample.path).parts):
        return False
    mask = np.any([_opened(path, "L") > 127 for path in sample.masks], 0)
    if mask.mean() < GLANCE_AREA:
        return False
    pixels = _opened(sample.path, "RGB") / 255
    ring = ndimage.binary_dilation(mask, iterations=12) & ~ndimage.binary_dilation(mask, iterations=2)
    if not ring.any():
        return False
    return bool(np.abs(pixels[mask].mean(0) - pixels[ring].mean(0)).max() >= GLANCE_CONTRAST)


def _opened(path: str, mode: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(path).convert(mode).resize((320, 320), Image.Resampling.NEAREST))


def image_of(path: str, backbone: Backbone) -> Tensor:
    return torch.from_numpy(Preprocessing(backbone.spec.size)(read_picture(path)))


def spread(items: Iterable[Any], most: int) -> list[Any]:
    """At most so many, evenly drawn."""
    items = list(items)
    count = min(most, len(items))
    return [items[round(number * (len(items) - 1) / max(1, count - 1))] for number in range(count)]


def _blurred(image: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(image[None], [len(offsets) // 2] * 4, mode="reflect")[0][:, None]
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]
