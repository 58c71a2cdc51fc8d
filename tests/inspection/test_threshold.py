import math

import numpy as np
import pytest
from scipy import stats

from handful.errors import InspectorError, SettingError
from handful.inspection import threshold
from handful.inspection.evidence import regions
from handful.inspection.threshold import Calibration, calibrate, of_parts, predict


def good_scores(count, views=5, *, seed=0, spread=0.08):
    generator = np.random.default_rng(seed)
    middle = 2.0 * np.exp(generator.normal(0, spread, (count, 1)))
    return middle * np.exp(generator.normal(0, 0.01, (count, views)))


def test_the_threshold_is_the_predictive_quantile():
    scores = np.array([[1.0, 1.0], [math.e, math.e]])  # logs 0 and 1, no spread between views
    calibration = calibrate(scores, scores, false_alarm_rate=0.05)
    freedom = 12 + 1  # the prior spread is worth twelve pictures
    between = (12 * threshold.PATCHCORE.spread**2 + 0.5) / freedom
    expected = 0.5 + stats.t.ppf(0.95, freedom) * math.sqrt(between * 1.5)
    assert math.log(calibration.threshold) == pytest.approx(expected)
    # Each was scored by one reference instead of two, which gives scores 2 to the power 0.08 times as high.
    assert math.log(calibration.typical) == pytest.approx(0.5 - 0.08 * math.log(2))


@pytest.mark.parametrize("count", [1, 2, 4, 8])
def test_there_is_always_a_threshold_above_the_typical_score(count):
    calibration = calibrate(good_scores(count), good_scores(count), false_alarm_rate=0.01)
    assert calibration.threshold > calibration.typical > 0
    assert calibration.map_threshold > calibration.map_typical
    assert calibration.references == count


def test_equal_or_zero_scores_still_give_a_threshold():
    for scores in (np.ones((3, 2)), np.zeros((2, 2))):
        calibration = calibrate(scores, scores, false_alarm_rate=0.01)
        assert calibration.threshold > calibration.typical
        assert math.isfinite(calibration.calibrated(1.0))


def test_a_stricter_rate_means_a_higher_threshold():
    thresholds = [calibrate(good_scores(4), good_scores(4), false_alarm_rate=r).threshold for r in (0.2, 0.05, 0.01)]
    assert thresholds == sorted(thresholds) and len(set(thresholds)) == 3


def test_a_larger_unit_scales_the_threshold():
    one, ten = (calibrate(factor * good_scores(4), good_scores(4), false_alarm_rate=0.01) for factor in (1, 10))
    assert ten.threshold == pytest.approx(10 * one.threshold)


@pytest.mark.parametrize("count", [2, 4, 8])
def test_good_parts_are_rejected_about_as_often_as_promised(count):
    # Scores as the model takes them, over many draws of references: the rate must hold on average.
    rejected = []
    for seed in range(400):
        scores = good_scores(count + 20, views=3, seed=seed)
        calibration = calibrate(scores[:count], scores[:count], false_alarm_rate=0.05)
        rejected.append((scores[count:, 0] > calibration.threshold).mean())
    assert 0.02 < np.mean(rejected) < 0.08


@pytest.mark.parametrize("further", [0, 6, 30])
def test_the_range_holds_the_true_threshold_nine_times_in_ten(further):
    # Products as the prior has them, each with its own spread; the true threshold is their normal quantile.
    random, held = np.random.default_rng(0), []
    for _ in range(1000):
        weight = threshold.PRIOR_WEIGHT
        spread = math.sqrt(weight * threshold.PATCHCORE.spread**2 / random.chisquare(weight))
        scores, more = np.exp(random.normal(0, spread, (4, 1))), np.exp(random.normal(0, spread, further))
        low, high = predict(scores, more).interval(0.02)
        held.append(low <= math.exp(spread * stats.norm.ppf(0.98)) <= high)
    assert 0.87 < np.mean(held) < 0.93  # three standard errors


def test_further_pictures_narrow_the_range_and_count_beside_the_references():
    more = good_scores(100, 1, seed=3)[:, 0].tolist()
    few, many = predict(good_scores(4)), predict(good_scores(4), more)
    widths = [math.log(high / low) for low, high in (one.interval(0.01) for one in (few, many))]
    assert widths[1] < 0.6 * widths[0]
    calibration = calibrate(
        good_scores(4), good_scores(4), false_alarm_rate=0.01, further_scores=more, further_peaks=more
    )
    assert calibration.references == 104 and "100 further good pictures" in calibration.rests_on


def test_only_references_scored_by_others_are_corrected_for_the_one_that_was_missing():
    scores = np.full((4, 1), 2.0)
    prior = threshold.Prior(falling=0.1)
    assert predict(scores, prior=prior).typical == pytest.approx(2.0 * 0.75**0.1)
    # With as many further pictures, scored by the final method, half as much in the logarithm.
    assert predict(scores, [2.0] * 4, prior=prior).typical == pytest.approx(2.0 * 0.75**0.05)
    assert predict(scores[:1], [2.0] * 4, prior=prior).typical == pytest.approx(2.0)


def test_references_give_way_to_ample_further_pictures():
    prior = threshold.Prior(ample=3)
    one, other = (predict(factor * good_scores(4), [2.0, 2.1, 1.9], prior=prior) for factor in (1, 9))
    assert one == other == predict(good_scores(1), [2.0, 2.1, 1.9])
    assert predict(good_scores(4), [2.0, 2.1], prior=prior) == predict(good_scores(4), [2.0, 2.1])
    scores, more = good_scores(4), [2.0, 2.1, 1.9]
    words = calibrate(scores, scores, false_alarm_rate=0.1, further_scores=more, further_peaks=more, prior=prior)
    assert words.rests_on.startswith("3 further good pictures") and "the 4 that it has learnt" in words.rests_on


def test_a_single_reference_gives_way_to_further_pictures():
    one, other = (predict(factor * good_scores(1), [2.0, 2.1]) for factor in (1, 9))
    assert one == other
    assert (
        "left aside"
        in calibrate(
            good_scores(1), good_scores(1), false_alarm_rate=0.01, further_scores=[2], further_peaks=[2]
        ).rests_on
    )


def test_the_rate_of_a_threshold_is_the_rate_it_was_set_for():
    prediction = predict(good_scores(4))
    for rate in (0.3, 0.01, 1e-4):
        assert prediction.rate(prediction.threshold(rate)) == pytest.approx(rate)
    assert prediction.rate(-1) == 1


@pytest.mark.parametrize(
    ("rate", "words"),
    [
        (0.37, "about 37 of 100"),
        (0.01, "about 1 of 100"),
        (0.0042, "about 4.2 of 1 000"),
        (0.0001, "about 1 of 10 000"),
        (2e-5, "fewer than 1 of 10 000"),
    ],
)
def test_rates_are_told_in_counts(rate, words):
    assert of_parts(rate) == words


def test_one_reference_says_what_it_assumes():
    words = calibrate(good_scores(1), good_scores(1), false_alarm_rate=0.01).rests_on
    assert "single good picture" in words and "assumption" in words
    assert "1 of 100 good parts" in words and "cannot prove" in words


@pytest.mark.parametrize("rate", [0, 0.5, -1, 2, 1e-300, 5e-324, float("nan")])
def test_a_rate_out_of_bounds_is_refused(rate):
    with pytest.raises(SettingError, match="false-alarm rate"):
        calibrate(good_scores(2), good_scores(2), false_alarm_rate=rate)


def test_the_smallest_rate_has_a_finite_threshold():
    assert calibrate(good_scores(2), good_scores(2), false_alarm_rate=1e-6).threshold < 100


def test_calibrated_scores_put_typical_at_0_and_the_threshold_at_1():
    calibration = calibrate(good_scores(4), 3 * good_scores(4), false_alarm_rate=0.01)
    assert calibration.calibrated(calibration.typical) == 0
    assert calibration.calibrated(calibration.threshold) == 1
    raw = np.array([[calibration.map_typical, calibration.map_threshold]], dtype=np.float32)
    assert np.allclose(calibration.calibrated_map(raw), [[0, 1]], atol=1e-5)


def test_a_calibration_reads_back_as_written():
    calibration = calibrate(good_scores(4), good_scores(4), false_alarm_rate=0.01)
    assert Calibration.from_dict(calibration.as_dict()) == calibration


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        ({"threshold": 0.1}, "threshold must be above the typical"),
        ({"map_threshold": -5}, "map_threshold must be above the typical"),
        ({"threshold": "high"}, "threshold must be a number, got 'high'"),
        ({"threshold": True}, "must be a number"),
        ({"rests_on": 7}, "rests_on must be text, got 7"),
        ({"colour": 1}, "difference in colour"),
    ],
)
def test_an_edited_calibration_that_cannot_be_is_refused(change, sentence):
    fields = calibrate(good_scores(4), good_scores(4), false_alarm_rate=0.01).as_dict() | change
    with pytest.raises(InspectorError, match=sentence):
        Calibration.from_dict(fields)


def test_regions_are_boxes_in_the_originals_pixels_strongest_first():
    heatmap = np.zeros((10, 20), dtype=np.float32)
    heatmap[2:4, 3:6] = 1.5
    heatmap[3, 4] = 2.0
    heatmap[8, 19] = 3.0
    first, second = regions(heatmap, (200, 50))  # 10 times as wide, 5 times as high
    assert first.box == (190, 40, 10, 5) and first.peak == 3 and first.area == 50
    assert second.box == (30, 10, 30, 10) and second.peak == 2 and second.area == 300
    assert second.peak_at == (45, 17)


def test_pixels_that_touch_at_a_corner_are_one_region():
    heatmap = np.zeros((6, 6), dtype=np.float32)
    heatmap[1, 1] = heatmap[2, 2] = 2
    assert len(regions(heatmap, (6, 6))) == 1


def test_noise_below_the_threshold_makes_no_region_beside_a_small_defect():
    heatmap = np.random.default_rng(0).normal(0.05, 0.1, (200, 200)).astype(np.float32)
    heatmap[50:55, 60:65] = 2.5  # far less than 1 % of the map
    (region,) = regions(heatmap, (200, 200))
    assert region.box == (60, 50, 5, 5)


@pytest.mark.parametrize("heatmap", [np.zeros((8, 8)), np.linspace(0, 0.9, 64).reshape(8, 8)])
def test_a_map_below_the_threshold_still_shows_its_highest_place(heatmap):
    found = regions(heatmap.astype(np.float32), (8, 8))
    assert found and found[0].peak == pytest.approx(heatmap.max())


def test_a_region_of_one_pixel_in_a_smaller_picture_has_a_size():
    heatmap = np.zeros((300, 300), dtype=np.float32)
    heatmap[299, 299] = 2
    (region,) = regions(heatmap, (10, 10))
    assert region.box == (9, 9, 1, 1) and region.area == 1 and region.peak_at == (9, 9)


def test_a_prior_says_how_a_single_reference_is_widened_and_how_good_parts_spread():
    one = np.array([[2.0, 2.0, 2.0]])
    as_another = predict(one, prior=threshold.Prior(spread=0.03, widening=1.0, widening_spread=0.05))
    assert as_another.typical == pytest.approx(2.0)
    assert as_another.spread == pytest.approx(0.03)
    assert as_another.standard_error == pytest.approx(math.hypot(0.03, 0.05))
    assert predict(one).typical == pytest.approx(4.0)  # PatchCore's: twice as high
    among_places = threshold.Prior(widening=1.18, among_places=True)
    words = calibrate(one, one, false_alarm_rate=0.01, prior=among_places).rests_on
    assert "3 mild variations of it and what lies elsewhere in it" in words and "1.18 times as high" in words
    words = calibrate(one, one, false_alarm_rate=0.01).rests_on
    assert "elsewhere" not in words and "2 times as high" in words


def test_the_basis_names_one_view_and_one_picture_in_the_singular():
    many = np.full((40, 1), 2.0)
    assert (
        "40 good pictures, each scored in 1 mild variation by" in calibrate(many, many, false_alarm_rate=0.01).rests_on
    )
    one = calibrate(many[:1], many[:1], false_alarm_rate=0.01).rests_on
    assert one.startswith("a single good picture: 1 mild variation of it")
