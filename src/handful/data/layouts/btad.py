"""BTAD (beanTech): categories 01, 02 and 03 with train/ok, test/ok, test/ko and ground_truth/ko/NAME.

Source: Mishra et al., VT-ADL: A Vision Transformer Network for Image Anomaly Detection and Localization, ISIE 2021. The
masks of category 03 are .bmp files, the masks of the other categories .png files.
"""

from functools import partial
from pathlib import Path

from handful.data.layouts.tree import Counts, is_category, read_category, read_official, subfolders

OFFICIAL: dict[str, Counts] = {"01": (400, 21, 49), "02": (399, 30, 200), "03": (1000, 400, 41)}

read = partial(read_official, "btad", official=OFFICIAL, read_one=partial(read_category, good="ok"))


def detect(root: Path) -> bool:
    """Whether a subfolder has the name 01, 02 or 03 and the layout."""
    return any(folder.name in OFFICIAL and is_category(folder, good="ok") for folder in subfolders(root))
