"""An inspection shows itself."""

import io

import numpy as np
import pytest
from PIL import Image

from handful.errors import ImageError
from handful.report.overlay import overlay
from handful.report.result import Inspection
from handful.types import Region, Verdict

WIDTH, HEIGHT = 90, 60


@pytest.fixture
def pixels(picture_factory):
    return picture_factory(1, side=WIDTH)[:HEIGHT]


@pytest.fixture
def defect(pixels, tmp_path):
    """A defect in the right upper quarter of a picture that is a file."""
    path = tmp_path / "part.png"
    Image.fromarray(pixels).save(path)
    heatmap = np.full((20, 30), 0.1, np.float32)
    heatmap[3:7, 20:26] = 2.0
    regions = (Region((60, 9, 18, 12), 216, 2.0, (66, 12)),)
    return Inspection(str(path), Verdict.DEFECT, 2.0, 6.0, 3.0, heatmap, regions, (WIDTH, HEIGHT))


def test_the_overlay_is_drawn_on_the_file_or_on_the_picture_given(defect, pixels):
    laid = defect.overlay()
    assert laid.shape == (HEIGHT, WIDTH, 3) and laid.dtype == np.uint8
    assert np.array_equal(laid, overlay(pixels, defect))
    assert np.array_equal(laid, defect.overlay(pixels)) and np.array_equal(
        laid, defect.overlay(Image.fromarray(pixels))
    )
    assert (laid != pixels).any(axis=2)[9:21, 60:78].all() and np.array_equal(laid[:, :40], pixels[:, :40])
    assert defect.overlay(longest=45).shape == (30, 45, 3)


def test_a_heatmap_comes_in_any_size_and_a_mask_in_that_of_the_picture(defect):
    assert np.array_equal(defect.heatmap_at((30, 20)), defect.heatmap)
    large = defect.heatmap_at((300, 200))
    assert large.shape == (200, 300) and large.dtype == np.float32
    assert (
        large.max() == pytest.approx(2) and large[50, 230] == pytest.approx(2) and large[150, 50] == pytest.approx(0.1)
    )
    mask = defect.mask
    assert mask.shape == (HEIGHT, WIDTH) and mask.dtype == bool
    assert mask[10:20, 61:77].all() and mask.sum() == pytest.approx(216, rel=0.2)  # the map's edge lies between pixels


def test_it_is_saved_as_it_is_shown(defect, tmp_path):
    defect.save(tmp_path / "new" / "shown.png")
    for shown in (tmp_path / "new" / "shown.png", io.BytesIO(defect._repr_png_())):
        with Image.open(shown) as image:
            assert image.format == "PNG" and np.array_equal(np.asarray(image), defect.overlay())


def test_a_real_inspection_shows_itself(fitted, picture_factory):
    (inspection,) = fitted.inspect(picture_factory(9, defect=True))
    assert inspection.is_defect and inspection.mask.shape == (96, 96) and inspection.mask.any()
    assert inspection.overlay(picture_factory(9, defect=True)).shape == (96, 96, 3)
    assert "array" not in repr(inspection)


def test_without_a_heatmap_nothing_is_shown(tmp_path):
    broken = Inspection("broken.png", Verdict.ERROR, reason="Broken.")
    for show in (
        broken.overlay,
        lambda: broken.mask,
        lambda: broken.heatmap_at((3, 3)),
        lambda: broken.save(tmp_path / "a"),
    ):
        with pytest.raises(ImageError, match=r"must have a heatmap to be shown, got broken\.png of verdict ERROR; its"):
            show()
    assert broken._repr_png_() is None and not (tmp_path / "a").exists()


def test_a_picture_that_is_gone_must_be_given(defect, pixels, tmp_path):
    (tmp_path / "part.png").unlink()
    with pytest.raises(ImageError, match=r"got .*part\.png, which cannot be read; give the picture itself\.$"):
        defect.overlay()
    assert defect._repr_png_() is None and defect.overlay(pixels).shape == pixels.shape
    with pytest.raises(ImageError, match="must be uint8"):
        defect.overlay(pixels.astype(np.int64))


def test_a_heatmap_is_not_drawn_on_another_picture(defect, pixels, tmp_path):
    Image.fromarray(pixels[:-1]).save(tmp_path / "part.png")  # replaced since it was inspected
    for shown in (None, pixels[:, :-1]):
        with pytest.raises(ImageError, match=r"must be the inspected one, of 90 x 60 pixels, got one of \d+ x \d+ for"):
            defect.overlay(shown)
    assert defect._repr_png_() is None
