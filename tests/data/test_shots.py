"""The draw of references: distinct, repeatable, nested."""

import pytest

from handful.data.shots import draw
from handful.errors import SettingError

NAMES = [f"{number:03d}.png" for number in range(20)]


def test_shots_are_distinct_members_of_the_list():
    drawn = draw(NAMES, shots=8, seed=0)
    assert len(set(drawn)) == 8
    assert set(drawn) <= set(NAMES)


def test_same_seed_same_draw_and_the_list_stays_as_it_was():
    names = NAMES.copy()
    assert draw(names, shots=4, seed=3) == draw(tuple(names), shots=4, seed=3)
    assert names == NAMES


def test_draws_of_published_seeds_stay():
    # torch 2.13's randperm on the CPU; the benchmarks' references hang on it.
    assert draw(range(10), shots=4, seed=0) == [4, 1, 7, 5]
    assert draw(range(10), shots=4, seed=1) == [5, 6, 1, 2]


def test_seeds_draw_differently():
    assert len({tuple(draw(NAMES, shots=4, seed=seed)) for seed in range(10)}) == 10


def test_more_shots_keep_the_first_ones():
    for shots in range(1, 20):
        assert draw(NAMES, shots=shots + 1, seed=5)[:shots] == draw(NAMES, shots=shots, seed=5)


def test_all_shots_are_the_whole_list():
    assert sorted(draw(NAMES, shots=20, seed=0)) == NAMES


def test_draw_does_not_depend_on_or_touch_the_global_seed():
    import torch

    torch.manual_seed(1)
    first, state = draw(NAMES, shots=4, seed=0), torch.get_rng_state()
    assert torch.equal(state, torch.manual_seed(1).get_state())
    torch.manual_seed(2)
    assert draw(NAMES, shots=4, seed=0) == first


@pytest.mark.parametrize("shots", [0, -1, 21])
def test_more_or_fewer_shots_than_pictures_are_refused(shots):
    with pytest.raises(SettingError, match=rf"`shots` must be from 1 to the 20 pictures there are, got {shots}\."):
        draw(NAMES, shots=shots, seed=0)


@pytest.mark.parametrize("seed", [-1, 2**63, 10**30])
def test_seed_out_of_bounds_is_refused(seed):
    with pytest.raises(SettingError, match=rf"`seed` must be .*, got {seed}\."):
        draw(NAMES, shots=1, seed=seed)
