import math
from pathlib import Path

import numpy as np
import pytest
import safetensors.numpy
from scipy import ndimage, stats

from handful.errors import InputError
from handful.ops import defects
from handful.ops.defects import (
    RECIPES,
    Recipe,
    base_augment,
    blob_mask,
    closed_bezier,
    clump_mask,
    cut_fill,
    fill_curve,
    make_defect,
    noise_fill,
    scar_mask,
    seven_variants,
    soften_edge,
)

GOLDEN = safetensors.numpy.load_file(Path(__file__).parents[1] / "golden" / "reb_defects.safetensors")
MAKERS = safetensors.numpy.load_file(Path(__file__).parents[1] / "golden" / "reb_makers.safetensors")
SIZES = [(256, 256), (32, 32), (40, 200), (300, 64)]
every_recipe = pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)


def random(seed=0):
    return np.random.default_rng(seed)


def coloured(size=(64, 64), seed=0):
    return random(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def plain(value, size=(64, 64)):
    return np.full((*size, 3), value, dtype=np.uint8)


def extent(mask):
    """Top, left, height, width of what is true."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    return rows[0], columns[0], rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]


class Given:
    """A generator whose real draws are given."""

    def __init__(self, *draws):
        self.draws = list(draws)

    def uniform(self, _low, _high):
        return self.draws.pop(0)


# --- the authors' geometry: tests/golden/reb_defects.md says how the values were made


@pytest.mark.parametrize("case", range(4))
def test_the_curve_is_the_authors(case):
    curve = closed_bezier(
        GOLDEN[f"points_{case}"], pull=GOLDEN[f"pull_{case}"].item(), straight=GOLDEN[f"straight_{case}"]
    )
    # Theirs repeats the first point at the end. The rest is float64 rounding of values up to 100.
    np.testing.assert_allclose(curve, GOLDEN[f"curve_{case}"][:-1], atol=1e-10)


@pytest.mark.parametrize("case", range(4))
def test_the_filled_curve_is_the_authors_but_for_its_rim(case):
    # Theirs cuts corners down to whole pixels (up to 1) and draws the outline as well (1 more): a rim of 2 may differ.
    theirs = GOLDEN[f"mask_{case}"]
    ours = fill_curve(defects._fit(GOLDEN[f"curve_{case}"][:-1], theirs.shape), size=theirs.shape)
    around = np.ones((5, 5))
    assert (ours <= ndimage.binary_dilation(theirs, around)).all()
    assert (ours >= ndimage.binary_erosion(theirs, around)).all()
    assert ours.sum() == pytest.approx(theirs.sum(), rel=0.04)


@pytest.mark.parametrize("width", [3, 5])
def test_the_soft_edge_is_the_authors_inside_the_shape(width):
    mask = np.pad(GOLDEN["mask_0"], 6)
    # Theirs rounds to 8 bits twice (blur by rows and by columns), and then to half precision.
    difference = np.abs(soften_edge(mask, width=width) - GOLDEN[f"soft_{width}"])
    assert difference[mask].max() < 2 / 255
    assert (soften_edge(mask, width=width)[~mask] == 0).all()


def test_boxes_are_the_authors_for_the_same_draws():
    for height, width, area, log_aspect, box_height, box_width in GOLDEN["boxes"]:
        box = defects._box((int(height), int(width)), aspect=3.3, generator=Given(area, log_aspect))
        assert box == (box_height, box_width)


def test_boxes_are_placed_as_the_authors_place_them():
    centres = ((50, 40, 20, 30), (3, 2, 21, 31), (99, 79, 21, 30), (99, 0, 100, 80), (60, 70, 7, 9))  # x, y, w, h
    for (x, y, width, height), expected in zip(centres, GOLDEN["placed"], strict=True):
        allowed = np.zeros((80, 100), dtype=bool)
        allowed[y, x] = True
        assert defects._place((80, 100), (height, width), allowed=allowed, generator=random()) == tuple(expected)


# --- whole defects beside the authors': tests/golden/reb_makers.md says how the values were made


def graded():
    rows, columns = np.indices((256, 256))
    return np.stack([rows, columns, (rows + 2 * columns) // 3], axis=2).astype(np.uint8)


def figures(made):
    """Share, height and width of what a defect changed, the mean size of the change, and the spread of its pixels."""
    changed = (made != graded()).any(axis=2)
    height, width = extent(changed)[2:]
    by = np.abs(made[changed].astype(float) - graded()[changed])
    return changed.mean(), height, width, by.mean(), made[changed].std()


@every_recipe
def test_defects_are_as_large_and_as_strong_as_the_authors(recipe):
    generator = random()
    ours = np.array([figures(make_defect(graded(), None, recipe=recipe, generator=generator)[0]) for _ in range(300)])
    distances = [stats.ks_2samp(*both).statistic for both in zip(ours.T, MAKERS[recipe.name].T, strict=True)]
    # Of equal makers one in a thousand is farther apart than 0.21.
    assert max(distances) <= 0.21


# --- shapes


def test_a_curve_with_only_straight_segments_is_its_polygon():
    points = np.array([[0.0, 0.0], [10.0, 0.0], [10.0, 6.0], [0.0, 6.0]])
    curve = closed_bezier(points, pull=0.3, straight=np.ones(4, dtype=bool))
    np.testing.assert_array_equal(curve, points)
    assert fill_curve(curve, size=(6, 10)).all()
    assert fill_curve(curve + 1, size=(8, 12)).sum() == 60


def test_half_of_the_segments_are_straight():
    corners = [len(defects._random_curve((5, 6), generator=random(seed))) for seed in range(200)]
    assert np.mean(corners) == pytest.approx(5.5 * (11 + 1) / 2, abs=3)  # standard error 0.9


def test_a_blob_keeps_to_the_areas_and_aspects_of_the_paper():
    boxes = np.array([blob_mask((256, 256), generator=random(seed)).shape for seed in range(300)])
    shares, aspects = boxes.prod(1) / 256**2, boxes[:, 1] / boxes[:, 0]
    # A side is rounded by up to half a pixel of at least 20: 3 %.
    assert 0.02 * 0.97 < shares.min() < 0.03 and 0.14 < shares.max() < 0.15 * 1.03
    assert 1 / 3.4 < aspects.min() < 0.4 and 2.5 < aspects.max() < 3.4


def test_a_blob_reaches_all_sides_of_its_box():
    for seed in range(50):
        mask = blob_mask((256, 256), generator=random(seed))
        # A pointed tip may miss a few pixel centres.
        assert all(own >= length - 8 for own, length in zip(extent(mask)[2:], mask.shape, strict=True))


@pytest.mark.parametrize("side", [256, 512])
def test_a_scar_is_small_turned_and_in_proportion_to_the_picture(side):
    masks = [scar_mask((side, side), generator=random(seed)) for seed in range(300)]
    scale = side / 256
    longest = math.ceil(scale * (21 + 30) * math.sqrt(0.5))  # the largest box, turned by 45 degrees
    heights, widths = np.array([mask.shape for mask in masks]).T
    assert heights.max() <= longest and widths.max() <= longest
    assert widths.max() > 22 * scale  # none is so wide before it is turned
    assert min(mask.sum() for mask in masks) > 0
    assert max(mask.sum() for mask in masks) <= scale**2 * 21 * 30
    assert np.mean([mask.sum() for mask in masks]) > scale**2 * 100


def test_a_scar_is_longer_than_it_is_wide_without_a_turn(monkeypatch):
    monkeypatch.setattr(defects.math, "radians", lambda _degrees: 0.0)
    heights, widths = np.array([scar_mask((256, 256), generator=random(seed)).shape for seed in range(200)]).T
    assert (widths.min(), widths.max()) == (7, 21)
    assert (heights.min(), heights.max()) == (15, 30)


def test_a_clump_is_scattered_and_a_blob_is_not():
    clumps, blobs = (
        [ndimage.label(draw((256, 256), generator=random(seed)))[1] for seed in range(40)]
        for draw in (clump_mask, blob_mask)
    )
    assert np.median(clumps) > 8
    assert np.median(blobs) == 1


def test_a_clump_of_a_larger_picture_has_larger_speckles_not_more():
    small, large = (
        np.mean([ndimage.label(clump_mask((side, side), generator=random(seed)))[1] for seed in range(40)])
        for side in (128, 512)
    )
    assert large == pytest.approx(small, rel=0.4)  # 16 times as many otherwise; the smallest merge at 128 pixels


# --- fills


def test_noise_has_the_levels_and_strengths_of_the_paper():
    fills = [noise_fill((40, 40), generator=random(seed)) for seed in range(300)]
    means = np.array([fill.mean() for fill in fills])
    swings = np.array([np.abs(fill - mean).max() for fill, mean in zip(fills, means, strict=True)])
    assert 45 < means.min() < 55 and 185 < means.max() < 195
    assert means.mean() == pytest.approx(120, abs=10)  # standard error 2.5
    assert swings.min() < 1e-3 and 40 < swings.max() < 45 * 1.5  # bicubic interpolation overshoots
    assert all(fill.shape == (40, 40, 3) for fill in fills)


def test_noise_comes_in_grains():
    rough = [
        np.abs(np.diff(noise_fill((64, 64), generator=random(seed), scale=1), axis=1)).mean() for seed in range(80)
    ]
    fine = [np.abs(np.diff(noise_fill((64, 64), generator=random(seed), scale=4), axis=1)).mean() for seed in range(80)]
    assert np.mean(fine) < np.mean(rough) / 2


def test_a_cut_comes_from_the_foreground_of_the_source():
    source = plain(50, (64, 96))
    source[:, 60:] = 200
    right = np.zeros((64, 96), dtype=bool)
    right[:, 80:] = True
    fill = cut_fill(source, right, size=(10, 12), generator=random())
    assert fill.shape == (10, 12, 3)
    assert (fill == 200).all()
    made, mask = make_defect(
        plain(120, (64, 96)), None, recipe=RECIPES[1], generator=random(), source=source, source_foreground=right
    )
    assert (made[mask] > 120).all()


def test_a_cut_of_a_colour_stays_within_the_jitter():
    source = plain(200)
    for seed in range(20):
        made, mask = make_defect(plain(20), None, recipe=Recipe("blob", "cut"), generator=random(seed), source=source)
        strongest = made[mask].max()
        assert 179 <= strongest <= 221
        assert (made[mask] == made[mask][:, :1]).all()  # a grey source stays grey


def test_the_grain_of_noise_grows_with_the_picture(monkeypatch):
    scales = []
    monkeypatch.setattr(
        defects, "noise_fill", lambda size, **given: scales.append(given["scale"]) or np.zeros((*size, 3))
    )
    for size in ((256, 256), (512, 600), (64, 128)):
        make_defect(plain(0, size), None, recipe=RECIPES[4], generator=random())
    assert scales == [1, 2, 0.25]


def test_a_fill_is_jittered_by_itself(monkeypatch):
    monkeypatch.setattr(defects, "SOFT_EDGE", 0)
    values = set()
    for seed in range(20):
        made, mask = make_defect(plain(0), None, recipe=RECIPES[0], generator=random(seed), source=plain(200))
        values |= set(np.unique(made[mask]).tolist())
    assert len(values) > 8


# --- defects


@every_recipe
@pytest.mark.parametrize("size", SIZES)
def test_a_defect_changes_only_what_its_mask_marks_and_is_never_empty(recipe, size):
    picture = coloured(size)
    before = picture.copy()
    for seed in range(15):
        made, mask = make_defect(picture, None, recipe=recipe, generator=random(seed), source=coloured(size, 1))
        assert (made.shape, made.dtype, mask.shape, mask.dtype) == (picture.shape, np.uint8, size, bool)
        assert mask.any()
        assert (made[~mask] == picture[~mask]).all()
    assert (picture == before).all()


def test_a_hard_edged_blob_changes_every_pixel_of_its_mask(monkeypatch):
    monkeypatch.setattr(defects, "SOFT_EDGE", 0)
    for seed in range(20):
        made, mask = make_defect(plain(0), None, recipe=RECIPES[0], generator=random(seed), source=plain(200))
        assert (made[mask] >= 180).all()
        assert (made.any(axis=2) == mask).all()


def test_a_soft_edge_fades_towards_the_rim(monkeypatch):
    monkeypatch.setattr(defects, "SOFT_EDGE", 1)
    size = (256, 256)
    made, mask = make_defect(plain(0, size), None, recipe=RECIPES[0], generator=random(1), source=plain(200, size))
    depth = ndimage.distance_transform_edt(mask)
    assert made[depth > 6].min() >= 179  # a disc of 2 and a blur of 2 pixels, in corners further along
    assert 0 < made[mask & (depth <= 1.5)].mean() < 90


def test_half_of_the_edges_are_soft():
    soft = []
    for seed in range(200):
        size = (128, 128)
        made, mask = make_defect(
            plain(0, size), None, recipe=RECIPES[0], generator=random(seed), source=plain(200, size)
        )
        soft.append(len(np.unique(made[mask])) > 1)
    assert 0.4 < np.mean(soft) < 0.6  # standard error 0.035


def test_a_clump_is_between_half_and_wholly_opaque(monkeypatch):
    monkeypatch.setattr(defects, "SOFT_EDGE", 0)
    values = []
    for seed in range(60):
        size = (128, 128)
        made, mask = make_defect(
            plain(0, size), None, recipe=RECIPES[2], generator=random(seed), source=plain(200, size)
        )
        values.append(float(made[mask].mean()) / 200)
    assert 0.44 < min(values) < 0.6 and 0.85 < max(values) < 1.11  # times the jitter's 0.9 to 1.1


@every_recipe
def test_a_seed_makes_the_same_defect_again_and_another_makes_another(recipe):
    picture, source = coloured(), coloured(seed=1)
    one, again, other = (
        make_defect(picture, None, recipe=recipe, generator=random(seed), source=source) for seed in (5, 5, 6)
    )
    assert (one[0] == again[0]).all() and (one[1] == again[1]).all()
    assert (one[0] != other[0]).any()


def test_the_six_recipes_are_the_classes_in_order_and_all_differ():
    assert [recipe.name for recipe in RECIPES] == [
        "cut blob",
        "cut scar",
        "cut clump",
        "noise blob",
        "noise scar",
        "noise clump",
    ]
    picture = coloured((128, 128))
    made = [make_defect(picture, None, recipe=recipe, generator=random())[0].tobytes() for recipe in RECIPES]
    assert len(set(made)) == 6


@pytest.mark.parametrize("fill", ["cut", "noise"])
def test_a_defect_is_centred_on_the_foreground(fill):
    foreground = np.zeros((256, 256), dtype=bool)
    foreground[120:130, 100:110] = True
    for seed in range(30):
        _, mask = make_defect(plain(90, (256, 256)), foreground, recipe=Recipe("scar", fill), generator=random(seed))
        top, left, height, width = extent(mask)
        # The mask's own middle is off its box's by what a tip or a soft edge leaves out.
        assert 115 <= top + height / 2 <= 135
        assert 95 <= left + width / 2 <= 115


def test_without_a_foreground_defects_come_everywhere():
    total = np.zeros((64, 64))
    for seed in range(300):
        total += make_defect(plain(90), None, recipe=RECIPES[3], generator=random(seed))[1]
    assert (total > 0).mean() > 0.98


def test_noise_on_a_grey_picture_is_grey_and_on_a_coloured_one_is_not():
    noise = Recipe("blob", "noise")
    grey, mask = make_defect(plain(90), None, recipe=noise, generator=random(3))
    assert (grey == grey[..., :1]).all()
    colour, mask = make_defect(coloured(), None, recipe=noise, generator=random(3))
    assert (colour[mask] != colour[mask][:, :1]).any()


def test_masks_that_stay_empty_give_way_to_an_ellipse(monkeypatch):
    drawn = []

    def empty(_size, *, generator):
        drawn.append(generator.random())
        return np.zeros((9, 15), dtype=bool)

    monkeypatch.setattr(defects, "blob_mask", empty)
    made, mask = make_defect(plain(0), None, recipe=RECIPES[0], generator=random(), source=plain(200))
    assert len(drawn) == 5
    assert extent(mask)[2:] == (9, 15)
    assert mask.sum() == pytest.approx(math.pi * 9 * 15 / 4, rel=0.05)
    assert (made.any(axis=2) == mask).all()


def test_an_edge_that_wears_the_shape_away_is_drawn_again(monkeypatch):
    thin = np.zeros((9, 9), dtype=bool)
    thin[4] = True
    drawn = []
    monkeypatch.setattr(defects, "blob_mask", lambda _size, *, generator: drawn.append(generator) or thin)
    monkeypatch.setattr(defects, "SOFT_EDGE", 1)
    picture = plain(0, (256, 256))
    _, mask = make_defect(picture, None, recipe=RECIPES[0], generator=random(), source=plain(200, (256, 256)))
    assert len(drawn) == 5
    assert mask.any()


@pytest.mark.parametrize(
    ("picture", "foreground", "source"),
    [
        (plain(0).astype(np.float32), None, None),
        (plain(0)[..., 0], None, None),
        (plain(0), np.zeros((64, 64), dtype=bool), None),
        (plain(0), np.ones((64, 32), dtype=bool), None),
        (plain(0), None, plain(0, (64, 32))),
    ],
    ids=["float", "one channel", "empty foreground", "other foreground", "other source"],
)
def test_what_does_not_fit_is_refused(picture, foreground, source):
    with pytest.raises(InputError):
        make_defect(picture, foreground, recipe=RECIPES[0], generator=random(), source=source)
    with pytest.raises(InputError):
        others = [picture if source is None else source]
        seven_variants([picture, *others * 50], [foreground] * 51, row=0, generator=random())


# --- augmentation and the seven classes


def test_the_jitter_does_what_its_four_parts_do_by_hand():
    picture = coloured((8, 8)).astype(np.float32)
    luma = picture @ np.array([0.299, 0.587, 0.114])

    def jittered(*draws):
        return defects._jitter(picture, generator=Given(*draws))

    tolerance = {"atol": 1e-2}  # of 255: float32
    np.testing.assert_allclose(jittered(1, 1, 1, 0), picture, **tolerance)
    np.testing.assert_allclose(jittered(1.1, 1, 1, 0), 1.1 * picture, **tolerance)
    np.testing.assert_allclose(jittered(1, 0.9, 1, 0), 0.9 * picture + 0.1 * luma.mean(), **tolerance)
    np.testing.assert_allclose(jittered(1, 1, 0.9, 0), 0.9 * picture + 0.1 * luma[..., None], **tolerance)
    before, after = (pixels @ defects.TO_YIQ.T for pixels in (picture, jittered(1, 1, 1, 0.1)))
    np.testing.assert_allclose(after[..., 0], before[..., 0], **tolerance)
    turn = (after[..., 1] + 1j * after[..., 2]) / (before[..., 1] + 1j * before[..., 2])
    np.testing.assert_allclose(turn, np.exp(0.2j * np.pi), atol=1e-3)  # a tenth of a full turn


def test_the_base_augmentation_turns_in_all_eight_ways_and_the_foreground_with_it():
    picture = plain(40, (8, 8))
    picture[1, 2] = 240
    foreground = picture[..., 0] == 240
    places = set()
    for seed in range(100):
        turned, inside = base_augment(picture, foreground, generator=random(seed))
        assert (inside == (turned[..., 0] > 150)).all()
        places.add(int(np.flatnonzero(inside)[0]))
    assert len(places) == 8


def test_turning_can_be_switched_off_and_oblong_pictures_keep_their_shape():
    picture = plain(40, (8, 12))
    picture[1, 2] = 240
    foreground = picture[..., 0] == 240
    unturned = [base_augment(picture, foreground, generator=random(seed), turn=False)[1] for seed in range(20)]
    assert all((inside == foreground).all() for inside in unturned)
    turned = [base_augment(picture, foreground, generator=random(seed)) for seed in range(60)]
    assert {pixels.shape for pixels, _ in turned} == {(8, 12, 3)}
    assert len({int(np.flatnonzero(inside)[0]) for _, inside in turned}) == 4
    assert base_augment(picture, None, generator=random())[1] is None


def test_seven_variants_are_one_augmented_picture_and_six_defects_on_it():
    pictures = [coloured(seed=0), plain(0)]
    variants, masks = seven_variants(pictures, [None, None], row=0, generator=random(), turn=False)
    assert (variants.shape, variants.dtype) == ((7, 64, 64, 3), np.uint8)
    assert (masks.shape, masks.dtype) == ((7, 64, 64), bool)
    assert not masks[0].any() and masks[1:].any(axis=(1, 2)).all()
    assert all((variant[~mask] == variants[0][~mask]).all() for variant, mask in zip(variants, masks, strict=True))
    assert (variants[1:] != variants[0]).any(axis=(1, 2, 3)).all()
    assert not (variants[0] == pictures[0]).all()  # jittered
    again = seven_variants(pictures, [None, None], row=0, generator=random(), turn=False)
    assert (again[0] == variants).all() and (again[1] == masks).all()


def test_cuts_of_the_seven_come_from_any_of_the_pictures(monkeypatch):
    monkeypatch.setattr(defects, "SOFT_EDGE", 0)
    pictures = [plain(20), plain(100), plain(220)]
    seen = set()
    for seed in range(20):
        variants, masks = seven_variants(pictures, [None] * 3, row=0, generator=random(seed))
        value = int(variants[1][masks[1]].max())
        seen.add(min((20, 100, 220), key=lambda original: abs(original - value)))
    assert seen == {20, 100, 220}


def test_grey_pictures_stay_grey_in_all_seven():
    grey = np.repeat(random().integers(0, 256, (64, 64, 1), dtype=np.uint8), 3, axis=2)
    for seed in range(10):
        variants, _ = seven_variants([grey], [None], row=0, generator=random(seed))
        assert (variants == variants[..., :1]).all()
