"""MPDD is read as MVTec AD is, with its own categories."""

from handful.data.layouts import mvtec
from handful.data.layouts.mpdd import DEFECTS, OFFICIAL, detect, read
from handful.types import Sample


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_the_official_set_has_as_many_pictures_as_the_paper_says():
    assert [sum(counts) for counts in zip(*OFFICIAL.values(), strict=True)] == [888, 176, 282]
    assert OFFICIAL.keys() == DEFECTS.keys()


def test_a_category_is_read_and_what_is_absent_is_said(tmp_path):
    lay_out(tmp_path / "tubes", "train/good/000.png", "test/good/000.png", "test/flattening/001.png")
    lay_out(tmp_path / "tubes", "ground_truth/flattening/001_mask.png")
    assert detect(tmp_path) and not mvtec.detect(tmp_path)
    dataset = read(tmp_path)
    (category,) = dataset.categories
    assert (dataset.layout, category.name) == ("mpdd", "tubes")
    mask = tmp_path / "tubes/ground_truth/flattening/001_mask.png"
    assert category.test[0] == Sample(str(tmp_path / "tubes/test/flattening/001.png"), True, "flattening", (str(mask),))
    assert "connector: the category is absent." in dataset.missing
    assert "tubes: 1 of 122 training pictures." in dataset.missing


def test_connectors_with_other_defects_are_not_detected(tmp_path):
    lay_out(tmp_path / "connector", "train/good/0.png", "test/good/0.png", "test/bent_pin/0.png")
    assert not detect(tmp_path)
