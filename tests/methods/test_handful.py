import math
from itertools import pairwise

import pytest
import torch

from handful.errors import InputError, SettingError
from handful.methods import create, handful
from handful.methods.handful import edge_weights
from handful.ops import least
from handful.ops.least import in_groups
from handful.types import Features


def features(*levels):
    return Features(levels, (64, 64))


def random_features(count, *, seed, sides=(8, 4), depth=5):
    generator = torch.Generator().manual_seed(seed)
    return features(*(torch.randn(count, side, side, depth, generator=generator) for side in sides))


def test_scores_by_hand():
    # One level of 1 x 3 patches. The nearest by length and by direction may be two different patches:
    # q = (3, 4): nearest by length is (3, 3) at 1; by direction (6, 8), the same direction, which counts as 4e-3.
    # (0, 2): nearest by length is (0, 1) at 1; by direction too, the same.
    references = features(torch.tensor([[[[3.0, 3.0], [6.0, 8.0], [0.0, 1.0]]]]))
    query = torch.tensor([[[[3.0, 4.0], [4.0, 3.0], [0.0, 2.0]]]])
    scores = create("handful", {"share": 1.0, "sigma": 0.0}).fit(references).score(features(query))
    # (4, 3): by length (3, 3) at 1; by direction (3, 3) too, of which the chord is taken.
    chord = math.dist((0.8, 0.6), (math.sqrt(0.5), math.sqrt(0.5)))
    expected = torch.tensor([[math.sqrt(4e-3), math.sqrt(chord), math.sqrt(4e-3)]]) * edge_weights(1, 3)
    assert scores.image.item() == pytest.approx(expected.mean().item(), rel=1e-5)


def test_levels_are_multiplied():
    # On one grid the score is the fourth root of the product of the four distances.
    one, other = random_features(2, seed=1, sides=(4,)), random_features(2, seed=2, sides=(4,))
    query, query_other = random_features(1, seed=3, sides=(4,)), random_features(1, seed=4, sides=(4,))
    single = create("handful", {"sigma": 0.0})
    apart = [
        create("handful", {"sigma": 0.0}).fit(bank).score(asked).maps
        for bank, asked in ((one, query), (other, query_other))
    ]
    both = single.fit(features(*one.levels, *other.levels)).score(features(*query.levels, *query_other.levels)).maps
    corners = both[0, [0, 0, -1, -1], [0, -1, 0, -1]]  # no other place's map is a patch's score alone
    assert torch.allclose(corners, (apart[0] * apart[1]).sqrt()[0, [0, 0, -1, -1], [0, -1, 0, -1]], rtol=1e-4)


def test_the_scale_of_a_level_changes_no_ranking():
    references, queries = random_features(3, seed=1), random_features(5, seed=2)
    plain = create("handful", {}).fit(references).score(queries)
    fine, coarse = references.levels
    scaled = create("handful", {}).fit(features(fine, 100 * coarse))
    again = scaled.score(features(queries.levels[0], 100 * queries.levels[1]))
    # Four distances in the mean, one of which is 100 times as long.
    assert torch.allclose(again.image, plain.image * 100**0.25, rtol=1e-4)


@pytest.mark.parametrize("measures", ["euclidean", "cosine"])
def test_one_measure_alone(measures):
    # q = (4, 3) is nearest to (3, 3) by either: 1 away, and the chord between their directions.
    references, query = features(torch.tensor([[[[3.0, 3.0]]]])), features(torch.tensor([[[[4.0, 3.0]]]]))
    method = create("handful", {"measures": measures, "damped": False, "sigma": 0.0}).fit(references)
    chord = math.dist((0.8, 0.6), (math.sqrt(0.5), math.sqrt(0.5)))
    assert method.score(query).image.item() == pytest.approx({"euclidean": 1.0, "cosine": chord}[measures], rel=1e-5)


def test_edges_are_damped_as_pooling_with_zeros_damps_them():
    weights = edge_weights(4, 5)
    assert weights[1:-1, 1:-1].eq(1).all()
    assert weights[0, 1:-1].tolist() == pytest.approx([2 / 3] * 3)
    assert weights[-1, -1].item() == pytest.approx(4 / 9)


def test_a_turned_copy_makes_its_patches_good():
    references, odd = random_features(2, seed=1), random_features(1, seed=5)
    rows = tuple(level.flatten(1, 2)[:, None].expand(2, -1, -1, -1) for level in odd.levels)
    method = create("handful", {}).fit(references, turned=features(*rows))
    assert method.score(odd).image.item() < 0.02
    assert create("handful", {}).fit(references).score(odd).image.item() > 0.1
    again = create("handful", {}).load_state(method.state())
    assert torch.equal(again.score(random_features(2, seed=6)).maps, method.score(random_features(2, seed=6)).maps)


def test_fine_levels_look_into_the_copies_that_the_coarsest_one_votes_for():
    references, odd = random_features(1, seed=1), random_features(3, seed=5)
    copies = tuple(level.flatten(1, 2)[None] for level in odd.levels)  # (1, 3, N, D): three copies of one reference
    one = create("handful", {"copies": 1, "sigma": 0.0}).fit(references, turned=features(*copies))
    every = create("handful", {"copies": 3, "sigma": 0.0}).fit(references, turned=features(*copies))
    for row in range(3):  # each is a copy to the last bit, so that no other needs to be looked into
        assert one.score(odd[[row]]).maps.max() < 0.02
    query = random_features(1, seed=9)
    assert (one.score(query).maps >= every.score(query).maps).all()
    assert not torch.equal(one.score(query).maps, every.score(query).maps)


def test_of_copies_with_equally_many_votes_the_first_are_looked_into():
    # Each of 40 places is nearest to another copy, 2 away; on the fine level later ones are nearer: 100, 99, 98, 97, …
    places, copies = 10 * torch.arange(40.0).reshape(1, 1, 40, 1), torch.arange(40.0).reshape(1, 40, 1, 1)
    fine = torch.zeros(1, 1, 40, 1)
    far = features(fine + 1000, places + 10_000)
    method = create("handful", {"measures": "euclidean", "damped": False, "sigma": 0.0, "copies": 4})
    method.fit(far, turned=features(100 - copies, 10 * copies + 2))
    assert method.score(features(fine, places)).image.item() == pytest.approx(math.sqrt(2 * 97), rel=1e-6)


def test_copies_that_are_as_near_as_each_other_both_have_the_votes():
    # The first two are alike on the coarse level, and nearest at three of five places; the third at the other two.
    places, most, others = 10 * torch.arange(5.0), torch.tensor([2.0, 2, 2, 5, 5]), torch.tensor([5.0, 5, 5, 2, 2])
    coarse = torch.stack([places + most, places + most, places + others])[None, :, :, None]
    fine = torch.tensor([100.0, 97, 90])[None, :, None, None].expand(1, 3, 5, 1)
    flat = torch.zeros(1, 1, 5, 1)
    method = create("handful", {"measures": "euclidean", "damped": False, "sigma": 0.0, "copies": 2})
    method.fit(features(flat + 1000, flat + 10_000), turned=features(fine, coarse))
    query = features(flat, places.reshape(1, 1, 5, 1))
    assert method.score(query).image.item() == pytest.approx(math.sqrt(2 * 97), rel=1e-6)


def test_turned_copies_must_be_wanted_and_of_every_reference():
    references, turned = random_features(2, seed=1), random_features(2, seed=2)
    with pytest.raises(InputError, match=r"`turned` must hold those of 2 references, got those of 1"):
        create("handful", {}).fit(references, turned=turned[[0]])
    for method in (create("handful", {"turn": "never"}), create("patchcore", {})):
        with pytest.raises(InputError, match=r"`turned` must hold none, got those of 2"):
            method.fit(references, turned=turned)


@pytest.mark.parametrize(
    "setting",
    [
        {"share": 1.5},
        {"sigma": -1.0},
        {"turn": "sometimes"},
        {"neighbourhood": 3},
        {"measures": "none"},
        {"coreset_ratio": 0},
        {"coreset_ratio": 1.01},
    ],
)
def test_settings_out_of_bounds_are_refused(setting):
    with pytest.raises(SettingError, match=next(iter(setting))):
        create("handful", setting)


def test_a_single_picture_is_scored_by_what_lies_apart_in_it():
    # One level of 1 x 40 patches 0, 1, 2, …; within 0 steps of itself (a side of 1) only the patch is left out.
    row = torch.arange(40.0).reshape(1, 1, 40, 1)
    method = create("handful", {"measures": "euclidean", "damped": False, "sigma": 0.0, "share": 1.0})
    assert method.fit(features(row)).score_against_itself(features(row)).image.item() == pytest.approx(1)
    # On 40 x 40 patches whose value is the column, those within two steps do not count: the nearest is in the same
    # column, three rows away. Make rows differ too, by 100: the nearest is three columns away.
    places = torch.arange(40.0)[:, None] * 100 + torch.arange(40.0)
    square = places.reshape(1, 40, 40, 1)
    assert method.fit(features(square)).score_against_itself(features(square)).image.item() == pytest.approx(3)


def with_turned(ratio, *, count=4):
    """Fitted to random references and to three turned copies of each."""
    return create("handful", {"coreset_ratio": ratio}).fit(random_features(count, seed=1), turned=three_copies(count))


def three_copies(count):
    levels = random_features(3 * count, seed=2).levels
    return features(*(level.flatten(1, 2).unflatten(0, (count, 3)) for level in levels))


def test_a_coreset_keeps_the_share_it_is_told_of_each_level_and_of_each_copy():
    whole, quarter, least = (with_turned(ratio) for ratio in (1.0, 0.25, 0.001))
    assert [len(rows.flatten(0, 2).unique(dim=0)) for rows in whole.rows_] == [256, 64]
    assert [rows.shape[:3] for rows in quarter.rows_] == [(1, 1, 64), (1, 1, 16)]
    assert [copies.shape[:3] for copies in quarter.turned_] == [(12, 1, 16), (12, 1, 4)]
    assert [rows.shape[:3] for rows in least.rows_] == [(1, 1, 1), (1, 1, 1)]
    assert [copies.shape[:3] for copies in least.turned_] == [(12, 1, 1), (12, 1, 1)]
    references, copies = random_features(4, seed=1).levels, three_copies(4).levels
    for level in range(2):
        kept = [quarter.rows_[level][0, 0], *quarter.turned_[level][:, 0]]
        good = [references[level].flatten(0, 2), *copies[level].flatten(0, 1)]
        for some, all_of_them in zip(kept, good, strict=True):
            assert (some[:, None] == all_of_them).all(2).any(1).all()  # good patches as they are


def test_a_coreset_of_all_patches_is_none_to_the_bit():
    references, copies = random_features(4, seed=1), three_copies(4)
    method, queries = with_turned(1.0), random_features(3, seed=3)
    for rows, level in zip(method.rows_, references.levels, strict=True):
        assert torch.equal(rows[0], in_groups(level.flatten(0, 2), ("euclidean", "cosine")))
    for turned, level in zip(method.turned_, copies.levels, strict=True):
        assert torch.equal(turned[:, 0], level.flatten(0, 1))
    plain = create("handful", {}).fit(references, turned=copies)
    assert torch.equal(plain.score(queries).maps, method.score(queries).maps)


def test_fewer_patches_are_never_nearer():
    # Of each bank alone: choosing one row after the other, a smaller coreset is the beginning of a larger one.
    references, queries = random_features(4, seed=1), random_features(3, seed=3)
    scores = [
        create("handful", {"coreset_ratio": ratio}).fit(references).score(queries)
        for ratio in (1.0, 0.5, 0.25, 0.1, 0.001)
    ]
    for more, fewer in pairwise(scores):
        assert (fewer.maps >= more.maps - 1e-6).all()
        assert (fewer.image > more.image).all()


def test_a_coreset_leaves_no_good_patch_far_away():
    # 40 patches alike and 4 of other makes: the fifth row is one of the 40, and none of the others is lost.
    rare = 10 * torch.eye(4)
    rows = torch.cat([0.01 * torch.rand(40, 4, generator=torch.Generator().manual_seed(1)), rare])
    method = create("handful", {"coreset_ratio": 5 / 44}).fit(features(rows.reshape(1, 4, 11, 4)))
    kept = method.rows_[0][0, 0]
    assert len(kept) == 5
    assert all((kept == one).all(1).any() for one in rare)


def test_the_order_of_references_does_not_matter_to_a_coreset():
    references, queries = random_features(4, seed=1), random_features(2, seed=3)
    one, other = (
        create("handful", {"coreset_ratio": 0.25}).fit(references[order]).score(queries)
        for order in ([0, 1, 2, 3], [2, 0, 3, 1])
    )
    assert torch.allclose(one.maps, other.maps, rtol=1e-4, atol=1e-6)


def test_a_coreset_by_direction_alone_chooses_by_direction():
    # The first two point the same way, and the third is nearer to the first than the second is.
    rows = torch.tensor([[0.0, 9.0], [0.0, 0.5], [3.0, 3.0]]).reshape(1, 1, 3, 2)
    kept = {
        measures: create("handful", {"measures": measures, "coreset_ratio": 0.7}).fit(features(rows)).rows_[0][0, 0]
        for measures in ("cosine", "euclidean")
    }
    assert {measures: rows.tolist() for measures, rows in kept.items()} == {
        "cosine": [[3.0, 3.0], [0.0, 9.0]],
        "euclidean": [[0.0, 9.0], [0.0, 0.5]],
    }


def test_what_was_saved_before_there_were_groups_scores_as_it_did():
    method, queries = with_turned(0.25), random_features(3, seed=3)
    state = method.state()
    old = {name: rows[0, 0] if name.startswith("rows") else rows[:, 0] for name, rows in state.items() if rows.ndim > 1}
    assert [old[name].ndim for name in ("rows.0", "turned.0")] == [2, 3]
    again = create("handful", {"coreset_ratio": 0.25}).load_state(old | {"depths": state["depths"]})
    assert torch.equal(again.score(queries).maps, method.score(queries).maps)
    assert torch.equal(again.state()["turned.1"], old["turned.1"])  # as the graph that lies beside it takes it


def test_a_thinned_method_is_saved_and_loaded():
    method, queries = with_turned(0.25), random_features(2, seed=6)
    again = create("handful", {"coreset_ratio": 0.25}).load_state(method.state())
    assert torch.equal(again.score(queries).maps, method.score(queries).maps)


def test_a_single_picture_is_compared_with_all_its_places_whatever_share_is_kept():
    reference = random_features(1, seed=1, sides=(40, 20))
    whole, thinned = (create("handful", {"coreset_ratio": ratio}).fit(reference) for ratio in (1.0, 0.1))
    assert torch.equal(thinned.score_against_itself(reference).maps, whole.score_against_itself(reference).maps)


def row_of(*cells):
    """One level of 1 x N cells, each a direction of three: what a wide patch sees is told apart by direction alone."""
    return features(torch.eye(3)[list(cells)][None, None])


def unpooled(monkeypatch):
    monkeypatch.setattr(handful, "WIDE", 1)


def test_wide_patches_by_hand(monkeypatch):
    # On 1 x 30 cells a place is one within 10 % of the shorter side, that is one cell. The reference shows direction 0
    # on the left half and 1 on the right one. A query that shows 0 in cell 20 shows nothing strange, but out of place.
    unpooled(monkeypatch)
    reference, odd = [0] * 15 + [1] * 15, [0] * 15 + [1] * 5 + [0] + [1] * 9
    method = create("handful", {"sigma": 0.0}).fit(row_of(*reference))
    ((_, pooled, placed),) = method.terms(row_of(*odd)).tolist()
    assert pooled == pytest.approx(math.sqrt(least.CANCELLED) / 3)  # above and below a row there is nothing
    assert placed == pytest.approx(math.sqrt(2) / 3)  # the highest 2 % of 30 cells are one
    within = method.terms(row_of(*([0] * 16 + [1] * 14)))  # moved by a cell
    assert within[0, 2].item() == pytest.approx(math.sqrt(least.CANCELLED) / 3)


def test_terms_count_by_what_they_make_of_pictures_left_out(monkeypatch):
    unpooled(monkeypatch)
    reference, odd = [0] * 15 + [1] * 15, row_of(*([0] * 15 + [1] * 5 + [0] + [1] * 9))
    method = create("handful", {"sigma": 0.0}).fit(row_of(*reference))
    alone, placed = method.score(odd).image.item(), method.terms(odd)[0, 2].item()
    method.weigh(torch.tensor([[0.1, 0.5, 0.2], [0.4, 0.5, 0.8]]))  # geometric means 0.2, 0.5, 0.4
    scores = method.score(odd)
    assert scores.image.item() == pytest.approx(max(alone, handful.LEAD * 0.2 * (placed / 0.4) ** handful.STEEP))
    assert scores.image.item() > 4 * alone
    assert scores.maps[0, 0].argmax() in range(40, 45) and scores.maps.max() > 4 * alone  # cell 20 of 30 in 64 pixels
    method.weigh(torch.tensor([[0.2, 1e6, 1e6]]))  # good pictures vary so much that the term says nothing
    assert method.score(odd).image.item() == pytest.approx(alone)


SINGLE_RISE = 1.5  # in single patches


@pytest.mark.parametrize(
    ("without", "found", "gain"),
    [
        (0.1, 3.0, 1.13),  # far stranger with a defect, and quiet without: any gain raises the score, the largest most
        (0.1, 0.1, 1.0),  # blind to it
        (3.0, 3.0, 1.0),  # as strange without
        (3.0, 3.1, 1.0),  # single patches see more of it than wide ones
        (0.965, 1.55, 1.04),  # a larger gain would raise scores without a defect too
    ],
)
def test_wide_patches_count_by_what_they_make_of_synthetic_defects(without, found, gain):
    method = create("handful", {}).fit(random_features(3, seed=1))
    # A score of wide patches counts as LEAD times itself to the power STEEP, as all means over pictures left out are 1.
    scores = [(score / handful.LEAD) ** (1 / handful.STEEP) for score in (without, found)]
    method.weigh(torch.ones(3, 3), torch.tensor([[[1.0, scores[0], 0.01], [SINGLE_RISE, 0.01, scores[1]]]] * 4))
    assert method.usual_.tolist() == pytest.approx([1, 1, 1, gain])
    assert (f"with a gain of {gain:g}, chosen by synthetic defects" in method.evidence) == (gain != 1)


def test_a_gain_counts_in_score_and_map_and_can_be_asked_for():
    references, queries = random_features(3, seed=1), random_features(2, seed=2)
    methods = {
        gain: create("handful", {"gain": gain, "sigma": 0.0}).fit(references) for gain in (0.0, 1.0, 1000.0, 2000.0)
    }
    for method in methods.values():
        method.weigh(torch.ones(3, 3), torch.tensor([[[1.0, 0.1, 0.1], [1.0, 9.0, 9.0]]]))
    assert methods[0.0].usual_[3].item() == pytest.approx(1.13) and methods[1.0].usual_[3].item() == 1
    assert methods[0.0].weighs_defects and not methods[1.0].weighs_defects
    assert "with a gain of 2e+03, as asked for" in methods[2000.0].evidence
    half, whole = (methods[gain].score(queries) for gain in (1000.0, 2000.0))  # so large that wide patches count alone
    assert torch.allclose(whole.image, 2 * half.image) and torch.allclose(whole.maps, 2 * half.maps)
    # One that was saved before there was a gain counts as with 1.
    state = methods[0.0].state()
    old = create("handful", {"sigma": 0.0}).load_state({**state, "usual": state["usual"][:3]})
    assert torch.equal(old.score(queries).maps, methods[1.0].score(queries).maps) and "times" not in old.evidence


def test_wide_patches_do_not_count_where_references_do_not_lie_still():
    references, queries = random_features(3, seed=1), random_features(2, seed=2)
    single = create("handful", {"wide": False}).fit(references).score(queries)
    method = create("handful", {}).fit(references)
    method.weigh(torch.tensor([[1.0, 1.0, handful.STILL * 1.01]] * 3))
    assert "still" in method.evidence and method.terms(queries) is None
    assert torch.equal(method.score(queries).maps, single.maps)
    again = create("handful", {}).fit(references).weighed_as(method)
    assert torch.equal(again.score(queries).image, single.image) and again.evidence == method.evidence
    method.fit(references).weigh(torch.tensor([[1.0, 1.0, handful.STILL * 0.99]] * 3))
    assert "in their place" in method.evidence


def test_wide_patches_are_kept_with_their_scale():
    references, queries = random_features(3, seed=1), random_features(2, seed=2)
    method = create("handful", {}).fit(references)
    method.weigh(method.terms(queries))
    again = create("handful", {}).load_state(method.state())
    assert torch.equal(again.score(queries).image, method.score(queries).image)
    assert torch.equal(
        method.unfitted().fit(references).weighed_as(method).score(queries).maps, again.score(queries).maps
    )
    old = {name: value for name, value in method.state().items() if name not in ("wide", "usual")}
    plain = create("handful", {"wide": False}).fit(references)
    assert torch.equal(create("handful", {}).load_state(old).score(queries).image, plain.score(queries).image)


def test_wide_patches_do_not_count_where_parts_turn_or_where_switched_off():
    references = random_features(2, seed=1)
    turned = Features(tuple(level.flatten(1, 2)[:, None] for level in references.levels), references.size)
    turns = create("handful", {}).fit(references, turned=turned)
    off = create("handful", {"wide": False}).fit(references)
    assert turns.terms(references) is None and "turns" in turns.evidence
    assert off.terms(references) is None and "switched off" in off.evidence
    assert create("handful", {}).fit(references).terms(references).shape == (2, 3)


def test_wide_patches_of_a_single_picture_count_where_its_places_differ(monkeypatch):
    # Cell 14 alone shows direction 2: the highest 2 % of 30 cells are one, as strange as can be to all others.
    unpooled(monkeypatch)
    single, apart = row_of(*([0] * 14 + [2] + [1] * 15)), math.sqrt(2) / 3
    method = create("handful", {}).fit(single)
    for varied, counts in ((apart / handful.DISTINCT * 0.99, True), (apart / handful.DISTINCT * 1.01, False)):
        method.fit(single).weigh_alone(torch.tensor([[0.1, varied / 2, 0.3], [0.4, varied * 2, 0.3]]))
        assert (method.terms(single) is not None) == counts
        assert ("in their place" in method.evidence) == counts
    method.fit(single).weigh_alone(torch.tensor([[0.1, 0.01, 0.3], [0.4, 0.01, 0.3]]))
    assert method.usual_.tolist() == pytest.approx([handful.ALONE * 0.2, 0.01, 0.3, 1])
    method.fit(row_of(*([0] * 15 + [1] * 15))).weigh_alone(torch.tensor([[0.1, 0.01, 0.3]]))  # every place comes again
    assert method.terms(single) is None


def test_wide_patches_that_were_not_measured_are_not_kept():
    method = create("handful", {}).fit(random_features(1, seed=1))
    assert "one reference" in method.evidence
    again = create("handful", {}).load_state(method.state())
    assert again.evidence == method.evidence and again.terms(random_features(1, seed=2)) is None
