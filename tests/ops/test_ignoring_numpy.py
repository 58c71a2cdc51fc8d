import numpy as np
import pytest
import torch
import torch.nn.functional as F

from handful.inspection.gate import cell_means
from handful.ops.ignoring_numpy import touched

GRIDS = [(1, 1), (2, 4), (3, 5), (8, 6), (16, 9)]  # of 8 x 6: dividing it or not, coarser, as fine, finer


def test_cells_by_hand():
    values = np.arange(20, dtype=np.float32).reshape(5, 4)  # rows 0 to 2 and 2 to 4: the middle one is in both
    assert cell_means(values, (2, 2)).tolist() == [[4.5, 6.5], [12.5, 14.5]]
    assert touched(values == 9, (2, 2)).tolist() == [[True, False], [True, False]]


@pytest.mark.parametrize("grid", GRIDS)
def test_cells_are_those_of_torchs_adaptive_pooling(grid):
    values = np.random.default_rng(0).random((8, 6), np.float32)
    region = values < 0.1
    means = F.adaptive_avg_pool2d(torch.from_numpy(values)[None], grid)[0]
    np.testing.assert_allclose(cell_means(values, grid), means, rtol=1e-6)
    most = F.adaptive_max_pool2d(torch.from_numpy(region)[None].float(), grid)[0]
    np.testing.assert_array_equal(touched(region, grid), most > 0)
