import math

import pytest
import torch
import torch.nn.functional as F

from handful.errors import InputError, SettingError
from handful.methods import create
from handful.methods.winclip import WinCLIP, by_language, harmonic_mean, over_windows
from handful.types import Features

TEXT = torch.eye(2)  # cosines with it are a direction's own two numbers


def waves(*shape, phase):
    """Numbers that anyone can make again: cosines of each element's number."""
    return torch.cos(0.7 * torch.arange(math.prod(shape), dtype=torch.float64) + phase).reshape(shape)


def picture(phase):
    """A picture of 4 x 4 patches, windows of 2 and of 3, and its embedding."""
    levels = (waves(1, 4, 4, 5, phase=phase), waves(1, 3, 3, 6, phase=phase + 1), waves(1, 2, 2, 6, phase=phase + 2))
    text = F.normalize(waves(2, 6, phase=0.4))
    return Features(levels, (4, 4), waves(1, 6, phase=phase + 3), text)


def references():
    both = [picture(0.9), picture(2.3)]
    levels = tuple(torch.cat(level) for level in zip(*(one.levels for one in both), strict=True))
    return Features(levels, (4, 4), torch.cat([one.image for one in both]), both[0].text)


def toy(count, *, seed=0):
    """Random pictures of one pixel a patch, whose windows have two channels."""
    generator = torch.Generator().manual_seed(seed)
    shapes = ((4, 4, 3), (3, 3, 2), (2, 2, 2))
    levels = tuple(torch.randn(count, *shape, generator=generator) for shape in shapes)
    return Features(levels, (4, 4), torch.randn(count, 2, generator=generator), TEXT)


def test_language_is_a_softmax_of_cosines_over_the_temperature():
    # Of length 5, cosines 0.6 and 0.8: their difference 0.2 over 0.5 gives 1 / (1 + exp(-0.4)).
    mild = by_language(torch.tensor([3.0, 4.0]), TEXT, temperature=0.5)
    assert mild.item() == pytest.approx(1 / (1 + math.exp(-0.4)))
    sharp = by_language(torch.tensor([[3.0, 4.0], [4.0, 3.0], [2.0, 2.0]]), TEXT, temperature=0.07)
    expected = 1 / (1 + math.exp(-0.2 / 0.07))
    assert sharp.tolist() == pytest.approx([expected, 1 - expected, 0.5])


def test_a_patch_has_the_harmonic_mean_of_the_windows_that_contain_it():
    # Windows of 2 on 3 x 3 patches: a corner lies in one of them, an edge in two, the middle in all four.
    windows = torch.tensor([[1.0, 0.5], [0.25, 0.2]])
    expected = [[1, 2 / (1 + 2), 0.5], [2 / (1 + 4), 4 / (1 + 2 + 4 + 5), 2 / (2 + 5)], [0.25, 2 / (4 + 5), 0.2]]
    assert over_windows(windows, (3, 3)).tolist() == [pytest.approx(row) for row in expected]


def test_a_patch_in_a_window_that_scores_nothing_has_nothing():
    windows = torch.tensor([[0.0, 0.5], [0.25, 0.2]])
    assert over_windows(windows, (3, 3))[:2, :2].tolist() == [[0, 0], [0, 0]]


def test_windows_of_one_patch_come_back():
    patches = torch.tensor([[0.5, 0.25], [1.0, 0.125]])
    assert torch.equal(over_windows(patches, (2, 2)), patches)


def test_scales_are_averaged_harmonically():
    assert harmonic_mean(torch.tensor([1.0, 0.5, 0.25])).item() == pytest.approx(3 / 7)


def test_association_is_half_of_one_minus_the_highest_cosine():
    # The references' directions are at 0 and 90 degrees, the queries' at 30 and at 180.
    rows = torch.tensor([[2.0, 0.0], [0.0, 3.0]]).reshape(1, 1, 2, 2)
    method = WinCLIP().fit(Features((rows,), (8, 16), torch.ones(1, 2), TEXT))
    query = torch.tensor([[math.cos(math.pi / 6), 0.5], [-1.0, 0.0]]).reshape(1, 1, 2, 2)
    found = method._association(0, query, (1, 2))
    assert found[0].tolist() == pytest.approx([(1 - math.cos(math.pi / 6)) / 2, 0.5])


def test_without_references_language_alone_scores():
    query = toy(1)
    method = WinCLIP().fit(query[[]])
    scores = method.score(query)
    assert scores.image.item() == by_language(query.image[0], TEXT, temperature=0.07).item()
    small, medium = (over_windows(by_language(w[0], TEXT, temperature=0.07), (4, 4)) for w in query.levels[1:])
    expected = 3 / (1 / scores.image + 1 / small + 1 / medium)
    assert torch.allclose(scores.maps[0], expected, rtol=1e-5)
    assert sorted(method.state()) == ["depths"]


def test_with_references_language_and_association_count_alike():
    query, known = toy(1), toy(2, seed=1)
    told, method = WinCLIP().fit(query[[]]).score(query), WinCLIP().fit(known)
    seen = torch.stack([method._association(n, level, (4, 4)) for n, level in enumerate(query.levels)]).mean(0)
    scores = method.score(query)
    assert scores.image.item() == pytest.approx(((told.image + seen.max()) / 2).item())
    assert torch.allclose(scores.maps[0], (told.maps[0] + seen) / 2, rtol=1e-5)


def test_a_reference_seen_again_is_like_itself():
    known = toy(2)
    scores, told = WinCLIP().fit(known).score(known[[1]]), WinCLIP().fit(known[[]]).score(known[[1]])
    assert torch.allclose(scores.maps, told.maps / 2, atol=1e-6)
    assert scores.image.item() == pytest.approx(told.image.item() / 2, abs=1e-6)


def test_lengths_of_embeddings_do_not_matter():
    query, known = toy(2), toy(2, seed=1)
    longer = Features(tuple(3 * level for level in query.levels), query.size, 5 * query.image, query.text)
    one, other = (WinCLIP().fit(known).score(features) for features in (query, longer))
    assert torch.allclose(one.image, other.image) and torch.allclose(one.maps, other.maps, atol=1e-6)


def test_the_temperature_changes_no_order_without_references():
    query = toy(9)
    query = Features(query.levels, query.size, 1 + 0.1 * query.image, TEXT)
    one, other = (WinCLIP(temperature=t).fit(query[[]]).score(query).image for t in (0.07, 1.0))
    assert torch.equal(one.argsort(), other.argsort()) and one.std() > other.std()


# From the functions of anomalib at b723368 (models/image/winclip/utils.py) and of zqhang/Accurate-WinCLIP-pytorch at
# eef4f8c (reproduce_WinCLIP.py, which knows τ = 0.07 alone), on the same tensors; they agree to 1e-16. zqhang adds the
# two maps where anomalib takes their mean.
MAP_007 = """
    0.0019899047882521465 0.0017173060497625873 0.0010040061273916755 0.0008899025242206416
    0.0014002443817192906 0.0011643650603311204 0.0006538189305923695 0.0005175312749241831
    0.0007883282140792334 0.0006321100312922134 0.0004943371852100649 0.000331777551245937
    0.0005736334869251829 0.00044595025018541614 0.020288421901940055 0.010459940715884668"""
MAP_05 = """
    0.04833391473364585 0.07027707370934502 0.17861906390816154 0.13767917016968836
    0.04982808910132738 0.07702434398156474 0.23199124715404187 0.18540303031613686
    0.05025619009286026 0.07763455405141848 0.23081674553403747 0.1853839813113942
    0.05254259412806548 0.08693761989476441 0.3297946851201367 0.2858092563816279"""
TOLD_05 = """
    0.09268802007074174 0.13711953567902702 0.3552328987346577 0.27357992708277634
    0.0968556896332195 0.15171995823044682 0.4626804224048433 0.3697737814758118
    0.09893572398864615 0.15400488850238236 0.4606503826554847 0.37010719091368294
    0.10393792153851211 0.172983339801621 0.6588998706764373 0.5710559582698267"""


@pytest.mark.parametrize(
    ("temperature", "fitted", "image", "patches"),
    [
        (0.07, references(), 0.501989335962504, MAP_007),
        (0.5, references(), 0.4378434925780411, MAP_05),
        (0.5, references()[[]], 0.8717071757595323, TOLD_05),
    ],
    ids=["0.07", "0.5", "without references"],
)
def test_scores_are_those_of_public_implementations(temperature, fitted, image, patches):
    scores = WinCLIP(temperature=temperature).fit(fitted).score(picture(0.1))
    assert scores.image.item() == pytest.approx(image, rel=1e-9)
    # At one pixel a patch nothing is enlarged. Small distances come from float64's squares.
    assert scores.maps[0].flatten().tolist() == pytest.approx([float(value) for value in patches.split()], rel=1e-6)


def test_features_without_texts_are_refused():
    bare = Features(toy(1).levels, (32, 32))
    with pytest.raises(InputError, match="must be given CLIP's embeddings and text prototypes, got features without"):
        WinCLIP().fit(bare)
    with pytest.raises(InputError, match="use a clip: backbone"):
        WinCLIP().fit(toy(1)).score(bare)


def test_levels_that_are_no_windows_are_refused():
    known = toy(1)
    for odd in (known.levels[0], known.levels[1][:, :, :2], torch.zeros(1, 3, 3, 5)):
        with pytest.raises(InputError, match="must be patches and then windows of them"):
            WinCLIP().fit(Features((known.levels[0], odd), (32, 32), known.image, TEXT))


def test_settings_out_of_bounds_are_refused():
    with pytest.raises(SettingError, match="`temperature` must be at least 0.01"):
        create("winclip", {"temperature": 0})
    with pytest.raises(SettingError, match="`sigma` must be at least 0"):
        create("winclip", {"sigma": -1.0})
