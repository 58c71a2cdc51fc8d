import math
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file
from scipy import ndimage
from scipy.stats import rankdata
from sklearn.metrics import average_precision_score, precision_recall_curve, roc_auc_score

from handful.errors import InputError, SettingError
from handful.metrics import PixelCounts, image_ap, image_auroc, image_f1_max, pixel_truth, wilson
from handful.types import TrueRegion

GOLDEN = load_file(Path(__file__).parent / "golden" / "aupro.safetensors")
IMAGE_METRICS = [image_auroc, image_ap, image_f1_max]
SIDE = 96


def counted(maps, masks, *, saturation=None, order=None):
    """Counts of some pictures, each with one true region, or none where its mask is empty."""
    counts = PixelCounts()
    for index in range(len(maps)) if order is None else order:
        regions = [TrueRegion(masks[index], saturation)] if masks[index].any() else []
        counts.add(maps[index], pixel_truth(regions, masks[index].shape), name=f"{index}.png")
    return counts


def row(*values):
    return np.array([values], dtype=np.float32)


def metrics_of(counts):
    return counts.auroc(), counts.average_precision(), counts.f1_max(), counts.aupro()


def best_f1(truth, scores):
    precision, recall, _ = precision_recall_curve(truth, scores)
    return np.max(2 * precision * recall / np.maximum(precision + recall, 1e-300))


def pictures(*, count=8, seed=0):
    """Maps in units of their own noise, every second one with discs that stand out of it."""
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:SIDE, :SIDE]
    maps, masks = random.normal(size=(count, SIDE, SIDE)), np.zeros((count, SIDE, SIDE), dtype=bool)
    for mask in masks[1::2]:
        for row_, column, radius in zip(*random.integers(10, SIDE - 10, (2, 3)), (3, 6, 9), strict=True):
            mask |= np.hypot(y - row_, x - column) <= radius
    return maps + 1.5 * ndimage.gaussian_filter(masks.astype(float), (0, 2, 2)), masks


SHAPES = {
    "normal": lambda z: z,
    "uniform": lambda z: rankdata(z).reshape(z.shape) / z.size,
    "sigmoid": lambda z: 1 / (1 + np.exp(-2 * z)),
    "heavy tail": lambda z: np.exp(4 * z),
    "heavy tails of both signs": lambda z: np.sinh(4 * z),
    "many ties": lambda z: np.round(2 * z),
    "half of it zero": lambda z: np.maximum(z, 0),
    "all below zero": lambda z: -np.exp(-z),
    "offset 1000, noise 1": lambda z: 1000 + z,
    "offset 1000, noise 0.01": lambda z: 1000 + 0.01 * z,
    "offset 1000, the noise of float32 itself": lambda z: 1000 + 0.0002 * z,
    "offset -1000": lambda z: -1000 + 0.1 * z,
    "tiny": lambda z: 1e-30 * z,
    "smaller than float32's normal numbers": lambda z: 1e-40 * z,
    "huge": lambda z: 1e37 * z,
}


@pytest.mark.parametrize(
    ("scores", "expected"),
    [([1, 2, 3, 4], 1.0), ([4, 3, 2, 1], 0.0), ([5, 5, 5, 5], 0.5), ([1, 3, 2, 4], 0.75), ([1, 2, 2, 3], 0.875)],
)
def test_image_auroc_by_hand(scores, expected):
    assert image_auroc([False, False, True, True], scores) == expected


@pytest.mark.parametrize(
    ("scores", "precision", "f1"),
    [
        ([1, 2, 3, 4], 1.0, 1.0),
        ([4, 3, 2, 1], (1 / 3 + 2 / 4) / 2, 2 / 3),
        ([5, 5, 5, 5], 0.5, 2 / 3),
        ([1, 3, 2, 4], (1 + 2 / 3) / 2, 0.8),
        ([1, 2, 2, 3], (1 + 2 / 3) / 2, 0.8),
    ],
)
def test_image_ap_and_best_f1_by_hand(scores, precision, f1):
    truth = [False, False, True, True]
    assert image_ap(truth, scores) == pytest.approx(precision, abs=1e-15)
    assert image_f1_max(truth, scores) == pytest.approx(f1, abs=1e-15)


def by_each_threshold(truth, scores):
    """AUROC from all pairs; average precision and best F1 from the pictures that reach each distinct score."""
    pairs = scores[truth][:, None] - scores[~truth]
    reached = [truth[scores >= score] for score in sorted(set(scores), reverse=True)]
    found = np.array([0, *(one.sum() for one in reached)])
    called = np.array([len(one) for one in reached])
    precision = np.diff(found) @ (found[1:] / called) / truth.sum()
    return (pairs > 0).mean() + (pairs == 0).mean() / 2, precision, (2 * found[1:] / (called + truth.sum())).max()


def test_image_metrics_follow_their_definitions_with_ties():
    generator = np.random.default_rng(0)
    truth, scores = generator.random(500) < 0.3, generator.integers(0, 40, 500)
    ours = [metric(truth, scores) for metric in IMAGE_METRICS]
    assert ours == pytest.approx(by_each_threshold(truth, scores), abs=1e-12)


@pytest.mark.parametrize("metric", IMAGE_METRICS)
@pytest.mark.parametrize(("truth", "counts"), [([1, 1], "0 and 2"), ([0, 0, 0], "3 and 0"), ([], "0 and 0")])
def test_one_class_of_pictures_alone_is_refused_with_its_count(metric, truth, counts):
    with pytest.raises(InputError, match=f"at least one normal and one anomalous picture, got {counts}"):
        metric(truth, [0.0] * len(truth))


@pytest.mark.parametrize("metric", IMAGE_METRICS)
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_an_image_score_that_is_not_finite_is_refused_by_its_picture(metric, score):
    with pytest.raises(InputError, match=r"finite, got -?(nan|inf) of bottle/001\.png"):
        metric([False, True, True], [0.0, score, 1.0], names=["bottle/000.png", "bottle/001.png", "bottle/002.png"])
    with pytest.raises(InputError, match="finite"):
        metric([False, True, True], [0.0, score, 1.0])


def test_a_picture_without_a_label_or_a_score_is_refused():
    with pytest.raises(InputError, match="True or False"):
        image_auroc([False, True, None], [0.0, 1.0, 2.0])
    with pytest.raises(InputError, match="one label and one score"):
        image_auroc([False, True], [0.0, 1.0, 2.0])


@pytest.mark.parametrize(("successes", "trials"), [(0, 5), (1, 7), (30, 60), (5, 5), (199, 2000)])
def test_wilson_is_the_interval_of_his_equation(successes, trials):
    rate, z2 = successes / trials, 1.959963984540054**2  # the normal distribution's quantile for 95 %
    ends = np.roots([1 + z2 / trials, -(2 * rate + z2 / trials), rate**2])  # of (p - rate)² = z² p (1 - p) / trials
    assert wilson(successes, trials) == pytest.approx(sorted(ends), abs=1e-12)


def test_wilson_reaches_the_ends_where_everything_or_nothing_happened():
    for trials in range(1, 300):
        assert wilson(0, trials)[0] == 0 and wilson(trials, trials)[1] == 1


def test_wilson_refuses_what_is_no_rate():
    for successes, trials in ((0, 0), (3, 2), (-1, 2)):
        with pytest.raises(InputError, match=f"got {successes} of {trials}"):
            wilson(successes, trials)


@pytest.mark.parametrize(
    ("scores", "auroc", "precision", "f1", "aupro"),
    [
        ((1, 2, 3, 4, 5, 6, 7, 8), 1, 1, 1, 1),
        ((8, 7, 6, 5, 4, 3, 2, 1), 0, (1 / 7 + 2 / 8) / 2, 0.4, 0),
        ((5, 5, 5, 5, 5, 5, 5, 5), 0.5, 0.25, 0.4, 0.15),  # the curve is the diagonal: 0.3² / 2 / 0.3
        ((-1, -1, -1, -1, -1, 2, 2, 2), 11 / 12, 2 / 3, 0.8, (1 / 6 / 2 + (0.3 - 1 / 6)) / 0.3),
    ],
    ids=["perfect", "inverted", "constant", "ties"],
)
def test_pixel_metrics_by_hand(scores, auroc, precision, f1, aupro):
    mask = np.array([[0, 0, 0, 0, 0, 0, 1, 1]], dtype=bool)
    expected = (auroc, precision, f1, aupro)
    assert metrics_of(counted([row(*scores)], [mask])) == pytest.approx(expected, abs=1e-12)


def test_every_component_counts_as_much_as_any_other():
    # Regions of 1, 2 and 4 pixels and 4 normal ones, the scores of each threshold below in one column:
    mask = np.array([[1, 0, 1, 1, 0, 1, 1, 1, 1, 0, 0]], dtype=bool)
    score = row(9, 8, 7, 4, 6, 5, 5, 3, 3, 2, 1)
    rates, overlaps = counted([score], [mask]).pro_curve()
    #                   start  9    8    7    6    5    4   3  2  1
    assert rates == pytest.approx(np.array([0, 0, 1, 1, 2, 2, 2, 2, 3, 4]) / 4)
    third = np.array([0, 1, 1, 1.5, 1.5, 2, 2.5, 3, 3, 3]) / 3
    assert overlaps == pytest.approx(third, abs=1e-11)  # a region's parts are whole numbers of 2^-40
    by_hand = 0.25 * (1 / 3) + 0.05 * 0.5  # flat to the first normal pixel, then flat at one half
    assert counted([score], [mask]).aupro(limit=0.3) == pytest.approx(by_hand / 0.3, abs=1e-11)


def test_the_curve_is_cut_straight_at_the_limit():
    mask = np.array([[1, 1, 0, 0]], dtype=bool)
    tied = row(5, 1, 5, 0)  # (0, 0) → (1/2, 1/2) → (1/2, 1) → (1, 1)
    assert counted([tied], [mask]).aupro(limit=0.25) == pytest.approx(0.125)
    assert counted([tied], [mask]).aupro(limit=0.5) == pytest.approx(0.25)
    assert counted([tied], [mask]).aupro(limit=1) == pytest.approx(0.125 + 0.5)


def test_pixels_that_touch_at_a_corner_are_one_region():
    mask = np.array([[1, 0, 0], [0, 1, 1]], dtype=bool)
    _, overlaps = counted([np.array([[9, 1, 2], [3, 4, 5]], dtype=np.float32)], [mask]).pro_curve()
    assert overlaps[1] == pytest.approx(1 / 3)


def test_a_saturated_region_is_found_with_its_highest_pixels():
    # 6 pixels in two parts, saturation 0.5: the 3 highest count a third each, wherever they are; one region, not two.
    mask = np.array([[1, 1, 1, 1, 0, 1, 1, 0]], dtype=bool)
    score = row(9, 1, 1, 2, 8, 7, 6, 5)
    rates, overlaps = counted([score], [mask], saturation=0.5).pro_curve()
    #                                9    8    7    6  5  2  1
    assert rates == pytest.approx([0, 0, 0.5, 0.5, 0.5, 1, 1, 1])
    assert overlaps == pytest.approx(np.array([0, 1, 1, 2, 3, 3, 3, 3]) / 3, abs=1e-11)
    whole = counted([score], [mask]).pro_curve()[1]
    assert whole[1] == pytest.approx(1 / 8)  # a quarter of one of two regions


def test_ties_at_the_saturation_count_no_more_than_it():
    mask = np.array([[1, 1, 1, 1, 0]], dtype=bool)
    rates, overlaps = counted([row(3, 2, 2, 2, 1)], [mask], saturation=0.5).pro_curve()
    assert rates.tolist() == [0, 0, 0, 1] and overlaps == pytest.approx([0, 0.5, 1, 1])


def test_a_region_of_saturation_1_stays_one_whatever_its_parts():
    score, mask = row(3, 0, 2, 2, 2), row(1, 0, 1, 1, 1).astype(bool)
    assert counted([score], [mask], saturation=1.0).pro_curve()[1][1] == pytest.approx(1 / 4)  # 1 of its 4 pixels
    assert counted([score], [mask]).pro_curve()[1][1] == pytest.approx(1 / 2)  # the smaller of 2 regions


def test_the_smallest_saturation_asks_for_one_pixel():
    mask = np.array([[1, 1, 1, 0]], dtype=bool)
    assert counted([row(0, 9, 0, 1)], [mask], saturation=0.001).aupro() == 1


def test_regions_that_overlap_count_each_in_pro_and_their_pixels_once():
    both = [np.array([[1, 1, 0, 0]], dtype=bool), np.array([[0, 1, 1, 0]], dtype=bool)]
    counts = PixelCounts()
    counts.add(row(1, 9, 1, 2), pixel_truth([TrueRegion(mask) for mask in both], (1, 4)), name="a")
    assert counts.pro_curve()[1].tolist() == [0, 0.5, 0.5, 1]
    assert counts.average_precision() == pytest.approx((1 + 2 * 3 / 4) / 3)


@pytest.mark.parametrize("kind", ["plain", "ties", "offset"])
def test_aupro_equals_anomalib(kind):
    # tests/golden/aupro.md says how the values were made; theirs adds 6144 numbers up in float32.
    plain = GOLDEN["maps"]
    maps = {"plain": plain, "ties": np.round(2 * plain) / 2, "offset": (1000 + plain).astype(np.float32)}[kind]
    counts = counted(maps, GOLDEN["masks"] > 0)
    ours = [counts.aupro(limit=float(limit)) for limit in GOLDEN["limits"]]
    assert ours == pytest.approx(GOLDEN[f"aupro_{kind}"], abs=1e-6)


@pytest.mark.parametrize("shape", SHAPES)
def test_pixel_metrics_agree_with_scikit_learn(shape):
    noise, masks = pictures()
    maps = SHAPES[shape](noise).astype(np.float32)
    counts = counted(maps, masks)
    truth, scores = masks.ravel(), maps.ravel().astype(np.float64)
    # What bins lose is the order of scores that differ by less than 2^-14 (2^-18 near the top) of themselves.
    assert counts.auroc() == pytest.approx(roc_auc_score(truth, scores), abs=1e-5)
    assert counts.average_precision() == pytest.approx(average_precision_score(truth, scores), abs=1e-4)
    assert counts.f1_max() == pytest.approx(best_f1(truth, scores), abs=1e-4)


def test_an_offset_is_exact_until_other_scores_widen_the_bins():
    noise, masks = pictures()
    maps = (1000 + 0.01 * noise).astype(np.float32)
    exact = roc_auc_score(masks.ravel(), maps.ravel())
    assert counted(maps, masks).auroc() == pytest.approx(exact, abs=1e-12)
    maps[0, 0, 0] = 1e6  # bins around 1000 are now 0.03 wide, three times the noise: the docstring says so
    assert abs(counted(maps, masks).auroc() - exact) > 1e-3


def test_no_order_of_pictures_changes_a_bit():
    noise, masks = pictures(count=4)
    spread = np.arange(1, 5)[:, None, None]  # each picture's scores range wider than the last's
    maps = np.sinh(spread * noise).astype(np.float32)
    one_pass = metrics_of(counted(maps, masks))
    assert metrics_of(counted(maps, masks, order=[3, 2, 1, 0])) == one_pass


def test_narrow_maps_before_wide_ones_change_nothing():
    # One after another, each layout of the bins must hold the next: exact, then two powers of two, then all signs.
    noise, masks = pictures(count=4)
    maps = np.stack([5 + 1e-4 * noise[0], 5 + noise[1] / 4, 90 + noise[2], noise[3] * 1e4]).astype(np.float32)
    orders = [[0, 1, 2, 3], [3, 2, 1, 0], [2, 0, 3, 1]]
    assert len({metrics_of(counted(maps, masks, order=order)) for order in orders}) == 1


def test_a_rising_transform_changes_nothing_much():
    noise, masks = pictures()
    plain = metrics_of(counted(noise.astype(np.float32), masks))
    for shape in (np.exp, np.arctan, lambda z: 100 * z + 3):
        # other scores share bins, and float32 rounds others together
        assert metrics_of(counted(shape(noise).astype(np.float32), masks)) == pytest.approx(plain, abs=1e-4)


def test_zero_of_either_sign_is_one_score():
    mask = np.array([[1, 1, 0, 0]], dtype=bool)
    assert counted([row(0.0, -0.0, 0.0, -0.0)], [mask]).auroc() == 0.5


def test_neighbouring_values_of_either_sign_keep_their_order():
    steps = np.float32([-3, -2, -1, 0, 1, 2, 3]) * np.float32(1e-3)
    assert counted([steps[None]], [np.array([[0, 0, 0, 1, 1, 1, 1]], dtype=bool)]).auroc() == 1


@pytest.mark.parametrize("score", [1e-30, 1e-3, 1, 1000, 1e10, -1e-30, -1, -1e10])
def test_scores_that_differ_by_two_parts_in_2_to_the_14_are_told_apart_beside_any_others(score):
    low, high = sorted((score, score * (1 + 2**-13)))
    assert counted([row(-1e38, low, high, 1e38)], [np.array([[0, 0, 1, 1]], dtype=bool)]).auroc() == 1


@pytest.mark.parametrize(("lowest", "highest", "most"), [(0, 3e38, 2**23), (-3e38, 0, 2**23), (-3e38, 3e38, 2**24)])
def test_memory_is_bounded_whatever_the_scores(lowest, highest, most):
    assert counted([row(lowest, highest)], [np.array([[0, 1]], dtype=bool)])._tallies.shape[1] < most


def test_memory_does_not_grow_with_the_pictures():
    noise, masks = pictures(count=2)
    few, many = (counted(noise.astype(np.float32), masks, order=[0, 1] * times) for times in (1, 6))
    assert many._tallies.nbytes == few._tallies.nbytes


@pytest.mark.parametrize("bad", [math.nan, -math.nan, math.inf, -math.inf])
def test_a_map_that_is_not_finite_is_refused_by_its_picture_and_not_counted(bad):
    mask = np.array([[0, 1]], dtype=bool)
    counts = counted([row(1, 2)], [mask])
    with pytest.raises(InputError, match=r"map of bottle/001\.png must be finite"):
        counts.add(row(bad, 3), pixel_truth([TrueRegion(mask)], (1, 2)), name="bottle/001.png")
    assert counts.auroc() == 1


def test_a_map_of_another_size_is_refused_by_its_picture():
    with pytest.raises(InputError, match=r"map of bottle/001\.png must be \(2, 2\), .* got \(1, 4\)"):
        PixelCounts().add(row(1, 2, 3, 4), pixel_truth([], (2, 2)), name="bottle/001.png")


@pytest.mark.parametrize(
    ("region", "words"),
    [
        (TrueRegion(np.ones((3, 2), dtype=bool)), r"masks of a\.png must be \(2, 2\).* got \(3, 2\)"),
        (TrueRegion(np.zeros((2, 2), dtype=bool)), r"got none in one of a\.png"),
        (TrueRegion(np.ones((2, 2), dtype=bool), 0.0), r"saturations of a\.png must be in \(0, 1\], got 0"),
        (TrueRegion(np.ones((2, 2), dtype=bool), 1.5), r"got 1\.5"),
    ],
)
def test_a_region_that_does_not_serve_is_refused(region, words):
    with pytest.raises(InputError, match=words):
        pixel_truth([region], (2, 2), name="a.png")


@pytest.mark.parametrize("metric", ["auroc", "average_precision", "f1_max", "aupro", "pro_curve"])
def test_one_class_of_pixels_alone_is_refused_with_its_count(metric):
    for counts, got in (
        (PixelCounts(), "0 and 0"),
        (counted([row(1, 2)], [np.zeros((1, 2), dtype=bool)]), "2 and 0"),
        (counted([row(1, 2)], [np.ones((1, 2), dtype=bool)]), "0 and 2"),
    ):
        with pytest.raises(InputError, match=f"at least one normal and one anomalous pixel, got {got}"):
            getattr(counts, metric)()


@pytest.mark.parametrize("limit", [0, -0.1, 1.1, math.nan])
def test_a_limit_that_is_no_rate_is_refused(limit):
    with pytest.raises(SettingError, match="limit"):
        counted([row(1, 2)], [np.array([[0, 1]], dtype=bool)]).aupro(limit=limit)
