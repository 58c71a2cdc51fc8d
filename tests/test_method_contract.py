"""What every method in METHODS promises; a new one is tested here by standing in that list."""

import pytest
import safetensors.torch
import torch

from handful.errors import InputError, NotFittedError, SettingError
from handful.fitting.calibration import join
from handful.methods import HEAD_TRAININGS, METHODS
from handful.methods import create as create_bare
from handful.types import AuxiliaryClass, Features

CONVOLVES = {"resad", "fasl"}  # it may answer for a patch beside the defect, whose window reaches it
QUICK = {
    "resad": {"updates": 80, "places": 144, "blocks": 2, "condition": 8},
    "fasl": {"updates": 200},
}  # of the heads' trainings
ORDER_MATTERS = {"fastrecon"}  # as documented at the class: its coreset starts from the first row


def head_for(name):
    """A head as an auxiliary-trained method needs it, trained a little; None for any other method."""
    if name not in HEAD_TRAININGS:
        return None
    training = HEAD_TRAININGS[name](pictures=4, lr=3e-3, **QUICK[name])
    pictures = [make(4, seed=200), *(planted(row, column) for row, column in ((1, 1), (4, 6), (9, 3), (7, 9)))]
    queries = join(pictures)
    anomalous = torch.tensor([False] * 4 + [True] * 4)
    masks = tuple(((level - make(1, seed=200).levels[n]).abs().amax(3) > 0.3) for n, level in enumerate(queries.levels))
    pixels = torch.nn.functional.interpolate(masks[0][:, None].float(), size=(96, 96))[:, 0] > 0
    none = torch.zeros(8, dtype=torch.bool)
    one = AuxiliaryClass("toy", make(6, seed=201), queries, anomalous, masks, torch.full((8,), -1), pixels, none)
    training.start([one], seed=0, device="cpu")
    for number in range(training.updates):
        training.update(number, [one])
    return training.head_


HEADS = {}  # trained once for all tests


def create(name, settings):
    """The method, with a head where it needs one."""
    if name not in HEADS:
        HEADS[name] = head_for(name)
    return create_bare(name, settings).take_head(HEADS[name])


def make(count, *, seed):
    """Pictures of one product: a common structure and a little of their own.

    The second level is one of windows of 2 x 2 patches, and the prototypes are what good and planted ones are like.
    """
    generator = torch.Generator().manual_seed(7)
    common = [torch.rand(1, n, n, d, generator=generator) for n, d in ((12, 10), (11, 14))]
    own = torch.Generator().manual_seed(seed)
    levels = tuple(level + 0.1 * torch.rand(count, *level.shape[1:], generator=own) for level in common)
    normal = common[1].mean((0, 1, 2))
    text = torch.nn.functional.normalize(torch.stack([normal, normal + window_defect()]))
    return Features(levels, (96, 96), levels[1].mean((1, 2)), text)


def window_defect():
    return 1.5 * torch.rand(14, generator=torch.Generator().manual_seed(4))


def planted(row, column):
    """One picture with a defect at a patch of the fine grid."""
    picture = make(1, seed=99)
    fine, windows = (level.clone() for level in picture.levels)
    fine[0, row : row + 2, column : column + 2] += 1.5 * torch.rand(10, generator=torch.Generator().manual_seed(3))
    windows[0, row - 1 : row + 2, column - 1 : column + 2] += window_defect()
    return Features((fine, windows), picture.size, windows.mean((1, 2)), picture.text)


def fit(method, references):
    """Fit with as many variations of each reference, in the same ways, as the method wants."""
    if not method.views_wanted:
        return method.fit(references)
    generator = torch.Generator().manual_seed(5)
    levels = [
        level[:, None] + 0.1 * torch.rand(method.views_wanted, *level.shape[1:], generator=generator)
        for level in references.levels
    ]
    averaged = tuple(level.flatten(0, 1).mean((1, 2), keepdim=True) for level in levels)
    return method.fit(references, augmented=Features(averaged, references.size))


@pytest.fixture(params=sorted(METHODS))
def name(request):
    return request.param


def equal(one, other):
    return torch.equal(one.maps, other.maps) and torch.equal(one.image, other.image)


def test_fit_returns_self_and_forgets_earlier_fits(name):
    method, queries = create(name, {}), make(2, seed=50)
    assert fit(method, make(3, seed=1)) is method
    refitted = fit(method, make(2, seed=2)).score(queries)
    assert equal(refitted, fit(create(name, {}), make(2, seed=2)).score(queries))


def test_shapes_and_types_are_as_promised(name):
    scores = fit(create(name, {}), make(2, seed=1)).score(make(3, seed=2))
    assert scores.maps.shape == (3, 96, 96)
    assert scores.image.shape == (3,)
    assert scores.maps.dtype == scores.image.dtype == torch.float32


def test_scoring_changes_nothing(name):
    method, queries = fit(create(name, {}), make(2, seed=1)), make(2, seed=2)
    before = {key: tensor.clone() for key, tensor in method.state().items()}
    copies = [level.clone() for level in queries.levels]
    first = method.score(queries)
    assert equal(first, method.score(queries))
    assert all(torch.equal(tensor, method.state()[key]) for key, tensor in before.items())
    assert all(torch.equal(level, copy) for level, copy in zip(queries.levels, copies, strict=True))


def test_a_batch_gives_what_its_pictures_give_alone(name):
    method, queries = fit(create(name, {}), make(3, seed=1)), make(4, seed=2)
    together = method.score(queries)
    alone = [method.score(queries[[row]]) for row in range(4)]
    assert torch.equal(together.image, torch.cat([scores.image for scores in alone]))
    assert torch.equal(together.maps, torch.cat([scores.maps for scores in alone]))


@pytest.mark.parametrize("references", [1, 4])
@pytest.mark.parametrize("place", [(2, 8), (8, 2)])
def test_a_planted_defect_scores_highest_at_its_place(name, references, place):
    method = fit(create(name, {}), make(references, seed=1))
    scores, good = method.score(planted(*place)), method.score(make(5, seed=2))
    assert scores.image.item() > float(good.image.max())
    row, column = divmod(int(scores.maps[0].argmax()), 96)
    reach = 8 + (4 if name in CONVOLVES else 0)
    assert abs(row - 8 * (place[0] + 1)) <= reach and abs(column - 8 * (place[1] + 1)) <= reach


def test_the_order_of_references_does_not_matter(name):
    if name in ORDER_MATTERS:
        pytest.skip(f"{name} documents that the order matters")
    references, queries = make(4, seed=1), make(2, seed=2)
    one = fit(create(name, {}), references).score(queries)
    other = fit(create(name, {}), references[[2, 0, 3, 1]]).score(queries)
    assert torch.allclose(one.image, other.image, rtol=1e-5)  # sums in another order round otherwise
    assert torch.allclose(one.maps, other.maps, rtol=1e-4, atol=1e-6)


def test_saved_and_loaded_it_scores_bit_for_bit_equal(name):
    method, queries = fit(create(name, {}), make(3, seed=1)), make(2, seed=2)
    stored = safetensors.torch.load(safetensors.torch.save(method.state()))
    assert equal(create(name, {}).load_state(stored).score(queries), method.score(queries))


def test_an_unfitted_method_says_so(name):
    with pytest.raises(NotFittedError, match="call `fit` first"):
        create(name, {}).score(make(1, seed=1))


def test_other_channels_than_in_fit_are_refused(name):
    method = fit(create(name, {}), make(1, seed=1))
    narrow = Features(tuple(level[..., :5] for level in make(1, seed=2).levels), (96, 96))
    with pytest.raises(InputError, match="same backbone"):
        method.score(narrow)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_values_that_are_not_finite_are_refused(name, value):
    bad = make(1, seed=1)
    bad.levels[1][0, 2, 2, 0] = value
    with pytest.raises(InputError, match="level 1"):
        fit(create(name, {}), bad)
    with pytest.raises(InputError, match="level 1"):
        fit(create(name, {}), make(1, seed=1)).score(bad)


def test_no_picture_is_refused(name):
    with pytest.raises(InputError, match="at least one picture"):
        create(name, {}).fit(Features((), (96, 96)))
    if METHODS[name].min_references:
        with pytest.raises(InputError, match="at least one picture"):
            create(name, {}).fit(make(2, seed=1)[[]])
    with pytest.raises(InputError, match="at least one picture"):
        fit(create(name, {}), make(2, seed=1)).score(make(2, seed=1)[[]])


def test_unknown_settings_are_refused_with_the_known_ones(name):
    with pytest.raises(SettingError, match=r"sigma.*got 'colour'"):
        create(name, {"colour": 1})


def test_a_setting_of_the_wrong_type_is_refused(name):
    for value in ("wide", True, None, float("nan"), [1]):
        with pytest.raises(SettingError, match="`sigma` must be a finite number, got"):
            create(name, {"sigma": value})


def test_settings_read_back_as_given(name):
    assert create(name, {"sigma": 2.5}).settings["sigma"] == 2.5


def test_an_unknown_method_is_refused_with_the_known_ones():
    with pytest.raises(SettingError, match="fastrecon, handful, patchcore"):
        create("magic", {})


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_cpu_and_gpu_agree(name):
    method, queries = fit(create(name, {}), make(3, seed=1)), make(2, seed=2)
    on_cpu = method.score(queries)
    levels = tuple(level.cuda() for level in queries.levels)
    there = Features(levels, queries.size, queries.image.cuda(), queries.text.cuda())
    on_gpu = method.to("cuda").score(there)
    assert torch.allclose(on_cpu.image, on_gpu.image.cpu(), rtol=1e-4)  # another order of float32 sums
    assert torch.allclose(on_cpu.maps, on_gpu.maps.cpu(), rtol=1e-3, atol=1e-4)
