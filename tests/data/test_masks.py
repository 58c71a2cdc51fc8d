"""Masks become true regions in the frame of the map."""

import numpy as np
import pytest
from PIL import Image

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
