"""What the tests of FASL's scoring and of its training share."""

import pytest
import torch
import torch.nn.functional as F

from handful.methods.fasl import ScoreLearning
from handful.types import AuxiliaryClass, Features


def make(count, *, seed, crops=True):
    """Pictures of 6x6 and 3x3 places, and their 9 crops of 3 at stride 2 (the last at the edge)."""
    generator = torch.Generator().manual_seed(seed)

    def levels(*lead):
        return tuple(torch.randn(*lead, n, n, d, generator=generator) for n, d in ((6, 5), (3, 8)))

    def small(*lead):
        return tuple(torch.randn(*lead, n, n, d, generator=generator) for n, d in ((3, 5), (2, 8)))

    return Features(levels(count), (48, 48), crops=Features(small(count, 9), (24, 24)) if crops else None)


@pytest.fixture
def features():
    return make


@pytest.fixture
def classes():
    """Two classes of four good and two anomalous queries; the first two queries are references themselves."""
    made = []
    for seed in (0, 10):
        queries = make(8, seed=seed + 1, crops=False)
        references = Features(tuple(torch.cat([level[:2], level[:2] + 0.1]) for level in queries.levels), (48, 48))
        anomalous = torch.tensor([False] * 4 + [True] * 2 + [False, True])
        pixels = torch.zeros(8, 48, 48, dtype=torch.bool)
        pixels[anomalous, :16, :16] = True
        masks = tuple(F.adaptive_max_pool2d(pixels[:, None].float(), n)[:, 0] > 0 for n in (6, 3))
        own, augmented = torch.tensor([0, 1, -1, -1, -1, -1, -1, -1]), torch.arange(8) >= 6
        made.append(AuxiliaryClass(f"toy/{seed}", references, queries, anomalous, masks, own, pixels, augmented))
    return made


def start(classes, **settings):
    training = ScoreLearning(**{"pictures": 4, "shots": 1, "nam": True, **settings})
    training.start(classes, seed=0, device="cpu")
    return training


@pytest.fixture
def started():
    return start
