import threading

import numpy as np
import torch
from torch import nn

from handful.ops.flow import ConditionalFlow
from handful.ops.seeding import seeded


def test_a_block_of_seeded_numbers_leaves_every_other_number_alone():
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(7)
    first, further = torch.rand(3), torch.rand(3)
    torch.manual_seed(7)
    numbers = []
    with seeded(3):
        thread = threading.Thread(target=lambda: numbers.append(torch.rand(3)))
        thread.start()
        thread.join()
        assert torch.equal(torch.rand(4), expected)
    assert torch.equal(numbers[0], first) and torch.equal(torch.rand(3), further)


def test_networks_begin_with_the_weights_that_the_global_seed_gives():
    def network():
        module = nn.Sequential(nn.Linear(4, 3), nn.Conv2d(3, 2, 3), nn.MultiheadAttention(4, 2), nn.Embedding(3, 2))
        return [*(weight.tolist() for weight in module.parameters()), nn.init.trunc_normal_(torch.empty(5)).tolist()]

    torch.manual_seed(11)
    expected = network()
    with seeded(11):
        assert network() == expected


def test_a_flow_leaves_the_numbers_of_torch_and_numpy_alone():
    torch.manual_seed(1)
    np.random.seed(1)
    before = torch.rand(1), np.random.rand()
    torch.manual_seed(1)
    np.random.seed(1)
    flow = ConditionalFlow(6, condition=4, blocks=2, seed=5)
    assert (torch.rand(1), np.random.rand()) == before
    again = ConditionalFlow(6, condition=4, blocks=2, seed=5)
    assert all(
        torch.equal(one, other)
        for one, other in zip(flow.state_dict().values(), again.state_dict().values(), strict=True)
    )
