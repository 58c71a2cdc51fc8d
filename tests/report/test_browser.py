"""The page as people use it, in Chromium: by mouse, by keyboard, on four sizes, and by axe-core's rules."""

import io
import re

import numpy as np
import pytest
from PIL import Image

from handful.data.images import read_picture
from handful.report import html
from handful.report.html import Report
from handful.report.result import Inspection
from handful.types import NearestReference, Region

FACTS = {"Inspector": "pill.handful", "Threshold": "2.5"}
FORMS = {"desk": (1280, 900), "tablet": (820, 1180), "phone": (390, 844), "print": (794, 1123)}


def pixels(height=120, width=160, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def defect(name, score=1.8, size=(160, 120), notes=()):
    regions = (
        Region((40, 30, 20, 10), 90, 1.9, (45, 35), NearestReference("good.png", (0.5, 0.5), 0.3)),
        Region((100, 70, 8, 8), 60, 1.2, (103, 73)),
    )
    heatmap = np.full((30, 40), 0.2, np.float32)
    heatmap[8:10, 10:15] = 1.9
    missing = NearestReference("good.png", (0.2, 0.5), 0.9)
    return Inspection(name, "DEFECT", score, 1 + score, 2.0, heatmap, regions, size, None, missing, notes)


def ok(name, score=0.2, size=(160, 120)):
    return Inspection(name, "OK", score, 1 + score, 2.0, np.full((30, 40), 0.1, np.float32), (), size)


def written(folder, inspections):
    """The page about the inspections; each has its picture as a file where it lies on the disk, an ERROR has none."""
    good = io.BytesIO()
    Image.fromarray(pixels(seed=9)).save(good, "PNG")
    with Report(folder, FACTS, [("good.png", good.getvalue())]) as report:
        for inspection in inspections:
            picture = None
            if inspection.verdict != "ERROR":
                on_disk = (folder.parent / inspection.path).is_file()
                picture = read_picture(inspection.path if on_disk else pixels(), name=inspection.path)
            report.add(inspection, picture)
    return report.path


@pytest.fixture
def page_of_all_kinds(tmp_path, monkeypatch):
    """A report of a JPEG, a TIFF and a picture in memory as defects, and one of each other verdict, by score."""
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(seed=1)).save("a.jpg")
    Image.fromarray(pixels(seed=2)).save("b.tif")
    return written(
        tmp_path / "report",
        [
            defect("a.jpg", 2.9, notes=("Perhaps it is blurred.",)),
            defect("b.tif", 2.2),
            defect("memory", 1.4),
            ok("fine", 0.3),
            Inspection("dark", "RETAKE", 0.1, 1.1, 2.0, np.ones((30, 40), np.float32), (), (160, 120), "Too dark."),
            Inspection("broken", "ERROR", reason="Broken."),
        ],
    )


def until(page, expression):
    """Wait until an expression holds; the page's own policy forbids Playwright's way to wait."""
    for _ in range(200):
        if page.evaluate(expression):
            return
        page.wait_for_timeout(50)
    pytest.fail(f"{expression} never held")


def assert_focused(page, name):
    """Wait until the card with this name has the focus, or holds the element with the focus.

    The browser moves the focus a moment after a link of the page is followed and after a dialog is closed.
    """
    until(page, f"document.activeElement.closest('.card')?.querySelector('.name').textContent === {name!r}")


def viewed(page):
    return page.inner_text("#viewed")


def test_page_sorts_and_filters(tmp_path, tab):
    evil = "z<img src=x onerror=document.title='ran'>"
    inspections = [
        ok("part10", 0.3),
        defect("part2", 1.2),
        Inspection(evil, "ERROR", reason=evil),
        ok("part1", -0.4),
        defect("part3", 2.9),
        Inspection("part0", "RETAKE", size=(160, 120), reason="Too dark."),
    ]
    page = tab(written(tmp_path / "report", inspections))

    def shown():
        return page.locator(".card:visible .name").all_text_contents()

    assert shown() == ["part3", "part2", "part10", "part1", "part0", evil]
    page.select_option("#order", "name")
    assert shown() == ["part0", "part1", "part2", "part3", "part10", evil]
    page.select_option("#order", "verdict")
    assert shown() == ["part3", "part2", "part0", evil, "part10", "part1"]
    page.select_option("#order", "score")
    assert shown() == ["part3", "part2", "part10", "part1", "part0", evil]

    page.get_by_role("button", name="DEFECT").click()
    assert shown() == ["part3", "part2"]
    assert page.inner_text("#shown") == "2 of 6 shown"
    page.fill("#find", "PART3")
    assert shown() == ["part3"]
    page.get_by_role("button", name="All").click()
    page.fill("#find", "part1")
    assert shown() == ["part10", "part1"]
    page.fill("#find", "nothing like it")
    assert shown() == [] and page.locator("#empty").is_visible()
    page.fill("#find", "")
    assert page.title() == "Inspection report: 2 DEFECT of 6"


@pytest.mark.parametrize("beside", [False, True])
def test_every_picture_of_the_page_can_be_seen(page_of_all_kinds, tab, monkeypatch, tmp_path, beside):
    if beside:
        monkeypatch.setattr(html, "ONE_FILE_MOST", 0)
        page_of_all_kinds = written(tmp_path / "report", [defect("a.jpg"), defect("b.tif"), ok("fine")])
    page = tab(page_of_all_kinds)
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    page.evaluate("for (const each of document.images) each.loading = 'eager'")
    until(page, "[...document.images].every((image) => image.complete && image.naturalWidth > 0)")
    assert page.evaluate("document.images.length") > 10


def test_the_large_picture_has_the_files_own_pixels_or_says_that_it_is_a_copy(page_of_all_kinds, tab):
    page = tab(page_of_all_kinds)
    page.locator(".open").first.click()
    assert viewed(page) == "a.jpg DEFECT 2.90"
    assert page.inner_text("#words") == "The file's own pixels, 160 x 120."
    own = page.evaluate("document.querySelector('#whole > img').src")
    assert own.startswith("data:image/jpeg")
    until(page, "document.querySelector('#whole > img').naturalWidth === 160")
    page.get_by_role("button", name="Next").click()
    assert viewed(page).startswith("b.tif") and "browsers do not show TIFF" in page.inner_text("#words")
    page.get_by_role("button", name="Next").click()
    assert viewed(page).startswith("memory") and "no file of its own" in page.inner_text("#words")
    page.get_by_role("button", name="Previous").click()
    assert viewed(page).startswith("b.tif")
    page.get_by_role("button", name="Close").click()
    assert not page.locator("#viewer").is_visible()
    assert_focused(page, "b.tif")


def test_a_large_picture_that_the_browser_cannot_show_is_replaced_and_said(page_of_all_kinds, tab):
    page_of_all_kinds.write_text(re.sub('data-large="[^"]+"', 'data-large="data:image/jpeg;base64,AAAA"',
                                        page_of_all_kinds.read_text("utf-8")), "utf-8")  # fmt: skip
    page = tab(page_of_all_kinds)
    page.locator(".open").first.click()
    until(page, "document.querySelector('#whole > img').naturalWidth > 0")
    assert page.inner_text("#words") == "This browser cannot show the large picture; this is the small one."


def test_the_large_picture_zooms_and_moves_by_keyboard_wheel_and_mouse(page_of_all_kinds, tab):
    page = tab(page_of_all_kinds)
    page.locator(".frame").first.click()

    def width():
        return page.evaluate("document.querySelector('#whole').getBoundingClientRect().width")

    def place():
        return page.evaluate("[stage.scrollLeft, stage.scrollTop]")

    whole = width()
    assert whole <= 1280 and place() == [0, 0]
    page.keyboard.press("+")
    assert width() == pytest.approx(1.5 * whole, rel=0.01)
    page.keyboard.press("-")
    assert width() == pytest.approx(whole, rel=0.01)
    page.keyboard.press("1")
    assert width() == pytest.approx(160, abs=1)  # a pixel of the picture for each of the screen's
    page.keyboard.press("0")
    assert width() == pytest.approx(whole, rel=0.01)
    page.mouse.move(300, 300)
    page.mouse.wheel(0, -600)
    assert width() > 2 * whole
    before = place()
    page.mouse.down()
    page.mouse.move(250, 260, steps=4)
    page.mouse.up()
    assert place() == pytest.approx([before[0] + 50, before[1] + 40], abs=2)
    page.keyboard.press("ArrowRight")
    until(page, f"stage.scrollLeft > {before[0] + 55}")
    page.keyboard.press("Escape")
    assert not page.locator("#viewer").is_visible()


@pytest.mark.parametrize("key", ["+", "1"])
def test_a_key_zooms_from_the_whole_picture_to_the_first_region(tmp_path, monkeypatch, tab, key):
    monkeypatch.chdir(tmp_path)
    Image.fromarray(pixels(1800, 2400)).save("large.jpg")
    page = tab(written(tmp_path / "report", [defect("large.jpg", size=(2400, 1800))]))  # its region lies in a corner
    page.locator(".open").first.click()
    for _ in range(3 if key == "+" else 1):
        page.keyboard.press(key)
    found = page.evaluate(
        "(() => { const box = document.querySelector('#whole .box').getBoundingClientRect(),"
        " shown = stage.getBoundingClientRect();"
        " return [box.left + box.width / 2 - shown.left, box.top + box.height / 2 - shown.top,"
        " shown.width, shown.height] })()"
    )
    assert 0 < found[0] < found[2] and 0 < found[1] < found[3]


def test_the_wheel_keeps_the_place_under_the_mouse(page_of_all_kinds, tab):
    page = tab(page_of_all_kinds)
    page.locator(".open").first.click()
    page.keyboard.press("+")

    def under():
        box = page.evaluate("document.querySelector('#whole').getBoundingClientRect().toJSON()")
        return [(300 - box["left"]) / box["width"], (400 - box["top"]) / box["height"]]

    before = under()
    page.mouse.move(300, 400)
    page.mouse.wheel(0, -400)
    assert under() == pytest.approx(before, abs=0.01)


def test_holding_a_key_or_the_button_shows_the_picture_without_its_heatmap(page_of_all_kinds, tab):
    page = tab(page_of_all_kinds)
    page.locator(".open").first.click()
    marks = page.locator("#whole .marks img")
    assert marks.is_visible() and page.locator("#whole .box").count() == 2
    page.keyboard.down("h")
    assert not marks.is_visible() and page.locator("#whole > img").is_visible()
    page.keyboard.up("h")
    assert marks.is_visible()
    box = page.locator("#hold").bounding_box()
    page.mouse.move(box["x"] + 5, box["y"] + 5)
    page.mouse.down()
    assert not marks.is_visible()
    page.mouse.up()
    assert marks.is_visible()
    page.locator("#hold").focus()
    page.keyboard.down(" ")
    assert not marks.is_visible()
    page.keyboard.up(" ")
    assert marks.is_visible()
    page.keyboard.press("t")  # on or off, for who cannot hold
    assert not marks.is_visible() and page.get_attribute("#toggle", "aria-pressed") == "false"
    page.keyboard.press("n")
    assert not page.locator("#whole .marks img").is_visible()  # it stays off from picture to picture
    page.keyboard.press("t")
    assert page.locator("#whole .marks img").is_visible()


def test_everything_is_reached_by_keyboard(page_of_all_kinds, tab):
    page = tab(page_of_all_kinds)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.keyboard.press("Enter")
    until(page, "document.activeElement.className !== 'skip'")
    page.keyboard.press("ArrowDown")
    assert_focused(page, "a.jpg")
    assert page.evaluate("document.activeElement.matches(':focus-visible')")
    assert page.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    for name in ("b.tif", "memory", "fine", "dark", "broken", "broken"):
        page.keyboard.press("ArrowDown")
        assert_focused(page, name)
        in_view = page.evaluate("document.activeElement.getBoundingClientRect().top < innerHeight")
        assert in_view
    page.keyboard.press("Enter")  # an ERROR has no picture to open
    assert not page.locator("#viewer").is_visible()
    page.keyboard.press("Home")
    assert_focused(page, "a.jpg")
    page.keyboard.press("End")
    page.keyboard.press("ArrowUp")
    assert_focused(page, "dark")
    page.keyboard.press("Home")
    evidence = page.locator(".card").first.locator(".evidence")
    assert evidence.get_attribute("open") is None
    page.keyboard.press("c")
    assert evidence.get_attribute("open") == ""
    page.keyboard.press("Enter")
    assert viewed(page).startswith("a.jpg")
    page.keyboard.press("n")
    page.keyboard.press("n")
    page.keyboard.press("p")
    assert viewed(page).startswith("b.tif")
    page.keyboard.press("Escape")
    assert_focused(page, "b.tif")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    assert viewed(page).startswith("b.tif")
    reached = set()
    for _ in range(20):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.textContent"))
    assert {"+", "Whole", "Own pixels", "Hold: no heatmap", "Heatmap", "Previous", "Next", "Close"} <= reached


def test_keys_skip_the_cards_that_are_not_shown(page_of_all_kinds, tab):
    page = tab(page_of_all_kinds)
    page.get_by_role("button", name="OK").click()
    page.locator(".open:visible").first.focus()
    page.keyboard.press("ArrowDown")
    assert_focused(page, "fine")
    page.keyboard.press("Enter")
    page.keyboard.press("n")
    assert viewed(page).startswith("fine")


def test_the_histogram_has_a_text_for_who_cannot_see_it(page_of_all_kinds, tab):
    page = tab(page_of_all_kinds)
    said = "5 scores: 2 at or below the threshold of 1, 3 above it; lowest 0.10, median 1.40, highest 2.90."
    assert page.get_by_role("img", name=f"Histogram of {said}").count() == 1
    page.get_by_text("The bars as a table").click()
    rows = page.locator(".about table tbody tr").all_inner_texts()
    assert [row.split("\t") for row in rows] == [
        ["above 0 up to 0.25", "0", "1", "0"],
        ["above 0.25 up to 0.5", "1", "0", "0"],
        ["above 1.25 up to 1.5", "0", "0", "1"],
        ["above 2 up to 2.25", "0", "0", "1"],
        ["above 2.75 up to 3", "0", "0", "1"],
    ]
    bars, line = page.evaluate(
        "[[...document.querySelectorAll('rect.defect')].map((bar) => bar.getBoundingClientRect().toJSON()),"
        "document.querySelector('.edge').getBoundingClientRect().left]"
    )
    bin_width = page.locator(".histogram svg").bounding_box()["width"] / 22
    # 1.4 lies in the second bin right of the threshold, 2.2 in the fifth, 2.9 in the eighth; the line is 2 pixels wide.
    places = [(bar["left"] + bar["width"] / 2 - line) / bin_width for bar in bars]
    assert places == pytest.approx([1.5, 4.5, 7.5], abs=0.15)
    assert [bar["height"] for bar in bars] == pytest.approx([110, 110, 110], abs=2)  # each is the most in a bar
    # Not by colour alone: a DEFECT's bars lie right of the threshold and are filled, the others are hollow.
    for verdict, right in (("ok", False), ("retake", False), ("defect", True)):
        for left, dashed in page.evaluate(
            f"[...document.querySelectorAll('rect.{verdict}')].map((bar) =>"
            "[bar.getBoundingClientRect().left, getComputedStyle(bar).strokeDasharray])"
        ):
            assert (left > line) == right and (dashed != "none") == (verdict == "retake")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_page_fits_a_phone_in_light_and_dark(tmp_path, tab, scheme):
    page = tab(written(tmp_path / "report", [defect("folder/" + "part" * 40), ok("a")]), 360, 700, color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.evaluate("[...document.querySelectorAll('.name')].every((n) => n.scrollWidth <= n.clientWidth)")
    ink, paper = (
        sum(
            map(int, re.findall(r"\d+", page.evaluate(f"getComputedStyle(document.querySelector('.card')).{what}"))[:3])
        )
        for what in ("color", "backgroundColor")
    )
    assert (ink < paper) == (scheme == "light")
    page.locator(".open").first.click()
    assert page.evaluate("viewer.scrollWidth") <= 360
    assert page.locator("#stage").bounding_box()["height"] > 300


@pytest.mark.parametrize(
    ("form", "scheme"), [*((form, "light") for form in FORMS), ("desk", "dark"), ("phone", "dark")]
)
def test_axe_finds_nothing(page_of_all_kinds, tab, form, scheme):
    """No rule of axe-core is violated by the page as it opens, with all evidence open, and with the large picture."""
    axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe-playwright-python is missing").Axe()
    page = tab(page_of_all_kinds, *FORMS[form], color_scheme=scheme)
    if form == "print":
        page.emulate_media(media="print", color_scheme=scheme)

    def violations():
        found = axe.run(page, options={"resultTypes": ["violations"]}).response["violations"]
        return [(rule["id"], [node["target"] for node in rule["nodes"]]) for rule in found]

    assert violations() == []
    page.evaluate("for (const each of document.querySelectorAll('details')) each.open = true")
    assert violations() == []
    if form != "print":
        page.locator(".open").first.click()
        assert violations() == []


@pytest.mark.parametrize("beside", [False, True])
def test_every_card_is_printed_with_its_pictures(tmp_path, tab, monkeypatch, beside):
    """Pictures that are loaded when they come near are printed too: each of 30 is a page or so further down."""
    monkeypatch.setattr(html, "ONE_FILE_MOST", 0 if beside else html.ONE_FILE_MOST)
    with Report(tmp_path, FACTS, []) as report:
        for number in range(30):
            picture = read_picture(pixels(seed=number), name=f"{number}")
            report.add(ok(f"{number}"), picture)
    page = tab(report.path)
    assert page.evaluate("[...document.images].filter((image) => image.complete).length") < 30
    printed = page.pdf(format="A4")
    assert printed.count(b"/Subtype /Image") == 30
