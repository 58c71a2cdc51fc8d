"""The picture of the README: a card of a report on paper of `piped` (CC BY 4.0), written to docs/figures/card.png.

    python3 scripts/bench card --data DIR

DIR holds `piped`. Needs Chromium.
"""

import argparse
import shutil
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from playwright.sync_api import sync_playwright

from handful import Detector
from handful.data.images import read_picture
from handful.report.html import Report

CATEGORY = "brg02_rl"
OUT = Path(__file__).parents[1] / "docs" / "figures" / "card.png"
WIDTH = 760  # of the card, in CSS pixels


def main() -> None:
    """Fit on four good pictures, inspect the defective ones, and take the card of the highest score."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    folder = parser.parse_args().data / "piped" / CATEGORY
    chromium = shutil.which("chromium")
    if chromium is None:
        sys.exit("Chromium must be installed to take the picture, got none; install it.")
    detector = Detector().fit(sorted((folder / "train" / "good").iterdir())[:4])
    defects = sorted(path for kind in (folder / "test").iterdir() if kind.name != "good" for path in kind.iterdir())
    answers = [(path, detector(path)) for path in defects]
    worst, answer = max(answers, key=lambda pair: pair[1].raw_score or 0.0)
    with tempfile.TemporaryDirectory() as place:
        with Report(Path(place), {}, [(one.name, one.thumbnail) for one in detector.references]) as page:
            page.add(replace(answer, path=worst.name), read_picture(worst))
        OUT.parent.mkdir(exist_ok=True)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
            view = browser.new_page(viewport={"width": WIDTH, "height": 2000}, device_scale_factor=1.25)
            view.goto((Path(place) / "index.html").as_uri())
            view.locator("article").first.screenshot(path=OUT)
            browser.close()


if __name__ == "__main__":
    main()
