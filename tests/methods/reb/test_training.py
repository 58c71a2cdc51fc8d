import math

import numpy as np
import pytest
import torch
from torch import nn

from handful.backbones import timm
from handful.errors import SettingError
from handful.methods import TUNINGS, create_tuning
from handful.methods.reb.training import DefectClassification, _learning_rate, defect_loss

QUICK = {"size": 64, "sources": 2}


@pytest.fixture
def pictures(picture_factory):
    return [picture_factory(seed, side=64) for seed in range(3)]


@pytest.fixture
def start(pictures):
    """Begin a small training of the backbone on board."""

    def begin(*, seed=0, **settings):
        tuning = DefectClassification(**{**QUICK, **settings})
        tuning.start(timm.trunk("tf_efficientnet_lite0", size=64, weights="auto"), pictures, seed=seed)
        return tuning

    return begin


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def test_the_loss_is_seven_cross_entropies_a_picture():
    logits = torch.zeros(14, 7)
    assert defect_loss(logits).item() == pytest.approx(math.log(2))  # every sigmoid is 1/2
    sure = torch.full((7, 7), -20.0)
    sure[range(7), range(7)] = 20.0
    assert defect_loss(sure).item() == pytest.approx(0, abs=1e-6)
    one_wrong = sure.clone()
    one_wrong[3, 3] = -20.0  # one of 49 sigmoids costs 20
    assert defect_loss(one_wrong).item() == pytest.approx(20 / 49, rel=1e-5)


def test_the_learning_rate_falls_as_the_authors_does():
    # Half a cosine over 330 updates from 0.03 to 1e-5, of which 300 are run.
    for number in (0, 100, 299):
        expected = 1e-5 + (0.03 - 1e-5) * (1 + math.cos(math.pi * number / 330)) / 2
        assert _learning_rate(number, 300, 0.03) == pytest.approx(expected)


def test_a_batch_holds_seven_classes_of_every_picture_equally_often(start):
    tuning = start(sources=3)
    batch = tuning._batch(np.random.default_rng(0))
    assert batch.shape == (21, 3, 64, 64)
    assert 0 <= batch.min() and batch.max() <= 1
    groups = batch.reshape(3, 7, -1)
    assert all((group[0] != variant).any() for group in groups for variant in group[1:])
    assert len({float(group[0].mean()) for group in groups}) == 3  # three pictures, each once


def test_while_warming_up_the_trunk_stays_as_it_was(start):
    tuning = start(updates=4, warmup=0.5)
    trunk, head = state(tuning.learnt_["trunk"]), state(tuning.learnt_["head"])
    tuning.update(0)
    tuning.update(1)
    after = state(tuning.learnt_["trunk"])
    assert all(torch.equal(trunk[name], after[name]) for name in trunk)
    assert not torch.equal(head["0.weight"], tuning.learnt_["head"].state_dict()["0.weight"])
    tuning.update(2)
    assert not torch.equal(trunk["model.conv_head.weight"], tuning.learnt_["trunk"].model.conv_head.weight)


@pytest.mark.parametrize(("stride", "first_trained"), [(0, "model.conv_stem"), (4, "model.blocks.2.0.conv_dw")])
def test_layers_up_to_a_stride_stay_as_they_were(start, stride, first_trained):
    tuning = start(updates=1, warmup=0.0, frozen_stride=stride)
    before = state(tuning.learnt_["trunk"])
    tuning.update(0)
    after = state(tuning.learnt_["trunk"])
    changed = [name for name in before if not torch.equal(before[name], after[name])]
    assert changed[0] == f"{first_trained}.weight"
    kept = list(before)[: list(before).index(changed[0])]
    assert not set(kept) & set(changed)
    assert "model.blocks.2.0.bn2.running_mean" in changed


@pytest.mark.parametrize("frozen", [True, False])
def test_normalisation_keeps_its_statistics_only_where_asked(start, frozen):
    tuning = start(updates=1, warmup=0.0, frozen_norms=frozen)
    before = tuning.learnt_["trunk"].model.bn2.running_mean.clone()
    tuning.update(0)
    assert torch.equal(before, tuning.learnt_["trunk"].model.bn2.running_mean) == frozen


def test_an_update_depends_on_the_seed_and_its_number_alone(start):
    one, other, third = start(), start(), start(seed=1)
    losses = [one.update(0), one.update(1)]
    other.learnt_.load_state_dict(one.learnt_.state_dict())
    other.optimiser_.load_state_dict(one.optimiser_.state_dict())
    assert one.update(2) == other.update(2)
    assert third.update(0) != losses[0]


def test_accumulated_passes_are_one_update(start):
    tuning = start(accumulate=2, updates=1, warmup=1.0)
    drawn = []
    kept = tuning._batch
    tuning._batch = lambda generator: drawn.append(1) or kept(generator)
    tuning.update(0)
    assert len(drawn) == 2


def test_the_loss_falls(start):
    tuning = start(updates=8, sources=2)
    losses = [tuning.update(number) for number in range(8)]
    assert np.mean(losses[-3:]) < 0.85 * losses[0]


@pytest.mark.parametrize("name", ["resnet18", "vgg11_bn"])
def test_it_trains_other_networks(pictures, name):
    tuning = DefectClassification(**QUICK, updates=1, warmup=0.0)
    tuning.start(timm.trunk(name, size=64, weights="random"), pictures[:1], seed=0)
    assert 0 < tuning.update(0) < 5


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [({"updates": 0}, "`updates` must be at least 1"), ({"lr": 0.0}, "`lr`"), ({"warmup": 2.0}, "`warmup`")],
)
def test_settings_out_of_bounds_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        create_tuning("reb", settings)


def test_the_authors_schedule_is_one_set_of_settings():
    full = create_tuning("reb", TUNINGS["reb"].authors)
    assert (full.updates, full.sources, full.accumulate, full.size, full.lr) == (300, 36, 2, 256, 0.03)
    assert round(full.warmup * full.updates) == 39  # the code counts epochs from 1 and freezes those below 40


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_it_trains_on_cuda(pictures):
    tuning = DefectClassification(**QUICK, updates=1)
    tuning.start(timm.trunk("resnet18", size=64, weights="random").to("cuda"), pictures, seed=0)
    assert isinstance(tuning.learnt_, nn.ModuleDict) and math.isfinite(tuning.update(0))
