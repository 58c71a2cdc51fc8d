import numpy as np
import pytest

from handful.inspection import evidence
from handful.inspection.evidence import Place, ReferencePatches, Rows


@pytest.fixture
def references():
    """Two pictures of 3 x 4 patches, each patch different from all others."""
    return np.arange(24, dtype=np.float32).reshape(2, 3, 4, 1) * np.array([1, 10], np.float32)


def test_a_patch_of_a_reference_is_nearest_to_itself(references):
    found = ReferencePatches(references).nearest_places(references[1], [(0, 0), (2, 3)])
    assert found == [Place(1, 0, 0, 0.0), Place(1, 2, 3, 0.0)]


def test_the_distance_is_the_euclidean_one(references):
    query = np.zeros((3, 4, 2), np.float32)
    query[1, 2] = references[0, 2, 1] + (3, 4)
    (found,) = ReferencePatches(references[:1]).nearest_places(query, [(1, 2)])
    assert found[:3] == (0, 2, 1) and found.distance == pytest.approx(5)


def test_without_a_place_nothing_is_found(references):
    assert ReferencePatches(references).nearest_places(references[0], []) == []


def test_what_a_picture_lacks_is_found_in_the_reference_most_like_it(references):
    lacking = references[1].copy()
    lacking[2, 3] = references[1, 2, 2]
    found = ReferencePatches(references).least_found(lacking)
    assert found[:3] == (1, 2, 3)
    assert found.distance == pytest.approx(np.linalg.norm(references[1, 2, 3] - references[1, 2, 2]))


@pytest.mark.parametrize("grid", [(8, 8), (7, 5), (1, 6), (3, 1), (1, 1)])
def test_what_a_picture_lacks_is_the_farthest_of_all_patches(grid):
    random = np.random.default_rng(0)
    for smooth in (False, True) * 10:
        picture, query = random.normal(size=(2, *grid, 6)).astype(np.float32)
        if smooth:
            picture = picture.cumsum(0).cumsum(1) / 4
        expected = np.linalg.norm(picture.reshape(-1, 1, 6) - query.reshape(1, -1, 6), axis=2).min(1)
        unlike = np.full_like(picture, 100)  # and the same everywhere
        found = ReferencePatches(np.stack([unlike, picture])).least_found(query)
        assert found.picture == 1 and found.row * grid[1] + found.column == expected.argmax()
        assert found.distance == pytest.approx(expected.max(), rel=1e-6)


def test_patches_that_cannot_be_the_farthest_are_not_looked_up(monkeypatch):
    # Patches beside each other are 0.1 apart; the one that is gone is 5 away from what is there.
    picture = np.arange(400, dtype=np.float32).reshape(1, 20, 20, 1) * np.float32(0.1)
    query = np.where(abs(picture - 20) < 5, 0, picture)[0]
    asked = []
    nearest = Rows.nearest
    monkeypatch.setattr(Rows, "nearest", lambda rows, queries: asked.append(len(queries)) or nearest(rows, queries))
    assert ReferencePatches(picture).least_found(query).distance == pytest.approx(5, abs=0.11)
    assert sum(asked) < 400 / 2


def test_the_nearest_is_found_in_blocks_as_by_a_plain_loop(monkeypatch):
    random = np.random.default_rng(0)
    rows, queries = random.normal(5, 1, (40, 7)).astype(np.float32), random.normal(5, 1, (11, 7)).astype(np.float32)
    monkeypatch.setattr(evidence, "CHUNK_ELEMENTS", 100)  # two queries at a time
    distances, found = Rows(rows).nearest(queries)
    expected = np.linalg.norm(queries[:, None] - rows[None], axis=2)
    np.testing.assert_array_equal(found, expected.argmin(1))
    np.testing.assert_allclose(distances, expected.min(1), rtol=1e-6)


def test_of_equally_near_rows_the_lowest_is_found():
    distances, found = Rows(np.array([[0, 0], [1, 1], [1, 1]], np.float32)).nearest(np.ones((1, 2), np.float32))
    assert (distances.tolist(), found.tolist()) == ([0], [1])


def test_the_place_of_equally_near_rows_is_the_lowest_whatever_rounding_says(monkeypatch):
    random = np.random.default_rng(0)
    row = random.normal(5, 1, 9).astype(np.float32)
    rows = Rows(np.stack([row + 1, row, row, row - 1]))
    products = rows._products

    def rounded(queries):
        for some in products(queries):
            yield some + np.array([0, 0, 1e-6, 0], np.float32)

    monkeypatch.setattr(rows, "_products", rounded)
    queries = row[None] + np.float32([[0.1], [0.2]])
    assert rows.nearest(queries)[1].tolist() == [2, 2] and rows.exactly(queries)[1].tolist() == [1, 1]
