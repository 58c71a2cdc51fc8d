"""A picture comes out as Pillow resizes it across and then down, by one thread or two."""

import numpy as np
import pytest
from PIL import Image

from handful.data.resizing import resize

SHAPES = [(1, 1), (1, 90), (97, 64), (64, 61), (90, 61), (500, 90), (90, 500), (900, 700), (33, 2400)]


def by_pillow(pixels, size):
    """In levels of 0 to 255; one axis at a time, as Pillow would choose the order itself."""
    narrow = Image.fromarray(pixels).resize((size[1], len(pixels)), Image.Resampling.BICUBIC)
    return np.asarray(narrow.resize((size[1], size[0]), Image.Resampling.BICUBIC)).transpose(2, 0, 1)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_resized_as_by_pillow(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = resize(pixels, (64, 61), halves=False)
    assert image.dtype == np.float32 and image.flags.c_contiguous
    levels = np.rint(image * 255)
    assert np.array_equal(levels / np.float32(255), image)  # rounded to 8 bits, as references were
    apart = np.abs(levels - by_pillow(pixels, (64, 61)))
    assert apart.max() <= 1
    assert (apart > 0).mean() < 5e-4


@pytest.mark.parametrize("shape", SHAPES)
def test_two_threads_make_the_same_picture(shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(resize(pixels, (64, 61), halves=True), resize(pixels, (64, 61), halves=False))


def test_channels_are_kept_apart():
    pixels = np.zeros((80, 70, 3), np.uint8)
    pixels[..., 1] = 200
    image = resize(pixels, (32, 32), halves=False)
    assert (image[[0, 2]] == 0).all() and (image[1] == np.float32(200 / 255)).all()


def test_pixels_that_do_not_lie_in_a_row_are_resized_alike():
    pixels = np.random.default_rng(2).integers(0, 256, (120, 100, 3), dtype=np.uint8)
    turned = pixels.transpose(1, 0, 2)
    assert np.array_equal(resize(turned, (32, 48), halves=True), resize(turned.copy(), (32, 48), halves=False))
