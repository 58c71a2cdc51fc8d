"""Made products: pictures that follow from a number, good ones alike, defects where their masks say."""

import numpy as np
import pytest

from handful.training import products as made
from handful.training.products import DEFECTIVE, GOOD, REFERENCES, made_product

SIZE = (48, 64)


@pytest.fixture(scope="module")
def products():
    return [list(made_product(number, SIZE)) for number in range(4)]


def test_a_product_has_good_pictures_and_then_defective_pictures_with_masks(products):
    for product in products:
        assert len(product) == REFERENCES + GOOD + DEFECTIVE
        assert all(picture.shape == (*SIZE, 3) and picture.dtype == np.uint8 for picture, _ in product)
        assert [bool(mask.any()) for _, mask in product] == [False] * (REFERENCES + GOOD) + [True] * DEFECTIVE


def test_a_number_gives_the_same_pictures_again(products):
    for (picture, mask), (again, same) in zip(products[2], made_product(2, SIZE), strict=True):
        assert np.array_equal(picture, again) and np.array_equal(mask, same)


def test_a_defect_lies_where_its_mask_says(products, monkeypatch):
    monkeypatch.setattr(made, "make_defect", lambda picture, *_, **__: (picture, None))
    for product, number in zip(products, range(4), strict=True):
        for (picture, mask), (before, _) in zip(product, made_product(number, SIZE), strict=True):
            changed = (picture != before).any(2)
            assert not changed[~mask].any() and changed.any() == mask.any()


def test_good_pictures_of_a_product_are_nearer_in_colour_than_those_of_others(products):
    colours = np.array([[picture.mean((0, 1)) for picture, _ in product[:REFERENCES]] for product in products])
    within = max(np.linalg.norm(own - own.mean(0), axis=1).max() for own in colours)
    middles = colours.mean(1)
    between = min(np.linalg.norm(middles[a] - middles[b]) for a in range(4) for b in range(a))
    assert within < between
    assert not np.array_equal(products[0][0][0], products[0][1][0])  # and no picture comes twice
