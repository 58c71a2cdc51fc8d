import base64
import io
import os
import re
import time

import numpy as np
import pytest
from PIL import Image

from handful.data.images import read_picture
from handful.errors import OutputError
from handful.report import html, pictures
from handful.report.html import Report
from handful.report.pictures import large
from handful.report.result import Inspection

LATER = 1e12  # seconds: no file has changed since then


def noise(height=300, width=400, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def saved(path, pixels=None, **options):
    Image.fromarray(noise() if pixels is None else pixels).save(path, **options)
    return path


def opened(path, since=LATER):
    picture = read_picture(path)
    return large(Inspection(str(path), "OK", 0.2, 1.2, 2.0, size=picture.size), picture, since=since)


def shape_of(data):
    with Image.open(io.BytesIO(data)) as image:
        return image.format, image.size


def report(folder, *paths, names=None):
    with Report(folder, {}, []) as page:
        for path in paths:
            picture = read_picture(path)
            page.add(Inspection(str(path), "OK", 0.2, 1.2, 2.0, size=picture.size), picture)
    return page


# The large picture


@pytest.mark.parametrize("suffix", ["jpg", "png", "webp"])
def test_a_file_that_browsers_show_is_taken_as_it_is(tmp_path, suffix):
    path = saved(tmp_path / f"a.{suffix}")
    shown = opened(path)
    assert (shown.data, shown.suffix) == (path.read_bytes(), suffix)
    assert shown.words == "The file's own pixels, 400 x 300."


@pytest.mark.parametrize(
    ("suffix", "why"),
    [
        ("tif", "browsers do not show TIFF"),
        ("jp2", "browsers do not show JPEG 2000"),
        ("bmp", "browsers do not show BMP"),
    ],
)
def test_another_file_is_shown_as_a_copy_that_says_so(tmp_path, suffix, why):
    shown = opened(saved(tmp_path / f"a.{suffix}"))
    assert shape_of(shown.data) == ("PNG", (400, 300))
    assert shown.words == f"A copy of 400 x 300 pixels, as {why}; the picture has 400 x 300."


def test_a_large_copy_is_a_jpeg_of_at_most_2048_pixels(tmp_path):
    shown = opened(saved(tmp_path / "a.tif", noise(1024, 4096)))
    assert shape_of(shown.data) == ("JPEG", (2048, 512)) and shown.suffix == "jpg"
    assert shown.words.startswith("A copy of 2048 x 512 pixels, ") and "the picture has 4096 x 1024" in shown.words


def test_16_bits_are_shown_as_a_copy_with_their_range_stretched(tmp_path):
    grey = np.linspace(100, 900, 300 * 400).reshape(300, 400).astype(np.uint16)  # nearly black as a browser shows it
    Image.fromarray(grey).save(tmp_path / "a.png")
    shown = opened(tmp_path / "a.png")
    assert "16 bits" in shown.words
    assert np.asarray(Image.open(io.BytesIO(shown.data))).max() > 200


def test_a_file_that_changed_or_vanished_is_shown_as_the_copy_that_was_inspected(tmp_path):
    path = saved(tmp_path / "a.png")
    began = time.time()
    picture = read_picture(path)
    os.utime(saved(path, noise(seed=1)), (began + 60, began + 60))
    inspection = Inspection(str(path), "OK", 0.2, 1.2, 2.0, size=picture.size)
    changed = large(inspection, picture, since=began)
    assert "its file has changed since" in changed.words
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(changed.data))), noise())
    path.unlink()
    assert "it has no file of its own" in large(inspection, picture, since=began).words


def test_a_file_of_more_bytes_than_a_report_takes_in_is_shown_as_a_copy(tmp_path, monkeypatch):
    path = saved(tmp_path / "a.png")
    monkeypatch.setattr(pictures, "OWN_MOST", path.stat().st_size)
    assert opened(path).words == "The file's own pixels, 400 x 300."
    monkeypatch.setattr(pictures, "OWN_MOST", path.stat().st_size - 1)
    assert "its file has more than" in opened(path).words


def test_a_turned_file_is_shown_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6
    jpeg = saved(tmp_path / "a.jpg", exif=exif)
    assert opened(jpeg).data == jpeg.read_bytes()  # every browser turns a JPEG as its EXIF says
    for path in (saved(tmp_path / "a.png", exif=exif), saved(tmp_path / "a.webp", exif=exif)):
        shown = opened(path)
        assert "browsers may not turn it upright" in shown.words and shape_of(shown.data)[1] == (300, 400)
    told = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><rdf tiff:Orientation="6"/></x:xmpmeta>'
    shown = opened(saved(tmp_path / "b.jpg", xmp=told))
    assert "browsers may not turn it upright" in shown.words and shape_of(shown.data)[1] == (300, 400)


# In the page, or beside it


def test_pictures_lie_in_the_page_up_to_a_size_and_beside_it_above(tmp_path, monkeypatch):
    paths = [saved(tmp_path / f"{number}.jpg", noise(seed=number)) for number in range(3)]
    small = report(tmp_path / "small", *paths)
    assert small.pictures is None and [path.name for path in (tmp_path / "small").iterdir()] == ["index.html"]
    assert base64.b64encode(paths[2].read_bytes()).decode() in small.path.read_text("utf-8")

    monkeypatch.setattr(html, "ONE_FILE_MOST", small.size)
    assert report(tmp_path / "same", *paths).pictures is None
    monkeypatch.setattr(html, "ONE_FILE_MOST", small.size - 1)
    many = report(tmp_path / "many", *paths)
    assert many.pictures == tmp_path / "many" / "pictures"
    page = many.path.read_text("utf-8")
    assert "base64" not in page and "img-src data: 'self' file:;" in page
    named = set(re.findall('(?:src|data-large)="(pictures/[^"]+)"', page))
    files = {str(path.relative_to(tmp_path / "many")) for path in many.pictures.rglob("*.*")}
    assert named == files and len(files) == 6
    (own,) = many.pictures.glob("*/000003-large.jpg")
    assert own.read_bytes() == paths[2].read_bytes()
    assert sum(path.stat().st_size for path in many.pictures.rglob("*.*")) == many.size


def test_folders_that_no_report_made_stay(tmp_path):
    """As with `inspect part.handful pictures/ --report .`, where the folder's own pictures lie in folders."""
    folder = tmp_path / "pictures"
    kept = [
        folder / "0123456789abcdef" / "000001-small.jpg",
        folder / "report-0123456789abcdef" / "mine.jpg",
        folder / "report-january" / "000001-small.jpg",
    ]
    for path in kept:
        path.parent.mkdir(parents=True)
        saved(path)
    gone = saved(folder / "report-0123456789abcdef" / "000001-small.jpg")
    report(tmp_path, kept[1])
    assert all(path.exists() for path in kept) and not gone.exists()


def test_a_new_report_replaces_the_pictures_of_the_old_and_nothing_else(tmp_path, monkeypatch):
    path, kept = saved(tmp_path / "a.jpg"), tmp_path / "report" / "pictures" / "mine.jpg"
    monkeypatch.setattr(html, "ONE_FILE_MOST", 0)
    report(tmp_path / "report", path)
    kept.write_text("kept")
    (before,) = (each for each in kept.parent.iterdir() if each.is_dir())
    report(tmp_path / "report", path, path)
    (after,) = (each for each in kept.parent.iterdir() if each.is_dir())
    assert before != after and len(list(after.iterdir())) == 4
    monkeypatch.undo()
    report(tmp_path / "report", path)
    assert list(kept.parent.iterdir()) == [kept]
    kept.unlink()
    report(tmp_path / "report", path)
    assert [each.name for each in (tmp_path / "report").iterdir()] == ["index.html"]


@pytest.mark.parametrize("how", ["raises", "cannot be written"])
def test_a_report_that_fails_leaves_the_older_page_with_its_pictures(tmp_path, monkeypatch, how):
    path, folder = saved(tmp_path / "a.jpg"), tmp_path / "report"
    monkeypatch.setattr(html, "ONE_FILE_MOST", 0)
    report(folder, path)

    def state():
        return {each: each.read_bytes() for each in folder.rglob("*.*")}

    before = state()
    if how == "raises":
        with pytest.raises(KeyboardInterrupt), Report(folder, {}, []) as page:
            page.add(Inspection("b", "OK", 0.2, 1.2, 2.0, size=(400, 300)), read_picture(path))
            raise KeyboardInterrupt
    else:

        def full(self, page):
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Report, "_write_page", full)
        with pytest.raises(OutputError, match="No space left on device"):
            report(folder, path)
    assert state() == before


def test_a_name_that_looks_like_an_address_stays_text(tmp_path):
    name = "pictures/report-0123456789abcdef/000001-small.jpg"
    with Report(tmp_path, {}, []) as page:
        run = page._files._run
        page.add(Inspection(name, "OK", 0.2, 1.2, 2.0, size=(400, 300)), read_picture(noise(), name="a"))
    text = page.path.read_text("utf-8")
    assert run not in text and "<bdi>000001-small.jpg</bdi>" in text and "pictures/report-0123456789abcdef/" in text
