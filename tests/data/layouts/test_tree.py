"""Folders in the MVTec AD layout become good paths, labelled samples and sentences on what is missing."""

import pytest

from handful.data.layouts.tree import assemble, detect, differences, read, read_category
from handful.errors import InputError
from handful.types import Category, Sample


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


@pytest.fixture
def widget(tmp_path):
    return lay_out(
        tmp_path / "parts" / "widget",
        *("train/good/001.png", "train/good/000.PNG", "train/good/._000.png", "train/good/.DS_Store"),
        *("test/good/000.png", "test/scratch/000.png", "test/scratch/001.png", "test/dent/007.bmp", "test/notes.txt"),
        *("test/.ipynb_checkpoints/000.png", "readme.txt"),
        *("ground_truth/scratch/000_mask.png", "ground_truth/scratch/001.tif", "ground_truth/dent/007_mask.PNG"),
    )


def test_a_category_is_read_with_labels_kinds_and_masks(widget):
    category, missing = read_category(widget)
    test, masks = widget / "test", widget / "ground_truth"
    assert category == Category(
        "widget",
        (str(widget / "train/good/000.PNG"), str(widget / "train/good/001.png")),
        (
            Sample(str(test / "dent/007.bmp"), True, "dent", (str(masks / "dent/007_mask.PNG"),)),
            Sample(str(test / "good/000.png"), False, "good"),
            Sample(str(test / "scratch/000.png"), True, "scratch", (str(masks / "scratch/000_mask.png"),)),
            Sample(str(test / "scratch/001.png"), True, "scratch", (str(masks / "scratch/001.tif"),)),
        ),
    )
    assert missing == []


def test_a_mask_of_its_own_name_yields_to_one_with_mask_in_it(widget):
    lay_out(widget, "ground_truth/scratch/000.png")
    category, _ = read_category(widget)
    assert category.test[2].masks == (str(widget / "ground_truth/scratch/000_mask.png"),)


def test_the_root_holds_categories_or_is_one(widget, monkeypatch):
    lay_out(widget.parent / "gadget", "train/good/0.png", "test/good/0.png")
    (widget.parent / "results").mkdir()
    assert detect(widget.parent) and detect(widget)
    assert [category.name for category in read(widget.parent).categories] == ["gadget", "widget"]
    monkeypatch.chdir(widget)
    for root in (widget, type(widget)(), type(widget)("test/..")):
        dataset = read(root)
        assert [category.name for category in dataset.categories] == ["widget"]
        assert (dataset.layout, dataset.root) == ("tree", str(root))


def test_other_folders_are_not_detected(widget):
    assert not any(detect(path) for path in (widget / "test", widget / "readme.txt", widget / "none"))


def test_masks_that_are_missing_are_summed_up_in_one_sentence(widget):
    lay_out(widget, *(f"test/dent/{number}.png" for number in range(4)), *(f"test/hole/{n}.png" for n in (1, 2)))
    assert read_category(widget)[1] == [
        "widget: no mask for 6 of 9 defect pictures: test/dent/0.png, test/dent/1.png, test/dent/2.png, …."
    ]
    for mask in (widget / "ground_truth").rglob("*_mask.*"):
        mask.unlink()
    (widget / "ground_truth/scratch/001.tif").unlink()
    assert read_category(widget)[1] == ["widget: there are no masks: image-level metrics only."]


def test_folders_of_test_that_are_empty_or_absent_are_named(widget):
    (widget / "test/empty").mkdir()
    (widget / "test/good/000.png").unlink()
    (widget / "test/good").rmdir()
    assert read_category(widget)[1] == [
        "widget: test/empty holds no pictures.",
        "widget: the folder test/good is absent.",
    ]


@pytest.mark.parametrize(("lacks", "said"), [("train", "no good training pictures"), ("test", "no test pictures")])
def test_an_unusable_category_is_refused_alone_and_left_out_among_others(widget, lacks, said):
    for path in (widget / lacks).rglob("*.*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(InputError, match=f"widget must hold.*{said}"):
        read_category(widget)
    with pytest.raises(InputError, match=f"widget must hold.*{said}"):
        read(widget.parent)
    lay_out(widget.parent / "gadget", "train/good/0.png", "test/good/0.png")
    dataset = read(widget.parent)
    assert [category.name for category in dataset.categories] == ["gadget"]
    assert said in dataset.missing[0]


def test_a_folder_without_categories_is_refused(tmp_path):
    with pytest.raises(InputError, match="must hold a category"):
        read(tmp_path)


def test_a_picture_that_is_trained_and_tested_on_is_refused(tmp_path):
    with pytest.raises(InputError, match="must not test on training pictures, got b.png; split"):
        assemble("widget", ["a.png", "b.png"], [Sample("b.png", False, "good")], root=tmp_path)


def test_a_folder_that_cannot_be_read_is_refused_with_its_name(widget, monkeypatch):
    def refuse(*_):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(type(widget), "iterdir", refuse)
    with pytest.raises(InputError, match="test must be readable, got: Permission denied"):
        read_category(widget)


def test_other_numbers_of_pictures_than_the_official_ones_are_said():
    category = Category("leather", ("a",) * 4, (Sample("b", False, "good"), Sample("c", True, "cut")))
    assert differences(category, (245, 1, 0)) == [
        "leather: 4 of 245 training pictures.",
        "leather: 1 defect test pictures, 1 more than the official 0.",
    ]
