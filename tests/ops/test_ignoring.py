import numpy as np
import pytest
import torch

from handful.ops.ignoring import hidden, lowered
from handful.types import Features, Scores


def test_every_patch_that_touches_the_region_is_a_good_ones():
    queries = Features((torch.zeros(2, 4, 4, 1), torch.zeros(2, 2, 2, 1)), (8, 8))
    good = Features((torch.ones(1, 4, 4, 1), torch.ones(1, 2, 2, 1)), (8, 8))
    ignored = np.zeros((8, 8), np.bool_)
    ignored[0, 5] = ignored[3, 4] = True  # the fine patches (0, 2) and (1, 2), the coarse patch (0, 1)
    fine, coarse = hidden(queries, ignored, good).levels
    assert fine[1, :, :, 0].tolist() == [[0, 0, 1, 0], [0, 0, 1, 0], [0] * 4, [0] * 4]
    assert coarse[0, :, :, 0].tolist() == [[0, 1], [0, 0]]
    assert queries.levels[0].sum() == 0


@pytest.mark.parametrize("grid", [3, 5])
def test_grids_that_do_not_divide_the_frame_are_covered(grid):
    queries, good = (Features((torch.full((1, grid, grid, 2), value),), (8, 8)) for value in (0.0, 1.0))
    ignored = np.ones((8, 8), np.bool_)
    assert hidden(queries, ignored, good).levels[0].min() == 1


def test_maps_are_at_0_or_their_lowest_in_the_region_and_scores_stay():
    maps = torch.arange(-2.0, 6.0).reshape(2, 2, 2)
    ignored = np.array([[False, False], [False, True]])
    scores = lowered(Scores(maps, torch.tensor([3.0, 7.0])), ignored)
    assert scores.maps.tolist() == [[[-2, -1], [0, -2]], [[2, 3], [4, 0]]]
    assert scores.image.tolist() == [3, 7]
