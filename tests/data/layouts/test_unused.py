"""What lies in a data set's folder and is no part of the data set is counted and named."""

import json

import pytest

from handful.data.layouts.registry import open_dataset
from handful.data.layouts.unused import sentences, unused


@pytest.fixture
def root(tmp_path):
    lay_out(tmp_path, "gear/train/good/0.png", "gear/test/good/0.png", "gear/test/dent/0.png")
    return lay_out(tmp_path, "gear/ground_truth/dent/0_mask.png")


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_pictures_of_no_category_and_masks_of_no_picture_are_named(root):
    lay_out(root, "gear/train/dent/0.png", "gear/test/1.png", "gear/ground_truth/dent/1_mask.png")
    lay_out(root, "gear/ground_truth/dent/0.png")  # the mask that has _mask in its name is used
    lay_out(root, "gear/test/good/inner/2.png", "readme.txt", "gear/.DS_Store", ".cache/3.png")
    dataset = open_dataset(root)
    assert sentences(dataset, unused(dataset)) == (
        "left out (1), a hidden folder: .cache.",
        "left out (1), hidden: gear/.DS_Store.",
        "left out (1), no picture: readme.txt.",
        "left out (5), used by no category: gear/ground_truth/dent/0.png, gear/ground_truth/dent/1_mask.png, "
        "gear/test/1.png, ….",
    )


def test_a_data_set_that_uses_all_of_its_folder_leaves_out_nothing(root):
    assert unused(open_dataset(root)) == ()


def test_files_that_are_used_by_way_of_a_link_are_used(root, tmp_path_factory):
    elsewhere = lay_out(tmp_path_factory.mktemp("elsewhere"), "train/good/0.png", "test/good/0.png", "test/good.txt")
    (root / "linked").symlink_to(elsewhere)
    dataset = open_dataset(root)
    assert [category.name for category in dataset.categories] == ["gear", "linked"]
    assert [one.path for one in unused(dataset)] == [str(root / "linked/test/good.txt")]


def test_a_list_may_be_named_itself_and_use_pictures_of_other_folders(root):
    lists = root / "lists"
    lists.mkdir()
    rows = ("../gear/train/good/0.png,good,train", "../gear/test/dent/0.png,bad,test")
    (lists / "all.csv").write_text("\n".join(("path,label,split", *rows)))
    assert unused(open_dataset(lists / "all.csv")) == ()  # no picture lies beside it
    lay_out(lists, "1.png", "other.csv")
    named = [(one.path, one.reason) for one in unused(open_dataset(lists / "all.csv"))]
    assert named == [(str(lists / "1.png"), "used by no category"), (str(lists / "other.csv"), "no picture")]
    entries = {"train": {"gear": [entry("../gear/train/good/0.png")]}, "test": {"gear": [entry("1.png")]}}
    (lists / "meta.json").write_text(json.dumps(entries))
    assert [one.path for one in unused(open_dataset(lists, layout="meta"))] == [
        str(lists / "all.csv"),
        str(lists / "other.csv"),
    ]


def test_of_two_lists_the_one_that_is_not_read_is_named(root):
    row = {"path": "0.png", "label": "good", "split": "train"}
    (root / "manifest.csv").write_text("path,label,split\n0.png,good,train\n1.png,good,test\n")
    (root / "manifest.jsonl").write_text(json.dumps(row))
    lay_out(root, "0.png", "1.png")
    named = [one.path for one in unused(open_dataset(root, layout="manifest"))]
    assert str(root / "manifest.jsonl") in named and str(root / "manifest.csv") not in named


def entry(path):
    return {"img_path": path, "mask_path": "", "cls_name": "gear", "specie_name": "good", "anomaly": 0}
