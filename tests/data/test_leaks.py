"""Pictures in both halves of a data set are found by what their files hold."""

import shutil

import pytest
from PIL import Image

from handful.data.layouts.registry import open_dataset
from handful.data.leaks import leaks


@pytest.fixture
def root(tmp_path, picture_factory):
    """Two categories without a leak."""
    for seed, name in enumerate(
        ("a/train/good/0", "a/train/good/1", "a/test/good/0", "b/train/good/0", "b/test/cut/0")
    ):
        path = tmp_path / f"{name}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(picture_factory(seed, side=16)).save(path)
    return tmp_path


def test_different_pictures_are_no_leak(root):
    assert leaks(open_dataset(root)) == ()


@pytest.mark.parametrize("to", ["a/test/good/copy.png", "a/test/scratch/7.png"])
def test_a_copy_of_a_training_picture_in_test_is_a_leak(root, to):
    (root / to).parent.mkdir(exist_ok=True)
    shutil.copy(root / "a/train/good/1.png", root / to)
    assert leaks(open_dataset(root)) == (
        f"a: {to} is the same file as the training picture a/train/good/1.png: a leak.",
    )


def test_files_of_one_length_that_differ_are_no_leak(root):
    for number, name in enumerate(("train/good/0", "test/good/0")):
        Image.new("L", (8, 8), number).save(root / f"a/{name}.png", "BMP")
    assert leaks(open_dataset(root)) == ()


def test_another_categorys_training_picture_is_no_leak(root):
    shutil.copy(root / "a/train/good/1.png", root / "b/test/cut/1.png")
    assert leaks(open_dataset(root)) == ()
