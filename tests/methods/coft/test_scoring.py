import math

import numpy as np
import pytest
import torch
from sklearn import covariance

from handful.errors import InputError, SettingError
from handful.methods import create
from handful.methods.coft.scoring import embedding, gaussian
from handful.types import Features


def make(count, *, seed, grid=(6, 3), depths=(5, 4)):
    generator = torch.Generator().manual_seed(seed)
    levels = tuple(
        1 + torch.linspace(0.1, 3, d) * torch.rand(count, n, n, d, generator=generator)
        for n, d in zip(grid, depths, strict=True)
    )
    return Features(levels, (48, 48))


def fitted(*, references=2, seed=0, **settings):
    method = create("coft", {"views": 6, **settings})
    return method.fit(make(references, seed=seed), augmented=make(6 * references, seed=seed + 1, grid=(1, 1)))


def by_hand(features):
    means = [level.mean((1, 2)) for level in features.levels]
    joined = torch.cat(means, 1).double().numpy()
    return joined / np.linalg.norm(joined, axis=1, keepdims=True)


@pytest.mark.parametrize("shrinkage", ["ledoit_wolf", "oas"])
def test_the_image_score_is_the_mahalanobis_distance(shrinkage):
    vectors = by_hand(make(2, seed=0)), by_hand(make(12, seed=1, grid=(1, 1)))
    vectors = np.concatenate(vectors)
    query = make(3, seed=5)
    found = {"ledoit_wolf": covariance.ledoit_wolf, "oas": covariance.oas}[shrinkage](vectors)[1]
    centred = vectors - vectors.mean(0)
    sample = centred.T @ centred / len(vectors)
    shrunk = (1 - found) * sample + found * np.trace(sample) / 9 * np.eye(9)
    away = by_hand(query) - vectors.mean(0)
    expected = np.sqrt(np.einsum("nd,de,ne->n", away, np.linalg.inv(shrunk), away))
    assert 0 < found < 1
    scores = fitted(shrinkage=shrinkage).score(query)
    assert scores.image.numpy() == pytest.approx(expected, rel=1e-4)  # float32


@pytest.mark.parametrize(("shrinkage", "share"), [("ledoit_wolf", 17 / 72), ("oas", 28 / 51)])
def test_the_gaussian_by_hand(shrinkage, share):
    # 16 points, 4 each at (±2, 0) and (0, ±1): mean 0, S = diag(2, 1/2), mean variance 5/4. Ledoit and Wolf (2004):
    # d² = ((2 - 5/4)² + (1/2 - 5/4)²) / 2 = 9/16; b² = 16 · (4 + 1/4) / 16² / 2 = 17/128; share b²/d² = 17/72.
    # OAS, without the terms 2/D of Chen et al. (2010): (17/16 + 25/16) / (17 · (17/16 - 25/32)) = 28/51.
    points = np.array([[2.0, 0.0], [-2.0, 0.0], [0.0, 1.0], [0.0, -1.0]] * 4)
    mean, whitening = gaussian(points, shrinkage=shrinkage)
    variances = (1 - share) * np.array([2, 0.5]) + share * 1.25
    assert mean == pytest.approx([0, 0])
    assert np.linalg.norm(whitening @ [3, 4]) == pytest.approx(math.sqrt(9 / variances[0] + 16 / variances[1]))


def test_the_references_count_among_their_views():
    references, augmented = make(2, seed=0), make(12, seed=1, grid=(1, 1))
    method = create("coft", {"views": 6}).fit(references, augmented=augmented)
    both = np.concatenate([by_hand(references), by_hand(augmented)])
    assert method.mean_.numpy() == pytest.approx(both.mean(0), rel=1e-5)  # float32


def test_the_embedding_has_length_one_and_joins_the_levels_means():
    features = make(3, seed=0)
    assert embedding(features).numpy() == pytest.approx(by_hand(features), rel=1e-6)


def test_one_reference_has_a_whole_covariance_for_it_is_shrunk():
    references, augmented = make(1, seed=0), make(3, seed=1, grid=(1, 1))
    vectors = np.concatenate([by_hand(references), by_hand(augmented)])
    assert np.linalg.matrix_rank(np.cov(vectors.T)) == 3  # of 9: without shrinkage there is no distance
    _, whitening = gaussian(vectors, shrinkage="ledoit_wolf")
    assert np.linalg.cond(whitening) < 100
    method = create("coft", {"views": 3}).fit(references, augmented=augmented)
    near, far = method.score(references).image, method.score(make(1, seed=9, depths=(5, 4))).image
    assert 0 < near < far
    with pytest.raises(SettingError, match="`shrinkage` must be one of ledoit_wolf, oas"):
        create("coft", {"shrinkage": "none"})


def test_views_that_do_not_differ_still_give_a_finite_distance():
    blank = Features((torch.zeros(1, 2, 2, 4),), (32, 32))
    augmented = Features((torch.zeros(5, 1, 1, 4),), (32, 32))
    method = create("coft", {"views": 5}).fit(blank, augmented=augmented)
    good, bad = method.score(blank), method.score(Features((torch.ones(1, 2, 2, 4),), (32, 32)))
    assert good.image == 0 and good.image < bad.image < math.inf


def test_the_image_score_does_not_depend_on_the_map():
    method, query = fitted(), make(1, seed=7)
    moved = Features(tuple(level.flip(1) for level in query.levels), query.size)
    one, other = method.score(query), method.score(moved)
    assert one.image.item() == pytest.approx(other.image.item(), rel=1e-5)  # another order of sums
    assert not torch.allclose(one.maps, other.maps)


def test_the_map_is_the_distance_to_the_references_patches():
    references = make(2, seed=0)
    method = fitted()
    assert method.score(references).maps.abs().max() == 0
    changed = references[[0]]
    changed.levels[0][0, 1, 4] += 2
    peak = int(method.score(changed).maps.argmax())
    assert divmod(peak, 48) == (pytest.approx(12, abs=5), pytest.approx(36, abs=5))


@pytest.mark.parametrize("count", [0, 5, 7])
def test_other_numbers_of_variations_than_wanted_are_refused(count):
    augmented = make(count, seed=1, grid=(1, 1)) if count else None
    with pytest.raises(InputError, match=rf"must hold 3 variations of each reference, 6 in all, got {count}"):
        create("coft", {"views": 3}).fit(make(2, seed=0), augmented=augmented)


def test_a_method_that_wants_no_variations_refuses_them():
    with pytest.raises(InputError, match="must hold 0 variations of each reference"):
        create("patchcore", {}).fit(make(2, seed=0), augmented=make(2, seed=1, grid=(1, 1)))


def test_variations_must_be_finite():
    augmented = make(6, seed=1, grid=(1, 1))
    augmented.levels[1][2] = math.nan
    with pytest.raises(InputError, match="level 1"):
        create("coft", {"views": 3}).fit(make(2, seed=0), augmented=augmented)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"views": 0}, "`views` must be at least 1"),
        ({"neighbourhood": 2}, "`neighbourhood`"),
        ({"sigma": -1}, "`sigma`"),
    ],
)
def test_scoring_settings_out_of_bounds_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        create("coft", settings)
