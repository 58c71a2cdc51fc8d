"""Frames follow the references' shape, and a picture of another shape lies whole in the middle."""

import math

import numpy as np
import pytest

from handful.ops.frames import ALIKE, Placement, frame_size, placement_of, shared_aspect, whole


@pytest.mark.parametrize("side", [64, 100, 224, 320, 512])
def test_square_references_get_the_side_that_was_asked_for(side):
    assert frame_size(side, 1.0) == frame_size(side, 1.02) == (side, side)


@pytest.mark.parametrize(
    ("aspect", "size"), [(320 / 806, (480, 192)), (4 / 3, (288, 384)), (0.75, (384, 288)), (3.0, (192, 576))]
)
def test_frame_has_about_the_area_and_the_aspect(aspect, size):
    assert frame_size(320, aspect) == size


@pytest.mark.parametrize("aspect", np.geomspace(1 / 8, 8, 41))
def test_rounding_the_sides_keeps_within_what_counts_as_alike(aspect):
    height, width = frame_size(320, aspect)
    assert height % 32 == width % 32 == 0
    assert abs(math.log(width / height / aspect)) < math.log(1.07)
    assert abs(math.log(height * width / 320**2)) < math.log(1.25)
    assert frame_size(320, 1 / aspect) == (width, height)
    assert placement_of((round(10_000 * aspect), 10_000), (height, width)).is_whole


@pytest.mark.parametrize("aspect", [0.4, 1.0, 3.0])
def test_sides_are_whole_patches_where_a_patch_does_not_divide_32(aspect):
    height, width = frame_size(320, aspect, patch=14)
    assert height % 14 == width % 14 == 0
    assert (height, width) == (322, 322) or aspect != 1
    assert frame_size(320, aspect, patch=16) == frame_size(320, aspect)


def test_alike_aspects_fill_the_frame_and_others_keep_their_own():
    frame = (320, 320)
    assert (
        placement_of((1000, 1000), frame)
        == placement_of((1099, 1000), frame)
        == placement_of((1000, 1099), frame)
        == whole(frame)
    )
    assert placement_of((1101, 1000), frame) == Placement(frame, 14, 0, 291, 320)
    assert placement_of((100, 300), frame) == Placement(frame, 0, 106, 320, 107)
    assert placement_of((10_000, 1), frame).size == (1, 320)
    assert ALIKE == 1.1


def test_around_a_part_the_picture_is_mirrored_and_cut_it_comes_back():
    values = np.arange(6.0).reshape(2, 3)
    part = Placement((6, 3), 2, 0, 2, 3)
    frame = part.mirrored(values)
    np.testing.assert_array_equal(frame, values[[1, 0, 0, 1, 1, 0]])
    np.testing.assert_array_equal(part.cut(frame), values)
    assert whole((2, 3)).mirrored(values) is values and whole((2, 3)).cut(values) is values


def test_more_than_one_mirror_image_fits_beside_a_narrow_picture():
    frame = Placement((2, 9), 0, 4, 2, 2).mirrored(np.array([[[1.0, 2], [3, 4]]]))
    np.testing.assert_array_equal(frame[0, 0], [1, 2, 2, 1, 1, 2, 2, 1, 1])


def test_places_go_from_picture_to_grid_and_back():
    part = placement_of((300, 100), (300, 300))  # rows 100 to 199
    assert part.cell_of((0, 0), (300, 100), (30, 30)) == (10, 0)
    assert part.cell_of((299, 99), (300, 100), (30, 30)) == (19, 29)
    assert part.in_picture((0.5, 0.5)) == (0.5, 0.5)
    assert part.in_picture((0.25, 0.4)) == pytest.approx((0.25, 0.2))
    assert part.in_picture((0.25, 0.3)) == pytest.approx((0.25, 0.1))  # above the picture: mirrored
    assert part.in_picture((0.25, 0.7)) == pytest.approx((0.25, 0.9))  # below


def test_the_shared_aspect_is_that_of_a_picture_or_none_where_they_differ():
    assert shared_aspect([2.0, 2.1]) == 2.0
    assert shared_aspect([2.1, 2.0, 2.05]) == 2.05
    assert shared_aspect([1.0, 1.0, ALIKE * 1.001]) is None
