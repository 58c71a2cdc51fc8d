import pytest
import torch

from handful.ops import neighbors
from handful.ops.neighbors import GROUP, Bank, first_place


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


@pytest.fixture
def by_codes():
    """Searches a bank by codes; for comparison, `_nearest_by_products` does not."""
    if not neighbors._multiplies_codes():
        pytest.skip("this CPU does not multiply whole numbers of 8 bits")
    return lambda bank, queries: bank._nearest_by_codes(queries, bank._grid)


@pytest.mark.parametrize(
    "spread",
    [torch.ones(24), torch.logspace(-3, 2, 24), torch.tensor([1.0] + [0.0] * 23)],
    ids=["even", "channels of all sizes", "one channel"],
)
@pytest.mark.parametrize("rows", [1, GROUP, 5 * GROUP + 3])
def test_codes_lead_to_the_nearest_row(by_codes, spread, rows):
    generator = torch.Generator().manual_seed(rows)
    bank = Bank(torch.randn(rows, 24, generator=generator) * spread + 5)
    near = bank.rows[torch.randint(rows, (40,), generator=generator)]
    queries = near + 0.3 * spread * torch.randn(40, 24, generator=generator)
    expected = brute_force(queries, bank.rows, 1)
    assert torch.equal(by_codes(bank, queries), expected.indices[:, 0])
    assert torch.allclose(bank.nearest(queries)[0].double(), expected.values, rtol=1e-6)  # float32 rounding


def test_codes_lead_to_the_nearest_row_from_far_away(by_codes, monkeypatch):
    monkeypatch.setattr(neighbors, "CODED_ELEMENTS", 50_000)  # some queries at a time
    # Beyond the largest code a query's own rounding is off by far, and every row may be the nearest.
    generator = torch.Generator().manual_seed(0)
    bank = Bank(torch.randn(40 * GROUP * neighbors.MOST_GROUPS // 8, 6, generator=generator))
    queries = torch.cat([100 * torch.randn(7, 6, generator=generator), bank.rows[:7] + 0.01])
    assert torch.equal(by_codes(bank, queries), brute_force(queries, bank.rows, 1).indices[:, 0])


def test_of_rows_equally_near_codes_lead_to_the_first(by_codes):
    bank = Bank(torch.tensor([[3.0, 0], [1, 0], [-1, 0], [1, 0], [0, 1]]).repeat(30, 1))
    assert by_codes(bank, torch.tensor([[0.0, 0], [3, 0], [1, 1]])).tolist() == [1, 0, 1]
    assert Bank(torch.zeros(70, 3)).nearest(torch.ones(2, 3))[1].tolist() == [[0], [0]]


def test_a_bank_for_one_search_is_not_rounded(by_codes, monkeypatch):
    rows, queries = (torch.randn(n, 6, generator=torch.Generator().manual_seed(n)) for n in (200, 9))
    expected = Bank(rows).nearest(queries)
    monkeypatch.setattr(neighbors, "_Grid", None)  # making one would fail
    found = Bank(rows, once=True).nearest(queries)
    assert torch.equal(found[0], expected[0]) and torch.equal(found[1], expected[1])


def test_a_small_bank_is_searched_plainly_where_rounding_leaves_a_quarter(by_codes, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    bank = Bank(torch.randn(1600, 6, generator=generator))
    plain = []
    kept = Bank._nearest_by_products
    monkeypatch.setattr(
        Bank, "_nearest_by_products", lambda self, q, *rest: plain.append(len(q)) or kept(self, q, *rest)
    )
    far = 100 * torch.randn(20, 6, generator=generator)
    assert torch.equal(by_codes(bank, far), brute_force(far, bank.rows, 1).indices[:, 0])
    assert sum(plain) >= 15
    plain.clear()
    by_codes(bank, bank.rows[:20] + 0.01)
    assert sum(plain) == 0


def test_codes_measure_few_rows_in_full(by_codes, monkeypatch):
    generator = torch.Generator().manual_seed(0)
    bank = Bank(torch.randn(4000, 64, generator=generator))
    queries = bank.rows[::20] + 0.5 * torch.randn(200, 64, generator=generator)
    measured = []
    kept = neighbors.distance
    monkeypatch.setattr(neighbors, "distance", lambda one, other: measured.append(len(one)) or kept(one, other))
    by_codes(bank, queries)
    assert len(queries) < sum(measured) < 10 * len(queries) + len(bank.rows)  # of 4000 rows for each query


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
