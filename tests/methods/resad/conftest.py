"""What the tests of ResAD's scoring and of its training share."""

import pytest
import torch

from handful.methods.resad import ResidualTraining
from handful.types import AuxiliaryClass, Features

# With the constraintor, as in the paper: the tests of the default leave it out by name.
QUICK = {"pictures": 4, "places": 40, "blocks": 2, "condition": 8, "shots": 2, "constraintor": True}


def make(count, *, seed):
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(torch.randn(count, n, n, d, generator=generator) for n, d in ((6, 5), (3, 8)))
    return Features(levels, (48, 48))


@pytest.fixture
def features():
    return make


@pytest.fixture
def classes():
    """Two classes of four good and two anomalous queries; the first two queries are references themselves."""
    made = []
    for seed in (0, 10):
        queries = make(6, seed=seed + 1)
        references = Features(tuple(torch.cat([level[:2], level[:2] + 0.1]) for level in queries.levels), (48, 48))
        anomalous = torch.tensor([False] * 4 + [True] * 2)
        masks = tuple(torch.zeros(level.shape[:3], dtype=torch.bool) for level in queries.levels)
        masks[0][4:, :2, :2] = masks[1][4:, 0, 0] = True
        own = torch.tensor([0, 1, -1, -1, -1, -1])
        pixels, augmented = torch.zeros(6, 48, 48, dtype=torch.bool), torch.zeros(6, dtype=torch.bool)
        made.append(AuxiliaryClass(f"toy/{seed}", references, queries, anomalous, masks, own, pixels, augmented))
    return made


def start(classes, **settings):
    training = ResidualTraining(**{**QUICK, **settings})
    training.start(classes, seed=0, device="cpu")
    return training


@pytest.fixture
def started():
    return start
