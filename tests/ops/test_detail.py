import numpy as np
import pytest
from PIL import Image
from scipy import ndimage

from handful.ops.detail import BANDS, energies, needed_share


def texture(side=400, *, seed=0, aspect=1.0):
    """Grey of as much energy in every octave, 8 bits: (side, side * aspect, 3)."""
    size = (side, round(side * aspect))
    frequencies = np.hypot(*np.meshgrid(*(np.fft.fftfreq(length) for length in size), indexing="ij"))
    waves = np.fft.fft2(np.random.default_rng(seed).normal(size=size)) / np.maximum(frequencies, 1 / side)
    grey = np.fft.ifft2(waves).real
    pixels = (127 + 40 * grey / grey.std()).clip(0, 255).astype(np.uint8)
    return np.repeat(pixels[:, :, None], 3, 2)


def enlarged(pixels, factor):
    height, width, _ = pixels.shape
    size = (round(width * factor), round(height * factor))
    return np.asarray(Image.fromarray(pixels).resize(size, Image.Resampling.BICUBIC))


def test_a_texture_with_detail_up_to_its_pixels_needs_them_all():
    assert needed_share([energies(texture())], least=0.1) == 1


def test_noise_needs_all_pixels():
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3)).astype(np.uint8)
    assert needed_share([energies(noise)], least=0.1) == 1


@pytest.mark.parametrize("factor", [1.5, 2, 3])
def test_an_enlarged_texture_needs_about_as_many_pixels_as_before(factor):
    needed = needed_share([energies(enlarged(texture(), factor))], least=0.1) * factor
    assert 0.8 <= needed <= 1.55  # a step of 2^(1/4) less to two more, and a half for rounding


def test_a_blurred_texture_needs_fewer_pixels():
    soft = np.stack([ndimage.gaussian_filter(texture()[..., 0].astype(float), 4)] * 3, 2).round().astype(np.uint8)
    assert needed_share([energies(soft)], least=0.05) < 0.45


def test_an_even_picture_needs_the_least():
    even = np.full((300, 400, 3), 90, np.uint8)
    least = 0.3
    assert least <= needed_share([energies(even)], least=least) < 1.5 * least  # two steps at most


def test_of_several_pictures_the_mean_counts():
    sharp, soft = energies(texture()), energies(enlarged(texture(), 3))
    assert needed_share([sharp, soft, soft], least=0.1) == 1  # what one shows is to be seen


def test_16_bits_count_by_what_is_white():
    pixels = texture()
    assert np.allclose(energies(pixels.astype(np.uint16) * 257, most=65535.0), energies(pixels))


def test_energies_add_up_to_the_variance():
    noise = np.repeat(np.random.default_rng(0).integers(0, 256, (256, 256, 1)), 3, 2).astype(np.uint8)
    found = energies(noise)
    assert found.shape == (BANDS,) and found.sum() == pytest.approx(float(noise[..., 0].var()), rel=0.03)
