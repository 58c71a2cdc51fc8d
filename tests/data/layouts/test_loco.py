"""MVTec LOCO AD brings several masks a picture, and how much of each defect must be found."""

import json

import pytest

from handful.data.layouts.loco import OFFICIAL, detect, read
from handful.types import Sample, Saturation

ENTRIES = [
    {"defect_name": "missing", "pixel_value": 255, "saturation_threshold": 5300, "relative_saturation": False},
    {"defect_name": "color", "pixel_value": 254, "saturation_threshold": 1.0, "relative_saturation": True},
]


@pytest.fixture
def root(tmp_path):
    for name in (
        *("train/good/000.png", "validation/good/000.png", "test/good/000.png"),
        *("test/logical_anomalies/000.png", "test/structural_anomalies/000.png"),
        *("ground_truth/logical_anomalies/000/001.png", "ground_truth/logical_anomalies/000/000.png"),
        *("ground_truth/structural_anomalies/000/000.png",),
    ):
        (tmp_path / "pushpins" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "pushpins" / name).touch()
    (tmp_path / "pushpins/defects_config.json").write_text(json.dumps(ENTRIES))
    return tmp_path


def test_the_official_set_has_as_many_pictures_as_the_paper_says():
    assert [sum(counts) for counts in zip(*OFFICIAL.values(), strict=True)] == [1772, 575, 993]


def test_each_picture_has_every_one_of_its_masks_in_order(root):
    assert detect(root)
    dataset = read(root)
    (category,) = dataset.categories
    test, masks = root / "pushpins/test", root / "pushpins/ground_truth"
    assert category.test == (
        Sample(str(test / "good/000.png"), False, "good"),
        Sample(
            str(test / "logical_anomalies/000.png"),
            True,
            "logical_anomalies",
            (str(masks / "logical_anomalies/000/000.png"), str(masks / "logical_anomalies/000/001.png")),
        ),
        Sample(
            str(test / "structural_anomalies/000.png"),
            True,
            "structural_anomalies",
            (str(masks / "structural_anomalies/000/000.png"),),
        ),
    )
    assert category.saturation == (Saturation(255, 5300.0, False), Saturation(254, 1.0, True))


def test_masks_that_are_merged_into_one_a_picture_are_read(root):
    masks = root / "pushpins/ground_truth/structural_anomalies"
    (masks / "000/000.png").unlink()
    (masks / "000").rmdir()
    (masks / "000_mask.png").touch()
    dataset = read(root)
    (category,) = dataset.categories
    assert category.test[2].masks == (str(masks / "000_mask.png"),) and len(category.test[1].masks) == 2
    assert category.saturation == ()  # a merged mask does not say which defect it marks
    assert any("merged into one" in said for said in dataset.missing)


def test_the_validation_pictures_are_no_references(root):
    assert read(root).categories[0].train == (str(root / "pushpins/train/good/000.png"),)


@pytest.mark.parametrize(
    "text",
    [
        None,
        "{",
        "3",
        "[3]",
        "[{}]",
        '[{"pixel_value": "255", "saturation_threshold": 1, "relative_saturation": false}]',
        '[{"pixel_value": 255, "saturation_threshold": 1.5, "relative_saturation": true}]',
        '[{"pixel_value": 255, "saturation_threshold": 0, "relative_saturation": false}]',
        '[{"pixel_value": 0, "saturation_threshold": 1, "relative_saturation": false}]',
        '[{"pixel_value": 255, "saturation_threshold": 1, "relative_saturation": 0}]',
    ],
)
def test_saturation_that_cannot_be_used_is_said(root, text):
    config = root / "pushpins/defects_config.json"
    config.unlink()
    if text is not None:
        config.write_text(text)
    dataset = read(root)
    assert dataset.categories[0].saturation == ()
    said = "is absent" if text is None else "cannot be used"
    assert dataset.missing[-1].startswith(f"pushpins: defects_config.json {said}")


def test_a_picture_without_masks_is_named(root):
    (root / "pushpins/ground_truth/structural_anomalies/000/000.png").unlink()
    assert "pushpins: no mask for 1 of 2 defect pictures: test/structural_anomalies/000.png." in read(root).missing


def test_pushpins_with_other_defects_are_not_detected(root):
    (root / "pushpins/test/bent").mkdir()
    assert not detect(root)
