import math

import pytest
import torch

from handful.fitting import calibration
from handful.methods import create
from handful.types import Features

PLAIN = {"measures": "euclidean", "damped": False, "sigma": 0.0, "share": 0.02}


def row_of(*values):
    """One level of 1 x N patches of one value, and pixels as large as patches."""
    return Features((torch.tensor(values, dtype=torch.float32).reshape(1, 1, -1, 1),), (1, len(values)))


def test_a_single_reference_scores_halfway_between_its_variations_and_its_places():
    even, moved = row_of(*range(0, 80, 2)), row_of(*(value + 0.5 for value in range(0, 80, 2)))
    # Each place is 2 from the next one, and 0.5 from itself in the variation.
    image, peaks, _ = calibration.fit_and_try(create("handful", PLAIN), [[even, moved, moved]])
    assert image == pytest.approx(math.sqrt(2 * 0.5)) and image.shape == (1, 2)
    assert peaks == pytest.approx(math.sqrt(2 * 0.5))
    # PatchCore cannot compare places, and has the variation's score alone.
    plain = create("patchcore", {})
    assert calibration.fit_and_try(plain, [[even, moved]])[0].item() == plain.score(moved).image.item()


@pytest.mark.parametrize(
    ("last", "spread"),
    [
        (39.0, 0.02),  # every place is 1 from the next: even, the method's own
        (43.0, 0.1 * math.log(5 / 1.1)),  # the last one 5: the score is 5, the mean (39 x 1 + 5) / 40
        (9999.0, 0.2),
    ],
)
def test_the_more_uneven_a_single_reference_the_less_is_known_of_others(last, spread):
    method, reference = create("handful", PLAIN), row_of(*map(float, range(39)), last)
    assumed = calibration.prior_from(method.fit(reference), [reference])
    assert assumed.widening_spread == pytest.approx(spread, rel=1e-5)
    assert assumed.among_places and assumed.widening == pytest.approx(1.18)


def test_what_is_assumed_without_a_comparison_of_places_is_the_methods_alone():
    reference = row_of(*map(float, range(40)))
    for method, references in (("patchcore", [reference]), ("handful", [reference] * 2)):
        made = create(method, {})
        assumed = calibration.prior_from(made.fit(calibration.join(references)), references)
        assert assumed.widening_spread == made.single_spread and not assumed.among_places


def test_planted_defects_are_scored_by_a_method_that_has_not_seen_their_reference():
    views = [[row_of(*(value + shift for value in range(0, 80, 2)))] for shift in (0.0, 0.3, 0.5)]
    defect = row_of(*range(0, 78, 2), 500)
    tried = [(1, 0, defect), (0, 0, defect), (1, 0, views[1][0])]
    method = create("patchcore", {})
    image, peaks, planted = calibration.fit_and_try(method, views, planted=tried)
    alone = calibration.fit_and_try(create("patchcore", {}), views)
    assert image.tolist() == alone[0].tolist() and peaks.tolist() == alone[1].tolist()
    for (row, _, features), (clean, found) in zip(tried, planted.tolist(), strict=True):
        blind = create("patchcore", {}).fit(calibration.join([views[other][0] for other in range(3) if other != row]))
        assert clean == image[row, 0] == float(blind.score(views[row][0]).image[0])
        assert found == float(blind.score(features).image[0])
    assert planted[2, 0] == planted[2, 1]  # nothing planted, nothing found


def test_planted_defects_of_a_single_reference_lie_on_a_variation_that_the_method_scores_itself():
    even, moved = row_of(*range(0, 80, 2)), row_of(*(value + 0.5 for value in range(0, 80, 2)))
    defect = row_of(*range(0, 78, 2), 500)
    method = create("handful", PLAIN)
    image, _, planted = calibration.fit_and_try(method, [[even, moved]], planted=[(0, 1, defect)])
    assert planted.tolist() == [[float(method.score(moved).image[0]), float(method.score(defect).image[0])]]
    assert image.item() > planted[0, 0]  # the reference's own is halfway to what its places score
