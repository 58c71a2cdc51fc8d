"""A picture comes out as Pillow resizes it across and then down, by one thread or two."""

import numpy as np
import pytest
from PIL import Image

from handful.data.preprocessing import resize

SHAPES = [(1, 1), (1, 90), (97, 64), (64, 61), (90, 61), (500, 90), (90, 500), (900, 700), (33, 2400)]


def by_pillow(pixels, size):
    """One axis at a time, as Pillow would choose the order itself."""
    narrow = Image.fromarray(pixels).resize((size[1], len(pixels)), Image.Resampling.BICUBIC)
    resized = np.asarray(narrow.resize((size[1], size[0]), Image.Resampling.BICUBIC))
    return resized.transpose(2, 0, 1) / np.float32(255)


@pytest.mark.parametrize("shape", SHAPES)
def test_noise_is_resized_as_by_pillow_to_the_bit(shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    image = resize(pixels, (64, 61), halves=False)
    assert image.dtype == np.float32 and image.flags.c_contiguous
    assert np.array_equal(image, by_pillow(pixels, (64, 61)))


@pytest.mark.parametrize("period", [2, 3, 4, 7])
def test_what_lies_in_the_middle_between_two_levels_is_rounded_as_by_pillow(period):
    pixels = np.zeros((128, 126, 3), np.uint8)
    pixels[::period, :, 0] = pixels[:, ::period, 1] = pixels[::period, ::period, 2] = 255
    for size in ((64, 63), (32, 42), (128, 18), (256, 252)):
        assert np.array_equal(resize(pixels, size, halves=False), by_pillow(pixels, size))


def test_sums_that_are_off_by_less_than_the_doubt_change_nothing(monkeypatch):
    pixels = np.random.default_rng(3).integers(0, 256, (150, 140, 3), dtype=np.uint8)
    multiply = np.matmul

    def worse(one, other, out=None):
        product = multiply(one, other, out=out)
        product += np.float32(1e-4) * np.sign(np.sin(np.arange(product.size))).reshape(product.shape)
        return product

    monkeypatch.setattr(np, "matmul", worse)
    assert np.array_equal(resize(pixels, (64, 61), halves=False), by_pillow(pixels, (64, 61)))


@pytest.mark.parametrize("shape", SHAPES)
def test_two_threads_make_the_same_picture(shape):
    pixels = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(resize(pixels, (64, 61), halves=True), resize(pixels, (64, 61), halves=False))


def test_nothing_of_the_picture_before_is_left():
    resize(np.full((700, 800, 3), 255, np.uint8), (64, 61), halves=True)
    pixels = np.zeros((50, 40, 3), np.uint8)
    assert (resize(pixels, (64, 61), halves=True) == 0).all()


def test_channels_are_kept_apart():
    pixels = np.zeros((80, 70, 3), np.uint8)
    pixels[..., 1] = 200
    image = resize(pixels, (32, 32), halves=False)
    assert (image[[0, 2]] == 0).all() and (image[1] == np.float32(200 / 255)).all()


def test_pixels_that_do_not_lie_in_a_row_are_resized_alike():
    pixels = np.random.default_rng(2).integers(0, 256, (120, 100, 3), dtype=np.uint8)
    turned = pixels.transpose(1, 0, 2)
    assert np.array_equal(resize(turned, (32, 48), halves=True), resize(turned.copy(), (32, 48), halves=False))
