import numpy as np
import pytest
import torch

from handful.ops.views import _moved, mild_views, random_view, random_views, turned_view

STILL = {"crop": 1.0, "jitter": 0.0, "blur": 0.0}


def test_views_are_mild_different_and_always_the_same():
    image = torch.rand(3, 64, 96, generator=torch.Generator().manual_seed(0))
    views = mild_views(image, 7)
    assert torch.equal(views[0], image)
    assert all(torch.equal(one, other) for one, other in zip(views, mild_views(image, 7), strict=True))
    assert len({float(view.sum()) for view in views}) == 7
    assert all(view.shape == image.shape and 0 <= float(view.min()) and float(view.max()) <= 1 for view in views)


def test_fewer_views_are_the_first_ones():
    image = torch.rand(3, 32, 32, generator=torch.Generator().manual_seed(0))
    assert len(mild_views(image, 3)) == 3
    assert torch.equal(mild_views(image, 7)[2], mild_views(image, 3)[2])


def test_a_quarter_turn_of_an_oblong_picture_keeps_its_proportions():
    image = torch.zeros(3, 60, 120)
    image[:, 28:32, 50:70] = 1  # a bar 20 wide, 4 high, in the middle
    turned = _moved(image, degrees=90)
    middle = turned[0, :, 40:80]  # beyond it, mirrored borders come into view
    rows = middle.sum(1) > 0.5
    columns = middle.sum(0) > 0.5
    assert abs(int(rows.sum()) - 20) <= 2
    assert abs(int(columns.sum()) - 4) <= 2


def noise(*shape):
    return torch.rand(*shape, generator=torch.Generator().manual_seed(0))


def test_random_views_differ_and_the_same_seed_gives_the_same_ones():
    image = noise(3, 40, 60)
    views = random_views(image, 5)
    assert len({float(view.sum()) for view in views}) == 5
    assert all(view.shape == image.shape and 0 <= float(view.min()) and float(view.max()) <= 1 for view in views)
    assert all(torch.equal(one, other) for one, other in zip(views, random_views(image, 7), strict=False))
    assert not torch.equal(views[0], random_views(image, 1, seed=1)[0])
    assert random_views(image, 0) == []


def test_every_picture_varies_in_the_same_ways():
    bright, dark = (random_views(torch.full((3, 32, 32), value), 3) for value in (0.5, 0.4))
    for one, other in zip(bright, dark, strict=True):
        assert float(other.mean()) == pytest.approx(0.8 * float(one.mean()), rel=1e-5)  # the same brightness


def test_without_any_strength_a_view_is_the_picture():
    image = noise(3, 40, 60)
    view = random_view(image, generator=np.random.default_rng(0), **STILL)
    assert torch.allclose(view, image, atol=1e-5)  # it is still looked up between pixels


def test_a_crop_keeps_its_share_of_the_area_and_the_aspect():
    rows, columns = torch.meshgrid(torch.arange(80.0) / 80, torch.arange(120.0) / 120, indexing="ij")
    image = torch.stack([rows, columns, columns])
    for seed in range(10):
        view = random_view(image, generator=np.random.default_rng(seed), **{**STILL, "crop": 0.5})
        down, across = (float(view[channel].max() - view[channel].min()) for channel in (0, 1))
        assert down == pytest.approx(across, abs=0.03)  # two pixels of 80
        assert 0.5**0.5 - 0.03 < down <= 1


def test_brightness_and_contrast_change_no_more_than_asked():
    image = 0.4 + 0.1 * noise(3, 32, 32)
    views = [
        random_view(image, generator=np.random.default_rng(seed), **{**STILL, "jitter": 0.2}) for seed in range(20)
    ]
    means = [float(view.mean() / image.mean()) for view in views]
    spreads = [float(view.std() / view.mean() / (image.std() / image.mean())) for view in views]
    for ratios in (means, spreads):
        assert 0.8 - 1e-3 < min(ratios) < 0.9 and 1.1 < max(ratios) < 1.2 + 1e-3


def test_a_blur_smooths_and_keeps_the_mean():
    image = noise(3, 48, 48)
    stds = [
        float(random_view(image, generator=np.random.default_rng(seed), **{**STILL, "blur": 2.0}).std())
        for seed in range(5)
    ]
    assert all(std < 0.95 * float(image.std()) for std in stds)
    even = torch.full((3, 20, 20), 0.3)
    assert torch.allclose(random_view(even, generator=np.random.default_rng(0), **{**STILL, "blur": 2.0}), even)


@pytest.mark.parametrize(("shape", "ways"), [((3, 16, 16), 8), ((3, 16, 24), 4)])
def test_turned_pictures_take_every_way_that_keeps_their_shape(shape, ways):
    image = noise(*shape)
    views = [random_view(image, generator=np.random.default_rng(seed), **STILL, turn=True) for seed in range(60)]
    assert all(view.shape == image.shape for view in views)
    corners = {tuple((view[0, :2, :2] * 1000).round().int().flatten().tolist()) for view in views}
    assert len(corners) == ways
    assert all(torch.allclose(view.flatten().sort()[0], image.flatten().sort()[0], atol=1e-5) for view in views)


def test_a_quarter_turn_of_a_square_is_that():
    image = torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(turned_view(image, 90, aspect=1.0), torch.rot90(image, 1, (1, 2)), atol=1e-5)
    assert torch.allclose(turned_view(image, 0, aspect=2.0), image, atol=1e-5)


def test_a_turn_is_one_of_the_picture_before_it_was_brought_into_its_frame():
    # Twice as wide as high, in a square frame: a bar half as long as the picture is wide fills its height once turned.
    image = torch.zeros(3, 64, 64)
    image[:, 28:36, 16:48] = 1.0
    turned = turned_view(image, 90, aspect=2.0)
    lit = (turned[0] > 0.5).nonzero()
    height, width = (lit.max(0).values - lit.min(0).values + 1).tolist()
    assert (height, width) == (64, 4)


def test_what_comes_in_repeats_the_edge():
    image = torch.full((3, 32, 32), 0.3)
    assert torch.allclose(turned_view(image, 45, aspect=1.0), image)
