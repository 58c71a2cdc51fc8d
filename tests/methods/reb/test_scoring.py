from pathlib import Path

import pytest
import safetensors.torch
import torch

from handful.errors import SettingError
from handful.methods.reb.scoring import REB, squares_to_others, window_peak
from handful.ops.maps import pixel_map
from handful.types import Features

GOLDEN = safetensors.torch.load_file(Path(__file__).parents[2] / "golden" / "reb_ldknn.safetensors")
AS_AUTHORS = {"alpha": 1.0, "neighbours": 9, "exclude_radius": 0, "correction": "difference", "image_score": "authors"}
BARE = {"neighbourhood": 1, "level_weights": "raw"}


def features(*levels):
    return Features(levels, (64, 64))


def random_features(count, *, seed, depth=6, grid=8):
    common = torch.rand(1, grid, grid, depth, generator=torch.Generator().manual_seed(7))
    own = torch.rand(count, grid, grid, depth, generator=torch.Generator().manual_seed(seed))
    return features(common + 0.3 * own)


def local_density(patches, *, neighbours, exclude_radius):
    return squares_to_others(patches, neighbours=neighbours, exclude_radius=exclude_radius).mean(1)


def patch_scores(method, query):
    return torch.stack([method._patch_scores(picture) for picture in method._patches(query)])


@pytest.mark.parametrize(("neighbours", "alpha"), [(9, 1.0), (3, 0.5)])
def test_gives_the_values_of_the_authors_code(neighbours, alpha):
    # tests/golden/reb_ldknn.md says how they were made; ours differs by the constant and by float32 rounding.
    method = REB(**AS_AUTHORS | {"neighbours": neighbours, "alpha": alpha}, dimensions=24, level_weights="raw")
    method.fit(features(GOLDEN["level1_support"], GOLDEN["level2_support"]))
    query = features(GOLDEN["level1_query"], GOLDEN["level2_query"])
    name = f"k{neighbours}"
    assert torch.allclose(method.densities_, GOLDEN[f"density_{name}"], atol=1e-6)
    assert method.offset_.item() == pytest.approx(alpha * GOLDEN[f"density_{name}"].max().item(), abs=1e-6)
    ours = patch_scores(method, query)[0] - method.offset_
    assert torch.allclose(ours, GOLDEN[f"patch_scores_{name}"], atol=1e-6)
    scores = method.score(query)
    assert (scores.image.square() - method.offset_).item() == pytest.approx(
        GOLDEN[f"image_score_{name}"].item(), abs=1e-6
    )
    assert torch.allclose(
        scores.maps[0].square() - method.offset_, GOLDEN[f"map_{name}"], atol=1e-5
    )  # blur in another order


def test_scores_by_hand():
    # Bank 0, 1, 3, 10 in one picture; the two nearest others of each are (1, 3), (0, 2), (2, 3), (7, 9) away.
    references = features(torch.tensor([[[[0.0], [1.0]], [[3.0], [10.0]]]]))
    method = REB(**AS_AUTHORS | BARE | {"neighbours": 2, "alpha": 0.5, "image_score": "mended"}).fit(references)
    assert method.densities_.tolist() == [5.0, 2.5, 6.5, 65.0]
    assert method.offset_.item() == 32.5
    query = features(torch.tensor([[[[4.0], [12.0]]]]))
    # 1² - 6.5 / 2 and 2² - 65 / 2, and the constant.
    assert patch_scores(method, query).flatten().tolist() == [1 - 3.25 + 32.5, 4.0]


def test_a_ratio_by_hand():
    references = features(torch.tensor([[[[0.0], [1.0]], [[3.0], [10.0]]]]))
    query = features(torch.tensor([[[[4.0], [12.0]]]]))
    whole = REB(**BARE, correction="ratio", neighbours=2, alpha=1.0, exclude_radius=0).fit(references)
    assert patch_scores(whole, query).flatten().tolist() == pytest.approx([1 / 6.5, 4 / 65])
    root = REB(**BARE, correction="ratio", neighbours=2, alpha=0.5, exclude_radius=0).fit(references)
    assert patch_scores(root, query).flatten().tolist() == pytest.approx([6.5**-0.5, 4 * 65**-0.5])


@pytest.mark.parametrize("correction", ["difference", "ratio"])
def test_alpha_0_is_the_squared_distance_to_the_nearest_patch(correction):
    references, query = random_features(2, seed=0), random_features(1, seed=1)
    # More neighbours than the bank holds do not matter then.
    method = REB(**BARE, alpha=0, correction=correction, neighbours=1000).fit(references)
    bank, rows = references.levels[0].flatten(0, 2), query.levels[0].flatten(0, 2)
    squares = torch.cdist(rows.double(), bank.double()).square().amin(1)
    assert torch.allclose(patch_scores(method, query).flatten().double(), squares, rtol=1e-5)  # float32 rounding


def test_a_patch_is_no_neighbour_of_its_own_but_of_its_duplicate():
    # 0 twice and 5: the duplicates are 0 apart, and each is its own neighbour only where it is taken for the other.
    patches = torch.tensor([[[[0.0], [0.0], [5.0]]]])
    assert local_density(patches, neighbours=1, exclude_radius=0).tolist() == [0, 0, 25]
    assert local_density(patches, neighbours=2, exclude_radius=0).tolist() == [12.5, 12.5, 25]


def test_a_patch_is_no_neighbour_of_its_own_far_from_the_origin():
    # There the expanded square of a patch to itself is off by more than the distance to its neighbours.
    patches = 1000 + torch.rand(1, 8, 8, 4, generator=torch.Generator().manual_seed(0))
    rows = patches.double().flatten(0, 2)
    squares = torch.cdist(rows, rows, compute_mode="donot_use_mm_for_euclid_dist").square().fill_diagonal_(torch.inf)
    expected = squares.topk(3, largest=False).values.mean(1)
    ours = local_density(patches, neighbours=3, exclude_radius=0)
    assert torch.allclose(ours.double(), expected, rtol=1e-3)  # float32 steps by 6e-5 at 1000


def test_the_excluded_window_by_hand():
    # A 3x3 grid of 0 to 8 by rows, beside a second picture of 100 to 108.
    grid = torch.arange(9.0).reshape(1, 3, 3, 1)
    patches = torch.cat([grid, 100 + grid])
    density = local_density(patches, neighbours=1, exclude_radius=1)
    # 0 keeps 2 of its row; 1 keeps row 2 alone, whose nearest is 6; 4 keeps no patch of its picture.
    assert density[[0, 1, 4]].tolist() == [2**2, 5**2, 96**2]
    assert density[[9, 13]].tolist() == [2**2, 96**2]
    assert local_density(patches, neighbours=1, exclude_radius=0).tolist() == [1] * 18
    # Nothing of its own picture is left within two steps: 0 finds 100, and 108 finds 8.
    assert local_density(patches, neighbours=1, exclude_radius=2)[[0, 17]].tolist() == [100**2, 100**2]


def test_the_window_follows_an_oblong_grid():
    # A row of 5: patch 2 keeps 0 and 4 within radius 1, whatever the grid's height is taken for.
    patches = torch.tensor([0.0, 10.0, 11.0, 12.0, 30.0]).reshape(1, 1, 5, 1)
    assert local_density(patches, neighbours=1, exclude_radius=1)[2].item() == 11**2
    assert local_density(patches.reshape(1, 5, 1, 1), neighbours=1, exclude_radius=1)[2].item() == 11**2


def test_more_neighbours_than_are_left_are_refused():
    references = random_features(1, seed=0, grid=3)
    REB(neighbours=8, exclude_radius=0, alpha=1).fit(references)
    with pytest.raises(SettingError, match="`neighbours` must be at most the 8 other rows of the bank, got 9"):
        REB(neighbours=9, exclude_radius=0, alpha=1).fit(references)
    with pytest.raises(SettingError, match="at most the 0 other rows"):
        REB(neighbours=1, exclude_radius=1, alpha=1).fit(references)


def test_the_image_scores_by_hand():
    seam = torch.zeros(1, 6, 6)
    seam[0, 2:4, 2:4] = 9.0  # where four of the code's windows meet
    assert window_peak(seam, mended=True).tolist() == [4.0]
    assert window_peak(seam, mended=False).tolist() == [1.0]
    dropped = torch.zeros(1, 5, 5)
    dropped[0, 3] = 9.0  # in a row that the code leaves over
    assert window_peak(dropped, mended=True).tolist() == [4.5]  # in windows of 2x3 at the border
    assert window_peak(dropped, mended=False).tolist() == [0.0]
    corner = torch.zeros(1, 4, 4)
    corner[0, 0, 0] = 4.0
    assert window_peak(corner, mended=True).tolist() == [1.0]  # of the 4 patches that are there


def test_the_authors_image_score_needs_a_window():
    tiny = random_features(2, seed=0, grid=2)
    with pytest.raises(SettingError, match="`image_score` must be .* below 3x3 patches, got 'authors'"):
        REB(neighbours=1, exclude_radius=0, image_score="authors").fit(tiny).score(tiny)
    assert torch.isfinite(REB(neighbours=1, exclude_radius=0, image_score="mended").fit(tiny).score(tiny).image).all()


@pytest.mark.parametrize("image_score", ["authors", "mended", "top_share"])
@pytest.mark.parametrize("correction", ["difference", "ratio"])
def test_scores_are_never_negative(image_score, correction):
    references = random_features(3, seed=0)
    settings = {"alpha": 1.0, "neighbours": 5, "exclude_radius": 1}
    method = REB(**settings, correction=correction, image_score=image_score).fit(references)
    scores = method.score(references)  # 0 away from the bank: as low as scores go
    assert patch_scores(method, references).min() >= 0
    assert scores.image.min() >= 0 and scores.maps.min() >= 0


def test_the_constant_moves_patches_map_and_image_alike():
    references, queries = random_features(3, seed=0), random_features(2, seed=1)
    method = REB(alpha=1.0, neighbours=5, exclude_radius=0, image_score="mended").fit(references)
    raw = patch_scores(method, queries) - method.offset_
    assert float(raw.min()) < 0  # there is something to move
    scores = method.score(queries)
    assert torch.allclose(scores.image.square() - method.offset_, window_peak(raw, mended=True), atol=1e-5)
    assert torch.allclose(scores.maps.square() - method.offset_, pixel_map(raw, (64, 64), sigma=4.0), atol=1e-5)


def test_equal_references_give_finite_ratios():
    references = features(torch.ones(2, 4, 4, 3))
    query = features(torch.ones(1, 4, 4, 3) + 1)
    method = REB(correction="ratio", alpha=1.0, neighbours=3, exclude_radius=0).fit(references)
    assert torch.isfinite(method.score(query).image).all()
    assert method.score(references).image.tolist() == [0, 0]


def test_a_sparse_region_of_the_bank_scores_lower():
    # Rows around 0 lie 0.1 apart, those around 10 lie 2 apart; the queries lie 1 from their nearest row.
    bank = torch.tensor([0.0, 0.1, 0.2, 10.0, 12.0, 14.0]).reshape(1, 2, 3, 1)
    query = torch.tensor([-1.0, 15.0]).reshape(1, 1, 2, 1)
    plain = REB(**BARE, alpha=0).fit(features(bank))
    assert patch_scores(plain, features(query)).flatten().tolist() == pytest.approx([1, 1])
    for correction in ("difference", "ratio"):
        method = REB(**BARE, correction=correction, alpha=0.5, neighbours=2, exclude_radius=0).fit(features(bank))
        dense, sparse = patch_scores(method, features(query)).flatten().tolist()
        assert dense > sparse


@pytest.mark.parametrize("correction", ["difference", "ratio"])
def test_neither_the_order_of_references_nor_the_batch_matters(correction):
    settings = {"alpha": 1.0, "neighbours": 5, "exclude_radius": 1, "correction": correction}
    references, queries = random_features(4, seed=0), random_features(3, seed=1)
    scores = REB(**settings).fit(references).score(queries)
    turned = REB(**settings).fit(references[[2, 0, 3, 1]])
    for row in range(3):
        alone = turned.score(queries[[row]])
        assert torch.allclose(alone.image, scores.image[[row]], rtol=1e-5)  # sums in another order
        assert torch.allclose(alone.maps, scores.maps[[row]], rtol=1e-5)


@pytest.mark.parametrize(
    "settings",
    [
        {"neighbourhood": 2},
        {"dimensions": 0},
        {"level_weights": "none"},
        {"neighbours": 0},
        {"alpha": -0.1},
        {"exclude_radius": -1},
        {"correction": "sum"},
        {"image_score": "max"},
        {"share": 1.1},
        {"sigma": -1},
    ],
)
def test_settings_out_of_bounds_are_refused_by_name(settings):
    with pytest.raises(SettingError, match=next(iter(settings))):
        REB(**settings)
