import json

import pytest

from handful.fitting.visibility import Trial, Trials

SIZE = (100, 80)


def trials(*defects, spots=((5.0, 1.0, 2.0),), single=False):
    """Trials of (clean, planted) defects and (diameter, clean, planted) spots."""
    made = [Trial("cut blob", clean, planted) for clean, planted in defects]
    made += [Trial("spot", clean, planted, diameter) for diameter, clean, planted in spots]
    return Trials(tuple(made), SIZE, single)


def test_a_defect_is_found_above_the_threshold_and_counts_where_its_picture_lies_below():
    kept = trials((1.0, 2.0), (1.0, 1.4), (1.0, 1.5), (1.6, 3.0))
    seen = kept.at(1.5)
    assert (seen.found, seen.counted, seen.tried) == (1, 3, 4)
    assert seen.words == (
        "1 of 3 synthetic defects planted on references left out; 1 more do not count, as their pictures score above "
        "the threshold without"
    )
    assert (kept.at(1.3).found, kept.at(1.3).counted) == (3, 3)  # another threshold, from the same scores


def test_a_picture_above_the_threshold_says_nothing_of_any_defect():
    seen = trials((2.0, 3.0)).at(1.5)
    assert (seen.found, seen.counted, seen.caution) == (0, 0, None)
    assert seen.words == "none of 1 synthetic defects, as their pictures score above the threshold without"


@pytest.mark.parametrize(
    ("found", "smallest"),
    [
        ({4: 2, 8: 2, 16: 2}, 4.0),
        ({4: 0, 8: 1, 16: 2}, 8.0),  # half of two
        ({4: 2, 8: 0, 16: 2}, 16.0),  # what is seen between sizes that are not is no answer
        ({4: 2, 8: 2, 16: 0}, None),
    ],
)
def test_spots_are_seen_from_the_diameter_from_which_on_half_of_each_are_found(found, smallest):
    spots = [(float(d), 1.0, 2.0 if number < count else 1.0) for d, count in found.items() for number in range(2)]
    seen = trials((1.0, 2.0), spots=spots).at(1.5)
    assert seen.spots_from == smallest and seen.spots_tried == (4.0, 16.0)


def test_a_diameter_is_said_with_the_picture_whose_pixels_it_is_in():
    spots = [(3.2, 1.0, 1.1), (6.4, 1.0, 1.6), (12.8, 1.0, 2.0)]
    kept = trials((1.0, 2.0), spots=spots)
    assert kept.at(1.5).spot_words == "spots from about 6.4 pixels across, in pictures of 100 x 80"
    assert kept.at(1.8).spot_words == "spots from about 13 pixels across, in pictures of 100 x 80"
    assert kept.at(1.05).spot_words == "spots from 3.2 pixels across, the smallest tried, in pictures of 100 x 80"
    assert kept.at(3.0).spot_words == "no spots up to 13 pixels across, in pictures of 100 x 80"


def test_few_found_are_a_caution_with_a_way_out():
    kept = trials((1.0, 2.0), (1.0, 2.1), (1.0, 2.2), (1.0, 2.3))
    assert kept.at(2.15).caution is None
    assert "finds 1 of 4 synthetic defects" in kept.at(2.25).caution and "`--size`" in kept.at(2.25).caution


def test_a_single_reference_and_corrections_since_are_said():
    seen = trials((1.0, 2.0), single=True).at(1.5, changed=2)
    assert "on variations of the only reference" in seen.words
    assert seen.words.endswith("; measured at fit, before 2 corrections of what is learnt")
    assert seen.spot_words.endswith("before 2 corrections of what is learnt")


def test_scores_survive_the_manifest_and_older_ones_have_none():
    kept = trials((1.0, 2.0), (0.1, 1 / 3), single=True)
    assert Trials.from_manifest(json.loads(json.dumps({"visibility": kept.as_dict()}))) == kept
    assert Trials.from_manifest({}) is None


@pytest.mark.parametrize(
    "kept",
    [
        {"trials": [], "size": [1, 1], "single": True},
        {"trials": [{"kind": "spot", "clean": 1.0}], "size": [1, 1], "single": True},
        {"trials": [{"kind": "spot", "clean": 1.0, "planted": 1.0, "more": 1}], "size": [1, 1], "single": True},
        {"size": [1, 1], "single": True},
    ],
)
def test_scores_that_cannot_be_read_are_refused(kept):
    with pytest.raises((KeyError, TypeError, ValueError)):
        Trials.from_manifest({"visibility": kept})
