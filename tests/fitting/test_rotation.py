import numpy as np
import pytest
import torch

from handful.fitting import rotation
from handful.ops.neighbors import Bank
from handful.ops.views import turned_view
from handful.types import Features

SIDE = 96


class Pixels:
    """A backbone whose one level is the picture itself, each patch 8 x 8 pixels."""

    def __call__(self, images):
        patches = torch.nn.functional.unfold(images, 8, stride=8)  # (B, 3·64, n)
        side = images.shape[-1] // 8
        return Features((patches.transpose(1, 2).reshape(len(images), side, side, -1),), tuple(images.shape[-2:]))


def bar(degrees, *, length=60, width=14, half=False):
    """A bar on a plain ground, turned; with one dark half where wished, so that half a turn shows."""
    picture = torch.full((3, SIDE, SIDE), 0.2)
    top, left = (SIDE - width) // 2, (SIDE - length) // 2
    picture[:, top : top + width, left : left + length] = 0.9
    if half:
        picture[:, top : top + width, left : left + length // 2] = 0.6
    return turned_view(picture, degrees, aspect=1.0)


def decide(wanted, images, **options):
    backbone = Pixels()
    aspects = options.pop("aspects", [1.0] * len(images))
    features = [backbone(image[None]) for image in images]
    return rotation.decide(wanted, images, features, backbone, aspects=aspects)


def test_oblong_parts_at_many_angles_turn():
    assert decide("auto", [bar(angle) for angle in (10, 25)]).why == "the references' parts lie up to 15° apart"
    assert decide("auto", [bar(angle) for angle in (10, 25)]).turned


def test_each_pictures_own_aspect_counts():
    # In their frames one lies at 45 degrees and the other at 63; as they were taken, both at 45.
    images = [bar(45), bar(float(np.degrees(np.arctan(2))))]
    assert decide("auto", images, aspects=[1.0, 1.0]).why == "the references' parts lie up to 18° apart"
    assert "angle_between" not in decide("auto", images, aspects=[1.0, 2.0]).why


def square(degrees):
    """A square part that is not oblong, one quarter dark, so that every angle shows."""
    picture = bar(0, length=48, width=48)
    picture[:, 24:48, 24:48] = 0.7
    return turned_view(picture, degrees, aspect=1.0)


def test_other_parts_turn_where_turning_brings_them_nearer():
    found = decide("auto", [square(angle) for angle in (0, 60, 150, 240)])
    assert found.turned
    assert "times as near to the others turned as it is upright" in found.why
    assert (
        decide("auto", [square(0)] * 3).why == "turned, the first reference is at most 1.00 times as near to the others"
    )


@pytest.mark.parametrize(("nearer", "turned"), [(1.02, False), (1.04, True)])
def test_how_much_nearer_turned_parts_must_be_that_turn(monkeypatch, nearer, turned):
    # Between what parts that do not turn reached on the development categories, and the screws' 1.10.
    monkeypatch.setattr(rotation, "nearer_turned", lambda *given, **options: (nearer, 90.0))
    assert decide("auto", [square(0)] * 2).turned == turned


def test_parts_that_lie_alike_do_not_turn():
    generator = torch.Generator().manual_seed(0)
    images = [(bar(30) + 0.02 * torch.rand(3, SIDE, SIDE, generator=generator)).clamp(0, 1) for _ in range(3)]
    assert not decide("auto", images).turned  # askew, but all in the same way


@pytest.mark.parametrize(("degrees", "turned"), [(0, False), (4, False), (90, False), (20, True), (135, True)])
def test_a_single_oblong_part_turns_where_it_lies_askew(degrees, turned):
    found = decide("auto", [bar(degrees)])
    assert found.turned == turned
    assert ("taken for one that turns" in found.why) == turned


def test_a_single_round_part_or_a_surface_says_nothing():
    y, x = np.mgrid[:SIDE, :SIDE] - SIDE / 2
    disc = torch.from_numpy(np.where(np.hypot(x, y) < 30, 0.9, 0.2)).float().expand(3, -1, -1)
    surface = torch.rand(3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    for image in (disc, surface):
        found = decide("auto", [image])
        assert not found.turned
        assert "no oblong part" in found.why


def test_a_person_decides_otherwise():
    alike, askew = [bar(0), bar(0)], [bar(0, half=True), bar(60, half=True)]
    assert decide("always", alike) == rotation.Rotation(True, "as asked for")
    assert decide("never", askew) == rotation.Rotation(False, "as asked for")


def test_angles_are_those_of_the_picture_and_not_of_its_frame():
    # A picture twice as wide as high in a square frame: at 45 degrees there, it lies at 27.
    picture = (255 * bar(45)).byte().permute(1, 2, 0).numpy()
    upright = rotation.axis(picture, aspect=1.0)
    assert rotation.angle_between(upright, 45, 90) < 1
    assert rotation.angle_between(rotation.axis(picture, aspect=2.0), np.degrees(np.arctan(0.5)), 90) % 36.9 < 2


def test_what_is_learnt_is_what_the_upright_picture_lacks():
    backbone, image = Pixels(), bar(0, half=True)
    upright = backbone(image[None])
    learnt = rotation.turned_patches(image, upright, backbone, aspect=1.0)
    patches = upright.levels[0].shape[1] * upright.levels[0].shape[2]
    assert learnt.levels[0].shape == (1, rotation.TURNS - 1, patches // 2, 192)
    # Every patch of a copy is near one that was kept or one of the upright picture.
    copy = backbone(turned_view(image, 90.0, aspect=1.0)[None]).levels[0].flatten(0, 2)
    known = torch.cat([upright.levels[0].flatten(0, 2), learnt.levels[0].flatten(0, 2)])
    assert Bank(known).nearest(copy)[0].max() < 1e-3
