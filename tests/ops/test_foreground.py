import numpy as np
import pytest

from handful.ops.foreground import foreground


def disc(radius, *, centre=(128, 128), size=(256, 256)):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - centre[0]) ** 2 + (columns - centre[1]) ** 2 < radius**2


def scene(part, *, ground=200, colour=(120, 60, 60), noise=6, seed=0):
    pixels = np.full((*part.shape, 3), ground, dtype=float)
    pixels[part] = colour
    pixels += np.random.default_rng(seed).normal(0, noise, pixels.shape)
    return np.clip(pixels, 0, 255).astype(np.uint8)


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


@pytest.mark.parametrize("ground", [0, 200, 255])
@pytest.mark.parametrize(("radius", "centre"), [(60, (128, 128)), (40, (70, 180)), (110, (128, 128))])
def test_a_part_on_an_even_ground_is_found(ground, radius, centre):
    part = disc(radius, centre=centre)
    # The map is worked out at 64 pixels: a rim of 2 of these discs' 40 to 110 pixels.
    assert overlap(foreground(scene(part, ground=ground)), part) > 0.9


def test_what_a_part_encloses_belongs_to_it():
    whole, hole = disc(80), disc(30)
    assert overlap(foreground(scene(whole & ~hole)), whole) > 0.93


def test_a_faint_part_on_a_noisy_ground_is_found():
    part = disc(60)
    assert overlap(foreground(scene(part, ground=128, colour=(105, 105, 105), noise=12)), part) > 0.9


def spots(seed=0):
    """An even border, and inside it spots of all strengths, most of them faint."""
    strengths = np.zeros((16, 16))
    strengths[1:-1, 1:-1] = np.random.default_rng(seed).exponential(25, (14, 14))
    return np.clip(40 + strengths.repeat(16, 0).repeat(16, 1)[..., None].repeat(3, 2), 0, 255).astype(np.uint8)


@pytest.mark.parametrize(
    "picture",
    [
        scene(np.zeros((256, 256), dtype=bool), noise=20),
        scene(np.zeros((256, 256), dtype=bool), noise=0),
        spots(),
        scene(disc(12)),
        scene(disc(60, centre=(128, 0))),
        scene(np.tile(np.arange(256) < 128, (256, 1))),
        scene(np.tile(np.arange(256) < 128, (256, 1)), ground=0, colour=(255, 255, 255), noise=0),
        scene(np.tile(np.arange(256) % 16 < 8, (256, 1))),
        np.repeat(np.linspace(0, 255, 256).astype(np.uint8)[None, :, None], 256, 0).repeat(3, 2),
    ],
    ids=["noise", "flat", "spots", "speck", "cut off", "half", "black and white", "stripes", "ramp"],
)
def test_where_there_is_no_part_on_an_even_ground_it_is_everywhere(picture):
    assert foreground(picture).all()


@pytest.mark.parametrize("size", [(32, 32), (8, 8), (5, 5), (64, 300), (400, 90)])
def test_the_map_has_the_pictures_size(size):
    part = disc(min(size) / 3, centre=(size[0] / 2, size[1] / 2), size=size)
    found = foreground(scene(part, noise=0))
    assert (found.shape, found.dtype) == (size, bool)
    assert found.any()


def test_the_picture_is_left_alone_and_gives_the_same_map_again():
    picture = scene(disc(60))
    before = picture.copy()
    assert (foreground(picture) == foreground(picture)).all()
    assert (picture == before).all()
