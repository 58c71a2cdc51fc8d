"""What was written comes back, or the file is refused in a sentence: every format, mode, depth and layout."""

import importlib.util
import re
import sys
from collections import Counter
from pathlib import Path

import pytest

pytest.importorskip("imagecodecs")
pytest.importorskip("tifffile")
pytest.importorskip("cv2")

FOLDER = Path(__file__).parents[2] / "benchmarks" / "_decode"
# What is refused, by format: Pillow would reduce or misread it. Everything else must come back right.
REFUSED = {
    "PNG": r"RGB 16, (Adobe|gamma 1\.8)",
    "TIFF": r"16, in planes|\+(assocalpha|unspecified) .*in planes|grey\+alpha 1[026]|16, white is 0, .*>"
    r"|grey 1[024] packed|grey (float|int|uint)|RGB 8, (zstd|lzma|webp|jpeg2000)|RGB 16, (Adobe|gamma 1\.8)",
    "JPEG": r"CMYK|(grey|RGB) 12",
    "JPEG 2000": r"RGBA?( (10|12|16)),|RGBA [14],",
}


def load():
    """The package that makes the cells, which lies with the benchmarks."""
    if "_decode" not in sys.modules:
        spec = importlib.util.spec_from_file_location("_decode", FOLDER / "__init__.py")
        module = sys.modules["_decode"] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules["_decode"]


@pytest.fixture(scope="module")
def judged():
    matrix = load()
    return [(cell, *matrix.judge(cell)) for cell in matrix.cells()]


def test_no_cell_is_wrong(judged):
    assert [f"{cell.format} {cell.make}: {said}" for cell, outcome, said in judged if outcome == "wrong"] == []


def test_every_cell_is_right_but_those_known_to_be_refused(judged):
    unexpected = [
        f"{cell.format} {cell.make}: {said}"
        for cell, outcome, said in judged
        if outcome != ("refused" if re.search(REFUSED.get(cell.format, "$^"), cell.make) else "right")
    ]
    assert unexpected == []


def test_refusals_name_the_cause_and_the_remedy(judged):
    for cell, outcome, said in judged:
        if outcome == "refused":
            assert said.startswith(cell.make) and said.endswith(".") and "got" in said and ";" in said, said


def test_every_format_and_depth_is_among_the_cells(judged):
    counts = Counter(cell.format for cell, _, _ in judged)
    assert set(counts) == {"PNG", "TIFF", "BMP", "JPEG", "JPEG 2000", "WebP", "PNM", "GIF"}
    assert sum(counts.values()) > 1000
