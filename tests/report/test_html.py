import base64
import dataclasses
import io
import re

import numpy as np
import pytest
from PIL import Image

from handful.data.images import Picture
from handful.errors import OutputError
from handful.report.html import Report
from handful.report.overlay import CLEAR_UP_TO, SATURATED_FROM, layer, outlines, overlay
from handful.report.result import Inspection
from handful.types import NearestReference, Region

FACTS = {"Inspector": "pill.handful", "Threshold": "2.5"}
REGIONS = (Region((20, 20, 10, 10), 90, 1.9, (25, 25)),)
WHITE = [255, 255, 255]


def grey(height=60, width=60, value=120):
    return np.full((height, width, 3), value, np.uint8)


def flat(value, size=(16, 16)):
    return np.full(size, value, np.float32)


def ok(name="a.png", score=0.2, heatmap=None, size=(60, 60)):
    return Inspection(name, "OK", score, 1 + score, 2.0, flat(0.1) if heatmap is None else heatmap, (), size)


def defect(name="b.png", score=1.8, regions=REGIONS, heatmap=None, size=(60, 60)):
    return Inspection(name, "DEFECT", score, 1 + score, 2.0, flat(1.5) if heatmap is None else heatmap, regions, size)


def retake(name="c.png", reason="Too dark."):
    return Inspection(name, "RETAKE", 0.9, 1.9, 2.0, flat(1.5), size=(60, 60), reason=reason)


def picture(name="a.png", pixels=None):
    pixels = grey() if pixels is None else pixels
    return Picture(name, pixels, (pixels.shape[1], pixels.shape[0]))


def written(folder, inspections, facts=FACTS, references=()):
    """The page about the inspections, each with a picture unless it is an ERROR."""
    with Report(folder, facts, references) as report:
        for inspection in inspections:
            report.add(inspection, None if inspection.verdict == "ERROR" else picture(inspection.path))
    return report.path.read_text("utf-8")


# The overlay


def test_overlay_leaves_a_good_part_untouched():
    pixels = np.random.default_rng(0).integers(0, 256, (50, 70, 3), dtype=np.uint8)
    heatmap = np.linspace(-3, CLEAR_UP_TO, 32 * 32, dtype=np.float32).reshape(32, 32)
    assert np.array_equal(overlay(pixels, ok(heatmap=heatmap, size=(70, 50))), pixels)


def test_overlay_is_faint_up_to_the_threshold_and_clear_beyond():
    changes = [
        np.abs(overlay(grey(), ok(heatmap=flat(value)))[30, 30].astype(int) - 120).max()
        for value in (CLEAR_UP_TO, 0.85, 1.0, 1.15, 1.5)
    ]
    assert changes[0] == 0 and 0 < changes[1] < changes[2] < 40
    assert changes[3] > 1.5 * changes[2] and changes[4] > changes[3]


def test_overlay_saturates():
    at, beyond = (overlay(grey(), ok(heatmap=flat(value))) for value in (SATURATED_FROM, 50.0))
    assert np.array_equal(at, beyond)
    assert not np.array_equal(at, overlay(grey(), ok(heatmap=flat(SATURATED_FROM - 0.2))))


def test_a_small_peak_of_a_large_map_shows_in_a_small_copy():
    heatmap = np.zeros((1200, 1600), np.float32)
    heatmap[707:713, 1003:1009] = 2.0
    laid = overlay(grey(60, 80), ok(heatmap=heatmap, size=(1600, 1200)))
    changed = np.argwhere(np.abs(laid.astype(int) - 120).max(2) > 40)
    assert len(changed) and (np.abs(changed - [710 / 20, 1006 / 20]) <= 1.5).all()


def test_one_value_has_one_colour_in_every_picture():
    alone = flat(1.4, (60, 60))
    among_stronger = alone.copy()
    among_stronger[40:] = 9.0
    among_stronger[:, 40:] = -2.0
    assert np.array_equal(
        overlay(grey(), ok(heatmap=alone))[:35, :35], overlay(grey(), ok(heatmap=among_stronger))[:35, :35]
    )


def test_heatmap_covers_the_whole_of_an_oblong_picture():
    heatmap = flat(0.0, (20, 20))
    heatmap[10:, 15:] = 3.0  # the lower half of the last quarter
    changed = (overlay(grey(40, 200), ok(heatmap=heatmap, size=(400, 80))) != 120).any(axis=2)
    rows, columns = np.nonzero(changed)
    # A tolerance of one map cell: bilinear resizing smears the edge by up to one.
    assert abs(int(rows.min()) - 20) <= 2 and rows.max() == 39
    assert abs(int(columns.min()) - 150) <= 10 and columns.max() == 199


def test_outline_lies_around_the_scaled_box():
    # Shown at half width and a quarter of the height: left, top, right, bottom = 50, 10, 70, 20.
    inspection = defect(regions=(Region((100, 40, 40, 40), 900, 1.2, (110, 50)),), heatmap=flat(0.0), size=(400, 240))
    laid = overlay(grey(60, 200), inspection)
    for x, y in ((49, 15), (70, 15), (60, 9), (60, 20)):
        assert laid[y, x].tolist() == WHITE, (x, y)
    assert (laid[10:20, 50:70] == 120).all()  # nothing is drawn on the defect itself


def test_regions_are_numbered_where_there_is_room():
    strong, weak = Region((40, 150, 30, 30), 900, 1.9, (50, 160)), Region((140, 60, 20, 20), 400, 1.2, (150, 70))
    large = overlay(grey(200, 200), defect(regions=(strong, weak), heatmap=flat(0.0), size=(200, 200)))
    swapped = overlay(grey(200, 200), defect(regions=(weak, strong), heatmap=flat(0.0), size=(200, 200)))
    above_strong, above_weak = np.s_[125:147, 40:56], np.s_[35:57, 140:156]
    for place in (above_strong, above_weak):
        assert (large[place] == 255).any()
        assert not np.array_equal(large[place], swapped[place])  # 1 and 2 changed places
    small = overlay(grey(40, 40), defect(regions=(strong,), heatmap=flat(0.0), size=(200, 200)))
    assert (small[:28] == 120).all()  # the outline begins at row 29; no label stands above it


def test_only_the_strongest_regions_are_numbered_and_listed(tmp_path):
    regions = tuple(Region((20 + 60 * i, 100, 20, 20), 400, 3 - i / 10, (30, 110)) for i in range(14))
    inspection = defect(regions=regions, heatmap=flat(0.0), size=(900, 200))
    laid = overlay(grey(200, 900), inspection)
    labels = [(laid[70:98, x : x + 30] == 255).any() for x in range(20, 860, 60)]
    assert labels == [True] * 12 + [False] * 2
    page = written(tmp_path, [inspection])
    assert page.count("<td>400</td>") == 12 and "and 2 weaker ones" in page


def test_a_box_at_the_edge_is_outlined_inside_the_picture():
    laid = overlay(grey(), defect(regions=(Region((0, 0, 60, 60), 3600, 2.0, (0, 0)),), heatmap=flat(0.0)))
    assert all(laid[y, x].tolist() == WHITE for x, y in ((0, 30), (59, 30), (30, 0), (30, 59)))


def test_overlay_changes_nothing_that_it_was_given():
    pixels, heatmap = grey(), flat(2.0)
    overlay(pixels, defect(heatmap=heatmap))
    assert (pixels == 120).all() and (heatmap == 2.0).all()


def test_written_heatmap_is_the_overlay_at_most_1024_pixels_long(tmp_path):
    pixels = grey(600, 2048)
    inspection = defect(heatmap=flat(1.5), size=(2048, 600))
    inspection.save(tmp_path / "b.png", picture("b", pixels))
    with Image.open(tmp_path / "b.png") as image:
        assert image.format == "PNG" and image.size == (1024, 300)
        assert np.array_equal(np.asarray(image), overlay(grey(300, 1024), inspection))
    assert [path.name for path in tmp_path.iterdir()] == ["b.png"]


def test_heatmap_that_cannot_be_written_is_an_output_error(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OutputError, match=r"taken must be writable, got: .+; choose another place\.$"):
        defect().save(tmp_path / "taken", picture())
    (tmp_path / "file").write_text("kept")
    with pytest.raises(OutputError, match="must be writable"):
        defect().save(tmp_path / "file" / "b.png", picture())
    assert sorted(path.name for path in tmp_path.iterdir()) == ["file", "taken"]


def test_heatmap_makes_its_folder(tmp_path):
    defect().save(tmp_path / "crack" / "new" / "b.png", picture())
    assert (tmp_path / "crack" / "new" / "b.png").exists()


def test_the_layer_over_a_picture_is_its_overlay():
    pixels = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    heatmap = np.linspace(-1, 4, 64 * 96, dtype=np.float32).reshape(64, 96)
    inspection = ok(heatmap=heatmap, size=(96, 64))
    with Image.open(io.BytesIO(layer(inspection))) as image:
        laid = Image.alpha_composite(Image.fromarray(pixels).convert("RGBA"), image.convert("RGBA")).convert("RGB")
    # Opacities of 8 bits and two roundings: 2 levels at most.
    assert np.abs(np.asarray(laid).astype(int) - overlay(pixels, inspection)).max() <= 2


def test_a_layer_is_left_out_where_nothing_would_show_and_is_at_most_640_pixels_long():
    assert layer(ok(heatmap=flat(CLEAR_UP_TO))) is None
    heatmap = np.zeros((1200, 1600), np.float32)
    heatmap[707:713, 1003:1009] = 2.0  # a small peak stays one
    with Image.open(io.BytesIO(layer(ok(heatmap=heatmap, size=(1600, 1200))))) as image:
        assert image.size == (640, 480)
        assert np.asarray(image.convert("RGBA"))[..., 3].max() > 150


def test_outlines_are_shares_of_the_picture_and_say_where_their_number_has_room():
    regions = (
        Region((100, 40, 40, 40), 900, 1.9, (110, 50)),
        Region((0, 0, 300, 20), 900, 1.5, (1, 1)),
        Region((0, 20, 400, 220), 900, 1.2, (200, 100)),
    )
    first, second, third = outlines(defect(regions=regions, size=(400, 240)), (400, 240))
    assert (first.left, first.top, first.width, first.height) == (0.25, 40 / 240, 0.1, 40 / 240)
    assert [first.side, second.side, third.side] == [None, "right", "inside"]  # the third lies around the first
    assert outlines(defect(regions=regions[:1], size=(400, 240)), (400, 240))[0].side == "above"


# The page


def test_page_needs_nothing_but_itself(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(grey()).save(buffer, "PNG")
    page = written(tmp_path, [ok(), defect()], references=[("good/1.png", buffer.getvalue())])
    assert not re.search(r"https?:|url\(|@import|\{\{", re.sub(r"base64,[^\"]*", "", page), re.IGNORECASE)
    sources = re.findall(r"(?:src|href)=\"([^\"]*)", page)
    # The links: the icon and the way to the pictures. The pictures: the reference, a good one, a defect twice, its map.
    assert len(sources) == 2 + 1 + 1 + 3
    assert all(source.startswith("data:") or source == "#cards" for source in sources)
    assert len(re.findall('data-large="data:image/', page)) == 2
    assert "default-src 'none'" in page


def test_facts_and_references_are_shown(tmp_path):
    page = written(
        tmp_path, [], references=[("good/one.jpg", b"\xff\xd8\xff\x00"), ("good/two.png", b"\x89PNG\r\n\x1a\n")]
    )
    assert "<dt>Threshold</dt><dd>2.5</dd>" in page
    assert 'src="data:image/jpeg;base64,/9j/AA=="' in page and "one.jpg" in page
    assert 'src="data:image/png;base64,iVBORw0KGgo="' in page and "two.png" in page


def test_names_and_words_are_escaped(tmp_path):
    evil = "<script>alert('x')<!-- \"&\u202e 🧪 {{FACTS}}"
    inspections = [
        ok(evil),
        Inspection(evil, "RETAKE", size=(60, 60), reason=evil),
        Inspection(evil, "ERROR", reason=evil),
    ]
    page = written(tmp_path, inspections, facts={evil: evil}, references=[(evil, b"")])
    assert page.count("<script>") == 1 and "<!--" not in page
    assert page.count("&lt;script&gt;alert(&#39;x&#39;)&lt;!-- &#34;&amp;\u202e 🧪 {{FACTS}}") == 3 + 2 + 2 + 1


def test_undecodable_names_are_spelled_out(tmp_path):
    name = b"caf\xe9.png".decode("utf-8", "surrogateescape")
    page = written(tmp_path, [ok(name)], facts={"Inspector": name}, references=[(name, b"")])
    assert page.count(r"caf\udce9.png") == 3


def test_counts_per_verdict_and_cards_in_the_order_they_came(tmp_path):
    errors = [Inspection(f"e{i}", "ERROR", reason="Broken.") for i in range(2)]
    retake = Inspection("r", "RETAKE", size=(60, 60), reason="Too dark.")
    page = written(tmp_path, [ok("a"), errors[0], defect("b"), ok("c"), retake, ok("d"), errors[1]])
    assert re.findall(r'class="name".*?<bdi>(\w+)</bdi>', page) == ["a", "e0", "b", "c", "r", "d", "e1"]
    summary = re.search(r'<div class="summary">.*?</div>', page, re.DOTALL)
    assert re.sub(r"<[^>]+>|\s", "", summary[0]) == "7pictures1DEFECT3OK1RETAKE2ERROR"
    filters = re.search(r'aria-label="Show">.*?</div>', page)
    assert re.findall(r"(\w+) <span>(\d+)", filters[0]) == [
        ("All", "7"), ("DEFECT", "1"), ("OK", "3"), ("RETAKE", "1"), ("ERROR", "2"),
    ]  # fmt: skip


def test_cards_say_what_there_is_to_say(tmp_path):
    inspections = [
        defect(),
        ok(),
        retake("c", reason="Too dark."),
        Inspection("d", "ERROR", reason="Broken."),
    ]
    cards = written(tmp_path, inspections).split("<article")[1:]
    assert [card.count("<img") for card in cards] == [3, 1, 3, 0]  # the heatmap is the picture with a layer on it
    assert [card.count('class="open"') for card in cards] == [1, 1, 1, 0]
    assert "<td>1</td><td>20, 20, 10, 10</td><td>90</td><td>1.90</td>" in cards[0]
    assert "<b>1.80</b>" in cards[0] and "raw 2.8, threshold 2" in cards[0] and "width:72.0%" in cards[0]
    assert "Nothing on the map comes near the threshold" in cards[1] and "<table" not in cards[1]
    assert "Too dark." in cards[2] and "Broken." in cards[3]


def test_the_card_of_a_retake_shows_score_and_heatmap(tmp_path):
    card = written(tmp_path, [retake("c", reason="Too dark.")]).split("<article")[1]
    assert 'data-verdict="RETAKE" data-score="0.9"' in card and "<b>0.90</b>" in card and "raw 1.9, threshold 2" in card
    assert card.count("<img") == 3 and "Heatmap" in card and "Too dark." in card


def test_a_card_shows_the_notes_beside_the_verdict(tmp_path):
    page = written(tmp_path, [dataclasses.replace(defect(), notes=("Perhaps it is <blurred>.",))])
    assert "Perhaps it is &lt;blurred&gt;." in page


def test_a_defect_without_a_place_beyond_the_threshold_says_so(tmp_path):
    faint = defect(regions=(Region((20, 20, 10, 10), 90, 0.9, (25, 25)),))
    assert "No single place is beyond" in written(tmp_path / "faint", [faint])
    assert "No single place is beyond" not in written(tmp_path / "clear", [defect()])


def test_regions_stand_beside_the_good_places_that_they_were_compared_with(tmp_path):
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = (200, 0, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    nearest, missing = (
        NearestReference("good/<1>.png", (0.75, 0.5), 0.3),
        NearestReference("good/<1>.png", (0.2, 0.5), 0.9),
    )
    region = Region((20, 20, 10, 10), 90, 1.9, (25, 25), nearest)
    one = dataclasses.replace(defect(regions=(region,)), missing=missing)
    page = written(tmp_path, [one, ok()], references=[("good/<1>.png", file.getvalue())])
    assert page.count('class="evidence"') == 1
    shown = page[page.index('class="evidence"') :]
    captions = re.findall("<figcaption>(.*?)</figcaption>", shown)
    assert captions[:4] == [
        "region 1",
        "nearest good place: &lt;1&gt;.png",
        "found least here: &lt;1&gt;.png",
        "the same place here",
    ]
    embedded = [base64.b64decode(data) for data in re.findall('base64,([^"]*)"', shown)]
    crops = [np.asarray(Image.open(io.BytesIO(data))) for data in embedded[:4]]
    assert np.all(crops[0] == 120) and np.all(crops[3] == 120)  # the inspected picture is grey all over
    # The good one is red on the right. JPEG rounds a flat colour by 2 levels at most.
    assert np.abs(crops[1] - np.array((200, 0, 0))).max() <= 2 and np.all(crops[2] == 0)


@pytest.mark.parametrize(("side", "fills"), [(84, True), (76, False)])
def test_the_crop_of_a_small_region_shows_a_fifth_of_the_picture(tmp_path, side, fills):
    pixels, (start, end) = grey(400, 400), ((400 - side) // 2, (400 + side) // 2)
    pixels[start:end, start:end] = (200, 0, 0)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    region = Region((190, 190, 20, 20), 400, 1.9, (200, 200), NearestReference("good.png", (0.5, 0.5), 0.3))
    with Report(tmp_path, FACTS, [("good.png", file.getvalue())]) as report:
        report.add(defect(regions=(region,), size=(400, 400)), picture(pixels=pixels))
    page = report.path.read_text("utf-8")
    embedded = re.findall('base64,([^"]*)"', page[page.index('class="evidence"') :])
    crops = [np.asarray(Image.open(io.BytesIO(base64.b64decode(data)))) for data in embedded]
    # 80 of 400 pixels a side; JPEG rounds a flat colour by 2 levels at most
    assert [np.abs(crop - np.array((200, 0, 0))).max() <= 2 for crop in crops] == [fills, fills]


def test_without_kept_good_pictures_there_is_no_evidence(tmp_path):
    nearest = NearestReference("gone.png", (0.5, 0.5), 0.3)
    assert 'class="evidence"' not in written(
        tmp_path, [defect(regions=(dataclasses.replace(REGIONS[0], nearest=nearest),))]
    )


def test_small_pictures_in_the_page_are_jpeg_and_at_most_420_pixels_long(tmp_path):
    with Report(tmp_path, FACTS, []) as report:
        report.add(ok(), picture("a", grey(500, 1000)))
        report.add(ok(), picture("b", grey(10, 20)))
    page = report.path.read_text("utf-8")
    assert 'width="420" height="210"' in page and page.count('src="data:image/jpeg') == 1
    assert 'width="200" height="100"' in page and page.count('src="data:image/png') == 1  # tiny: enlarged tenfold


def test_cards_wait_on_disk_and_the_page_appears_at_the_end(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), dtype=np.uint8)
    with Report(tmp_path / "new" / "report", FACTS, []) as report:
        for _ in range(3):
            report.add(ok(), picture("a", noise))
        assert not report.path.exists()
        assert report.size > 200_000
        # The cards' file is nameless; the pictures' folder is hidden, and swept where a killed process leaves it.
        (waiting,) = report.path.parent.iterdir()
        assert re.fullmatch(r"\.[0-9a-f]{16}\.part", waiting.name) and len(list(waiting.iterdir())) == 6
    assert report.path == tmp_path / "new" / "report" / "index.html"
    assert list(report.path.parent.iterdir()) == [report.path]


def test_an_exception_leaves_what_was_there_before(tmp_path):
    before = written(tmp_path, [ok()])
    with pytest.raises(KeyboardInterrupt), Report(tmp_path, FACTS, []) as report:
        report.add(defect(), picture())
        raise KeyboardInterrupt
    assert report.path.read_text("utf-8") == before
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]


def test_an_exception_removes_only_the_folders_that_the_report_made(tmp_path):
    (tmp_path / "old").mkdir()
    for folder in ("old", "new/report"):
        with pytest.raises(ValueError, match="stop"), Report(tmp_path / folder, FACTS, []):
            raise ValueError("stop")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_unwritable_folder_is_an_output_error(tmp_path):
    (tmp_path / "file").write_text("kept")
    for folder in (tmp_path / "file", tmp_path / "file" / "report"):
        with (
            pytest.raises(OutputError, match=r"index\.html must be writable, got: .+; choose another place\.$"),
            Report(folder, FACTS, []),
        ):
            pass
    assert (tmp_path / "file").read_text() == "kept"


def test_page_that_cannot_be_put_in_place_is_an_output_error(tmp_path):
    (tmp_path / "index.html").mkdir()
    with pytest.raises(OutputError, match="must be writable"):
        written(tmp_path, [ok()])
    assert [path.name for path in tmp_path.iterdir()] == ["index.html"]
