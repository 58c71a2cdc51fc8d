"""The heads that are shipped: fitted at once, found from anywhere, and refused where they do not belong."""

import json
import shutil
import time
import zipfile

import numpy as np
import pytest
import safetensors
from PIL import Image

import handful
from handful import backbones
from handful.detector import Detector
from handful.errors import SettingError
from handful.methods import METHODS
from handful.training import head_file

METHODS_WITH_HEADS = sorted(name for name, method in METHODS.items() if method.protocol == "auxiliary-trained")


@pytest.fixture(scope="module", params=METHODS_WITH_HEADS)
def fitted(request, picture_factory, tmp_path_factory):
    """A detector of each method on its shipped head, fitted to four pictures, with the seconds that it took."""
    folder = tmp_path_factory.mktemp("good")
    for seed in range(4):
        Image.fromarray(picture_factory(seed)).save(folder / f"{seed}.png")
    begin = time.perf_counter()
    detector = Detector(request.param, device="cpu").fit(folder)
    return detector, time.perf_counter() - begin


@pytest.mark.parametrize("method", METHODS_WITH_HEADS)
def test_a_shipped_head_is_of_one_data_set_and_made_products_and_the_default_backbone(method):
    head, network = head_file.shipped(method), backbones.create()
    assert {name.partition("/")[0] for name in head.record.classes} == {"piped"}
    assert len(head.record.pictures) > 500 and set(head.record.held_out) < set(head.record.classes)
    assert head.record.settings["products"] == 12
    assert head.record.backbone == head_file.identity(network.spec)
    head.check(network.spec)


@pytest.mark.parametrize("method", METHODS_WITH_HEADS)
def test_the_notice_beside_a_shipped_head_names_its_digest_and_its_pictures(method):
    notice = (head_file.SHIPPED / "LICENSE.txt").read_text("utf-8")
    assert f"{method}.safetensors  sha256 {head_file.shipped(method).sha256}" in notice
    for name in head_file.shipped(method).record.classes:
        assert name.partition("/")[2] in notice
    assert all(words in notice for words in ("CC BY 4.0", "Bianconi", "https://creativecommons.org/licenses/by/4.0/"))
    assert head_file.shipped_file(method).stat().st_size < 3e6


def test_a_method_without_a_head_has_none():
    assert head_file.shipped("patchcore") is None
    assert Detector("patchcore").head is None


def test_fitting_takes_seconds_and_tells_good_from_bad(fitted, picture_factory):
    detector, seconds = fitted
    assert seconds < 60  # a training takes minutes on the same machine
    good, bad = (detector(picture_factory(seed, defect=seed > 60)).raw_score for seed in (50, 70))
    assert bad > good


def test_an_inspector_finds_the_shipped_head_from_any_folder(fitted, tmp_path, picture_factory):
    detector, _ = fitted
    name, pixels = detector.method.name, picture_factory(70, defect=True)
    detector.save(tmp_path / "part.handful")
    with zipfile.ZipFile(tmp_path / "part.handful") as archive:
        assert json.loads(archive.read("manifest.json"))["head"]["sha256"] == head_file.shipped(name).sha256
        learnt = set(safetensors.torch.load(archive.read("method.safetensors")))
        assert not learnt & set(detector.head.module.state_dict())
    elsewhere = tmp_path / "elsewhere" / "part.handful"
    elsewhere.parent.mkdir()
    shutil.move(tmp_path / "part.handful", elsewhere)
    (elsewhere.parent / f"{name}.safetensors").write_bytes(b"another head of the same file name")
    again = handful.load(elsewhere, device="cpu")(pixels)
    assert again.raw_score == detector(pixels).raw_score
    assert np.array_equal(again.heatmap, detector(pixels).heatmap)


@pytest.mark.parametrize("method", METHODS_WITH_HEADS)
def test_another_backbone_or_size_is_refused_in_a_sentence(method, good_folder):
    for options, field in (
        ({"backbone": "test_efficientnet", "weights": "random", "size": 64}, "name tf_efficientnet_lite0"),
        ({"size": 64}, r"size \[320, 320\]"),
    ):
        with pytest.raises(SettingError, match=rf"of {method}.safetensors, with {field}.* `handful train {method}`"):
            Detector(method, device="cpu", **options).fit(good_folder)


@pytest.mark.parametrize("method", METHODS_WITH_HEADS)
def test_the_benchmark_takes_the_shipped_head_and_refuses_its_classes(method, command_line, tmp_path, picture_factory):
    for category in ("disc", head_file.shipped(method).record.classes[0].partition("/")[2]):
        for part, seeds, defect in (
            ("train/good", (0, 1), False),
            ("test/good", (2, 3), False),
            ("test/bad", (4, 5), True),
        ):
            (tmp_path / "data" / category / part).mkdir(parents=True)
            for seed in seeds:
                picture = Image.fromarray(picture_factory(100 * len(category) + seed, defect=defect))
                picture.save(tmp_path / "data" / category / part / f"{seed}.png")
    options = ("--methods", method, "--shots", "2", "--seeds", "0", "--no-sheets", "--json", "--out", tmp_path / "out")
    _, lines, _ = command_line("bench", "--data", f"toy:{tmp_path / 'data'}", *options)
    rows = {row["category"]: row for row in map(json.loads, lines)}
    disc = rows.pop("disc")
    assert not disc["error"] and 0 <= disc["image_auroc"] <= 100 and disc["protocol"] == "auxiliary-trained"
    (refused,) = rows.values()
    assert "must not be tested on categories of its training" in refused["error"]
    assert f"{method}.safetensors was trained on" in refused["error"]
