"""BraTS as slices is one category, brain."""

import pytest

from handful.data.layouts.brats import detect, read
from handful.errors import InputError
from handful.types import Sample


def test_brain_is_read_with_its_masks(tmp_path):
    root = tmp_path / "brain"
    for name in (
        *("train/good/0.png", "test/good/1.png", "test/tumour/2.png"),
        *("ground_truth/tumour/2_mask.png",),
    ):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    assert detect(tmp_path) and not detect(root)
    dataset = read(tmp_path)
    (category,) = dataset.categories
    assert (dataset.layout, category.name, dataset.missing) == ("brats", "brain", ())
    mask = str(root / "ground_truth/tumour/2_mask.png")
    assert category.test[1] == Sample(str(root / "test/tumour/2.png"), True, "tumour", (mask,))


def test_a_folder_without_brain_is_refused(tmp_path):
    assert not detect(tmp_path)
    with pytest.raises(InputError, match="brain must hold good training pictures"):
        read(tmp_path)
