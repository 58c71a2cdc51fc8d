"""The right reader is found, or the user is told what there is."""

import json

import pytest

from handful.data.layouts.registry import LAYOUTS, open_dataset
from handful.errors import InputError, SettingError


def lay_out(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


def test_a_layout_may_be_named(tmp_path):
    lay_out(tmp_path, "bottle/train/good/0.png", "bottle/test/good/0.png")
    assert open_dataset(tmp_path).layout == "mvtec"
    assert open_dataset(tmp_path, layout="tree").layout == "tree"


def test_an_unknown_layout_is_refused_with_the_known_ones(tmp_path):
    with pytest.raises(SettingError, match=r"auto or one of mvtec, .*meta, got 'mvtek'"):
        open_dataset(tmp_path, layout="mvtek")


def test_a_path_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(InputError, match=r"must exist, got .*none; check the path"):
        open_dataset(tmp_path / "none")


@pytest.mark.parametrize(
    ("names", "said"),
    [
        ((), "got an empty folder"),
        (("a/1.png", "b.png"), "got only a, b.png"),
        (("7", "1", "2", "3", "4", "5", "6", ".hidden"), "got only 1, 2, 3, 4, 5, …"),
    ],
)
def test_an_unknown_folder_is_refused_with_what_it_holds_and_the_layouts(tmp_path, names, said):
    with pytest.raises(InputError) as caught:
        open_dataset(lay_out(tmp_path, *names))
    assert f"{said};" in str(caught.value) and ", ".join(LAYOUTS) in str(caught.value)


def test_a_file_of_another_kind_is_refused(tmp_path):
    with pytest.raises(InputError, match="got a file"):
        open_dataset(lay_out(tmp_path, "a.png") / "a.png")


def test_meta_json_counts_only_where_no_other_layout_is_known(tmp_path):
    picture = {"mask_path": "", "specie_name": "good", "anomaly": 0}
    lay_out(tmp_path / "meta", "a/0.png", "a/1.png")
    content = {
        "train": {"gear": [{**picture, "img_path": "a/0.png"}]},
        "test": {"gear": [{**picture, "img_path": "a/1.png"}]},
    }
    (tmp_path / "meta/meta.json").write_text(json.dumps(content))
    assert open_dataset(tmp_path / "meta").layout == "meta"
    lay_out(tmp_path / "meta/gear", "train/good/0.png", "test/good/0.png")
    assert open_dataset(tmp_path / "meta").layout == "tree"


def test_a_manifest_comes_before_the_folders_that_it_describes(tmp_path):
    lay_out(tmp_path, "good/0.png", "good/1.png", "bad/0.png")
    assert open_dataset(tmp_path).layout == "folder"
    (tmp_path / "manifest.csv").write_text("path,label,split\ngood/0.png,0,train\nbad/0.png,1,test\n")
    assert open_dataset(tmp_path).layout == "manifest"
