import math

import numpy as np
import pytest
import torch
from torch import nn

from handful.backbones import timm
from handful.errors import SettingError
from handful.methods import create_tuning
from handful.methods.coft import training as coft_module
from handful.methods.coft.training import (
    ContrastiveTuning,
    cut_paste,
    effective_rank,
    info_nce,
    negative_pairs,
    positive_pairs,
    settled,
    stop_gradient_alignment,
)
from handful.training.backbone import BackboneTrainer

QUICK = {"size": 64, "pictures": 8, "updates": 2}


class ToyTrunk(nn.Module):
    """One convolution, normalised and pooled."""

    def __init__(self):
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.model = nn.Sequential(nn.Conv2d(3, 24, 4, stride=4), nn.BatchNorm2d(24), nn.ReLU())

    def forward(self, images):
        return self.model(images).mean((2, 3))


class Constant(ToyTrunk):
    """Gives every picture the same features."""

    def forward(self, images):
        return 0 * super().forward(images) + self.model[0].bias


@pytest.fixture
def pictures(picture_factory):
    return [picture_factory(seed, side=64) for seed in range(6)]


@pytest.fixture
def start(pictures):
    """Begin a small training of the toy trunk."""

    def begin(*, trunk=ToyTrunk, count=3, seed=0, **settings):
        tuning = ContrastiveTuning(**{**QUICK, **settings})
        tuning.start(trunk(), pictures[:count], seed=seed)
        return tuning

    return begin


def state(module):
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def equal(one, other):
    return one.keys() == other.keys() and all(
        torch.equal(one[name].nan_to_num(), other[name].nan_to_num()) for name in one
    )


def random(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


# The terms of the loss


def test_info_nce_tells_a_view_from_all_the_others():
    views = torch.eye(2)  # each view's other one is equal, the two negatives are orthogonal
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))
    assert info_nce(views, 3 * views, temperature=0.5).item() == pytest.approx(expected)  # lengths do not count
    crossed = info_nce(views, views.flip(0), temperature=0.5)  # now one of the negatives is equal
    assert crossed.item() == pytest.approx(-math.log(1 / (math.exp(2) + 2)))
    assert info_nce(views[:1], views[1:], temperature=0.5).item() == 0  # without negatives there is nothing to tell


def test_info_nce_is_what_its_definition_says():
    first, second = random(5, 7), random(5, 7, seed=1)
    rows = [row / np.linalg.norm(row) for row in torch.cat([first, second]).numpy()]
    total = 0.0
    for a, anchor in enumerate(rows):
        partner = a + 5 if a < 5 else a - 5
        others = [math.exp(float(anchor @ other) / 0.3) for b, other in enumerate(rows) if b != a]
        total -= math.log(math.exp(float(anchor @ rows[partner]) / 0.3) / sum(others))
    assert info_nce(first, second, temperature=0.3).item() == pytest.approx(total / 10, rel=1e-5)  # float32


def test_alignment_moves_the_prediction_and_never_the_target():
    prediction = torch.tensor([[2.0, 0.0], [0.0, 1.0], [1.0, 0.0]], requires_grad=True)
    target = torch.tensor([[1.0, 0.0], [1.0, 0.0], [-3.0, 0.0]], requires_grad=True)
    loss = stop_gradient_alignment(prediction, target)  # 0, 2 and 4
    assert loss.item() == pytest.approx(2)
    loss.backward()
    assert target.grad is None and prediction.grad[1].abs().sum() > 0


def test_positive_pairs_are_those_of_different_pictures():
    views = torch.tensor([[1.0, 0.0], [2.0, 0.0], [0.0, 1.0], [1.0, 1.0]])
    expected = np.mean([1, 1 - math.sqrt(0.5)] * 2)  # the first two with the third and with the fourth
    assert positive_pairs(views, torch.tensor([0, 0, 1, 1])).item() == pytest.approx(expected)
    alone = positive_pairs(views[:3], torch.zeros(3))  # one picture: its views
    assert alone.item() == pytest.approx(np.mean([0, 1, 1]))


def test_negative_pairs_cost_what_they_are_too_close():
    normal, negative = torch.tensor([[1.0, 0.0], [0.0, 2.0]]), torch.tensor([[3.0, 0.0]])
    loss = negative_pairs(normal, negative, margin=0.2, temperature=0.5)
    expected = np.mean([math.log1p(math.exp(0.8 / 0.5)), math.log1p(math.exp(-0.2 / 0.5))])
    assert loss.item() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("embeddings", "rank"),
    [
        ([[1, 0, 0], [-1, 0, 0], [0, 5, 0], [0, -5, 0]], 2),  # lengths do not count
        ([[1, 0, 0], [0, 1, 0]], 1),
        ([[1, 2, 0], [2, 4, 0], [3, 6, 0]], 0),
        ([[1, 1e-4, 0], [1, -1e-4, 0]], 0),
        ([[1, 0, 0], [0, math.nan, 0]], 0),
    ],
)
def test_the_effective_rank_counts_directions(embeddings, rank):
    assert effective_rank(torch.tensor(embeddings, dtype=torch.float32)) == pytest.approx(rank)


def test_unequal_directions_count_less():
    embeddings = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.6, 0.8], [-0.6, -0.8]])
    assert 1 < effective_rank(embeddings) < 2


# Training


def test_the_whole_loss_by_hand(start):
    # Embeddings are given: two pictures' views e1, e1, e2, e2 and the negatives e1, e2; with stopped gradients the
    # projector and the predictor are left out. τ is 1/2, the margin 0.
    tuning = start(count=2, pictures=4, lambda_pp=3.0, lambda_np=5.0, negatives="noise", temperature=0.5)
    rows = {0: torch.tensor([1.0, 0.0]), 1: torch.tensor([0.0, 1.0])}
    drawn = []
    view = tuning._view
    tuning._view = lambda row, generator: drawn.append(row) or view(row, generator)
    tuning.learnt_["trunk"].forward = lambda batch: torch.stack([2 * rows[row] for row in drawn])
    tuning.learnt_["projector"], tuning.learnt_["predictor"] = nn.Identity(), nn.Identity()
    alignment, apart = 0, 1  # each view is equal to its other one; views of different pictures are orthogonal
    push = (math.log1p(math.exp(2)) + math.log1p(1)) / 2  # half of the pairs with a negative have cosine 1, half 0
    assert tuning._loss(np.random.default_rng(0)).item() == pytest.approx(alignment + 3 * apart + 5 * push)
    assert sorted(drawn) == [0, 0, 0, 1, 1, 1]


def test_infonce_of_the_whole_loss_by_hand(start):
    tuning = start(count=2, pictures=4, contrast="infonce", lambda_con=7.0, lambda_pp=0.0, temperature=0.5)
    drawn = []
    view = tuning._view
    tuning._view = lambda row, generator: drawn.append(row) or view(row, generator)
    tuning.learnt_["trunk"].forward = lambda batch: torch.eye(2)[drawn]
    tuning.learnt_["projector"] = nn.Identity()
    expected = -math.log(math.exp(2) / (math.exp(2) + 2))  # the other view at cosine 1, two negatives at 0
    assert tuning._loss(np.random.default_rng(0)).item() == pytest.approx(7 * expected)


def test_each_weight_switches_its_term(start):
    def loss(**weights):
        tuning = start(**{"lambda_con": 0.0, "lambda_pp": 0.0, **weights})
        return tuning._loss(np.random.default_rng(0)).item()

    con, pp = loss(lambda_con=1.0), loss(lambda_pp=1.0)
    assert con != pp
    assert loss(lambda_con=2.0, lambda_pp=3.0) == pytest.approx(2 * con + 3 * pp, rel=1e-5)


def test_negatives_add_their_term(start, monkeypatch):
    given = {}

    def pairs(normal, negative, *, margin, temperature):
        given.update(normal=len(normal), negative=len(negative), margin=margin, temperature=temperature)
        return normal.sum() * 0 + 10

    monkeypatch.setattr(coft_module, "negative_pairs", pairs)
    tuning = start(lambda_pp=0.0, lambda_con=0.0, lambda_np=0.5, negatives="noise", count=4, margin=0.1)
    assert tuning._loss(np.random.default_rng(0)).item() == 5
    assert given == {"normal": 8, "negative": 4, "margin": 0.1, "temperature": 0.2}


@pytest.mark.parametrize(("count", "stopping"), [(1, True), (4, True), (5, False)])
def test_few_references_are_aligned_with_a_stopped_gradient(start, count, stopping):
    assert ("predictor" in start(count=count).learnt_) == stopping
    assert "predictor" in start(count=count, contrast="stop_gradient").learnt_
    if count > 1:
        assert "predictor" not in start(count=count, contrast="infonce").learnt_


def test_infonce_has_no_negatives_at_one_reference(start):
    with pytest.raises(SettingError, match="`contrast` must be auto or stop_gradient at one reference"):
        start(count=1, contrast="infonce")


def test_every_round_of_infonce_holds_each_reference_once(start, monkeypatch):
    rounds = []

    def loss(first, second, *, temperature):
        rounds.append((len(first), len(second)))
        return first.sum() + second.sum()

    monkeypatch.setattr(coft_module, "info_nce", loss)
    tuning = start(count=5, pictures=32)
    drawn = []
    view = tuning._view
    tuning._view = lambda row, generator: drawn.append(row) or view(row, generator)
    tuning.update(0)
    assert rounds == [(5, 5)] * 3
    assert drawn[:15] == drawn[15:]  # the other view of each
    assert all(sorted(drawn[first : first + 5]) == [0, 1, 2, 3, 4] for first in (0, 5, 10))


def test_the_trunks_normalisation_keeps_its_statistics(start):
    tuning = start(updates=1)
    trunk, projector = tuning.learnt_["trunk"], tuning.learnt_["projector"]
    before, weight, of_head = (
        t.clone() for t in (trunk.model[1].running_mean, trunk.model[0].weight, projector[1].running_mean)
    )
    tuning.update(0)
    assert torch.equal(trunk.model[1].running_mean, before)
    assert not torch.equal(trunk.model[0].weight, weight)
    assert not torch.equal(projector[1].running_mean, of_head)


@pytest.mark.parametrize(("stride", "first_tuned"), [(0, "model.conv_stem"), (4, "model.blocks.2.0.conv_dw")])
def test_layers_up_to_a_stride_stay_as_they_were(pictures, stride, first_tuned):
    training = BackboneTrainer(ContrastiveTuning(**QUICK, frozen_stride=stride), pictures[:2], weights="random", seed=0)
    trunk = training.tuning.learnt_["trunk"]
    before = {name: weight.clone() for name, weight in trunk.named_parameters()}
    training.tuning.update(0)
    changed = [name for name, weight in trunk.named_parameters() if not torch.equal(weight, before[name])]
    assert changed[0] == f"{first_tuned}.weight"
    names = list(before)
    assert len(changed) > (len(names) - names.index(changed[0])) / 2


def test_rates_fall_by_half_a_cosine_and_heads_learn_ten_times_as_fast(start):
    tuning = start(updates=4, lr=0.01)
    rates = []
    for number in range(4):
        tuning.update(number)
        rates.append([group["lr"] for group in tuning.optimiser_.param_groups])
    falling = [0.01 * (1 + math.cos(math.pi * number / 4)) / 2 for number in range(4)]
    assert rates == [pytest.approx([rate, 10 * rate]) for rate in falling]


def test_an_update_depends_on_the_seed_and_its_number_alone(start):
    settings = {"lambda_np": 1.0, "negatives": "defects"}
    one, other, third = start(**settings), start(**settings), start(seed=1, **settings)
    first = one.update(0)
    other.learnt_.load_state_dict(one.learnt_.state_dict())
    other.optimiser_.load_state_dict(one.optimiser_.state_dict())
    assert one.update(1) == other.update(1)
    assert third.update(0) != first


def test_views_come_closer(start):
    tuning = start(updates=20, lr=0.03, plateau=0.0)
    for number in range(20):
        tuning.update(number)
    before, half, after = tuning._losses.tolist()
    assert after < 0.8 * before and half < before


@pytest.mark.parametrize(("trunk", "lr", "updates"), [(Constant, 0.003, 1), (Constant, 0.003, 12), (ToyTrunk, 1e6, 2)])
def test_a_collapse_ends_the_training(start, trunk, lr, updates):
    tuning = start(trunk=trunk, lr=lr, updates=updates)
    with pytest.raises(
        SettingError, match=r"must keep half of their effective rank.* got [01]\.0 after update .*lower `lr`"
    ):
        for number in range(updates):
            tuning.update(number)


def test_losing_more_than_half_of_the_rank_is_a_collapse(start, monkeypatch):
    ranks = iter([8.0, 4.0, 3.9])
    monkeypatch.setattr(coft_module, "effective_rank", lambda embeddings: next(ranks))
    tuning = start(updates=11)
    tuning._check(9)
    with pytest.raises(SettingError, match=r"8\.0 before training, got 3\.9 after update 11"):
        tuning._check(10)


@pytest.mark.parametrize(
    ("losses", "stop"),
    [
        ([1.0, 0.99], False),  # too early to tell
        ([1.0, 0.99, 0.985], True),
        ([1.0, 0.99, 0.97], False),
        ([1.0, 0.5, 0.6, 0.495], True),
        ([1.0, 0.5, 0.48, 0.495], False),
    ],
)
def test_it_settles_when_losses_stand_still(losses, stop):
    assert settled(losses, share=0.02) == stop
    assert not settled(losses, share=0.0)


@pytest.fixture
def training(monkeypatch, good_folder):
    """Begin a toy training in the loop that people use."""
    monkeypatch.setattr(timm, "trunk", lambda *_, **__: ToyTrunk())

    def begin(checkpoint=None, **settings):
        tuning = ContrastiveTuning(**{"size": 32, "pictures": 8, **settings})
        return BackboneTrainer(tuning, good_folder, device="cpu", checkpoint=checkpoint)

    return begin


@pytest.mark.parametrize(("plateau", "updates"), [(0.02, 20), (0.0, 24)])
def test_a_training_that_gains_nothing_stops_early(training, plateau, updates):
    assert len(list(training(updates=24, lr=1e-12, plateau=plateau).run())) == updates


@pytest.mark.parametrize("stop_after", [1, 13])
def test_a_stopped_training_goes_on_as_if_it_had_not_been(training, tmp_path, stop_after):
    settings = {"updates": 24, "lr": 1e-12}  # it stops early, for what it remembers from before the stop
    whole = training(**settings)
    losses = [step.loss for step in whole.run()]
    running = training(tmp_path / "checkpoint", **settings).run()
    for _ in range(stop_after):
        next(running)
    running.close()
    resumed = training(tmp_path / "checkpoint", **settings)
    assert [step.loss for step in resumed.run()] == losses[stop_after:]
    assert equal(state(resumed.tuning.learnt_), state(whole.tuning.learnt_))


def test_the_same_seed_trains_the_same_weights(training):
    runs = [training(updates=3) for _ in range(2)]
    for run in runs:
        list(run.run())
    assert equal(state(runs[0].trunk), state(runs[1].trunk))


@pytest.mark.parametrize("negatives", ["cutpaste", "defects", "noise"])
def test_negatives_differ_from_every_view_and_grey_stays_grey(pictures, negatives):
    tuning = ContrastiveTuning(**QUICK, lambda_np=1.0, negatives=negatives, crop=1.0, jitter=0.0, blur=0.0)
    grey = np.repeat(pictures[0][:, :, :1], 3, axis=2)
    tuning.start(ToyTrunk(), [pictures[0], grey], seed=0)
    for row in (0, 1):
        view = tuning._view(row, np.random.default_rng(0))
        made = tuning._negative(row, np.random.default_rng(0))
        changed = (made - view).abs().amax(0) > 0.02  # more than a rounding to 8 bits
        assert made.shape == view.shape and 0 <= made.min() and made.max() <= 1
        assert changed.any() and (negatives == "noise" or not changed.all())
    assert torch.equal(made[0], made[1])


def test_a_cut_is_pasted_as_one_rectangle(pictures):
    pasted = cut_paste(pictures[0], generator=np.random.default_rng(3))
    rows, columns = np.nonzero((pasted != pictures[0]).any(2))
    height, width = rows.max() - rows.min() + 1, columns.max() - columns.min() + 1
    assert 0.01 < height * width / 64**2 <= 0.16
    piece = pasted[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    windows = np.lib.stride_tricks.sliding_window_view(pictures[0], piece.shape)[:, :, 0]
    assert (windows == piece).all((2, 3, 4)).any()  # it stands somewhere in the picture


def test_it_trains_the_network_on_board(pictures):
    tuning = ContrastiveTuning(**{**QUICK, "updates": 1})
    trunk = timm.trunk("tf_efficientnet_lite0", size=64, weights="auto")
    before = state(trunk)
    tuning.start(trunk, pictures[:2], seed=0)
    assert 0 < tuning.update(0) < 6  # L_con and L_PP are at most 4 and 2
    assert not equal(before, state(trunk))


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"updates": 0}, "`updates` must be at least 1"),
        ({"pictures": 5}, "`pictures` must be even, from 4"),
        ({"lr": 0.0}, "`lr` must be above 0"),
        ({"lambda_pp": -1.0}, "`lambda_pp` must be at least 0"),
        ({"lambda_con": 0.0, "lambda_pp": 0.0}, "`lambda_con` must be above 0 where no other term is"),
        ({"lambda_np": 1.0}, "`negatives` must be cutpaste, defects or noise where `lambda_np` is above 0"),
        ({"negatives": "noise"}, "and none elsewhere, got 'noise'"),
        ({"negatives": "magic"}, "`negatives` must be one of none, cutpaste, defects, noise"),
        ({"crop": 0.0}, "`crop` must be in"),
        ({"jitter": 1.0}, "`jitter` must be in"),
        ({"margin": 2.0}, "`margin` must be in"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        create_tuning("coft", settings)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
@pytest.mark.parametrize("count", [2, 5])
def test_it_trains_on_cuda(pictures, count):
    tuning = ContrastiveTuning(**QUICK)
    tuning.start(timm.trunk("resnet18", size=64, weights="random").to("cuda"), pictures[:count], seed=0)
    assert all(math.isfinite(tuning.update(number)) for number in range(2))
