"""A plain folder of good and bad pictures is split by its order."""

import pytest

from handful.data.layouts.folder import detect, read
from handful.errors import InputError
from handful.types import Sample


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_every_second_good_picture_is_for_training(tmp_path):
    root = lay_out(tmp_path / "gear", *(f"OK/{number}.jpg" for number in range(5)), "NG/0.jpg")
    assert detect(root)
    dataset = read(root)
    (category,) = dataset.categories
    assert (dataset.layout, category.name) == ("folder", "gear")
    assert category.train == tuple(str(root / f"OK/{number}.jpg") for number in (0, 2, 4))
    assert category.test == (
        Sample(str(root / "NG/0.jpg"), True, "NG"),
        Sample(str(root / "OK/1.jpg"), False, "good"),
        Sample(str(root / "OK/3.jpg"), False, "good"),
    )
    assert dataset.missing == ("gear: there are no masks: image-level metrics only.",)
    assert read(root) == dataset


@pytest.mark.parametrize("masks", ["mask", "Masks", "ground_truth"])
@pytest.mark.parametrize("name", ["dent/0.png", "dent/0_mask.bmp", "0.png", "0_mask.png"])
def test_masks_lie_by_type_or_flat_with_or_without_mask_in_the_name(tmp_path, masks, name):
    root = lay_out(tmp_path, "good/0.png", "good/1.png", "dent/0.jpg", f"{masks}/{name}")
    assert read(root).categories[0].test[0].masks == (str(root / masks / name),)
    assert read(root).missing == ()


def test_a_mask_by_type_comes_before_a_flat_one(tmp_path):
    root = lay_out(tmp_path, "good/0.png", "good/1.png", "dent/0.png", "hole/0.png", "masks/0.png", "masks/dent/0.png")
    found = [sample.masks for sample in read(root).categories[0].test if sample.anomalous]
    assert found == [(str(root / "masks/dent/0.png"),), (str(root / "masks/0.png"),)]


def test_empty_folders_are_named(tmp_path):
    root = lay_out(tmp_path / "gear", "good/0.png", "good/1.png", "dent/0.png", "masks/0.png")
    (root / "hole").mkdir()
    assert read(root).missing == ("gear: hole holds no pictures.",)


def test_fewer_than_two_good_pictures_are_refused(tmp_path):
    with pytest.raises(InputError, match="at least two good pictures.*got 1"):
        read(lay_out(tmp_path, "good/0.png", "bad/0.png"))


@pytest.mark.parametrize(
    "names", [("good/0.png", "masks/0.png"), ("dent/0.png",), ("good/0.png", "bad/0.png", "train/0.png"), ()]
)
def test_other_folders_are_not_detected(tmp_path, names):
    assert not detect(lay_out(tmp_path, *names))
