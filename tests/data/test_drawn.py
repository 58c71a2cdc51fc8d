"""The drawn product: good parts differ a little, a defect differs from its good part in one place."""

import numpy as np
import pytest

from handful.data import drawn


def difference(one, other):
    return abs(one.astype(float) - other.astype(float)).max(axis=2)


@pytest.fixture(scope="module")
def good():
    return drawn.part(7)


def test_a_seed_is_a_picture(good):
    assert good.shape == (drawn.SIDE, drawn.SIDE, 3)
    assert good.dtype == np.uint8
    assert np.array_equal(good, drawn.part(7))


def test_good_parts_differ_a_little(good):
    other = drawn.part(8)
    assert not np.array_equal(good, other)
    coarse, others = (picture.reshape(16, 32, 16, 32, 3).mean((1, 3)) for picture in (good, other))
    assert abs(coarse - others).max() < 50  # of 255, over blocks of 32 pixels: light and place differ
    assert abs(coarse - others).max() > 1
    assert coarse.max() - coarse.min() > 120  # the plate and the belt


@pytest.mark.parametrize("kind", drawn.DEFECTS)
def test_a_defect_changes_one_place(good, kind):
    changed = difference(good, drawn.part(7, kind)) > 40
    assert 60 < changed.sum() < 0.03 * changed.size  # pixels: a scratch is thin, and no defect is larger than a screw
    rows, columns = np.nonzero(changed)
    assert np.ptp(rows) < 0.3 * drawn.SIDE
    assert np.ptp(columns) < 0.3 * drawn.SIDE


def test_the_parts_are_named_by_their_defects():
    listed = drawn.parts(2, 7, seed=10)
    assert [name.split("/")[0] for name, _, _ in listed] == ["good"] * 2 + ["defective"] * 7
    assert [kind for _, _, kind in listed] == [None, None, *drawn.DEFECTS, drawn.DEFECTS[0]]
    assert len({seed for _, seed, _ in listed}) == len({name for name, _, _ in listed}) == 9
