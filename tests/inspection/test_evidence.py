import numpy as np
import pytest
import torch

from handful.inspection.evidence import Evidence, _vectors
from handful.ops.frames import Placement, whole
from handful.ops.patches import level_scales, patch_vectors
from handful.types import Region

NAMES = ("one.png", "two.png")
FRAME = (40, 80)
PARTS = (whole(FRAME), whole(FRAME))


@pytest.fixture
def learnt():
    """Two pictures of 80 x 40 pixels: 8 x 4 patches in one level, half as many a side in the other."""
    random = np.random.default_rng(0)
    return [tuple(random.normal(size=size).astype(np.float32) for size in ((4, 8, 6), (2, 4, 9))) for _ in NAMES]


def region(*peak_at):
    return Region((0, 0, 9, 9), 81, 1.5, peak_at)


def test_a_place_of_a_good_picture_is_nearest_to_itself(learnt):
    # The original has 160 x 40 pixels, so a patch of the finest level covers 20 x 10 of them.
    (found,), _ = Evidence(learnt, NAMES, PARTS).explain([region(150, 25)], learnt[1], (160, 40), PARTS[0])
    assert (found.nearest.picture, found.nearest.distance) == ("two.png", 0.0)
    assert found.nearest.at == (7.5 / 8, 2.5 / 4)
    assert found.box == (0, 0, 9, 9) and found.peak_at == (150, 25)


def test_what_is_gone_from_a_good_picture_is_found_there(learnt):
    cleared = [level.copy() for level in learnt[0]]
    cleared[0][2, 5] = cleared[0][2, 4]
    alike = Evidence(learnt, NAMES, PARTS).explain([], learnt[0], (80, 40), PARTS[0])[1]
    _, missing = Evidence(learnt, NAMES, PARTS).explain([], cleared, (80, 40), PARTS[0])
    assert alike.distance == pytest.approx(0, abs=1e-5)
    assert missing.picture == "one.png" and missing.distance > 0.1
    x, y = missing.at[0] * 8 - 0.5, missing.at[1] * 4 - 0.5
    assert abs(x - 5) <= 1 and abs(y - 2) <= 1  # a patch is seen with its neighbours


def test_levels_have_the_same_say_whatever_their_values(learnt):
    enlarged = [(fine, 100 * coarse) for fine, coarse in learnt]
    query = [np.roll(level, 1, 0) + np.float32(0.1) for level in learnt[0]]
    as_large = (query[0], 100 * query[1])
    regions = [region(x, 15) for x in range(5, 80, 10)]
    plain = Evidence(learnt, NAMES, PARTS).explain(regions, query, (80, 40), PARTS[0])
    large = Evidence(enlarged, NAMES, PARTS).explain(regions, as_large, (80, 40), PARTS[0])
    assert [one.nearest.at for one in plain[0]] == [one.nearest.at for one in large[0]]
    assert plain[1].at == large[1].at


def test_places_are_compared_by_the_vectors_that_methods_know_patches_by(learnt):
    levels = tuple(torch.from_numpy(np.stack(level)) for level in zip(*learnt, strict=True))
    scales = level_scales(levels, weights="equal")
    expected = patch_vectors(levels, scales, neighbourhood=3, dimensions=None)
    found = Evidence(learnt, NAMES, PARTS)._search[1].patches
    np.testing.assert_allclose(found, expected, atol=1e-6)  # sums of float32 in another order
    np.testing.assert_array_equal(_vectors(learnt[1], Evidence(learnt, NAMES, PARTS)._search[0]), found[1])


def test_a_picture_of_another_shape_is_compared_where_it_lies(learnt):
    """A frame of 80 x 40 pixels: the query fills its middle 40 x 40, the good picture its middle 80 x 20."""
    query, good = Placement(FRAME, 0, 20, 40, 40), Placement(FRAME, 10, 0, 20, 80)
    # The query has 100 x 100 pixels: its lower right one lies in the third patch from the right.
    (found,), _ = Evidence(learnt, NAMES, (good, good)).explain([region(99, 99)], learnt[1], (100, 100), query)
    assert (found.nearest.picture, found.nearest.distance) == ("two.png", 0.0)
    # The last row of patches is below the good picture: it mirrors its second half, of which that row is the top.
    assert found.nearest.at == (5.5 / 8, 0.75)
