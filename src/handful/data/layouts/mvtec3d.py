"""MVTec 3D-AD, only its colour pictures: train/good/rgb, test/DEFECT/rgb and test/DEFECT/gt/NAME.

Source: Bergmann et al., The MVTec 3D-AD Dataset for Unsupervised 3D Anomaly Detection and Localization, VISAPP 2022,
table 1. The point clouds (xyz) and the folder validation are not used.
"""

from functools import partial
from pathlib import Path

from handful.data.layouts.tree import Counts, MasksOf, by_stem, mask_of, read_category, read_official, subfolders

OFFICIAL: dict[str, Counts] = {
    "bagel": (244, 22, 88),
    "cable_gland": (223, 21, 87),
    "carrot": (286, 27, 132),
    "cookie": (210, 28, 103),
    "dowel": (288, 26, 104),
    "foam": (236, 20, 80),
    "peach": (361, 26, 106),
    "potato": (300, 22, 92),
    "rope": (298, 32, 69),
    "tire": (210, 25, 87),
}


def detect(root: Path) -> bool:
    """Whether a subfolder has an official category's name and train/good/rgb."""
    return any(folder.name in OFFICIAL and (folder / "train/good/rgb").is_dir() for folder in subfolders(root))


def _beside(root: Path, kind: str) -> MasksOf:
    """The masks in test/DEFECT/gt, named like their pictures."""
    return partial(mask_of, masks=by_stem(root / "test" / kind / "gt"))


_read_one = partial(read_category, inner="rgb", find_masks=_beside)
read = partial(read_official, "mvtec3d", official=OFFICIAL, read_one=_read_one)
