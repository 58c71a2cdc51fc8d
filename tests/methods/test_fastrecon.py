from pathlib import Path

import pytest
import safetensors.torch
import torch

from handful.errors import SettingError
from handful.methods.fastrecon import FastRecon, _patches, alignment, reconstruction_solver
from handful.ops.coreset import greedy_coreset
from handful.types import Features

GOLDEN = safetensors.torch.load_file(Path(__file__).parents[1] / "golden" / "fastrecon.safetensors")


def golden_features(which):
    return Features((GOLDEN[f"level1_{which}"], GOLDEN[f"level2_{which}"]), (64, 64))


@pytest.mark.parametrize(("lam", "key"), [(2.0, "lam2"), (0.5, "lam05")])
def test_gives_the_values_of_the_authors_code(lam, key):
    # tests/golden/fastrecon.md says how they were made. Ours solves with a ridge of 1e-6 of the diagonal and theirs
    # inverts in float32: both are within 1e-4 of the exact reconstruction, of values around 1.
    method = FastRecon(lam=lam, coreset_ratio=0.05).fit(golden_features("support"))
    assert torch.equal(method.coreset_, GOLDEN["support_embedding"][GOLDEN["coreset_indices"]])
    assert torch.allclose(method.mean_.flatten(0, 1), GOLDEN["mu"], atol=1e-6)
    picture = _patches(golden_features("query"))[0]
    assert torch.allclose(method._residuals(picture), GOLDEN[f"patch_scores_{key}"], atol=1e-4)
    scores = method.score(golden_features("query"))
    assert scores.image.item() == pytest.approx(GOLDEN[f"image_score_{key}"].item(), abs=1e-4)
    assert torch.allclose(scores.maps[0], GOLDEN[f"map_{key}"], atol=1e-4)


def test_the_coreset_is_the_authors():
    chosen = greedy_coreset(GOLDEN["support_embedding"], 9)
    assert torch.equal(chosen, GOLDEN["coreset_indices"])


@pytest.mark.parametrize("lam", [0.0, 0.5, 2.0])
def test_cached_form_equals_projection_equals_brute_force_least_squares(lam):
    generator = torch.Generator().manual_seed(0)
    coreset = torch.randn(5, 12, generator=generator, dtype=torch.float64)
    query = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    mean = torch.randn(30, 12, generator=generator, dtype=torch.float64)
    cached = ((query + lam * mean) / (1 + lam)) @ reconstruction_solver(coreset) @ coreset
    projection = ((query + lam * mean) / (1 + lam)) @ torch.linalg.pinv(coreset) @ coreset
    # Each row w minimises |q - w S|² + λ |w S - mu|²: stack both terms and solve.
    root = lam**0.5
    stacked = torch.cat([coreset.T, root * coreset.T])  # (2C, n)
    targets = torch.cat([query.T, root * mean.T])  # (2C, N)
    brute_force = torch.linalg.lstsq(stacked, targets).solution.T @ coreset
    assert torch.allclose(projection, brute_force, atol=1e-10)
    assert torch.allclose(cached, projection, atol=1e-5)  # the ridge


@pytest.mark.parametrize("lam", [0.0, 2.0])
def test_a_coreset_that_spans_the_space_collapses_the_method(lam):
    # n ≥ C: the projection is the identity, the residual λ/(1+λ) |Q - mu|.
    generator = torch.Generator().manual_seed(0)
    coreset = torch.randn(8, 6, generator=generator, dtype=torch.float64)
    query, mean = (torch.randn(20, 6, generator=generator, dtype=torch.float64) for _ in range(2))
    reconstruction = ((query + lam * mean) / (1 + lam)) @ reconstruction_solver(coreset) @ coreset
    residual = torch.linalg.vector_norm(query - reconstruction, dim=1)
    collapsed = lam / (1 + lam) * torch.linalg.vector_norm(query - mean, dim=1)
    assert torch.allclose(residual, collapsed, atol=1e-4)


def test_the_coreset_never_spans_more_than_half_the_channels():
    level = torch.rand(4, 10, 10, 12, generator=torch.Generator().manual_seed(0))
    method = FastRecon(coreset_ratio=1.0).fit(Features((level,), (80, 80)))
    assert len(method.coreset_) == 6
    assert method.score(Features((level[:1] + 0.5,), (80, 80))).image.item() > 0


def test_every_reference_reaches_the_coreset_and_the_mean():
    # The released code keeps only the last batch of references.
    level = torch.rand(3, 6, 6, 8, generator=torch.Generator().manual_seed(0))
    method = FastRecon().fit(Features((level,), (48, 48)))
    assert torch.allclose(method.mean_, _patches(Features((level,), (48, 48))).mean(0))
    apart = level.clone()
    apart[0] += 100  # farthest from all others, so in any coreset of two rows
    rows = FastRecon(coreset_ratio=0.02).fit(Features((apart,), (48, 48))).coreset_
    assert float(rows.max()) > 50


def test_near_duplicate_references_do_not_break_the_solve():
    level = torch.rand(1, 8, 8, 16, generator=torch.Generator().manual_seed(0)).repeat(4, 1, 1, 1)
    level += 1e-7 * torch.rand(level.shape, generator=torch.Generator().manual_seed(1))
    scores = FastRecon(coreset_ratio=0.03).fit(Features((level,), (64, 64))).score(Features((level[:1],), (64, 64)))
    assert torch.isfinite(scores.maps).all()


def test_a_blank_reference_gives_finite_scores():
    level = torch.zeros(1, 8, 8, 16)
    method = FastRecon().fit(Features((level,), (64, 64)))
    assert torch.isfinite(method.score(Features((level + 1,), (64, 64))).image).all()


@pytest.mark.parametrize("settings", [{"lam": -1}, {"coreset_ratio": 0}, {"share": 2}, {"sigma": -1}])
def test_settings_out_of_bounds_are_refused_by_name(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        FastRecon(**settings)


def test_another_grid_than_in_fit_is_refused():
    method = FastRecon().fit(Features((torch.rand(1, 8, 8, 16),), (64, 64)))
    with pytest.raises(SettingError, match=r"\(8, 8\), got \(4, 4\)"):
        method.score(Features((torch.rand(1, 4, 4, 16),), (32, 32)))


def test_alignment_is_the_mean_cosine_of_different_pictures_at_the_same_place():
    generator = torch.Generator().manual_seed(0)
    patches = torch.rand(3, 4, 5, 6, generator=generator)
    centred = patches - patches.mean((0, 1, 2))
    pairs = [
        torch.nn.functional.cosine_similarity(centred[i], centred[j], dim=2).mean() for i, j in ((0, 1), (0, 2), (1, 2))
    ]
    assert alignment(patches).item() == pytest.approx(max(0.0, float(torch.stack(pairs).mean())), abs=1e-6)


def test_alignment_is_1_for_equal_pictures_and_about_0_for_turned_ones():
    picture = torch.rand(1, 12, 12, 8, generator=torch.Generator().manual_seed(0))
    assert alignment(picture.repeat(3, 1, 1, 1)).item() == pytest.approx(1, abs=1e-5)
    assert alignment(torch.cat([picture, picture.rot90(1, (1, 2))])).item() < 0.1


def test_the_gate_scales_lambda_by_the_alignment_of_the_references():
    picture = torch.rand(1, 8, 8, 6, generator=torch.Generator().manual_seed(0))
    references = Features((torch.cat([picture, picture + 0.2 * picture.flip(1)]),), (64, 64))
    gated = FastRecon(gate=True).fit(references)
    agreement = alignment(_patches(references)).item()
    assert 0.1 < agreement < 0.9
    queries = Features((picture.rot90(1, (1, 2)),), (64, 64))
    by_hand = FastRecon(lam=2 * agreement).fit(references).score(queries)
    assert torch.allclose(gated.score(queries).maps, by_hand.maps, rtol=1e-5)
    assert torch.equal(FastRecon(gate=True).fit(references[[0]]).lam_, torch.tensor(2.0))  # one cannot tell
