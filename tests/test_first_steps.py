"""Each page of docs/first-steps is followed, command by command, on drawn pictures as a phone would save them."""

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from handful.data import drawn

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs" / "first-steps").glob("*.md"))
BLOCK = re.compile(r"```(console|python)\n(.*?)```(?:\n\n```text\n(.*?)```)?", re.DOTALL)
CLOSE = 0.05  # by which a score may differ from that on the page: another CPU, another release of Pillow


def save_as_phone(path, pixels):
    """A JPEG that lies on its side and says so."""
    path.parent.mkdir(parents=True, exist_ok=True)
    lying = Image.fromarray(pixels).transpose(Image.Transpose.ROTATE_90)
    exif = lying.getexif()
    exif[0x0112] = 6  # to be shown turned clockwise by a quarter
    lying.save(path, "JPEG", quality=95, exif=exif)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory):
    """The folders that the pages speak of."""
    folder = tmp_path_factory.mktemp("pictures")
    for number in range(4):
        save_as_phone(folder / "good" / f"IMG_{number:04d}.jpg", drawn.part(number))
        save_as_phone(folder / "products/cover/train/good" / f"{number}.jpg", drawn.part(number))
    for number in (1, 2):
        save_as_phone(folder / "more" / f"IMG_010{number}.jpg", drawn.part(20 + number))
        save_as_phone(folder / "products/cover/test/good" / f"{number}.jpg", drawn.part(20 + number))
    save_as_phone(folder / "incoming/IMG_0001.jpg", drawn.part(4))
    save_as_phone(folder / "incoming/IMG_0002.jpg", drawn.part(21, "chipped edge"))
    for number, kind in enumerate(("stain", "dent", "torn seal", "chipped edge")):
        save_as_phone(folder / "products/cover/test/bad" / f"{number}.jpg", drawn.part(30 + number, kind))
    return folder


def run(command, folder):
    environment = {**os.environ, "OMP_WAIT_POLICY": "PASSIVE"}
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout, done.stderr


def shape(line):
    """A line without its numbers, and up to what the page leaves out."""
    return re.sub(r"\s+", " ", re.sub(r"(?<![\w.])-?\d+(\.\d+)?(e-\d+)?(?![\w.]*\.jpg)", "#", line)).strip()


def assert_printed(line, printed):
    """A line of the page was printed: its words are the same, and a verdict's score is close."""
    shown = shape(line).removesuffix(" …")
    (same, *_) = [other for other in printed if shape(other).startswith(shown)] or [None]
    assert same is not None, (line, printed)
    if line.startswith(("OK", "DEFECT")):
        assert float(line.split()[1]) == pytest.approx(float(same.split()[1]), abs=CLOSE)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_page_can_be_followed(page, pictures):
    blocks = BLOCK.findall(page.read_text())
    assert blocks
    code = ""
    for language, text, expected in blocks:
        if language == "python":
            code += text  # a block goes on where the one before ended
            status, out, errors = run([sys.executable, "-c", code], pictures)
            assert status == 0, errors
            assert out.splitlines()[-len(expected.splitlines()) :] == expected.splitlines()
            continue
        for session in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, *lines = session.splitlines()
            program, *arguments = shlex.split(command)
            assert program == "handful"
            status, out, errors = run([sys.executable, "-m", "handful", *arguments], pictures)
            assert status == (1 if any(line.startswith("DEFECT") for line in lines) else 0), errors
            assert lines
            for line in lines:
                assert_printed(line, (out + errors).splitlines())


def test_every_journey_has_a_page():
    assert [page.stem for page in PAGES] == ["engineer", "library", "research"]


def test_the_pages_links_lead_somewhere():
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name} links to {target}"
