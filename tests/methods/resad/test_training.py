import numpy as np
import pytest
import torch

from handful.errors import SettingError
from handful.methods import create_head_training
from handful.methods.resad.training import ResidualTraining, flow_loss, occ_loss


def waves(rows, columns, *, phase):
    """Numbers that anyone can make again: cosines of each element's number."""
    numbers = torch.arange(rows * columns, dtype=torch.float64).reshape(rows, columns)
    return torch.cos(0.7 * numbers + phase)


def test_the_one_class_loss_draws_normal_places_in_and_leaves_anomalous_ones():
    constrained = torch.tensor([[3.0, 0.0], [0.0, 8.0], [1.0, 1.0]])
    residuals = torch.tensor([[9.0, 9.0], [9.0, 9.0], [1.0, 4.0]])
    anomalous = torch.tensor([False, False, True])
    # √(3 + 1) - 1 = 1, √(8 + 1) - 1 = 2, and the third is 3 away from its residual.
    assert occ_loss(constrained, residuals, anomalous, kind="invariant").item() == pytest.approx((1 + 2 + 3) / 3)
    assert occ_loss(constrained, residuals, anomalous, kind="normal").item() == pytest.approx((1 + 2) / 2)


@pytest.mark.parametrize(
    ("scale", "with_anomalies", "without"),
    [(1.0, 1.584798429022522, 0.9902109177019186), (0.05, 1.8128669772384207, 1.2683281893960103)],
)
def test_the_log_barrier_gives_the_values_of_the_authors_code(scale, with_anomalies, without):
    # calculate_log_barrier_bi_occ_loss of losses/loss.py in xcyao00/ResAD at 0afc30e, on the same tensors.
    constrained, residuals = scale * waves(12, 5, phase=0.3), scale * waves(12, 5, phase=1.1)
    anomalous = torch.arange(12) % 3 == 0
    assert occ_loss(constrained, residuals, anomalous, kind="log_barrier").item() == pytest.approx(with_anomalies)
    none = torch.zeros(12, dtype=torch.bool)
    assert occ_loss(constrained, residuals, none, kind="log_barrier").item() == pytest.approx(without)


def test_the_normal_part_gives_the_values_of_the_authors_code():
    # calculate_occ_loss of the same file.
    constrained, none = waves(12, 5, phase=0.3), torch.zeros(12, dtype=torch.bool)
    assert occ_loss(constrained, constrained, none, kind="invariant").item() == pytest.approx(0.6089980680373873)


def test_the_flows_loss_pulls_low_normal_and_pushes_high_anomalous_places():
    normal = torch.tensor([-3.0, -2.0, -1.0, 0.0])
    likelihoods, anomalous = torch.cat([normal, torch.tensor([-2.5, -1.9])]), torch.arange(6) >= 4
    # A quarter below the boundary: it lies at -2. One normal place is 1 below; of the others, with τ 0.1, one lies
    # below -2.1, and the other is 0.2 above.
    expected = np.log1p(np.exp(-normal.numpy())).mean() + 2 * (1 / 4 + 0.2 / 2)  # -log σ(x) is log(1 + exp(-x))
    assert flow_loss(likelihoods, anomalous, boundary=0.25, margin=0.1, weight=2.0).item() == pytest.approx(expected)


def test_the_boundary_is_the_authors():
    # get_logp_boundary of losses/loss.py gives -0.994177625183815 for β 0.05 of these; a lone anomaly there costs τ.
    likelihoods = waves(40, 1, phase=0.2)[:, 0]
    anomalous = torch.arange(40) % 4 == 0
    both = torch.cat([likelihoods[~anomalous], torch.tensor([-0.994177625183815], dtype=torch.float64)])
    last = torch.arange(31) == 30
    weightless = flow_loss(both, last, boundary=0.05, margin=0.1, weight=0.0)
    normal = likelihoods[~anomalous]
    pulled = (-0.994177625183815 - normal).clamp_min(0).mean()
    whole = flow_loss(both, last, boundary=0.05, margin=0.1, weight=1.0)
    assert (whole - weightless).item() == pytest.approx(0.1 + pulled.item())


def test_the_constraintor_learns_first_and_the_flow_then(classes, started):
    training = started(classes, updates=4, constrained=0.5)

    def changed(number):
        before = {name: tensor.clone() for name, tensor in training.head_.state_dict().items()}
        training.update(number, classes)
        after = training.head_.state_dict()
        return {name.partition(".")[0] for name in before if not torch.equal(before[name], after[name])}

    assert changed(0) == changed(1) == {"constraintors"}
    assert changed(2) == changed(3) == {"flows"}


def test_without_a_constraintor_the_flow_learns_from_the_start(classes, started):
    training = started(classes, constraintor=False)
    before = training.head_.flows[0].state_dict()["blocks.module_list.0.subnet.0.weight"].clone()
    training.update(0, classes)
    assert not torch.equal(before, training.head_.flows[0].state_dict()["blocks.module_list.0.subnet.0.weight"])


def test_the_constraintor_is_trained_in_the_authors_schedule_alone():
    assert not ResidualTraining().constraintor
    assert ResidualTraining(**ResidualTraining.authors).constraintor


def test_a_query_is_never_its_own_reference(classes, started):
    training = started(classes)
    seen = set()
    for seed in range(60):
        _, query, references = training._draw(classes[0], np.random.default_rng(seed))
        assert len(set(references)) == len(references) == 2
        assert int(classes[0].own[query]) not in references
        seen.add(query)
    assert seen == set(range(6))


@pytest.mark.parametrize("settings", [{}, {"residual": "none"}, {"constraintor": False}, {"occ": "log_barrier"}])
def test_the_loss_falls(classes, settings, started):
    training = started(classes, lr=3e-3, updates=80, **settings)
    losses = [training.update(number, classes) for number in range(80)]
    flow = losses if not training.constraintor else losses[24:]
    assert sum(flow[-10:]) < sum(flow[:10])
    if training.constraintor and training.occ != "log_barrier":  # whose shell moves with the anomalies
        assert sum(losses[19:24]) < sum(losses[:5])


def test_an_update_depends_on_the_seed_and_its_number_alone(classes, started):
    one, other = started(classes), started(classes)
    one.update(0, classes)
    other.head_.load_state_dict(one.head_.state_dict())
    other.optimiser_.load_state_dict(one.optimiser_.state_dict())
    assert one.update(1, classes) == other.update(1, classes)


def test_levels_are_divided_by_the_size_of_their_values(classes, started):
    head = started(classes).head_
    squares = torch.stack([one.references.levels[1].square().mean() for one in classes]).mean()
    assert head.scales[1].item() == pytest.approx(squares.sqrt().item())


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"updates": 0}, "`updates`"),
        ({"condition": 6}, "a multiple of 4"),
        ({"boundary": 1.0}, "`boundary`"),
        ({"occ": "normal"}, "`occ`"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        create_head_training("resad", settings)
