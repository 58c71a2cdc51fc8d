import numpy as np
import pytest
from scipy import ndimage

from handful.inspection.evidence import components


def as_scipy_finds(mask):
    labels, _ = ndimage.label(mask, structure=np.ones((3, 3)))
    return [(*box, labels[box] == number) for number, box in enumerate(ndimage.find_objects(labels), 1)]


def assert_equal(mask):
    found, expected = components(mask), as_scipy_finds(mask)
    assert [one[:2] for one in found] == [one[:2] for one in expected]
    for (*_, inside), (*_, wanted) in zip(found, expected, strict=True):
        np.testing.assert_array_equal(inside, wanted)


@pytest.mark.parametrize("share", [0.05, 0.2, 0.4, 0.6, 0.95])
@pytest.mark.parametrize("size", [(1, 1), (1, 9), (9, 1), (7, 13), (60, 40)])
@pytest.mark.parametrize("seed", range(4))
def test_components_are_scipys_in_its_order(seed, size, share):
    assert_equal(np.random.default_rng(seed).random(size) < share)


@pytest.mark.parametrize("value", [True, False])
def test_a_whole_and_an_empty_mask(value):
    assert_equal(np.full((5, 8), value))


def test_a_spiral_and_a_comb_are_one_component_each():
    comb = np.zeros((40, 41), np.bool_)
    comb[:, ::2] = True
    comb[-1] = True
    assert_equal(comb)
    spiral = np.zeros((41, 41), np.bool_)
    for ring in range(0, 20, 2):
        spiral[ring, ring : 41 - ring] = spiral[ring : 41 - ring, 40 - ring] = True
        spiral[40 - ring, ring : 41 - ring] = spiral[ring + 2 : 41 - ring, ring] = True
        spiral[ring + 2, ring : ring + 3] = True
    assert_equal(spiral)
    assert len(components(comb)) == len(components(spiral)) == 1


def test_runs_at_both_edges_of_neighbouring_rows_do_not_touch():
    mask = np.zeros((2, 5), np.bool_)
    mask[0, 4] = mask[1, 0] = True
    assert len(components(mask)) == 2
