import pytest
import torch

from handful.errors import SettingError
from handful.ops.crops import CropBank, cut_crops, overlap_mean, starts
from handful.types import Crops


def test_the_papers_crops_are_13_a_side():
    assert starts(37, Crops(13, 2, 13)) == tuple(range(0, 25, 2))


def test_the_last_crop_ends_at_the_edge():
    assert starts(8, Crops(3, 2, 3)) == (0, 2, 4, 5)
    assert starts(3, Crops(3, 2, 3)) == (0,)


def test_a_crop_larger_than_the_picture_is_refused():
    with pytest.raises(SettingError, match="`win_size` must be at most the 12 patches"):
        starts(12, Crops(13, 2, 13))


def test_crops_are_cut_where_they_belong():
    image = torch.arange(3 * 32 * 48, dtype=torch.float32).reshape(3, 32, 48) / 4608
    cut = cut_crops(image, (4, 6), Crops(2, 2, 2))  # 8 pixels a patch
    assert cut.shape == (6, 3, 16, 16)
    assert torch.equal(cut[0], image[:, :16, :16])
    assert torch.equal(cut[5], image[:, 16:, 32:])
    assert cut_crops(image, (4, 6), Crops(2, 2, 4)).shape == (6, 3, 32, 32)


def test_a_grid_that_does_not_divide_the_picture_is_covered_too():
    cut = cut_crops(torch.zeros(3, 50, 50), (7, 7), Crops(3, 2, 3))
    assert cut.shape == (9, 3, 21, 21)


def test_overlapping_maps_are_averaged():
    maps = torch.stack([torch.full((2, 2), float(number)) for number in range(4)])  # starts 0 and 1 of 3 patches
    expected = torch.tensor([[0.0, 0.5, 1.0], [1.0, 1.5, 2.0], [2.0, 2.5, 3.0]])
    assert torch.equal(overlap_mean(maps, (3, 3), Crops(2, 1, 2)), expected)


def test_a_crop_looks_for_its_patches_in_the_most_similar_crops_alone():
    generator = torch.Generator().manual_seed(0)
    unit = torch.nn.functional.normalize
    bank = CropBank((unit(torch.randn(5, 2, 2, 6, generator=generator), dim=-1),))
    query = unit(torch.randn(3, 2, 2, 6, generator=generator), dim=-1)
    found = bank.nearest((query,), crops=2)[0]
    for one, rows in zip(query, found, strict=True):
        index = unit(one.mean((0, 1)), dim=0)
        similar = [float(index @ unit(crop.mean((0, 1)), dim=0)) for crop in bank.levels[0]]
        best = sorted(range(5), key=lambda number: -similar[number])[:2]
        allowed = bank.levels[0][best].flatten(0, 2)
        expected = allowed[(one.flatten(0, 1) @ allowed.T).argmax(1)].reshape(2, 2, 6)
        assert torch.equal(rows, expected)
