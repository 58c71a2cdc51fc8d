import pytest
import torch

from handful.ops.maps import merge_levels, pool_neighbourhood
from handful.ops.patches import level_scales, patch_vectors, resampled_neighbourhoods


def random_levels(count=2):
    generator = torch.Generator().manual_seed(0)
    return tuple(torch.rand(count, n, n, d, generator=generator) for n, d in ((6, 5), (3, 7)))


def test_scales_are_the_root_mean_square_lengths():
    level = torch.tensor([[[[3.0, 4.0], [0.0, 1.0]]]])  # lengths 5 and 1
    scales = level_scales((level, 2 * level), weights="equal")
    assert scales.tolist() == pytest.approx([13**0.5, 2 * 13**0.5])
    assert level_scales((level, 2 * level), weights="raw").tolist() == [1, 1]


def test_a_blank_level_is_not_divided_by_zero():
    blank = torch.zeros(1, 2, 2, 3)
    scales = level_scales((blank,), weights="equal")
    assert torch.isfinite(patch_vectors((blank,), scales, neighbourhood=1, dimensions=None)).all()


def test_patches_join_the_pooled_and_scaled_levels():
    levels, scales = random_levels(), torch.tensor([2.0, 4.0])
    patches = patch_vectors(levels, scales, neighbourhood=3, dimensions=None)
    assert patches.shape == (2, 6, 6, 12)
    pooled = [pool_neighbourhood(level, size=3) for level in levels]
    assert torch.equal(patches, merge_levels((pooled[0] / 2, pooled[1] / 4), mode="bilinear"))


def test_dimensions_leave_the_scales_aside():
    levels = random_levels()
    patches = patch_vectors(levels, torch.tensor([2.0, 4.0]), neighbourhood=3, dimensions=8)
    assert torch.equal(patches, resampled_neighbourhoods(levels, neighbourhood=3, dimensions=8))
    assert patches.shape == (2, 6, 6, 8)


def test_resampling_by_hand():
    # One row of patches with two channels each, no window: 4 values a patch in two levels, halved by averaging pairs.
    levels = (torch.tensor([[[[1.0, 3.0], [5.0, 7.0]]]]), torch.tensor([[[[0.0, 4.0], [2.0, 2.0]]]]))
    patches = resampled_neighbourhoods(levels, neighbourhood=1, dimensions=2)
    assert patches[0, 0].tolist() == [[2, 2], [6, 2]]
    assert resampled_neighbourhoods(levels, neighbourhood=1, dimensions=1)[0, 0].tolist() == [[2], [4]]


def test_windows_beyond_the_border_hold_zeros():
    level = torch.ones(1, 2, 2, 1)
    assert resampled_neighbourhoods((level,), neighbourhood=3, dimensions=1).flatten().tolist() == pytest.approx(
        [4 / 9] * 4
    )
