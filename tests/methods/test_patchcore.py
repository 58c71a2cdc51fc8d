from pathlib import Path

import pytest
import safetensors.torch
import torch

from handful.errors import SettingError
from handful.methods.patchcore import PatchCore
from handful.methods.reb.scoring import REB
from handful.types import Features

GOLDEN = safetensors.torch.load_file(Path(__file__).parents[1] / "golden" / "patchcore.safetensors")


def features(*levels):
    return Features(levels, (64, 64))


def random_features(count, *, seed, depth=6, grid=8):
    level = torch.rand(count, grid, grid, depth, generator=torch.Generator().manual_seed(seed))
    return features(level)


def test_gives_the_values_of_the_authors_code():
    # tests/golden/patchcore.md says how they were made; their search returns squared distances.
    golden = PatchCore(dimensions=24, level_weights="raw", image_score="max", sigma=0)
    golden.fit(features(GOLDEN["level1_support"], GOLDEN["level2_support"]))
    assert torch.allclose(golden.bank_.rows, GOLDEN["support_embedding"], atol=1e-6)
    query = features(GOLDEN["level1_query"], GOLDEN["level2_query"])
    scores = golden.score(query)
    assert torch.allclose(golden._patches(query).flatten(0, 2), GOLDEN["query_embedding"], atol=1e-6)
    assert scores.image.square().item() == pytest.approx(GOLDEN["image_score_squared"].item(), abs=1e-6)
    patch_scores = torch.stack([golden._score_one(picture)[0] for picture in golden._patches(query)])
    assert torch.allclose(patch_scores[0].square(), GOLDEN["squared_distances"], atol=1e-6)


def test_scores_by_hand():
    # One channel, no pooling, a 1x2 grid: bank {0, 1, 4}, query {1, 7}: distances {0, 3}.
    references = features(torch.tensor([[[[0.0], [1.0]]], [[[4.0], [4.0]]]]))
    query = features(torch.tensor([[[[1.0], [7.0]]]]))
    plain = PatchCore(neighbourhood=1, level_weights="raw", image_score="max").fit(references)
    assert plain.score(query).image.tolist() == [3.0]
    top_half = PatchCore(neighbourhood=1, level_weights="raw", share=1.0).fit(references)
    assert top_half.score(query).image.tolist() == [1.5]
    two = PatchCore(neighbourhood=1, level_weights="raw", neighbours=3, image_score="max").fit(references)
    assert two.score(query).image.tolist() == [4.0]  # (3 + 3 + 6) / 3
    squared = PatchCore(neighbourhood=1, level_weights="raw", neighbours=3, squared=True, image_score="max")
    assert squared.fit(references).score(query).image.item() == pytest.approx(18**0.5)  # (9 + 9 + 36) / 3


def test_a_map_of_squares_is_that_of_a_bank_without_density():
    # Squares are averaged and blurred, and the root is taken in the end, as by REB without its correction.
    references, query = random_features(2, seed=0), random_features(1, seed=1)
    squares = PatchCore(squared=True, share=0.1).fit(references).score(query)
    plain = REB(alpha=0, share=0.1).fit(references).score(query)
    assert torch.allclose(squares.maps, plain.maps, rtol=1e-5)
    assert torch.allclose(squares.image, plain.image, rtol=1e-5)


def test_reweighting_is_equation_7():
    references = features(torch.tensor([[[[0.0], [1.0], [4.0]]]]))
    query = features(torch.tensor([[[[0.0], [1.0], [6.0]]]]))
    method = PatchCore(neighbourhood=1, level_weights="raw", image_score="reweighted", reweight_neighbours=2)
    score = method.fit(references).score(query).image
    # m* = 4, 2 away; its two nearest bank rows are 4 and 1, at 2 and 5 from the query.
    weight = 1 - torch.tensor(2.0).exp() / (torch.tensor(2.0).exp() + torch.tensor(5.0).exp())
    assert score.item() == pytest.approx(2 * weight.item(), rel=1e-6)


def test_equal_levels_do_not_depend_on_their_scale():
    fine, coarse = (torch.rand(2, n, n, 5, generator=torch.Generator().manual_seed(n)) for n in (8, 4))
    query = torch.rand(1, 8, 8, 5, generator=torch.Generator().manual_seed(1)), coarse[:1] * 0.7
    once = PatchCore().fit(features(fine, coarse)).score(features(*query))
    scaled = PatchCore().fit(features(fine * 100, coarse)).score(features(query[0] * 100, query[1]))
    assert torch.allclose(once.image, scaled.image, rtol=1e-5)
    assert torch.allclose(once.maps, scaled.maps, rtol=1e-5)


def test_a_coreset_keeps_the_share_it_is_told():
    references = random_features(3, seed=0)
    assert len(PatchCore(coreset_ratio=0.25).fit(references).bank_.rows) == 48
    assert len(PatchCore(coreset_ratio=0.001).fit(references).bank_.rows) == 1


def test_a_picture_that_was_learnt_scores_zero():
    references = random_features(3, seed=0)
    scores = PatchCore().fit(references).score(references[[1]])
    assert scores.image.item() == 0
    assert float(scores.maps.abs().max()) == 0


@pytest.mark.parametrize(
    "settings",
    [
        {"coreset_ratio": 1.5},
        {"coreset_ratio": 0},
        {"neighbourhood": 2},
        {"neighbours": 0},
        {"image_score": "median"},
        {"level_weights": "none"},
        {"share": -0.1},
        {"sigma": -1},
        {"dimensions": 0},
        {"reweight_neighbours": 1},
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        PatchCore(**settings)


def test_more_neighbours_than_the_bank_holds_are_refused():
    with pytest.raises(SettingError, match="64 rows, got 65"):
        PatchCore(neighbours=65).fit(random_features(1, seed=0))
