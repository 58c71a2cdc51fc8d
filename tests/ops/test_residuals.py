import pytest
import torch

from handful.ops.residuals import ResidualBank


def levels(count, *, seed):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(count, n, n, d, generator=generator) for n, d in ((6, 5), (3, 8)))


@pytest.mark.parametrize("match", ["euclidean", "cosine"])
@pytest.mark.parametrize("kind", ["signed", "squared"])
def test_a_picture_among_the_references_leaves_nothing(match, kind):
    references = levels(3, seed=0)
    found = ResidualBank(references, match=match).residuals(tuple(level[[1]] for level in references), kind=kind)
    assert all(torch.equal(residual, torch.zeros_like(residual)) for residual in found)


def test_residuals_are_differences_from_the_nearest_patch_of_any_reference():
    references, queries = levels(3, seed=0), levels(2, seed=1)
    found = ResidualBank(references, match="euclidean").residuals(queries, kind="signed")
    for residual, level, rows in zip(found, queries, references, strict=True):
        patches, rows = level.flatten(0, 2), rows.flatten(0, 2)
        nearest = torch.cdist(patches.double(), rows.double()).argmin(1)
        assert torch.equal(residual.flatten(0, 2), patches - rows[nearest])
    squared = ResidualBank(references, match="euclidean").residuals(queries, kind="squared")
    assert all(torch.equal(one.square(), other) for one, other in zip(found, squared, strict=True))


def test_a_match_by_cosine_takes_the_same_direction_at_any_length():
    references = (torch.tensor([[[[10.0, 0.0], [1.0, 1.2]]]]),)
    query = (torch.tensor([[[[2.0, 0.1]]]]),)
    by_cosine = ResidualBank(references, match="cosine").residuals(query, kind="signed")[0]
    assert torch.allclose(by_cosine.flatten(), torch.tensor([-8.0, 0.1]))
    by_distance = ResidualBank(references, match="euclidean").residuals(query, kind="signed")[0]
    assert torch.allclose(by_distance.flatten(), torch.tensor([1.0, -1.1]))


def test_without_residuals_the_patches_themselves_come_back():
    references, queries = levels(1, seed=0), levels(1, seed=1)
    assert ResidualBank(references, match="euclidean").residuals(queries, kind="none") is queries
