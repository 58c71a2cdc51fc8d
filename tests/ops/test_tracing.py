"""What is traced knows of it, and nothing else does."""

import pytest
import torch
from torch import nn

from handful.ops.tracing import is_tracing, tracing


class Told(nn.Module):
    def forward(self, values):
        return values + is_tracing()


def test_it_is_so_in_there_alone():
    assert not is_tracing()
    with tracing():
        with tracing():
            assert is_tracing()
        assert is_tracing()
    assert not is_tracing()


def test_an_error_ends_it():
    with pytest.raises(ZeroDivisionError), tracing():
        raise ZeroDivisionError
    assert not is_tracing()


def test_torch_export_traces():
    zeros = torch.zeros(1)
    assert Told()(zeros) == 0
    assert torch.export.export(Told(), (zeros,)).module()(zeros) == 1
    assert not is_tracing()
