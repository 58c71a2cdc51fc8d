import pytest
import torch

from handful.evidence import Evidence
from handful.types import Features, Region

NAMES = ("one.png", "two.png")


@pytest.fixture
def learnt():
    """Two pictures of 80 x 40 pixels: 8 x 4 patches in one level, half as many a side in the other."""
    generator = torch.Generator().manual_seed(0)
    return [
        Features((torch.randn(1, 4, 8, 6, generator=generator), torch.randn(1, 2, 4, 9, generator=generator)), (40, 80))
        for _ in NAMES
    ]


def region(*peak_at):
    return Region((0, 0, 9, 9), 81, 1.5, peak_at)


def test_a_place_of_a_good_picture_is_nearest_to_itself(learnt):
    # The original has 160 x 40 pixels, so a patch of the finest level covers 20 x 10 of them.
    (found,), _ = Evidence(learnt, NAMES).explain([region(150, 25)], learnt[1], (160, 40))
    assert (found.nearest.picture, found.nearest.distance) == ("two.png", 0.0)
    assert found.nearest.at == (7.5 / 8, 2.5 / 4)
    assert found.box == (0, 0, 9, 9) and found.peak_at == (150, 25)


def test_what_is_gone_from_a_good_picture_is_found_there(learnt):
    cleared = [level.clone() for level in learnt[0].levels]
    cleared[0][0, 2, 5] = cleared[0][0, 2, 4]
    alike = Evidence(learnt, NAMES).explain([], learnt[0], (80, 40))[1]
    _, missing = Evidence(learnt, NAMES).explain([], Features(tuple(cleared), (40, 80)), (80, 40))
    assert alike.distance == pytest.approx(0, abs=1e-5)
    assert missing.picture == "one.png" and missing.distance > 0.1
    x, y = missing.at[0] * 8 - 0.5, missing.at[1] * 4 - 0.5
    assert abs(x - 5) <= 1 and abs(y - 2) <= 1  # a patch is seen with its neighbours


def test_levels_have_the_same_say_whatever_their_values(learnt):
    enlarged = [Features((one.levels[0], 100 * one.levels[1]), one.size) for one in learnt]
    query = Features(tuple(level.roll(1, 1) + 0.1 for level in learnt[0].levels), (40, 80))
    as_large = Features((query.levels[0], 100 * query.levels[1]), (40, 80))
    regions = [region(x, 15) for x in range(5, 80, 10)]
    plain = Evidence(learnt, NAMES).explain(regions, query, (80, 40))
    large = Evidence(enlarged, NAMES).explain(regions, as_large, (80, 40))
    assert [one.nearest.at for one in plain[0]] == [one.nearest.at for one in large[0]]
    assert plain[1].at == large[1].at
