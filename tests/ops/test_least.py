"""Least distances in two measures, in torch and in a graph, against every distance computed by itself."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from handful.ops import least
from handful.ops.least import CANCELLED, in_groups, least_distances

BOTH = ("euclidean", "cosine")


class Graph(nn.Module):
    def __init__(self, measures):
        super().__init__()
        self.measures = measures

    def forward(self, rows, queries, *among):
        return tuple(least_distances(rows, queries, self.measures, among=among[0] if among else None))


def in_torch(rows, queries, measures=BOTH, *among):
    return Graph(measures)(rows, queries, *among)


def in_a_graph(rows, queries, measures=BOTH, *among):
    return torch.export.export(Graph(measures), (rows, queries, *among)).module()(rows, queries, *among)


def on_a_gpu(rows, queries, measures=BOTH, *among):
    inputs = [given.cuda() for given in (rows, queries, *among)]
    return [found.cpu() for found in Graph(measures)(*inputs)]


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")


@pytest.fixture(params=[in_torch, in_a_graph, pytest.param(on_a_gpu, marks=[pytest.mark.gpu, needs_cuda])])
def search(request, monkeypatch):
    monkeypatch.setattr(least, "ELEMENTS", 150)  # several blocks of groups, the last one smaller
    monkeypatch.setattr(least, "ELEMENTS_ON_GPU", 150)
    monkeypatch.setattr(least, "WIDE", 4)
    return request.param


def every_distance(rows, queries, measure):
    """(P, M, D), (N, D) → (P, N, M)."""
    bank, asked = (rows, queries) if measure == "euclidean" else (F.normalize(rows, dim=-1), F.normalize(queries))
    return torch.cdist(asked.double(), bank.double())


@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("measures", [BOTH, ("euclidean",), ("cosine",)])
@pytest.mark.parametrize("parts", [1, 3])
def test_distances_are_those_computed_one_by_one(search, measures, zeros, parts):
    torch.manual_seed(0)
    rows, queries = torch.randn(parts, 198, 5), torch.randn(7, 5)
    if zeros:
        rows[:, [3, 150]] = 0.0
    each = [in_groups(part, measures) for part in rows]
    fewest = min(part.shape[1] for part in each)
    groups = torch.stack([part[:, :fewest] for part in each])  # (P, K, L, D)
    queries[2], queries[4], queries[5] = 0.0, groups[-1, 1, 40], -3 * rows[0].mean(0)  # the last is unlike all
    for measure, distances in zip(measures, search(groups, queries, measures), strict=True):
        squares = every_distance(groups.flatten(1, 2), queries, measure).amin(2).square()
        lengths = queries.square().sum(1)
        lengths = lengths if measure == "euclidean" else lengths.sign()  # of zeros it is 0
        squares = torch.maximum(squares, CANCELLED * lengths)
        assert (
            (distances.double().square() - squares).abs() <= 5e-7 * (lengths + squares)
        ).all()  # what cancels leaves
        assert distances[-1, 4] == pytest.approx(4e-3 * float(lengths[4].sqrt()))  # one of the rows
        assert (distances[:, 2] == 0).all() == zeros


@pytest.mark.parametrize("depth", [1, 40])
def test_rows_in_groups_are_the_rows_but_for_one_in_a_hundred_of_their_length(depth):
    torch.manual_seed(0)
    rows = torch.randn(1000, depth) * torch.logspace(-2, 3, 1000)[:, None]
    rows[:3] = 0.0
    groups = in_groups(rows, BOTH)
    assert groups.shape[0] == 7 and groups.shape[1:] == (groups.shape[1], depth)
    lengths = groups.norm(dim=2)
    assert lengths.T == pytest.approx(lengths.amax(0)[:, None].expand(-1, 7), rel=1e-5)  # one for each group
    found, own = groups.flatten(0, 1), every_distance(groups.flatten(0, 1)[None], rows, "euclidean")[0]
    assert (own.amin(1) <= 0.01 * rows.norm(dim=1)).all()  # no row is lost
    assert every_distance(rows[None], found, "cosine")[0].amin(1) == pytest.approx(0, abs=1e-6)  # and none made up
    again = in_groups(rows[torch.randperm(1000)], BOTH)
    assert torch.equal(again, groups)


def test_few_rows_and_those_for_one_measure_stay_as_they_are():
    torch.manual_seed(0)
    few, many = torch.randn(99, 4), torch.randn(1000, 4)
    assert torch.equal(in_groups(few, BOTH), few[None])
    for measures in (("euclidean",), ("cosine",)):
        groups = in_groups(many, measures)
        assert groups.shape == (7, 143, 4)  # 1001, one of them twice
        assert {tuple(row) for row in groups.flatten(0, 1).tolist()} == {tuple(row) for row in many.tolist()}


@pytest.mark.parametrize("count", [400, 1600, 6400])
def test_few_rows_come_again_to_fill_groups_up(count):
    generator = torch.Generator().manual_seed(count)
    lengths = 30 * torch.exp(0.3 * torch.randn(count, 1, generator=generator))  # spread as those of pills' features
    groups = in_groups(lengths * F.normalize(torch.randn(count, 40, generator=generator)), BOTH)
    assert len(groups.flatten(0, 1).unique(dim=0)) == count
    assert count <= groups.shape[:2].numel() <= 1.2 * count


def test_what_is_a_little_farther_from_a_row_is_a_little_farther_away(search):
    # As engines round differently, a jump would be one between their answers.
    torch.manual_seed(0)
    rows = in_groups(torch.randn(200, 40), BOTH)[None]
    row = rows[0, 0, 5]
    away = F.normalize(torch.randn(40), dim=0) * row.norm()
    queries = row + torch.arange(0, 1.2e-2, 2e-5)[:, None] * away
    for measure, found in zip(BOTH, search(rows, queries), strict=True):
        distances = found[0] / (row.norm() if measure == "euclidean" else 1)
        assert distances[0] == pytest.approx(4e-3, rel=1e-3) and distances[-1] > 1e-2
        assert (distances[1:] - distances[:-1]).abs().max() < 5e-4


@pytest.mark.parametrize("measures", [BOTH, ("euclidean",), ("cosine",)])
@pytest.mark.parametrize("among", [[2], [3, 0], [4, 1, 0]])
def test_of_parts_that_are_chosen_the_nearest_counts(search, measures, among):
    torch.manual_seed(0)
    rows, queries = torch.randn(5, 3, 37, 6), torch.randn(9, 6)
    if len(measures) > 1:
        rows *= rows[:, :1].norm(dim=3, keepdim=True) / rows.norm(dim=3, keepdim=True)  # one length in each group
    rows[0, 0, 0] = 0.0
    for found, every in zip(
        search(rows, queries, measures, torch.tensor(among)), in_torch(rows, queries, measures), strict=True
    ):
        assert found.shape == (1, 9)
        assert torch.allclose(found[0], every[among].amin(0), rtol=1e-5)


def test_a_patch_that_holds_nan_is_nan_from_all(search):
    rows, queries = torch.randn(1, 2, 32, 3), torch.randn(4, 3)
    queries[1, 2] = torch.nan
    assert [one[0].isnan().tolist() for one in search(rows, queries)] == [[False, True, False, False]] * 2


@pytest.mark.parametrize("measure", BOTH)
def test_one_measure_alone_is_as_beside_the_other(measure):
    rows, queries = torch.randn(1, 1, 20, 3), torch.randn(4, 3)
    both = dict(zip(BOTH, least_distances(rows, queries, BOTH), strict=True))
    (alone,) = least_distances(rows, queries, [measure])
    assert torch.equal(alone, both[measure]) or measure == "euclidean"  # whose products are summed in another order
    assert torch.allclose(alone, both[measure], rtol=1e-6, atol=0)
