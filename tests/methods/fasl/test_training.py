import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from handful.errors import SettingError
from handful.methods import create_head_training
from handful.methods.fasl.training import ScoreLearning, dice_loss, focal_loss, map_loss

GOLDEN = safetensors.torch.load_file(Path(__file__).parents[2] / "golden" / "fasl.safetensors")


def numbers(*shape, phase):
    """Numbers in [0, 1) that anyone can make again, see golden/fasl.md."""
    every = torch.arange(math.prod(shape), dtype=torch.float64)
    return ((torch.sin(12.9898 * (every + phase)) * 43758.5453) % 1).reshape(shape)


def test_the_losses_are_those_of_the_authors_code():
    maps, truth = numbers(2, 6, 6, phase=11).float(), (numbers(2, 6, 6, phase=12) > 0.7).float()
    assert focal_loss(maps, truth).item() == pytest.approx(GOLDEN["focal"].item(), rel=1e-5)
    assert dice_loss(maps, truth).item() == pytest.approx(GOLDEN["dice"].item(), rel=1e-5)
    assert map_loss([maps, maps], truth).item() == pytest.approx(
        2 * (GOLDEN["focal"] + GOLDEN["dice"]).item(), rel=1e-5
    )


def test_the_dice_loss_by_hand():
    maps, truth = torch.tensor([[[1.0, 0.5], [0.0, 0.0]]]), torch.tensor([[[1.0, 1.0], [0.0, 0.0]]])
    assert dice_loss(maps, truth).item() == pytest.approx(1 - (2 * 1.5 + 1) / (1.5 + 2 + 1))


def test_a_query_that_is_a_reference_is_not_learnt_from(classes, started):
    training = started(classes, shots=2)
    drawn = {pair for seed in range(200) for pair in training._draw(classes, np.random.default_rng(seed))}
    for number in range(2):
        left = [query for query in range(8) if training._usable[number][query]]
        assert {query for cls, query in drawn if cls == number} == set(left)
        assert len([query for query in (0, 1) if query not in left]) <= 2
        assert all(float(training._discrepancies[number][0][query].abs().max()) > 0 for query in left)


def test_augmented_pictures_come_as_often_as_wished(classes, started):
    training = started(classes, mosaic=0.2, part=0.1)
    drawn = [pair for seed in range(600) for pair in training._draw(classes, np.random.default_rng(seed))]
    share = np.mean([bool(classes[one].augmented[query]) for one, query in drawn])
    assert share == pytest.approx(0.3, abs=0.03)  # five standard deviations of 2,400 draws
    anomalous = np.mean([bool(classes[one].anomalous[query]) for one, query in drawn])
    assert anomalous == pytest.approx(0.5, abs=0.05)


def test_nam_is_trained_in_the_authors_schedule_alone():
    assert not ScoreLearning().nam
    assert ScoreLearning(**ScoreLearning.authors).nam


def test_a_mosaic_shows_four_and_a_part_shows_the_defect():
    images = [torch.full((3, 40, 40), value) for value in (0.1, 0.3, 0.5)]
    masks = [torch.zeros(40, 40, dtype=torch.bool) for _ in images]
    masks[1][30, 12] = True
    mosaics = ScoreLearning(mosaic=1.0, part=0.0)
    for seed in range(20):
        image, mask = mosaics.augment(images, masks, generator=np.random.default_rng(seed))
        middles = image[0, 10::20, 10::20]
        assert set(middles.flatten().mul(10).round().int().tolist()) <= {1, 3, 5}
        assert torch.equal(F.adaptive_max_pool2d(mask[None].float(), 2)[0] > 0, middles.sub(0.3).abs() < 0.01)
    parts = ScoreLearning(mosaic=0.0, part=1.0)
    kinds = set()
    for seed in range(40):
        image, mask = parts.augment(images, masks, generator=np.random.default_rng(seed))
        assert bool(mask.any()) == bool((image - 0.3).abs().max() < 0.01)  # the only anomalous picture
        kinds.add(bool(mask.any()))
    assert kinds == {False, True}


@pytest.mark.parametrize("nam", [True, False])
def test_the_loss_falls(classes, started, nam):
    training = started(classes, lr=3e-3, updates=60, nam=nam)
    losses = [training.update(number, classes) for number in range(60)]
    assert sum(losses[-10:]) < 0.9 * sum(losses[:10])


def test_an_update_depends_on_the_seed_and_its_number_alone(classes, started):
    one, other = started(classes), started(classes)
    one.update(0, classes)
    other.head_.load_state_dict(one.head_.state_dict())
    other.optimiser_.load_state_dict(one.optimiser_.state_dict())
    assert one.update(1, classes) == other.update(1, classes)


@pytest.mark.parametrize(("settings", "name"), [({"mosaic": 0.8, "part": 0.3}, "part"), ({"pictures": 1}, "pictures")])
def test_settings_of_the_training_out_of_bounds_are_refused(settings, name):
    with pytest.raises(SettingError, match=f"`{name}`"):
        create_head_training("fasl", settings)
