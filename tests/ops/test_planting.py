import itertools
import math

import numpy as np
import pytest
import torch

from handful.ops import planting
from handful.ops.defects import RECIPES
from handful.ops.frames import Placement, whole
from handful.ops.planting import CLEAR, LENGTHS, LUMA, disc, plan, plant_defect, plant_spot, spot_diameters


def surface(seed, *, mean=0.5, size=(96, 96)):
    """An even surface with a little grain, (3, H, W)."""
    generator = torch.Generator().manual_seed(seed)
    return (mean + 0.01 * torch.randn(3, *size, generator=generator)).clamp(0, 1)


def plans(count, *, order=None, parts=None, size=(96, 96)):
    images = [surface(seed, size=size) for seed in range(count)]
    parts = parts or [whole(size)] * count
    order = range(count) if order is None else order
    made = plan(images, list(order), parts, [(192, 192)] * count, views=7, patch=8)
    return images, made


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
@pytest.mark.parametrize("mean", [0.03, 0.5, 0.97])
def test_a_defect_is_clearly_darker_or_brighter_and_leaves_the_rest_to_the_bit(recipe, mean):
    everywhere = np.ones((96, 96), dtype=bool)
    for seed, length in itertools.product(range(3), LENGTHS):
        image = surface(seed, mean=mean)
        made = plant_defect(image, everywhere, recipe=recipe, length=length, seed=(seed,))
        changed = (made != image).any(0)
        assert 0 < changed.sum() < 0.3 * length**2 * changed.numel()
        difference = abs(float(LUMA @ (made - image)[:, changed].mean(1)))
        assert difference > CLEAR - 0.02  # values are cut off at black and white, and rounded to 8 bits
        assert made.min() >= 0 and made.max() <= 1


def test_a_spot_is_dark_where_the_picture_is_bright_and_bright_where_it_is_dark():
    for mean, there in ((0.8, 0.4), (0.2, 0.6)):
        image = torch.full((3, 40, 40), mean)
        made = plant_spot(image, (20, 10), (8.0, 8.0))
        assert made[:, 20, 10].tolist() == pytest.approx([there] * 3)
        rows, columns = np.nonzero((made != image).any(0).numpy())
        assert (rows.min(), rows.max(), columns.min(), columns.max()) == (16, 24, 6, 14)


@pytest.mark.parametrize("diameters", [(2.0, 2.0), (5.0, 5.0), (30.0, 20.0)])
def test_the_shares_of_a_spot_sum_to_its_area(diameters):
    shares, (rows, columns) = disc((64, 64), (32, 31), diameters)
    assert shares.sum() == pytest.approx(
        math.pi / 4 * math.prod(diameters), rel=0.04
    )  # the smallest is counted by 8 x 8 points a pixel
    assert shares.shape == (rows.stop - rows.start, columns.stop - columns.start)


def test_a_spot_at_the_edge_is_cut_off():
    shares, box = disc((64, 64), (0, 63), (9.0, 9.0))
    assert box == (slice(0, 6), slice(58, 64)) and shares.max() == 1


def test_diameters_double_from_half_a_patch_to_a_quarter_of_the_side():
    assert spot_diameters(320, patch=8) == [4, 8, 16, 32, 64]
    assert spot_diameters(64, patch=16) == [8, 16]
    assert spot_diameters(8, patch=32) == [16]  # never none


def test_every_picture_takes_its_turn_whatever_the_order_they_came_in():
    images, made = plans(4)
    counts = np.bincount([one.row for one in made if one.diameter is None])
    assert counts.tolist() == [5, 5, 4, 4] and {one.view for one in made} == {0}
    _, other = plans(4, order=[3, 2, 1, 0])
    assert [3 - one.row for one in other] == [one.row for one in made]
    assert torch.equal(made[0].draw(images[0]), made[0].draw(images[0]))  # drawn again it is the same
    assert not torch.equal(made[0].draw(images[0]), made[6].draw(images[0]))  # another of the same kind


def test_a_single_picture_is_varied_before_a_defect_is_planted_on_it():
    _, made = plans(1)
    assert {one.row for one in made} == {0} and {one.view for one in made} == set(range(1, 7))


def test_spots_of_all_diameters_lie_at_as_many_places_and_are_measured_in_the_pictures_pixels():
    images, made = plans(1)
    spots = [one for one in made if one.diameter is not None]
    assert [one.diameter for one in spots] == [8.0, 16.0, 32.0] * planting.PLACES  # 96 pixels show 192
    areas = [float((one.draw(images[0]) != images[0]).any(0).sum()) for one in spots[:3]]
    assert areas == sorted(areas)


def test_defects_lie_on_the_part_and_inside_the_picture():
    part = torch.full((3, 96, 96), 0.1)
    part[:, 30:66, 24:72] = 0.7
    made = plan([part], [0], [whole((96, 96))], [(96, 96)], views=7, patch=8)
    for one in made[: len(RECIPES)]:
        rows, columns = np.nonzero((one.draw(part) != part).any(0).numpy())
        assert rows.max() >= 20 and rows.min() <= 76 and columns.max() >= 14 and columns.min() <= 82
    frame = Placement((96, 96), 32, 0, 32, 96)  # a wide picture, mirrored above and below
    image = surface(3)
    for one in plan([image], [0], [frame], [(96, 32)], views=7, patch=8):
        if one.diameter is not None:
            rows, _ = np.nonzero((one.draw(image) != image).any(0).numpy())
            assert 32 <= (rows.min() + rows.max()) / 2 <= 63.5


def test_a_spot_is_round_in_the_original_picture():
    image = torch.full((3, 96, 96), 0.8)
    made = plan([image], [0], [whole((96, 96))], [(192, 96)], views=7, patch=8)  # squeezed to half its width
    ratios = []
    for one in made:
        rows, columns = np.nonzero((one.draw(image) != image).any(0).numpy())
        inside = 0 < rows.min() and rows.max() < 95 and 0 < columns.min() and columns.max() < 95
        if one.diameter is not None and inside:
            ratios.append((np.ptp(rows) + 1) / (np.ptp(columns) + 1))
    assert len(ratios) >= 3 and np.median(ratios) == pytest.approx(2, rel=0.2)
