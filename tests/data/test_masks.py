"""Masks become true regions in the frame of the map."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFilter
from scipy import ndimage

from handful.data.masks import marked as marked_in
from handful.data.masks import read_ignored, read_regions
from handful.errors import ImageError, InputError
from handful.types import Sample, Saturation


@pytest.fixture
def defect(tmp_path):
    """Write masks and give the sample that has them."""

    def save(*masks, suffix=".png"):
        paths = [str(tmp_path / f"{number}{suffix}") for number in range(len(masks))]
        for path, mask in zip(paths, masks, strict=True):
            (mask if isinstance(mask, Image.Image) else Image.fromarray(mask)).save(path)
        return Sample("part.png", True, "dent", tuple(paths))

    return save


def marked(shape, rows, columns, value=255, dtype=np.uint8):
    mask = np.zeros(shape, dtype)
    mask[rows, columns] = value
    return mask


def test_masks_are_united_into_one_region_wherever_nobody_says_saturation(defect):
    one, other = marked((8, 8), slice(0, 2), slice(0, 2)), marked((4, 4), slice(3, 4), slice(0, 4))
    (region,) = read_regions(defect(one, other), (8, 8))
    expected = np.zeros((8, 8), bool)
    expected[:2, :2] = expected[6:] = True
    assert region.mask.dtype == bool and np.array_equal(region.mask, expected)
    assert region.saturation is None


def blob(seed=0):
    """Round regions, about a sixth of 120 x 160 pixels, 255 on 0."""
    noise = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (120, 160), np.uint8))
    smooth = np.asarray(noise.filter(ImageFilter.GaussianBlur(9)), float)
    return Image.fromarray(np.where(smooth > np.quantile(smooth, 0.85), 255, 0).astype(np.uint8))


def saved(mask, kind, **options):
    """What a lossy format leaves of a mask."""
    file = io.BytesIO()
    mask.save(file, kind, **options)
    return Image.open(file).convert("L")


def resized(mask, factor, how):
    return mask.resize((mask.width * 2 // factor, mask.height * 2 // factor), how)


SOFTENED = {
    **{f"JPEG {quality}": lambda mask, q=quality: saved(mask, "JPEG", quality=q) for quality in (50, 75, 90, 95, 100)},
    **{f"WebP {quality}": lambda mask, q=quality: saved(mask, "WEBP", quality=q) for quality in (60, 90)},
    **{
        f"{how.name} {factor}": lambda mask, f=factor, h=how: resized(mask, f, h).resize(mask.size, h)
        for how in (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC, Image.Resampling.LANCZOS)
        for factor in (3, 4, 6)
    },
    **{f"blur {radius}": lambda mask, r=radius: mask.filter(ImageFilter.GaussianBlur(r)) for radius in (0.5, 1, 2, 3)},
    "anti-aliased": lambda mask: (
        mask.resize((640, 480), Image.Resampling.BICUBIC)
        .point(lambda value: 255 * (value > 127))
        .resize(mask.size, Image.Resampling.BOX)
    ),
    "half as bright": lambda mask: mask.filter(ImageFilter.GaussianBlur(1)).point(lambda value: value // 2),
}


@pytest.mark.parametrize("way", SOFTENED)
def test_soft_edges_and_noise_count_from_half_of_the_largest_value(defect, way):
    for seed in range(3):
        mask = SOFTENED[way](blob(seed))
        values, clean = np.asarray(mask), np.asarray(blob(seed)) > 0
        found, soft = marked_in(values)
        assert soft and np.array_equal(found, values >= values.max() - values.max() // 2)
        overlap = (found & clean).sum() / (found | clean).sum()
        assert overlap > 0.85  # edges move by part of a pixel, and round regions this small shrink when blurred
        assert overlap > ((values > 0) & clean).sum() / ((values > 0) | clean).sum()
    (region,) = read_regions(defect(mask), (120, 160))
    assert np.array_equal(region.mask, found)


def labels(*values, seed=0):
    """The blob's connected parts in these values by turns."""
    parts, _ = ndimage.label(np.asarray(blob(seed)), np.ones((3, 3)))
    return np.where(parts > 0, np.resize(values, parts.max() + 1)[parts], 0)


def touching(low, high):
    values = np.where(np.asarray(blob()) > 0, high, 0)
    values[:, :80] = np.where(values[:, :80] > 0, low, 0)
    return values


LABELS = {
    "one value": labels(1),
    "VisA": labels(1, 2, 3, 4, 9),
    "BraTS": np.where(ndimage.binary_erosion(labels(1), iterations=2), 4, labels(1)),
    "scaled": labels(60, 120, 255),
    "touching": touching(60, 255),
    "instances": ndimage.label(np.asarray(blob()))[0],
    "many instances": np.kron(np.arange(1, 181).reshape(12, 15), np.pad(np.ones((4, 4), int), 3)),
    "a scratch one pixel wide": np.where(np.eye(120, 160, 40), 60, 0) + np.where(np.eye(120, 160, -30), 255, 0),
    "LOCO's types, merged": labels(255, 254, 251, 240),
    "16 bits": labels(300, 5000, 40000),
}


@pytest.mark.parametrize("kind", LABELS)
def test_every_label_counts_whatever_its_value(kind):
    values = LABELS[kind].astype(np.uint16 if LABELS[kind].max() > 255 else np.uint8)
    found, soft = marked_in(values)
    assert not soft and np.array_equal(found, values > 0)


def test_a_background_that_is_not_quite_black_is_no_label():
    values = np.where(np.asarray(blob()) > 0, 235, 16).astype(np.uint8)  # as video stores black and white
    found, soft = marked_in(values)
    assert soft and np.array_equal(found, values == 235)


def test_a_mask_with_soft_edges_has_the_type_that_most_of_it_has(defect):
    mask = Image.fromarray(np.where(np.asarray(blob()) > 0, 252, 0).astype(np.uint8))
    mask = mask.resize((80, 60), Image.Resampling.BILINEAR).resize(mask.size, Image.Resampling.BICUBIC)  # overshoots
    assert np.asarray(mask).max() > 252
    (region,) = read_regions(defect(mask), (120, 160), (Saturation(252, 0.5, True), Saturation(255, 1.0, True)))
    assert region.saturation == 0.5


@pytest.mark.parametrize("value", [1, 2, 255])
def test_any_value_but_black_counts(defect, value):
    (region,) = read_regions(defect(marked((4, 4), 1, 2, value)), (4, 4))
    assert region.mask.sum() == 1 and region.mask[1, 2]


def test_colours_palettes_bits_and_depth_count_too(defect):
    palette = Image.fromarray(marked((4, 4), 1, 2, 3)).convert("P")
    deep = Image.fromarray(marked((4, 4), 1, 2, 40000, np.uint16))
    red = Image.fromarray(np.dstack([marked((4, 4), 1, 2, 1), *np.zeros((2, 4, 4), np.uint8)]))
    bits = Image.fromarray(marked((4, 4), 1, 2)).convert("1")
    for mask in (palette, deep, red, bits):
        (region,) = read_regions(defect(mask), (4, 4))
        assert np.argwhere(region.mask).tolist() == [[1, 2]]


@pytest.mark.parametrize(("stored", "size"), [((40, 60), (7, 9)), ((5, 3), (32, 32)), ((33, 31), (32, 17))])
def test_resizing_takes_the_nearest_pixel_as_pillow_does(defect, stored, size):
    mask = (np.random.default_rng(0).random(stored) < 0.4).astype(np.uint8)
    (region,) = read_regions(defect(mask), size)
    nearest = Image.fromarray(mask).resize(size[::-1], Image.Resampling.NEAREST)
    assert np.array_equal(region.mask, np.asarray(nearest) > 0)


def test_with_saturation_each_mask_is_a_region_of_its_own_share(defect):
    large = marked((10, 10), slice(0, 5), slice(0, 8), 255)  # 40 pixels
    small = marked((10, 10), slice(8, 10), slice(0, 5), 254)  # 10 pixels
    other = marked((10, 10), 9, slice(5, 10), 253)
    saturation = (Saturation(255, 10, False), Saturation(254, 30, False), Saturation(253, 0.5, True))
    regions = read_regions(defect(large, small, other), (20, 20), saturation)
    assert [region.saturation for region in regions] == [10 / 40, 1.0, 0.5]  # of the original's pixels, not the frame's
    assert [int(region.mask.sum()) for region in regions] == [160, 40, 20]


def test_a_mask_of_an_unknown_type_is_refused_with_its_name(defect):
    sample = defect(marked((4, 4), 0, 0, 7))
    with pytest.raises(InputError, match=r"0\.png must hold one of the values 254, 255, got 7"):
        read_regions(sample, (4, 4), (Saturation(255, 1, False), Saturation(254, 1, False)))


@pytest.mark.parametrize("saturation", [(), (Saturation(255, 1, False),)])
def test_regions_that_vanish_are_dropped(defect, saturation):
    speck, empty = marked((100, 100), 0, 0), np.zeros((100, 100), np.uint8)
    assert read_regions(defect(speck, empty), (10, 10), saturation) == ()
    block = marked((100, 100), slice(0, 50), slice(0, 50))
    assert len(read_regions(defect(speck, empty, block), (10, 10), saturation)) == 1


def test_good_pictures_and_defects_without_masks_have_no_regions(defect):
    masks = defect(marked((4, 4), 0, 0)).masks
    for anomalous, paths in ((False, masks), (None, masks), (True, ())):
        assert read_regions(Sample("part.png", anomalous, "dent", paths), (4, 4)) == ()


def test_a_mask_that_cannot_be_read_is_refused_with_its_name(tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    for name in ("a.png", "absent.png"):
        with pytest.raises(ImageError, match=name):
            read_regions(Sample("part.png", True, "dent", (str(tmp_path / name),)), (4, 4))


def test_a_region_to_ignore_is_what_is_more_than_half_white_in_any_size_and_depth(tmp_path):
    for dtype, levels in ((np.uint8, (127, 128)), (np.uint16, (32767, 32768))):
        mask = np.zeros((4, 8), dtype)
        mask[:2], mask[2:] = levels
        Image.fromarray(mask).save(tmp_path / "mask.png")
        region, name, digest = read_ignored(tmp_path / "mask.png", (2, 2))
        assert region.tolist() == [[False, False], [True, True]] and region.flags.c_contiguous
        assert name == str(tmp_path / "mask.png") and len(digest) == 64


@pytest.mark.parametrize(("value", "said"), [(0, "nothing marked"), (255, "everything marked")])
def test_a_region_to_ignore_marks_something_and_leaves_something(value, said):
    with pytest.raises(InputError, match=said):
        read_ignored(np.full((3, 3), value, np.uint8), (6, 6))


def test_a_region_to_ignore_is_one_picture(tmp_path):
    for name in ("a.png", "b.png"):
        Image.new("L", (4, 4)).save(tmp_path / name)
    with pytest.raises(InputError, match="must be one picture, got 2"):
        read_ignored(tmp_path, (6, 6))


@pytest.mark.parametrize("largest", [1, 200, 255])
def test_a_region_to_ignore_may_have_soft_edges_and_less_than_full_white(tmp_path, largest):
    mask = blob().point(lambda value: value * largest // 255)
    values = mask if largest == 1 else mask.filter(ImageFilter.GaussianBlur(2))
    values.save(tmp_path / "mask.png")
    region, _, _ = read_ignored(tmp_path / "mask.png", (120, 160))
    own, found = np.asarray(blob()) > 0, region
    assert (own & found).sum() / (own | found).sum() > 0.9


def test_a_region_to_ignore_that_is_white_all_over_is_refused_however_noisy(tmp_path):
    noise = np.random.default_rng(0).integers(250, 256, (20, 30), np.uint8)
    with pytest.raises(InputError, match="everything marked"):
        read_ignored(noise, (20, 30))


def test_a_mask_to_ignore_lies_in_the_frame_as_a_picture_of_its_shape():
    mask = np.zeros((20, 60), np.uint8)
    mask[:, :30] = 255
    squeezed, _, _ = read_ignored(mask, (60, 60))
    kept, _, _ = read_ignored(mask, (60, 60), keeps_aspect=True)
    np.testing.assert_array_equal(kept, squeezed)  # mirrored up and down, it reaches as far
    mask[10:] = 0
    kept, _, _ = read_ignored(mask, (60, 60), keeps_aspect=True)
    rows = kept[:, 0].nonzero()[0]
    np.testing.assert_array_equal(rows, [*range(10, 30), *range(50, 60)])  # the upper half, mirrored above and below
