"""docs/file-format.md names every entry and field of a saved inspector, and its example reads one without Handful."""

import json
import re
from pathlib import Path

import numpy as np
import pytest

from handful import Detector, backbones
from handful.inspection.threshold import Prior
from handful.saved import archive

PAGE = (Path(__file__).parents[2] / "docs" / "file-format.md").read_text()


@pytest.fixture(scope="module")
def file(tmp_path_factory, picture_factory):
    """An inspector with every entry but the text of a name: an ignored region and a missed defect were taught."""
    tiny = backbones.create("test_efficientnet", weights="random", size=64, engine="openvino", device="cpu")
    detector = Detector(backbone=tiny, size="auto").fit([picture_factory(number) for number in range(3)])
    detector.ignore(np.pad(np.full((20, 20), 255, np.uint8), ((0, 76), (0, 76))), accept_odd=True)
    missed = picture_factory(21, defect=True)
    detector.set_threshold(2 * detector(missed).raw_score)
    detector.teach_defect(missed, accept_cost=True)
    detector.save(path := tmp_path_factory.mktemp("format") / "part.handful")
    return path


def names(value):
    """The names of all fields in an object, but for the settings of a method and the digests."""
    if isinstance(value, list):
        return set().union(*map(names, value))
    if not isinstance(value, dict):
        return set()
    return set(value) | set().union(*(names(one) for key, one in value.items() if key not in ("settings", "sha256")))


def test_the_page_names_every_entry(file):
    entries = archive.read(file)[2]
    named = set(re.findall(r"`([\w.-]+)`", PAGE))
    assert {"scoring.xml", "defects.safetensors", "ignored.safetensors"} <= set(entries)
    assert {re.sub(r"reference-\d+", "reference-000", name) for name in entries} <= named


def test_the_page_names_every_field(file):
    manifest, calibration, entries = archive.read(file)
    named = set(re.findall(r"`([\w.-]+)`", PAGE))
    fields = names(manifest) | names(archive._FORM) | names(json.loads(entries["revisions.json"])) | set(calibration)
    assert len(fields) > 60
    assert not fields - named - {"digest"} - set(Prior.__dataclass_fields__)  # docs/threshold.md has these


def test_the_example_gives_the_digest_without_handful(file, monkeypatch, capsys):
    monkeypatch.chdir(file.parent)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "handful." not in re.sub(r"part\.handful", "", example)
    exec(compile(example, "docs/file-format.md", "exec"), {})
    assert capsys.readouterr().out.strip() == archive.read(file)[0]["digest"]
