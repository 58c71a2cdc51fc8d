"""MVTec 3D-AD's colour pictures and their masks are found; its point clouds are passed over."""

from handful.data.layouts.mvtec3d import OFFICIAL, detect, read
from handful.types import Sample


def test_the_official_set_has_as_many_pictures_as_the_paper_says():
    assert [sum(counts) for counts in zip(*OFFICIAL.values(), strict=True)] == [2656, 249, 948]


def test_colour_pictures_have_the_masks_in_gt(tmp_path):
    root = tmp_path / "bagel"
    for name in (
        *("train/good/rgb/000.png", "train/good/xyz/000.tiff", "validation/good/rgb/000.png"),
        *("test/good/rgb/000.png", "test/good/gt/000.png"),
        *("test/hole/rgb/000.png", "test/hole/xyz/000.tiff", "test/hole/gt/000.png", "test/hole/rgb/001.png"),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert detect(tmp_path) and not detect(root)
    dataset = read(tmp_path)
    (category,) = dataset.categories
    assert (dataset.layout, category.train) == ("mvtec3d", (str(root / "train/good/rgb/000.png"),))
    assert category.test == (
        Sample(str(root / "test/good/rgb/000.png"), False, "good"),
        Sample(str(root / "test/hole/rgb/000.png"), True, "hole", (str(root / "test/hole/gt/000.png"),)),
        Sample(str(root / "test/hole/rgb/001.png"), True, "hole"),
    )
    assert "bagel: no mask for 1 of 2 defect pictures: test/hole/rgb/001.png." in dataset.missing
    assert "tire: the category is absent." in dataset.missing
