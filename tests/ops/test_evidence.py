import pytest
import torch

from handful.ops.evidence import Place, least_found, nearest_places


@pytest.fixture
def references():
    """Two pictures of 3 x 4 patches, each patch different from all others."""
    return torch.arange(24.0).reshape(2, 3, 4, 1) * torch.tensor([1.0, 10.0])


def test_a_patch_of_a_reference_is_nearest_to_itself(references):
    found = nearest_places(references[1], references, [(0, 0), (2, 3)])
    assert found == [Place(1, 0, 0, 0.0), Place(1, 2, 3, 0.0)]


def test_the_distance_is_the_euclidean_one(references):
    query = torch.zeros(3, 4, 2)
    query[1, 2] = references[0, 2, 1] + torch.tensor([3.0, 4.0])
    (found,) = nearest_places(query, references[:1], [(1, 2)])
    assert found[:3] == (0, 2, 1) and found.distance == pytest.approx(5)


def test_without_a_place_nothing_is_found(references):
    assert nearest_places(references[0], references, []) == []


def test_what_a_picture_lacks_is_found_in_the_reference_most_like_it(references):
    lacking = references[1].clone()
    lacking[2, 3] = references[1, 2, 2]
    found = least_found(lacking, references)
    assert found[:3] == (1, 2, 3)
    assert found.distance == pytest.approx(float((references[1, 2, 3] - references[1, 2, 2]).norm()))
