"""Every console command of the pages on how to do a task runs, in the order of the page."""

import re
import shlex
import shutil
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image
from pyarrow import parquet

from handful import Detector, backbones

DOCS = Path(__file__).parents[1] / "docs"
COMMANDS = {
    page.name: [
        shlex.split(line.strip().removeprefix("$ "), comments=True)[1:]
        for block in re.findall(r"```console\n(.*?)```", page.read_text("utf-8"), re.DOTALL)
        for line in block.splitlines()
        if line.strip().startswith("$ ")
    ]
    for page in sorted(DOCS.glob("*.md"))
}
PAGES = [name for name, commands in COMMANDS.items() if commands]


@pytest.fixture
def place(saved_with_graph, good_folder, picture_factory, tmp_path, monkeypatch):
    """The names that the pages use: `part.handful`, and a good part that scores below its threshold as the defect."""
    monkeypatch.chdir(tmp_path)
    pictures = {"incoming/001.png": picture_factory(20), "incoming/002.png": picture_factory(21, defect=True)}
    pictures |= {f"night_shift/{number}.png": picture_factory(10 + number) for number in range(2)}
    pictures |= {f"archive/{number}.png": picture_factory(24 + number) for number in range(2)}
    pictures |= {"false_alarm.jpg": picture_factory(22), "mask.png": np.zeros((96, 96), np.uint8)}
    pictures["mask.png"][:20, :20] = 255
    detector = Detector.load(saved_with_graph)
    pictures["missed.jpg"] = max(map(picture_factory, range(30, 40)), key=lambda pixels: detector(pixels).score)
    monkeypatch.setattr(backbones, "create", lambda *_, **__: detector._needed.backbone)
    detector.set_threshold(1.2 * detector(pictures["missed.jpg"]).raw_score)
    detector.save("part.handful")
    for name, pixels in pictures.items():
        Path(name).parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(name, quality=95)
    Path("inspectors").mkdir()
    shutil.copy("part.handful", "inspectors")
    parquet.write_table(
        pa.table({"path": ["archive/0.png", "missed.jpg"], "product": ["part"] * 2}), "manifest.parquet"
    )


def test_pages_with_commands_are_found():
    assert {"teach.md", "export.md", "report.md", "scale.md"} <= set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_the_commands_of_a_page_run(page, place, command_line):
    for words in COMMANDS[page]:
        code, _, said = command_line(*words)
        if "--defect" in words:  # the page says that this asks for --accept-cost
            assert code == 2 and "--accept-cost" in said[-1], said
        else:
            assert code in ((0, 1) if words[0] == "inspect" else (0,)), (words, said)
