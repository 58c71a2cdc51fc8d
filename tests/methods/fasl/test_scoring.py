import math
from pathlib import Path

import pytest
import safetensors.torch
import torch
import torch.nn.functional as F

from handful.errors import InputError, SettingError
from handful.methods import create
from handful.methods.fasl.scoring import FASL, FASLHead, feature_discrepancy
from handful.ops.residuals import ResidualBank
from handful.types import Features

GOLDEN = safetensors.torch.load_file(Path(__file__).parents[2] / "golden" / "fasl.safetensors")
WINDOWS = {"win_size": 3, "win_stride": 2}


def numbers(*shape, phase):
    """Numbers in [0, 1) that anyone can make again, see golden/fasl.md."""
    every = torch.arange(math.prod(shape), dtype=torch.float64)
    return ((torch.sin(12.9898 * (every + phase)) * 43758.5453) % 1).reshape(shape)


def tokens(*shape, phase):
    return F.normalize((numbers(*shape, phase=phase) - 0.5).float(), dim=-1)


def fill(module, phase):
    """The weights of golden/fasl.md."""
    state = module.state_dict()
    for number, (name, tensor) in enumerate(state.items()):
        if name.endswith("num_batches_tracked"):
            continue
        value = numbers(*tensor.shape, phase=phase + 1000 * number)
        if tensor.ndim > 1:
            value = 3.4 * (value - 0.5) / tensor[0].numel() ** 0.5
        elif name.endswith("running_var") or name.endswith("weight"):
            value = 0.5 + value
        else:
            value = 0.2 * (value - 0.5)
        state[name] = value.float()
    module.load_state_dict(state)


@pytest.fixture(scope="module")
def golden_head():
    head = FASLHead((1024, 1024), nam=True, seed=0)
    for number, asl in enumerate(head.asl):
        fill(asl, 5e4 * (number + 1))
        asl[0].running_mean.fill_(0.035)
        asl[0].running_var.fill_(0.0007)
    fill(head.nam, 9e5)
    return head.eval()


def golden_features(pictures, *, whole, crops):
    crops = Features(
        tuple(tokens(pictures * 9, 3, 3, 1024, phase=crops + n).unflatten(0, (pictures, 9)) for n in (0, 1)), (42, 42)
    )
    return Features(tuple(tokens(pictures, 7, 7, 1024, phase=whole + n) for n in (0, 1)), (98, 98), crops=crops)


@pytest.fixture(scope="module")
def golden_pair():
    return golden_features(2, whole=7000, crops=9000), golden_features(1, whole=100, crops=300)


def test_the_discrepancy_is_that_of_the_authors_code(golden_pair):
    references, query = golden_pair
    bank = ResidualBank(references.levels, match="euclidean")
    found = feature_discrepancy(bank, query.levels)[0][0].flatten(0, 1)[:, :8]
    assert torch.allclose(found, GOLDEN["discrepancy_0"], atol=1e-7)


@pytest.mark.parametrize(("nam", "tag"), [(False, "asl"), (True, "nam")])
def test_maps_and_raw_scores_are_those_of_the_authors_code(golden_head, golden_pair, nam, tag):
    references, query = golden_pair
    method = FASL(winmode="mul", win_index=0, nam=nam, **WINDOWS).take_head(golden_head).fit(references)
    with torch.no_grad():
        whole, crops = torch.cat(method._global(query)), torch.cat(method._lfe(query))
    # 1e-5: three layers of 1024 and fewer products in float32, in another order
    assert torch.allclose(whole, GOLDEN[f"maps_{tag}"], atol=1e-5)
    assert torch.allclose(crops, GOLDEN[f"win_maps_{tag}"], atol=1e-5)
    raw = {"none": GOLDEN[f"raw_{tag}"], "only": GOLDEN[f"win_raw_{tag}"]}
    raw["mul"] = 0.7 * raw["none"] + 0.3 * raw["only"]
    for mode, expected in raw.items():
        settings = {"winmode": mode, "win_weight": 0.3, "win_index": 0, "nam": nam, "paper_compat": True, **WINDOWS}
        compat = FASL(**settings).take_head(golden_head).fit(references)
        assert torch.allclose(compat.score(query).image, expected, atol=1e-5)


def test_the_discrepancy_by_hand():
    references = torch.tensor([[3.0, 0.0], [0.0, 5.0]]).reshape(1, 1, 2, 2)
    query = torch.tensor([[0.6, 0.8]]).reshape(1, 1, 1, 2)  # nearer to (0, 1) in direction
    bank = ResidualBank((F.normalize(references, dim=-1),), match="euclidean")
    assert feature_discrepancy(bank, (query,))[0].flatten().tolist() == pytest.approx([0.6, 0.2])


@pytest.fixture
def head(classes, started):
    training = started(classes)
    for number in range(5):
        training.update(number, classes)
    return training.head_.eval()


@pytest.mark.parametrize("index", [0, 1, 4])
@pytest.mark.parametrize("mode", ["mul", "only"])
def test_with_crops_the_contract_holds(head, mode, index, features):
    settings = {"winmode": mode, "win_index": index, **WINDOWS}
    references, queries = features(3, seed=3), features(4, seed=4)
    method = create("fasl", settings).take_head(head).fit(references)
    together = method.score(queries)
    assert together.maps.shape == (4, 48, 48) and together.image.shape == (4,)
    alone = [method.score(queries[[row]]) for row in range(4)]
    assert torch.equal(together.image, torch.cat([scores.image for scores in alone]))
    restored = (
        create("fasl", settings)
        .take_head(head)
        .load_state(safetensors.torch.load(safetensors.torch.save(method.state())))
    )
    assert torch.equal(restored.score(queries).maps, together.maps)
    other = create("fasl", settings).take_head(head).fit(references[[2, 0, 1]])
    assert torch.allclose(other.score(queries).image, together.image, rtol=1e-5)


def test_an_index_of_all_crops_leaves_nothing_out(head, features):
    references, queries = features(2, seed=3), features(2, seed=4)
    scores = [
        FASL(winmode="only", win_index=index, **WINDOWS).take_head(head).fit(references).score(queries)
        for index in (0, 18)
    ]
    assert torch.allclose(scores[0].maps, scores[1].maps, atol=1e-6)


def test_crops_weigh_as_said(head, features):
    references, queries = features(2, seed=3), features(2, seed=4)

    def probabilities(**settings):
        method = FASL(**settings, **WINDOWS).take_head(head).fit(references)
        return -torch.expm1(-method.score(queries).maps)

    whole, crops = probabilities(winmode="none"), probabilities(winmode="only")
    for weight in (0.0, 0.25, 1.0):
        both = probabilities(winmode="mul", win_weight=weight)
        assert torch.allclose(both, (1 - weight) * whole + weight * crops, atol=1e-5)


def test_judged_by_the_cosine_heads_have_no_say(head, features):
    references, query = features(2, seed=3), features(1, seed=4)
    compat = FASL(judged_by="cosine", paper_compat=True).take_head(head).fit(references).score(query)
    distances = []
    for level, good in zip(query.levels, references.levels, strict=True):
        cosines = F.normalize(level.flatten(0, 2)) @ F.normalize(good.flatten(0, 2)).T
        distances.append(((1 - cosines.amax(1)) / 2).max())
    assert compat.image.item() == pytest.approx(float(sum(distances)) / 2, rel=1e-4)


def test_crops_are_asked_for(head, features):
    method = FASL(winmode="mul", **WINDOWS).take_head(head)
    with pytest.raises(InputError, match="must hold the crops that fasl needs of each picture, got none"):
        method.fit(features(1, seed=0, crops=False))
    with pytest.raises(InputError, match="got none"):
        method.fit(features(1, seed=0)).score(features(1, seed=1, crops=False))
    bad = features(1, seed=1)
    bad.crops.levels[1][0, 2, 0, 0, 0] = float("nan")
    with pytest.raises(InputError, match="level 1"):
        method.score(bad)


def test_the_image_score_is_the_mean_of_the_raw_score_and_the_maps_peak(head, features):
    references, queries = features(2, seed=3), features(3, seed=4)
    compat = FASL(paper_compat=True).take_head(head).fit(references).score(queries)
    ours = FASL().take_head(head).fit(references).score(queries)
    probabilities = -torch.expm1(-ours.maps)
    expected = 0.5 * (compat.image + probabilities.amax((1, 2)))
    assert torch.allclose(ours.image, -torch.log1p(-expected), rtol=1e-5)


def test_the_codes_maps_have_corners_on_corners(head, features):
    references, queries = features(2, seed=3), features(1, seed=4)
    method = FASL(paper_compat=True).take_head(head).fit(references)
    levels = method._global(queries)
    size = queries.size
    enlarged = [F.interpolate(one[None], size=size, mode="bilinear", align_corners=True)[0] for one in levels]
    maps = method.score(queries).maps
    assert torch.allclose(maps, torch.stack(enlarged).mean(0), atol=1e-6)
    ours = -torch.expm1(-FASL().take_head(head).fit(references).score(queries).maps)
    assert (ours - maps).abs().max() > 1e-3


def test_only_as_in_the_paper_scores_depend_on_the_test_set():
    assert not FASL().transductive
    method = FASL(paper_compat=True)
    assert method.transductive
    peaks, raw = (0.5, 0.7, 0.9), (0.2, 0.4, 0.6)
    parts = [(peak * torch.eye(3)[None], torch.tensor([one])) for peak, one in zip(peaks, raw, strict=True)]
    found = list(method.over_test_set(parts))
    assert [scores.image.item() for scores in found] == pytest.approx([0.1, 0.45, 0.8])
    assert all(torch.equal(scores.maps, maps) for scores, (maps, _) in zip(found, parts, strict=True))


def test_without_nam_the_head_has_none(classes, features, started):
    head = started(classes, nam=False).head_
    assert head.nam is None and not any(name.startswith("nam") for name in head.state_dict())
    references, queries = features(2, seed=3), features(1, seed=4)
    scores = [FASL(nam=nam).take_head(head).fit(references).score(queries).image for nam in (True, False)]
    assert torch.equal(*scores)


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({"winmode": "nan"}, "`winmode` must be one of none, mul, only"),
        ({"win_size": 0}, "`win_size` must be at least 1"),
        ({"win_stride": 14}, "`win_stride` must be from 1 to `win_size`"),
        ({"win_weight": 1.5}, r"`win_weight` must be in \[0, 1\]"),
    ],
)
def test_settings_out_of_bounds_are_refused(settings, sentence):
    with pytest.raises(SettingError, match=sentence):
        create("fasl", settings)
