"""A fit weighs evidence by synthetic defects wherever the method asks for them."""

import pytest
import torch

from handful import Detector
from handful.methods.handful import Handful


@pytest.fixture
def weighed(monkeypatch):
    """The synthetic defects that each fit has weighed evidence by: (N, 2, T), or None."""
    found, weigh = [], Handful.weigh

    def noting(method, terms, planted=None):
        found.append(planted)
        weigh(method, terms, planted)

    monkeypatch.setattr(Handful, "weigh", noting)
    return found


def fit(fitted, pictures, *, try_defects=True, **settings):
    backbone = fitted._needed.backbone
    return Detector(settings=settings, backbone=backbone).fit(pictures, accept_odd=True, try_defects=try_defects)


@pytest.fixture
def pictures(picture_factory):
    return [picture_factory(seed) for seed in range(3)]


@pytest.mark.parametrize("try_defects", [True, False])
def test_evidence_is_weighed_by_eighteen_defects(fitted, pictures, weighed, try_defects):
    detector = fit(fitted, pictures, try_defects=try_defects, turn="never")
    (planted,) = weighed
    assert planted.shape == (18, 2, 3) and (planted[:, 0] != planted[:, 1]).any(1).all()
    assert (detector.visibility is not None) == try_defects


def test_whether_defects_are_tried_changes_no_state(fitted, pictures):
    tried, untried = (fit(fitted, pictures, try_defects=tries, turn="never").method.state() for tries in (True, False))
    assert all(torch.equal(tried[name], untried[name]) for name in tried)


@pytest.mark.parametrize("settings", [{"turn": "never", "gain": 1.0}, {"turn": "never", "wide": False}])
def test_nothing_is_weighed_by_defects_where_the_method_asks_for_none(fitted, pictures, weighed, settings):
    fit(fitted, pictures, **settings)
    assert all(planted is None for planted in weighed)


def test_turned_copies_and_a_single_reference_leave_defects_out(fitted, pictures, weighed):
    fit(fitted, pictures, turn="always")
    fit(fitted, pictures[:1], turn="never")
    assert weighed == []
