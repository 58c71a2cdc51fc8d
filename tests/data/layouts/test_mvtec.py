"""MVTec AD is known by its categories and defects, and says what of it is absent."""

import pytest

from handful.data.layouts.mvtec import DEFECTS, OFFICIAL, detect, read
from handful.errors import InputError
from handful.types import Sample


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def bottle(root, training=209):
    return lay_out(
        root / "bottle",
        *(f"train/good/{number:03}.png" for number in range(training)),
        *(f"test/good/{number:03}.png" for number in range(20)),
        *(f"test/contamination/{number:03}.png" for number in range(63)),
        *(f"ground_truth/contamination/{number:03}_mask.png" for number in range(63)),
    )


def test_the_official_set_has_as_many_pictures_as_the_paper_says():
    assert [sum(counts) for counts in zip(*OFFICIAL.values(), strict=True)] == [3629, 467, 1258]
    assert len(OFFICIAL) == 15 and OFFICIAL.keys() == DEFECTS.keys()
    assert sum(len(kinds.split()) for kinds in DEFECTS.values()) == 73


def test_a_whole_category_lacks_nothing_and_the_absent_ones_are_named(tmp_path):
    bottle(tmp_path)
    dataset = read(tmp_path)
    assert (dataset.layout, dataset.root) == ("mvtec", str(tmp_path))
    (category,) = dataset.categories
    assert (category.name, len(category.train), len(category.test)) == ("bottle", 209, 83)
    mask = tmp_path / "bottle/ground_truth/contamination/000_mask.png"
    assert category.test[0] == Sample(
        str(tmp_path / "bottle/test/contamination/000.png"), True, "contamination", (str(mask),)
    )
    assert dataset.missing == tuple(f"{name}: the category is absent." for name in OFFICIAL if name != "bottle")


def test_fewer_pictures_than_the_official_ones_are_said(tmp_path):
    bottle(tmp_path, training=4)
    assert "bottle: 4 of 209 training pictures." in read(tmp_path).missing


def test_categories_of_others_are_left_out_and_named(tmp_path):
    bottle(tmp_path)
    lay_out(tmp_path / "widget", "train/good/0.png", "test/good/0.png")
    (tmp_path / "results").mkdir()
    dataset = read(tmp_path)
    assert [category.name for category in dataset.categories] == ["bottle"]
    assert dataset.missing[-1] == "widget: no category of this data set, left out."


def test_the_name_alone_is_not_enough_to_be_detected(tmp_path):
    lay_out(tmp_path / "tile", "train/good/0.png", "test/good/0.png", "test/crack/0.png")
    assert detect(tmp_path)
    assert not detect(tmp_path / "tile")
    lay_out(tmp_path / "tile", "test/fray/0.png")  # magnetic tiles, say
    assert not detect(tmp_path)
    lay_out(tmp_path / "zipper", "train/good/0.png")
    assert not detect(tmp_path)


def test_a_folder_without_a_usable_category_is_refused(tmp_path):
    lay_out(tmp_path / "bottle", "train/good/0.png", "test/readme.txt")
    with pytest.raises(InputError, match="got no test pictures in"):
        read(tmp_path)
