"""MVTec AD's folders become good paths and labelled samples."""

from pathlib import Path

import pytest

from handful.data.mvtec import read_category
from handful.errors import InputError
from handful.types import Sample


@pytest.fixture
def category(tmp_path) -> Path:
    root = tmp_path / "bottle"
    for name in (
        "train/good/001.png",
        "train/good/000.png",
        "test/good/000.png",
        "test/scratch/000.png",
        "test/scratch/001.png",
        "test/dent/007.bmp",
        "test/.ipynb_checkpoints/000.png",
        "ground_truth/scratch/000_mask.png",
        "ground_truth/dent/007_mask.png",
        "readme.txt",
        "test/notes.txt",
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_category_is_read_with_labels_kinds_and_masks(category):
    good, samples = read_category(category)
    assert good == [category / "train/good/000.png", category / "train/good/001.png"]
    test, masks = category / "test", category / "ground_truth"
    assert samples == [
        Sample(str(test / "dent/007.bmp"), True, "dent", str(masks / "dent/007_mask.png")),
        Sample(str(test / "good/000.png"), False, "good", None),
        Sample(str(test / "scratch/000.png"), True, "scratch", str(masks / "scratch/000_mask.png")),
        Sample(str(test / "scratch/001.png"), True, "scratch", None),
    ]


def test_folder_above_the_categories_is_refused(category):
    with pytest.raises(InputError, match="got no test folder; name one category's folder"):
        read_category(category.parent)


def test_missing_training_pictures_are_refused(category):
    for path in (category / "train/good").iterdir():
        path.unlink()
    with pytest.raises(InputError, match="good must hold pictures"):
        read_category(category)
    (category / "train/good").rmdir()
    with pytest.raises(InputError, match=r"must exist, got .*good; check the path"):
        read_category(category)


def test_empty_test_folders_are_refused(tmp_path, category):
    (category / "test/empty").mkdir()
    with pytest.raises(InputError, match="empty must hold pictures"):
        read_category(category)
    (tmp_path / "other/test").mkdir(parents=True)
    with pytest.raises(InputError, match="test must hold a folder good and one for each kind of defect, got none"):
        read_category(tmp_path / "other")
