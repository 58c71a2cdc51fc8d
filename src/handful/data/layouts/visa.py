"""VisA, in its published layout and in the layout of its authors' script.

The published layout is CATEGORY/Data/Images/Normal, CATEGORY/Data/Images/Anomaly and CATEGORY/Data/Masks/Anomaly, split
by split_csv/1cls.csv. The script's layout is CATEGORY/train/good, CATEGORY/test/good, CATEGORY/test/bad and
CATEGORY/ground_truth/bad. The values of a published mask are small numbers, one for each type of defect, of which all
count. Source: Zou et al., SPot-the-Difference Self-supervised Pre-training for Anomaly Detection and Segmentation, ECCV
2022; github.com/amazon-science/spot-diff at 6dbf63c.
"""

from pathlib import Path

from handful.data.layouts.manifest import Row, cell_error, read_table
from handful.data.layouts.tree import Counts, Reading, assemble, holds_official, not_there, read_official
from handful.types import Dataset, Sample

SPLIT = Path("split_csv", "1cls.csv")
COLUMNS = ("object", "split", "label", "image", "mask")
OFFICIAL: dict[str, Counts] = {
    "candle": (900, 100, 100),
    "capsules": (542, 60, 100),
    "cashew": (450, 50, 100),
    "chewinggum": (453, 50, 100),
    "fryum": (450, 50, 100),
    "macaroni1": (900, 100, 100),
    "macaroni2": (900, 100, 100),
    "pcb1": (904, 100, 100),
    "pcb2": (901, 100, 100),
    "pcb3": (905, 101, 100),
    "pcb4": (904, 101, 100),
    "pipe_fryum": (450, 50, 100),
}


def detect(root: Path) -> bool:
    """Whether a subfolder has an official category's name and one of the two layouts."""
    return _is_published(root) or holds_official(root, dict.fromkeys(OFFICIAL, "bad"))


def read(root: Path) -> Dataset:
    """The official categories, with sentences on absent categories, absent listed pictures and other counts.

    Raises:
        InputError: if the published layout has no usable split_csv/1cls.csv, or no category has a good training picture
            and a test picture.
    """
    if not _is_published(root):
        return read_official("visa", root, OFFICIAL)
    rows = read_table(root / SPLIT, COLUMNS)
    return read_official("visa", root, OFFICIAL, lambda folder: _read_one(root, folder.name, rows))


def published_order(root: Path) -> dict[str, int]:
    """The line of each picture in split_csv/1cls.csv; empty if that file is absent.

    Raises:
        InputError: if the file cannot be used.
    """
    if not (root / SPLIT).is_file():
        return {}
    return {str(root / row["image"]): line for line, row in read_table(root / SPLIT, COLUMNS)}


def _is_published(root: Path) -> bool:
    return any((root / name / "Data" / "Images").is_dir() for name in OFFICIAL)


def _read_one(root: Path, name: str, rows: list[Row]) -> Reading:
    train, samples, absent = [], [], []
    for line, row in rows:
        if row["object"] != name:
            continue
        split, label, path = row["split"], row["label"], root / row["image"]
        if split not in ("train", "test"):
            raise cell_error(root / SPLIT, line, "split", "train or test", split)
        if label not in (("normal",) if split == "train" else ("normal", "anomaly")):
            raise cell_error(root / SPLIT, line, "label", "normal, or anomaly in test", label)
        if not path.is_file():
            absent.append(row["image"])
        elif split == "train":
            train.append(path)
        elif label == "normal":
            samples.append(Sample(str(path), False, "good"))
        else:
            mask = root / row["mask"]
            samples.append(Sample(str(path), True, label, (str(mask),) if mask.is_file() else ()))
    missing = not_there(name, SPLIT.as_posix(), "pictures", absent)
    return assemble(name, train, samples, root=root, missing=missing)
