"""BTAD calls its folders ok and ko, and its masks as the pictures."""

from handful.data.layouts.btad import OFFICIAL, detect, read
from handful.types import Sample


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_the_official_set_has_as_many_pictures_as_the_paper_says():
    assert [sum(counts) for counts in zip(*OFFICIAL.values(), strict=True)] == [1799, 451, 290]


def test_masks_are_found_whatever_their_suffix(tmp_path):
    for name, mask in (("01", "png"), ("03", "bmp")):
        lay_out(tmp_path / name, "train/ok/0000.bmp", "test/ok/0000.bmp", "test/ko/0001.bmp")
        lay_out(tmp_path / name, f"ground_truth/ko/0001.{mask}")
    assert detect(tmp_path)
    dataset = read(tmp_path)
    assert (dataset.layout, [category.name for category in dataset.categories]) == ("btad", ["01", "03"])
    for category, mask in zip(dataset.categories, ("png", "bmp"), strict=True):
        root = tmp_path / category.name
        assert category.train == (str(root / "train/ok/0000.bmp"),)
        assert category.test == (
            Sample(str(root / "test/ko/0001.bmp"), True, "ko", (str(root / f"ground_truth/ko/0001.{mask}"),)),
            Sample(str(root / "test/ok/0000.bmp"), False, "good"),
        )
    assert dataset.missing[:2] == ("02: the category is absent.", "01: 1 of 400 training pictures.")


def test_numbered_folders_without_ok_are_not_detected(tmp_path):
    lay_out(tmp_path / "01", "train/good/0.png", "test/good/0.png")
    assert not detect(tmp_path)
