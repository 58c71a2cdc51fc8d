"""`auto` takes as many pixels as the references show, within limits, and says why."""

import io
import pickle

import numpy as np
import pytest
from PIL import Image

from handful.data.images import read_picture
from handful.detector import Detector
from handful.errors import SettingError
from handful.fitting.sizing import MOST_FOR_ONE, choose
from handful.inspector import Inspector
from handful.saved import archive

QUICK = {"backbone": "test_efficientnet", "weights": "random", "engine": "torch", "device": "cpu"}


def noise(width, height, *, seed=0):
    """A picture with detail in every pixel: (height, width, 3)."""
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3)).astype(np.uint8)


def chosen(*pictures, least=320):
    return choose([read_picture(pixels) for pixels in pictures], least=least)


def test_references_get_as_many_pixels_as_they_have():
    assert chosen(noise(512, 512)).side == 512
    assert chosen(noise(640, 400)).side == 512  # the root of 506², rounded to a multiple of 32
    assert chosen(noise(400, 400), noise(480, 480), noise(600, 600)).side == 480
    assert chosen(noise(480, 480)).why == "auto: 480² pixels, as the references have 480² pixels"


def test_never_fewer_than_the_least_nor_more_than_one_input_may_have():
    small, large = chosen(noise(100, 90)), chosen(noise(900, 800))
    assert (small.side, large.side) == (320, MOST_FOR_ONE)
    assert "the least" in small.why and "the most for one input" in large.why
    assert chosen(noise(100, 90), least=64).side == 96


def test_enlarged_references_get_as_many_as_before():
    enlarged = [np.asarray(Image.fromarray(noise(360, 360, seed=seed)).resize((600, 600))) for seed in range(2)]
    found = chosen(*enlarged)
    assert 320 <= found.side <= 512 and "have 600² pixels and detail for" in found.why


def test_many_pixels_are_looked_at_in_tiles_where_that_is_asked_for():
    found = choose([read_picture(noise(1300, 1000))], least=320, tiled=True)
    assert (found.side, found.fine) == (320, 1140)
    assert found.why == "auto: 1140² pixels in tiles of about 320², as the references have 1140² pixels"
    for references in (noise(1300, 900), noise(2600, 500)):  # too few, and too long
        assert choose([read_picture(references)], least=320, tiled=True).side == MOST_FOR_ONE
    assert chosen(noise(1300, 1000)).fine == 0


def test_no_more_pixels_than_tiles_may_have(monkeypatch):
    monkeypatch.setattr("handful.fitting.sizing.MOST_IN_TILES", 1_300_000)
    found = choose([read_picture(noise(1300, 1100))], least=320, tiled=True)
    assert found.fine == 1140 and "in tiles of about 320², the most, as the references have 1196²" in found.why


def test_16_bits_count_as_8_bits():
    deep = noise(480, 480).astype(np.uint16) * 16
    assert chosen(deep).side == 480


def test_an_inspector_has_the_size_that_came_out_and_says_why(tmp_path):
    references = [noise(416, 384, seed=seed) for seed in range(2)]
    detector = Detector(size="auto", **QUICK).fit(references, accept_odd=True)
    given = Detector(size=384, **QUICK).fit(references, accept_odd=True)  # sqrt(416 * 384) = 400, rounded
    assert detector.backbone_spec.size == given.backbone_spec.size == (384, 416)
    assert detector.sizing == "auto: 384² pixels, as the references have 400² pixels" and given.sizing is None
    assert detector.inspect(references[0])[0].raw_score == given.inspect(references[0])[0].raw_score
    path = tmp_path / "part.handful"
    detector.save(path)
    assert archive.read(path)[0]["preprocessing"]["size"] == [384, 416]
    for again in (Detector.load(path), pickle.loads(pickle.dumps(detector))):
        assert again.sizing == detector.sizing and again.backbone_spec.size == (384, 416)
    # Fitted again, an inspector that was loaded keeps the size; a detector that was asked for auto chooses anew.
    others = [noise(512, 512, seed=seed) for seed in range(2, 4)]
    again.fit(others, accept_odd=True)
    detector.fit(others, accept_odd=True)
    assert again.backbone_spec.size == (384, 384) and again.sizing is None
    assert detector.backbone_spec.size == (512, 512)


def test_file_objects_serve_though_they_are_read_twice():
    files = []
    for seed in range(2):
        files.append(io.BytesIO())
        Image.fromarray(noise(330, 320, seed=seed)).save(files[-1], "PNG")
        files[-1].seek(0)
    detector = Detector(size="auto", **QUICK).fit(files, accept_odd=True)
    assert detector.backbone_spec.size == (320, 320)


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (
            {"size": "auto", "squeeze": True},
            "`size` must be numbers where pictures are squeezed, got auto with squeeze",
        ),
        ({"size": "large"}, "`size` must be 32 to 4096 pixels, one number or height and width, or auto, got 'large'"),
    ],
)
def test_what_auto_does_not_go_with_is_refused(options, sentence):
    with pytest.raises(SettingError, match=sentence):
        Detector(**QUICK, **options)


def test_inspecting_without_torch_takes_the_size(tmp_path):
    detector = Detector(size="auto", **{**QUICK, "engine": "openvino"}).fit([noise(340, 320)])
    detector.save(tmp_path / "part.handful")
    loaded = Inspector.load(tmp_path / "part.handful")
    assert loaded.preprocessing.size == detector.backbone_spec.size == (320, 352)
