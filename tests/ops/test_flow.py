import numpy as np
import pytest
import torch

from handful.ops.flow import ConditionalFlow, position_code


@pytest.fixture
def flow():
    """A small flow whose sub-networks and global scales are not at their start."""
    made = ConditionalFlow(6, condition=4, blocks=8, seed=1).double()
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for weight in made.parameters():
            if weight.requires_grad:
                weight += 0.3 * torch.randn(weight.shape, generator=generator, dtype=weight.dtype)
    return made


@pytest.fixture
def batch():
    generator = torch.Generator().manual_seed(2)
    return (torch.randn(5, n, generator=generator, dtype=torch.float64) for n in (6, 4))


def test_the_flow_moves_its_vectors(flow, batch):
    vectors, condition = batch
    codes, _ = flow.to_gaussian(vectors, condition)
    assert (codes - vectors).abs().max() > 0.1


def test_the_log_determinant_is_that_of_the_jacobian(flow, batch):
    vectors, condition = batch
    _, log_determinant = flow.to_gaussian(vectors, condition)
    for row in range(len(vectors)):
        jacobian = torch.autograd.functional.jacobian(
            lambda vector, row=row: flow.to_gaussian(vector[None], condition[[row]])[0][0], vectors[row]
        )
        assert torch.linalg.slogdet(jacobian).logabsdet.item() == pytest.approx(
            log_determinant[row].item(), abs=1e-6
        )  # the rotations are orthogonal in float32


def test_the_likelihood_is_the_gaussians_moved_by_the_determinant(flow, batch):
    vectors, condition = batch
    codes, log_determinant = flow.to_gaussian(vectors, condition)
    gaussian = torch.distributions.Normal(0.0, 1.0).log_prob(codes).sum(1)
    assert torch.allclose(flow(vectors, condition), (gaussian + log_determinant) / 6)


def test_the_condition_matters(flow, batch):
    vectors, condition = batch
    assert (flow(vectors, condition) - flow(vectors, condition + 1)).abs().min() > 1e-3


def test_a_seed_makes_the_same_flow_and_leaves_the_generators_alone():
    torch.manual_seed(5)
    np.random.seed(5)
    expected = torch.rand(1), np.random.rand()
    torch.manual_seed(5)
    np.random.seed(5)
    one, same, other = (ConditionalFlow(4, condition=4, blocks=2, seed=seed).state_dict() for seed in (1, 1, 2))
    assert (torch.rand(1), np.random.rand()) == expected
    assert all(torch.equal(one[name], same[name]) for name in one)
    assert not torch.equal(one["blocks.module_list.0.w_perm"], other["blocks.module_list.0.w_perm"])


def test_position_codes_are_sines_and_cosines_of_column_and_row():
    code = position_code((3, 5), width=8)
    assert code.shape == (3, 5, 8)
    row, column = 2, 4
    waves = [1, 0.01]  # 10,000^0 and 10,000^-1/2
    expected = [f(wave * at) for at in (column, row) for f in (np.sin, np.cos) for wave in waves]
    assert code[row, column].tolist() == pytest.approx(expected, abs=1e-6)
