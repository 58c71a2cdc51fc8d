"""docs/file-format.md names every entry and field of a saved inspector, and its example reads one without Handful."""

import hashlib
import io
import json
import re
from pathlib import Path
from typing import get_args

import numpy as np
import openvino
import pytest
import safetensors.numpy
from PIL import Image

from handful import Detector, backbones
from handful.fitting.revisions import Kind
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
    assert not (fields | set(Prior.__dataclass_fields__)) - named - {"digest"}
    assert set(get_args(Kind)) <= named  # of a revision


def test_the_example_gives_the_digest_without_handful(file, monkeypatch, capsys):
    monkeypatch.chdir(file.parent)
    (example,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "handful." not in re.sub(r"part\.handful", "", example)
    exec(compile(example, "docs/file-format.md", "exec"), {})
    assert capsys.readouterr().out.strip() == archive.read(file)[0]["digest"]


def test_the_weights_have_the_digest_that_the_page_describes(file):
    manifest, _, entries = archive.read(file)
    weights = sorted(safetensors.numpy.load(entries["backbone.safetensors"]).items())
    text = b"".join(name.encode() + tensor.tobytes() for name, tensor in weights)
    assert hashlib.sha256(text).hexdigest() == manifest["backbone"]["weights_sha256"]


def test_the_page_states_the_size_of_thumbnails(tmp_path, picture_factory):
    (longest,) = (int(number) for number in re.findall(r"its longer side (\d+) pixels at most", PAGE))
    tiny = backbones.create("test_efficientnet", weights="random", size=64, engine="torch", device="cpu")
    pictures = [np.tile(picture_factory(number), (6, 6, 1)) for number in range(2)]
    detector = Detector(backbone=tiny).fit(pictures, try_defects=False)
    detector.save(tmp_path / "large.handful")
    thumbnail = archive.read(tmp_path / "large.handful")[2]["reference-000.jpg"]
    assert max(pictures[0].shape) > longest == max(Image.open(io.BytesIO(thumbnail)).size)


def test_the_graphs_take_and_give_what_the_page_says(file):
    manifest, _, entries = archive.read(file)
    height, width = manifest["backbone"]["size"]
    state = safetensors.numpy.load(entries["method.safetensors"])
    levels = range(len(manifest["backbone"]["levels"]))

    def graph(name):
        weights = openvino.Tensor(np.frombuffer(entries[f"{name}.bin"], np.uint8))
        return openvino.Core().read_model(entries[f"{name}.xml"], weights)

    backbone, scoring = graph("backbone"), graph("scoring")
    features = safetensors.numpy.load(entries["features.safetensors"])
    assert [tuple(one.shape) for one in backbone.inputs] == [(1, 3, height, width)]
    shapes = [(1, *features[f"level.{number}"].shape[1:]) for number in levels]
    assert [tuple(one.shape) for one in backbone.outputs] == shapes
    named = {name for one in scoring.inputs for name in one.names if re.match(r"level|state|good", name)}
    kept = {f"state.{name}" for name, tensor in state.items() if tensor.size and name != "depths"}
    assert named == kept | {f"{kind}.{number}" for kind in ("level", "good") for number in levels}
    assert [tuple(one.shape) for one in scoring.outputs] == [(1, height, width), (1,)]
    assert state["usual"].shape in ((0,), (4,))
