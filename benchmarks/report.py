"""How long a report takes to write and to open, and how large it is: writes report.md beside itself.

    python3 scripts/bench report

Pictures are generated, and so are their heatmaps and regions: no inspector is asked, so that the report alone is timed.
Each report is written by a process of its own. Chromium, which must be installed, then opens it without a window.
"""

import argparse
import io
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

from handful.data.images import read_picture
from handful.evaluation.environment import commit
from handful.evaluation.peak_memory import peak_mb
from handful.report.html import Report
from handful.report.result import Inspection
from handful.types import NearestReference, Region, Verdict

OUT = Path(__file__).with_suffix(".md")
DETAIL = 320  # the longer side of the model's input, for which a large JPEG is decoded smaller
DIFFERENT = 10  # pictures that are generated; the others are copies of them
DEFECTS = 3  # of 10
LOADS = 3
FORMS = {  # the number of pictures, width and height of each
    "10 of 512 x 512": (10, 512, 512),
    "100 of 512 x 512": (100, 512, 512),
    "1,000 of 512 x 512": (1000, 512, 512),
    "100 of 4000 x 3000": (100, 4000, 3000),
}
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PAINTED = "() => new Promise((done) => requestAnimationFrame(() => setTimeout(() => done(performance.now()))))"
TIMES = """() => ({
  interactive: performance.getEntriesByType("navigation")[0].domContentLoadedEventEnd,
  painted: performance.getEntriesByName("first-contentful-paint")[0]?.startTime ?? NaN,
})"""


def pictures(folder: Path, count: int, width: int, height: int) -> list[Path]:
    """JPEGs of a round part on a dark ground, with the grain of a camera; the last ones are copies of the first."""
    y, x = np.mgrid[:height, :width].astype(np.float32)
    distance = np.hypot((x - width / 2) / min(width, height), (y - height / 2) / min(width, height))
    part = 60 + 120 * (distance < 0.4) - 60 * (distance < 0.2) + 15 * np.sin(60 * distance)
    made: list[Path] = []
    for number in range(count):
        path = folder / f"{number:04d}.jpg"
        if number < DIFFERENT:
            grain = np.random.default_rng(number).normal(0, 6, (height, width, 1)).astype(np.float32)
            pixels = (part[:, :, None] * np.array([1.0, 0.9, 0.8], np.float32) + grain).clip(0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(path, quality=92)
        else:
            shutil.copyfile(made[number % DIFFERENT], path)
        made.append(path)
    return made


def inspection(path: Path, number: int, size: tuple[int, int]) -> Inspection:
    """What an inspector might say: a DEFECT of two regions for 3 of 10 pictures, OK for the others."""
    generator = np.random.default_rng(number)
    heatmap = generator.normal(0.3, 0.1, (DETAIL, DETAIL)).astype(np.float32)
    if number % 10 >= DEFECTS:
        score = min(1.0, float(generator.normal(0.1, 0.3)))
        return Inspection(str(path), Verdict.OK, score, 1.0, 2.0, heatmap.clip(0, 0.6), (), size)
    y, x = np.mgrid[:DETAIL, :DETAIL].astype(np.float32)
    across, down = generator.uniform(0.3, 0.7, 2)
    heatmap += 2.5 * np.exp(-((x - across * DETAIL) ** 2 + (y - down * DETAIL) ** 2) / 400)
    place = NearestReference("good/0.jpg", (float(across), float(down)), 0.4)
    at = (int(across * size[0]), int(down * size[1]))
    side = size[0] // 10
    regions = (
        Region((at[0] - side // 2, at[1] - side // 2, side, side), side**2, 2.6, at, place),
        Region((side, side, side // 2, side // 2), side**2 // 4, 1.1, (side, side), place),
    )
    score = 1 + float(generator.exponential(1.0)) + 1e-3
    return Inspection(str(path), Verdict.DEFECT, score, 3.0, 2.0, heatmap, regions, size, missing=place)


def write(form: str, folder: Path) -> dict[str, Any]:
    """Write the report of a form into a folder: processor seconds, megabytes of memory, and bytes."""
    count, width, height = FORMS[form]
    source = folder / "incoming"
    source.mkdir()
    paths = pictures(source, count, width, height)
    good = io.BytesIO()
    Image.fromarray(np.asarray(Image.open(paths[0]).resize((420, 420)))).save(good, "JPEG")
    took = 0.0
    with Report(folder / "report", {"Inspector": "part.handful"}, [("good/0.jpg", good.getvalue())]) as report:
        for number, path in enumerate(paths):
            picture = read_picture(path, detail=DETAIL)
            one = inspection(path, number, picture.size)
            begin = time.process_time()
            report.add(one, picture)
            took += time.process_time() - begin
        begin = time.process_time()
    took += time.process_time() - begin
    return {"seconds": took, "memory": peak_mb(), "page": report.path.stat().st_size, "pictures": report.size}


def opened(browser: Browser, path: Path) -> dict[str, float]:
    """Open a page in a new window: milliseconds until it is there and until it answers, megabytes that it takes."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.set_default_timeout(120_000)
    page.goto(path.as_uri())
    found = dict(page.evaluate(TIMES))
    found["processor"], found["memory"] = taken(browser)
    found["filtered"] = after(page, "document.querySelector('[data-show=DEFECT]').click()")
    found["large"] = after(
        page, "document.querySelector('.open').click()", "document.querySelector('#whole img').decode()"
    )
    page.keyboard.press("Escape")
    page.evaluate("document.querySelector('[data-show=\"\"]').click()")
    page.evaluate(
        """async () => {
          for (let y = 0; y < document.documentElement.scrollHeight; y += innerHeight / 2) {
            scrollTo(0, y);
            await new Promise((done) => requestAnimationFrame(() => setTimeout(done, 10)));
          }
        }"""
    )
    found["scrolled"] = taken(browser)[1]
    page.close()
    return found


def after(page: Page, action: str, until: str = "null") -> float:
    """Milliseconds from an action in the page until the next frame is painted."""
    steps = f"const begin = performance.now(); {action}; await {until}; return (await ({PAINTED})()) - begin;"
    return float(page.evaluate(f"async () => {{ {steps} }}"))


def taken(browser: Browser) -> tuple[float, float]:
    """What Chromium's processes for pages took: milliseconds of the processor, and megabytes, shared ones in parts."""
    session = browser.new_browser_cdp_session()
    processes = session.send("SystemInfo.getProcessInfo")["processInfo"]
    session.detach()
    seconds, kilobytes = 0.0, 0
    for process in processes:
        if process["type"] == "renderer":
            seconds += process["cpuTime"]
            rollup = Path(f"/proc/{process['id']}/smaps_rollup").read_text()
            kilobytes += sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return 1000 * seconds, kilobytes / 1000


def measure(form: str, executable: str) -> dict[str, Any]:
    """Write a report in a process of its own, then open it some times, each in a new browser: the least of each."""
    with tempfile.TemporaryDirectory() as name, sync_playwright() as driver:
        command = [sys.executable, __file__, "--write", form, name]
        written = json.loads(subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout)
        loads = []
        for _ in range(LOADS):
            browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
            loads.append(opened(browser, Path(name, "report", "index.html")))
            browser.close()
    return {"form": form, **written, **{f"browser_{key}": min(load[key] for load in loads) for key in loads[0]}}


def page(rows: Sequence[Mapping[str, Any]], version: str) -> str:
    """The page of all that was measured."""
    files = [
        "| pictures | ms a picture | all, s | memory, MB | page, MB | pictures in it or beside it, MB |",
        "|---" * 6 + "|",
    ]
    opens = [
        "| pictures | painted, ms | answers, ms | processor, ms | filter, ms | open large, ms | memory, MB | "
        "scrolled through, MB |",
        "|---" * 8 + "|",
    ]
    for row in rows:
        count, beside = FORMS[row["form"]][0], row["page"] < row["pictures"]
        files.append(
            f"| {row['form']} | {1000 * row['seconds'] / count:.1f} | {row['seconds']:.1f} | {row['memory']:.0f} | "
            f"{row['page'] / 1e6:.1f} | {row['pictures'] / 1e6:.0f} {'beside' if beside else 'in it'} |"
        )
        times = [f"{row['browser_' + key]:.0f}" for key in ("painted", "interactive", "processor", "filtered", "large")]
        memory = [f"{row['browser_' + key]:.0f}" for key in ("memory", "scrolled")]
        opens.append(f"| {row['form']} | {' | '.join(times)} | {' | '.join(memory)} |")
    lines = [
        "# How long a report takes to write and to open",
        f"`python3 scripts/bench report`, code of {commit()}, {os.cpu_count()} cores with a load of "
        f"{os.getloadavg()[0]:.0f} at the end (times but for the processor's grow with it), Chromium {version}. "
        f"Generated JPEGs, {DEFECTS} of 10 a DEFECT with two regions and their evidence. Inspecting is not counted.",
        "Written: processor time that the report takes beside the inspection, and the most memory that the process "
        "had, which generates, reads and decodes the pictures too.",
        "\n".join(files),
        f"Opened from the disk at 1280 x 900, the least of {LOADS} new browsers: until the first paint; until the page "
        "answers (DOMContentLoaded, when its script has sorted the cards); processor time of the page's processes "
        "until it is loaded, their start included; from a click until the next frame where DEFECT "
        "alone is shown, and where a picture is opened large and decoded; memory of the page's processes once it is "
        "opened, and after scrolling through all of it.",
        "\n".join(opens),
    ]
    return "\n\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--write", nargs=2, metavar=("FORM", "FOLDER"), help="write this report alone, and print JSON")
    options = parser.parse_args()
    if options.write:
        print(json.dumps(write(options.write[0], Path(options.write[1]))))
        return
    executable = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if executable is None:
        parser.error("Chromium must be installed, found no chromium, chromium-browser or google-chrome on the PATH.")
    rows = []
    for form in FORMS:
        rows.append(measure(form, executable))
        print(json.dumps(rows[-1]), file=sys.stderr, flush=True)
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=executable, args=FLAGS)
        version = browser.version
        browser.close()
    OUT.write_text(page(rows, version), "utf-8")


if __name__ == "__main__":
    main()
