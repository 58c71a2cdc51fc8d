"""Pictures for the gate: as they are, spoilt as a camera spoils them, of other categories, and with large defects."""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from _large_defects import KINDS, SHARES, canvas, damaged
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.layouts.tree import read_category
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.data.thumbnails import thumbnail
from handful.fitting.calibration import view_count
from handful.inspection.gate import CHECKS, Gate, Levels, learn_statistics
from handful.ops.views import mild_views

MOST_GOOD = 60  # good pictures of a category
SPOILT = 8  # good pictures that are spoilt in every way
STRANGERS = 2  # pictures of each other category
DAMAGED = 6  # good pictures that get every large defect
MOST_PIXELS = 2000  # of the longer side of a picture that is damaged
WHOLE = 1.0  # the share of a control: the whole part damaged as the defect damages a share of it


def _blurred(image: Tensor, sigma: float) -> Tensor:
    offsets = torch.arange(-math.ceil(4 * sigma), math.ceil(4 * sigma) + 1)
    kernel = torch.exp(-0.5 * (offsets / sigma).square())
    kernel = kernel / kernel.sum()
    padded = F.pad(image[None], [len(offsets) // 2] * 4, mode="reflect")[0][:, None]
    return F.conv2d(F.conv2d(padded, kernel[None, None, :, None]), kernel[None, None, None])[:, 0]


def _shifted(image: Tensor, share: float) -> Tensor:
    """Moved right and down, the border repeated."""
    rows, columns = ((torch.arange(side) - round(share * side)).clamp(0) for side in image.shape[1:])
    return image[:, rows][:, :, columns]


SPOILERS: dict[str, Callable[[Tensor], Tensor]] = {
    **{f"blur, sigma {sigma} px": partial(_blurred, sigma=sigma) for sigma in (1, 2, 3, 4, 8)},
    **{f"light x {gain}": partial(torch.mul, other=gain) for gain in (0.25, 0.35, 0.5, 1.5, 2, 4)},
    **{f"shift by {share} %": partial(_shifted, share=share / 100) for share in (10, 25)},
}
GOOD, DEFECTS, WRONG = "good", "defects", "another category"


@dataclass(frozen=True)
class GatePicture:
    """A picture as the gate sees it.

    Attributes:
        image: (3, H, W) in [0, 1], of 8 bits.
        levels: (h, w, D) each.
        name: the file, or the good picture's number that it was made from.
    """

    image: Tensor
    levels: tuple[NDArray[np.float32], ...]
    name: str


@dataclass(frozen=True)
class Category:
    """A category's pictures.

    Attributes:
        name: DATASET/CATEGORY.
        train: paths of its good training pictures.
        seen: good and defective test pictures, spoilt ones, and those of other categories.
        large: by kind and share, those of share `WHOLE` being controls; each with its good picture's number.
    """

    name: str
    train: tuple[str, ...]
    seen: dict[str, list[GatePicture]]
    large: dict[tuple[str, float], list[GatePicture]]


def large_name(share: float) -> str:
    """How a page calls a share of the part."""
    return "the whole part (control)" if share == WHOLE else f"{share:g} of the part"


def folders_of(data: Path) -> list[Path]:
    """Every category's folder, sorted."""
    return sorted(path.parent for path in data.glob("*/*/test"))


def spread(items: Sequence[str], most: int) -> list[str]:
    """At most so many, evenly drawn."""
    count = min(most, len(items))
    return [items[round(number * (len(items) - 1) / max(1, count - 1))] for number in range(count)]


def look(image: Tensor | NDArray[np.float32], backbone: Backbone, name: str) -> GatePicture:
    """Round a picture (3, H, W) to 8 bits, as on file, and compute its features."""
    image = (torch.as_tensor(image).clamp(0, 1) * 255).round() / 255
    return GatePicture(image, tuple(level.copy() for level in backbone(image[None]).arrays(0)), name)


def read(paths: Sequence[str], backbone: Backbone) -> list[GatePicture]:
    """Pictures as they are."""
    preprocessing = Preprocessing(backbone.spec.size)
    return [look(preprocessing(read_picture(path)), backbone, path) for path in paths]


def strangers_of(folders: Sequence[Path], backbone: Backbone) -> dict[Path, list[GatePicture]]:
    """Good test pictures of every category, for the other ones."""
    return {folder: read(spread(_tested(folder, anomalous=False), STRANGERS), backbone) for folder in folders}


def category_of(
    folder: Path, backbone: Backbone, strangers: dict[Path, list[GatePicture]], *, every: int = 1
) -> Category:
    """All pictures of a category, or every so many-th of each kind but for those of other categories."""
    good, defective = (_tested(folder, anomalous=anomalous) for anomalous in (False, True))
    seen = {
        GOOD: read(spread(good, MOST_GOOD // every), backbone),
        DEFECTS: read(spread(defective, -(-len(defective) // every)), backbone),
        WRONG: [one for other, some in strangers.items() if other != folder for one in some],
    }
    numbers = [int(number) for number in spread([str(number) for number in range(len(seen[GOOD]))], SPOILT // every)]
    for way, spoil in SPOILERS.items():
        seen[way] = [look(spoil(seen[GOOD][number].image), backbone, str(number)) for number in numbers]
    others = [path for other in strangers if other != folder for path in _tested(other, anomalous=False)[:1]]
    large = _large(spread(good, DAMAGED // every), others, backbone)
    train = read_category(folder)[0].train
    return Category(f"{folder.parent.name}/{folder.name}", train, seen, large)


def _large(
    good: Sequence[str], others: Sequence[str], backbone: Backbone
) -> dict[tuple[str, float], list[GatePicture]]:
    preprocessing = Preprocessing(backbone.spec.size)
    generator = np.random.default_rng(0)
    made: dict[tuple[str, float], list[GatePicture]] = {
        (kind, share): [] for kind in KINDS for share in (*SHARES, WHOLE)
    }
    for number, path in enumerate(good):
        stranger = others[int(generator.integers(len(others)))]
        pixels, strange = (thumbnail(read_picture(one), longest=MOST_PIXELS) for one in (path, stranger))
        on = canvas(pixels, strange, generator)
        for (kind, share), pictures in made.items():
            damage = read_picture(damaged(on, kind, share, generator))
            pictures.append(look(preprocessing(damage), backbone, str(number)))
    return made


def _tested(folder: Path, *, anomalous: bool) -> list[str]:
    return [sample.path for sample in read_category(folder)[0].test if sample.anomalous is anomalous]


def gate_of(train: Sequence[str], shots: int, seed: int, backbone: Backbone) -> tuple[Gate, list[Levels]]:
    """A gate of one draw of references, and their features."""
    preprocessing = Preprocessing(backbone.spec.size)
    images = [torch.from_numpy(preprocessing(read_picture(path))) for path in draw(train, shots=shots, seed=seed)]
    views = [mild_views(image, view_count(shots)) for image in images]
    taken = [[view.numpy() for view in of_image] for of_image in views]
    good: list[Levels] = [tuple(level.copy() for level in backbone(image[None]).arrays(0)) for image in images]
    return Gate(CHECKS, learn_statistics(taken, good)), good


def doubt(gate: Gate, picture: GatePicture, good: Sequence[Levels]) -> str | None:
    """The check that doubts the picture first, None where none does."""
    image, levels = picture.image.numpy(), picture.levels
    if not (gate.refuse_image(image) or gate.refuse_features(levels, good)):
        return None
    for check in gate.checks:
        only = Gate((check,), gate.statistics)
        if only.refuse_image(image) or only.refuse_features(levels, good):
            return check
    return None
