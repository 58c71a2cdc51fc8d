"""BraTS 2021 as slices, prepared for ResAD's evaluation: a single category, brain, in the layout of `tree`.

The folders are brain/train/good, brain/test/good, brain/test/DEFECT and brain/ground_truth/DEFECT/NAME_mask.png. A
mask's values are the labels of the tumour's parts, of which all count. Source: Yao et al., ResAD: A Simple Framework
for Class Generalizable Anomaly Detection, NeurIPS 2024; folders as in github.com/xcyao00/ResAD, datasets/brats.py at
0afc30e.
"""

from pathlib import Path

from handful.data.layouts.tree import is_category, read_all, read_category
from handful.types import Dataset


def detect(root: Path) -> bool:
    """Whether there is a folder brain in the tree's layout."""
    return is_category(root / "brain")


def read(root: Path) -> Dataset:
    """Read the only category; raises InputError without good training pictures or without test pictures."""
    return read_all("brats", root, [root / "brain"], read_category)
