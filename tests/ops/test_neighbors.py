import pytest
import torch

from handful.ops import neighbors
from handful.ops.neighbors import Bank, first_place


def brute_force(queries, bank, neighbours):
    distances = (queries.double()[:, None] - bank.double()[None]).square().sum(2).sqrt()
    return distances.topk(neighbours, dim=1, largest=False)


@pytest.mark.parametrize("neighbours", [1, 3])
def test_equals_brute_force_in_float64(neighbours):
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(50, 12, generator=generator), torch.randn(70, 12, generator=generator)
    distances, indices = Bank(bank).nearest(queries, neighbours=neighbours)
    expected = brute_force(queries, bank, neighbours)
    assert torch.equal(indices, expected.indices)
    assert torch.allclose(distances.double(), expected.values, rtol=1e-6)  # float32 rounding


def test_a_query_of_the_bank_is_exactly_zero_away():
    # Far from the origin the expanded square alone would be off by more than 1, and name the wrong neighbour.
    bank = torch.randn(40, 8, generator=torch.Generator().manual_seed(0)) + 1000
    distances, indices = Bank(bank).nearest(bank)
    assert torch.equal(distances, torch.zeros(40, 1))
    assert torch.equal(indices[:, 0], torch.arange(40))


def test_chunks_do_not_change_the_answer(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    queries, bank = torch.randn(33, 5, generator=generator), torch.randn(20, 5, generator=generator)
    whole = Bank(bank).nearest(queries, neighbours=2)
    monkeypatch.setattr(neighbors, "CHUNK_ELEMENTS", 47)  # two queries at a time, one at the end
    in_chunks = Bank(bank).nearest(queries, neighbours=2)
    assert torch.equal(whole[1], in_chunks[1])
    assert torch.equal(whole[0], in_chunks[0])


def test_neighbours_come_nearest_first():
    bank = torch.tensor([[3.0], [1.0], [2.0]])
    distances, indices = Bank(bank).nearest(torch.zeros(1, 1), neighbours=3)
    assert distances.tolist() == [[1, 2, 3]]
    assert indices.tolist() == [[1, 2, 0]]


@pytest.mark.parametrize("neighbours", [1, 2])
def test_excluded_rows_are_no_neighbours(monkeypatch, neighbours):
    monkeypatch.setattr(neighbors, "CHUNK_ELEMENTS", 100)  # five queries at a time
    generator = torch.Generator().manual_seed(0)
    bank = torch.randn(20, 4, generator=generator)
    bank[7] = bank[3]  # a row that is not excluded stays a neighbour, however near
    excluded = torch.stack([torch.arange(20), (torch.arange(20) + 1) % 20], 1)
    distances, indices = Bank(bank).nearest(bank, neighbours=neighbours, excluded=excluded)
    whole = (bank.double()[:, None] - bank.double()[None]).square().sum(2).sqrt()
    expected = whole.scatter(1, excluded, float("inf")).topk(neighbours, dim=1, largest=False)
    assert torch.equal(indices, expected.indices)
    assert torch.allclose(distances.double(), expected.values, rtol=1e-6)  # float32 rounding
    assert indices[3, 0] == 7 and distances[3, 0] == 0


def test_excluding_a_row_twice_is_excluding_it_once():
    bank = torch.tensor([[0.0], [1.0], [3.0]])
    distances, indices = Bank(bank).nearest(bank, excluded=torch.arange(3)[:, None].expand(-1, 4))
    assert distances[:, 0].tolist() == [1, 1, 2]
    assert indices[:, 0].tolist() == [1, 0, 1]


def test_of_rows_equally_near_the_first_is_found():
    bank = Bank(torch.tensor([[3.0, 0], [1, 0], [-1, 0], [1, 0], [-4, 0]]).repeat(30, 1))  # their mean is 0 exactly
    assert bank.nearest(torch.tensor([[0.0, 0], [3, 0], [1, 1]]))[1].tolist() == [[1], [0], [1]]
    assert Bank(torch.zeros(70, 3)).nearest(torch.ones(2, 3))[1].tolist() == [[0], [0]]


@pytest.mark.parametrize("neighbours", [1, 3])
def test_followed_by_torch_export_the_search_gives_the_same(monkeypatch, neighbours):
    monkeypatch.setattr(neighbors, "CHUNK_ELEMENTS", 1000)  # in blocks
    generator = torch.Generator().manual_seed(0)
    bank = Bank(torch.randn(200, 8, generator=generator) + 1000)  # far from the origin, see above
    bank.rows[7] = bank.rows[3]

    class Search(torch.nn.Module):
        def forward(self, queries):
            return bank.nearest(queries, neighbours=neighbours)

    queries = torch.cat([bank.rows[:20], bank.rows[:20] + torch.randn(20, 8, generator=generator)])
    distances, indices = torch.export.export(Search(), (queries,), strict=False).module()(queries)
    expected = bank.nearest(queries, neighbours=neighbours)
    assert torch.equal(distances, expected[0])
    assert torch.equal(distances[:20, 0], torch.zeros(20))  # no cancellation
    if neighbours == 1:
        assert torch.equal(indices, expected[1])  # of equals the first


def test_the_place_of_the_least_is_the_first_of_equals():
    assert first_place(torch.tensor([[3, 1, 1], [0, 2, 0], [4, 4, 4]])).tolist() == [[1], [0], [0]]
