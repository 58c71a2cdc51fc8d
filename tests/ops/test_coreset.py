import torch

from handful.ops.coreset import greedy_coreset


def test_takes_the_farthest_point_each_time():
    points = torch.tensor([[0.0], [1.0], [10.0], [4.0]])
    # From 0: 10 is farthest; then 4 (4 from 0) before 1.
    assert greedy_coreset(points, 4).tolist() == [0, 2, 3, 1]


def test_starts_where_it_is_told():
    points = torch.tensor([[0.0], [1.0], [10.0]])
    assert greedy_coreset(points, 2, start=2).tolist() == [2, 0]


def test_never_chooses_a_row_twice_even_among_copies():
    points = torch.zeros(5, 3)
    assert sorted(greedy_coreset(points, 5).tolist()) == [0, 1, 2, 3, 4]


def test_copies_of_chosen_rows_come_last_and_in_order_however_far_from_the_origin():
    points = 1e4 + torch.tensor([[0.0, 1.0], [3.0, 0.0], [3.0, 0.0], [0.0, 1.0], [9.0, 9.0]])
    assert greedy_coreset(points, 5).tolist() == [0, 4, 1, 2, 3]


def test_covers_as_well_as_the_greedy_bound_promises():
    points = torch.randn(60, 4, generator=torch.Generator().manual_seed(0))
    radius = []
    for size in (2, 5, 20):
        chosen = points[greedy_coreset(points, size)]
        radius.append(float(torch.cdist(points, chosen).min(1).values.max()))
    assert radius[0] > radius[1] > radius[2]
    # The next point would be chosen at the current radius: chosen points lie at least that far apart.
    chosen = points[greedy_coreset(points, 20)]
    gaps = torch.cdist(chosen, chosen) + torch.eye(20) * 1e9
    assert float(gaps.min()) >= radius[2] - 1e-5
