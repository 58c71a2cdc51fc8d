"""What is written down for a graph knows of it, and nothing else does."""

import pytest
import torch
from torch import nn

from handful.ops.following import followed, following


class Told(nn.Module):
    def forward(self, values):
        return values + followed()


def test_it_is_followed_in_there_alone():
    assert not followed()
    with following():
        with following():
            assert followed()
        assert followed()
    assert not followed()


def test_an_error_ends_it():
    with pytest.raises(ZeroDivisionError), following():
        raise ZeroDivisionError
    assert not followed()


def test_torch_export_follows():
    zeros = torch.zeros(1)
    assert Told()(zeros) == 0
    assert torch.export.export(Told(), (zeros,)).module()(zeros) == 1
    assert not followed()
