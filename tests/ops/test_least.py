"""Least distances in two measures, in torch and in a graph, against every distance computed by itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from handful.ops import least
from handful.ops.least import least_distances

BOTH = ("euclidean", "cosine")


class Graph(nn.Module):
    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def forward(self, rows, queries):
        return tuple(least_distances(rows, queries, BOTH, parts=self.parts))


def in_torch(rows, queries, parts):
    return least_distances(rows, queries, BOTH, parts=parts)


def in_a_graph(rows, queries, parts):
    return torch.export.export(Graph(parts), (rows, queries)).module()(rows, queries)


@pytest.fixture(params=[in_torch, in_a_graph])
def search(request, monkeypatch):
    monkeypatch.setattr(least, "ELEMENTS", 300)  # several blocks of queries
    monkeypatch.setattr(least, "GRAPH_ELEMENTS", 150)  # several groups of blocks of rows, the last ones smaller
    return request.param


@pytest.mark.parametrize("parts", [1, 6])
@pytest.mark.parametrize("zeros", [False, True])
def test_both_measures_distances_are_those_computed_one_by_one(search, zeros, parts):
    torch.manual_seed(0)
    rows, queries = torch.randn(198, 5), torch.randn(7, 5)
    queries[2], queries[4], queries[5] = 0.0, rows[170], -3 * rows.mean(0)  # the last is unlike all
    if zeros:
        rows[[3, 150]] = 0.0
    found = search(rows, queries, parts)
    plain, unit = ((rows, queries), (F.normalize(rows), F.normalize(queries)))
    for (bank, asked), distances in zip((plain, unit), found, strict=True):
        every = torch.cdist(asked.double(), bank.double()).unflatten(1, (parts, -1))
        assert distances.double() == pytest.approx(every.amin(2).T, abs=1e-6)
    own = 170 // (198 // parts)  # the part that holds what the query repeats
    assert found[0][own, 4] == found[1][own, 4] == 0  # no cancellation
    assert (found[1][:, 2] == 0).any() == zeros


def test_a_patch_that_holds_nan_is_nan_from_all(search):
    rows, queries = torch.randn(64, 3), torch.randn(4, 3)
    queries[1, 2] = torch.nan
    assert [one[0].isnan().tolist() for one in search(rows, queries, 1)] == [[False, True, False, False]] * 2


@pytest.mark.parametrize("measure", BOTH)
def test_one_measure_alone_is_as_beside_the_other(measure):
    rows, queries = torch.randn(20, 3), torch.randn(4, 3)
    both = dict(zip(BOTH, least_distances(rows, queries, BOTH), strict=True))
    (alone,) = least_distances(rows, queries, [measure])
    assert torch.equal(alone, both[measure])
