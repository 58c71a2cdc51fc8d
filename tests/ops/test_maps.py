import numpy as np
import pytest
import torch
import torch.nn.functional as F
from scipy import ndimage

from handful.ops.maps import merge_levels, pixel_map, pool_neighbourhood, top_share


@pytest.mark.parametrize(("grid", "size"), [((10, 15), (40, 60)), ((40, 40), (320, 320)), ((7, 5), (7, 5))])
@pytest.mark.parametrize("sigma", [4.0, 0.8, 0.0])
@pytest.mark.parametrize("corners", [False, True])
def test_map_is_the_bilinear_enlargement_blurred_as_scipy_does(grid, size, sigma, corners):
    patches = torch.from_numpy(np.random.default_rng(0).random((1, *grid), dtype=np.float32))
    enlarged = F.interpolate(patches[None], size=size, mode="bilinear", align_corners=corners)[0, 0].numpy()
    expected = ndimage.gaussian_filter(enlarged, sigma) if sigma else enlarged
    ours = pixel_map(patches, size, sigma=sigma, corners=corners)[0].numpy()
    assert np.abs(ours - expected).max() < 1e-5  # float32 sums in another order


def test_map_peaks_at_the_hottest_patch():
    patches = torch.zeros(1, 10, 20)
    patches[0, 7, 3] = 1
    enlarged = pixel_map(patches, (100, 200), sigma=4.0)
    assert enlarged.shape == (1, 100, 200)
    row, column = divmod(int(enlarged.argmax()), 200)
    assert abs(row - 74.5) <= 1 and abs(column - 34.5) <= 1  # the middle of that patch


def test_pooling_counts_the_outside_as_zero():
    pooled = pool_neighbourhood(torch.ones(1, 3, 3, 2), size=3)
    assert torch.allclose(pooled[0, :, :, 0], torch.tensor([[4, 6, 4], [6, 9, 6], [4, 6, 4]]) / 9)


def test_merging_repeats_or_interpolates_the_coarse_level():
    fine, coarse = torch.zeros(1, 4, 4, 1), torch.tensor([[0.0, 1.0], [0.0, 1.0]])[None, :, :, None]
    repeated = merge_levels((fine, coarse), mode="nearest")
    assert repeated.shape == (1, 4, 4, 2)
    assert repeated[0, 0, :, 1].tolist() == [0, 0, 1, 1]
    assert merge_levels((fine, coarse), mode="bilinear")[0, 0, :, 1].tolist() == [0, 0.25, 0.75, 1]


def test_top_share_is_the_mean_of_the_highest():
    scores = torch.arange(200, dtype=torch.float32).reshape(1, 10, 20)
    assert top_share(scores, share=0.01).tolist() == [198.5]
    assert top_share(scores, share=0).tolist() == [199]
    assert top_share(scores, share=1).tolist() == [99.5]
