"""Pixels land whole in the model-input frame, whatever their depth, size and aspect."""

import numpy as np
import pytest
from PIL import Image

from handful.data.images import read_picture
from handful.data.preprocessing import Preprocessing, bits_of, thumbnail

SMOOTH = np.linspace(0, 255, 40 * 50, dtype=np.uint8).reshape(40, 50)[:, :, None].repeat(3, axis=2)


def deep(values) -> np.ndarray:
    return np.asarray(values, np.uint16)


def test_frame_is_channels_height_width_in_0_to_1():
    frame = Preprocessing((64, 32))(read_picture(SMOOTH))
    assert frame.shape == (3, 64, 32)
    assert frame.dtype == np.float32 and frame.flags.c_contiguous
    assert frame.min() >= 0
    assert frame.max() <= 1


def test_picture_of_the_frames_size_keeps_its_values():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    frame = Preprocessing((32, 48))(read_picture(pixels))
    np.testing.assert_allclose(frame, pixels.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_deep_picture_of_the_frames_size_keeps_its_values():
    pixels = np.random.default_rng(0).integers(0, 4096, (32, 48, 3)).astype(np.uint16)
    frame = Preprocessing((32, 48), bits=12)(read_picture(pixels))
    np.testing.assert_allclose(frame, pixels.transpose(2, 0, 1) / 4095, rtol=1e-6)


def test_nothing_is_cropped_away():
    pixels = np.zeros((300, 100, 3), np.uint8)
    pixels[:30, :10, 0] = pixels[-30:, -10:, 1] = 255  # marks in opposite corners
    frame = Preprocessing((60, 60))(read_picture(pixels))
    assert frame[0, :4, :4].min() > 0.9
    assert frame[1, -4:, -4:].min() > 0.9
    assert frame[0, 30:].max() == frame[1, :30].max() == 0


def test_shrinking_averages_instead_of_picking():
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    frame = Preprocessing((64, 64))(read_picture(stripes))
    assert abs(frame - 0.5).max() < 0.02  # all grey, but for the rounding to 8 bits and the borders


@pytest.mark.parametrize("size", [(40, 50), (64, 64), (20, 90)])
def test_deep_picture_comes_close_to_its_8_bit_twin(size):
    shallow = Preprocessing(size)(read_picture(SMOOTH))
    twin = Preprocessing(size, bits=16)(read_picture(SMOOTH.astype(np.uint16) * 257))
    # 8-bit pictures are rounded to 8 bits by each of the two passes of the resize.
    assert abs(shallow - twin).max() <= 1 / 255


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bits_in_a_16_bit_file_use_the_whole_range(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)).save(path)
    picture = read_picture(path)
    frame = Preprocessing((64, 64), bits_of([picture]))(picture)
    assert frame.min() == 0
    assert frame.max() == 1
    dark = Preprocessing((64, 64))(picture)
    assert dark.max() == pytest.approx(4095 / 65535)


def test_pixel_beyond_the_references_depth_is_clipped():
    frame = Preprocessing((32, 32), bits=12)(read_picture(np.full((32, 32), 60_000, np.uint16)))
    assert frame.min() == frame.max() == 1


def test_8_bit_picture_is_scaled_by_255_whatever_the_references_depth():
    picture = read_picture(SMOOTH)
    np.testing.assert_array_equal(Preprocessing((32, 32), bits=12)(picture), Preprocessing((32, 32))(picture))


@pytest.mark.parametrize(
    ("highest", "bits"),
    [(0, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16), (65535, 16)],
)
def test_bits_are_the_fewest_that_hold_the_highest_pixel(highest, bits):
    assert bits_of([read_picture(deep([[0, highest]]))]) == bits


def test_bits_of_several_hold_all_of_them_and_pass_over_8_bits():
    pictures = [read_picture(source) for source in (SMOOTH, deep([[3]]), deep([[2000]]))]
    assert bits_of(pictures) == 12
    assert bits_of([read_picture(SMOOTH)]) == 16


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((400, 200), (256, 128)), ((200, 400), (128, 256)), ((50, 20), (50, 20)), ((5000, 1), (256, 1))],
)
def test_thumbnail_keeps_the_aspect_and_never_enlarges(shape, expected):
    small = thumbnail(read_picture(np.full((*shape, 3), 90, np.uint8)), longest=256)
    assert small.shape == (*expected, 3)
    assert small.dtype == np.uint8
    assert small.min() == small.max() == 90


def test_thumbnail_stretches_a_deep_picture_to_be_seen():
    small = thumbnail(read_picture(deep([[100, 200], [300, 300]])), longest=256)
    assert small[:, :, 0].tolist() == [[0, 127], [255, 255]]


def test_thumbnail_of_a_flat_deep_picture_is_black():
    assert thumbnail(read_picture(deep([[500, 500]])), longest=256).max() == 0
