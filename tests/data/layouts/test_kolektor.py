"""KolektorSDD2's masks say which of its pictures are good."""

import numpy as np
import pytest
from PIL import Image

from handful.data.layouts.kolektor import detect, read
from handful.errors import InputError
from handful.types import Sample

BLACK = np.zeros((6, 4), np.uint8)
MARKED = np.pad(np.full((1, 1), 255, np.uint8), ((2, 3), (1, 2)))


@pytest.fixture
def root(tmp_path):
    for name, mask in (("train/10000", BLACK), ("train/10001", MARKED), ("test/20000", MARKED), ("test/20001", BLACK)):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / f"{name}.png").touch()  # only masks are read
        Image.fromarray(mask).save(tmp_path / f"{name}_GT.png")
    return tmp_path


def test_masks_make_the_labels_and_defects_of_train_are_not_used(root):
    assert detect(root)
    dataset = read(root)
    (category,) = dataset.categories
    assert (dataset.layout, category.name) == ("kolektor", "kolektorsdd2")
    assert category.train == (str(root / "train/10000.png"),)
    assert category.test == (
        Sample(str(root / "test/20000.png"), True, "defect", (str(root / "test/20000_GT.png"),)),
        Sample(str(root / "test/20001.png"), False, "good"),
    )
    assert dataset.missing[0] == "kolektorsdd2: 1 of 2085 training pictures."


def test_pictures_without_a_readable_mask_are_left_out_and_named(root):
    (root / "test/20002.png").touch()
    (root / "train/10002.png").touch()
    (root / "train/10002_GT.png").write_text("no picture")
    dataset = read(root)
    assert (len(dataset.categories[0].train), len(dataset.categories[0].test)) == (1, 2)
    assert dataset.missing[-1] == (
        "kolektorsdd2: pictures without a readable mask are left out (2): train/10002.png, test/20002.png."
    )


def test_other_folders_with_train_and_test_are_not_detected(root):
    for mask in (root / "test").glob("*_GT.png"):
        mask.unlink()
    (root / "test/._20000_GT.png").touch()
    assert not detect(root)
    with pytest.raises(InputError, match="no test pictures"):
        read(root)
