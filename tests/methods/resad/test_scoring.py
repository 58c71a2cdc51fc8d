import math

import pytest
import torch

from handful.errors import InputError, SettingError
from handful.methods import create
from handful.methods.resad.scoring import ResAD
from handful.ops.maps import pixel_map
from handful.types import Features


def test_scores_are_minus_the_log_likelihood_summed_over_levels(classes, features, started):
    training = started(classes)
    training.update(0, classes)
    head = training.head_.eval()
    references, query = features(2, seed=3), features(1, seed=4)
    method = ResAD(sigma=0.0).take_head(head).fit(references)
    residuals = method.bank_.residuals(head.scaled(query), kind="signed")
    fine, coarse = head.log_likelihoods(residuals)
    summed = -fine - torch.nn.functional.interpolate(coarse[None], size=(6, 6), mode="bilinear")[0]
    assert method.score(query).image.item() == pytest.approx(math.log1p(math.exp(summed.max().item())), rel=1e-5)


def test_the_codes_form_takes_likelihoods_as_shares_of_the_test_sets_highest(classes, started):
    head = started(classes).head_
    method = create("resad", {"paper_compat": True, "sigma": 0.0}).take_head(head).fit(classes[0].references)
    scored = [method.score(classes[0].queries[[row]]) for row in range(6)]
    plain = create("resad", {"sigma": 0.0}).take_head(head).fit(classes[0].references).score(classes[0].queries)
    assert torch.equal(torch.cat([scores.image for scores in scored]), plain.image) and plain.parts == ()
    fine, coarse = (torch.cat([scores.parts[level] for scores in scored]) for level in (0, 1))  # (6, h, w) log p
    shares = [pixel_map((one - one.max()).exp(), (48, 48), sigma=0.0, corners=True) for one in (fine, coarse)]
    whole = list(method.over_test_set([scores.parts for scores in scored]))
    maps = torch.cat([scores.maps for scores in whole])
    assert torch.allclose(maps, 2 - shares[0] - shares[1], atol=1e-6) and maps.min() >= 0
    assert torch.equal(torch.cat([scores.image for scores in whole]), maps.amax((1, 2)))
    alone = next(method.over_test_set([scored[5].parts]))
    assert not torch.allclose(alone.maps, maps[5:])  # it depends on the other pictures: that is the leak


def test_a_head_is_asked_for_and_must_fit(classes, features, started):
    with pytest.raises(SettingError, match="resad must be given a head, got none"):
        ResAD().fit(features(1, seed=0))
    method = ResAD().take_head(started(classes).head_)
    other = Features(features(1, seed=0).levels[:1], (48, 48))
    with pytest.raises(InputError, match=r"must have \(5, 8\) channels, as the head was trained for, got \(5,\)"):
        method.fit(other)


def test_a_head_of_another_method_is_refused(classes, started):
    with pytest.raises(SettingError, match="must be a head of patchcore, got a head of resad"):
        create("patchcore", {}).take_head(started(classes).head_)
