import builtins
import subprocess
import sys
import threading
import warnings
from queue import SimpleQueue

import numpy as np
import pytest
import torch
from torch import nn

from handful import Detector, Inspector, backbones
from handful.backbones import timm
from handful.data.images import read_picture
from handful.errors import SettingError
from handful.graphs.openvino import openvino
from handful.graphs.openvino_writer import network_entries, scoring_entries, write_graph
from handful.saved import archive, scoring_graph

PROBE = """
import sys
import handful.backbones.openvino_engine as engine
assert "openvino" in sys.modules
import openvino.tools.ovc.telemetry_utils as telemetry
assert telemetry.tm.__name__.endswith("telemetry_stub"), telemetry.tm.__name__
import importlib
assert importlib.util.find_spec("openvino_telemetry"), "the package itself stays importable"
print("silent")
"""


def test_importing_openvino_reports_to_nobody():
    done = subprocess.run([sys.executable, "-c", PROBE], capture_output=True, text=True)
    assert done.stdout == "silent\n", done.stderr


class InPlace(nn.Module):
    def forward(self, image):
        values = image.mean(1).clone()
        values[:, 2:5].mul_(3.0).add_(1.0)  # a part of what goes on
        return values, values.amax((1, 2))


def test_what_is_changed_in_place_is_changed_in_the_graph(tmp_path):
    image = torch.rand(1, 3, 8, 6, generator=torch.Generator().manual_seed(0))
    found, own = write_graph(InPlace(), torch.ones_like(image), tmp_path)(image), InPlace()(image)
    assert all(np.allclose(one, other, rtol=1e-6) for one, other in zip(found, own, strict=True))


SMALL = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "engine": "openvino"}
PRIVATE = {
    "TorchFXPythonDecoder": "openvino.frontend.pytorch.fx_decoder",
    "ops_to_not_decompose": "openvino.frontend.pytorch.torchdynamo.export_decompositions",
    "make_fx": "torch.fx.experimental.proxy_tensor",
}


@pytest.fixture
def hide(monkeypatch):
    """Let Handful alone no longer find a name of another package; gives the modules where it looked for the name."""
    looked = []

    def start(name):
        kept = builtins.__import__

        def without(module, globals=None, locals=None, fromlist=(), level=0):  # noqa: A002 - as Python calls them
            if (globals or {}).get("__name__", "").startswith("handful") and name in (fromlist or ()):
                looked.append(module)
                raise ImportError(f"cannot import name {name!r} from {module!r}")
            return kept(module, globals, locals, fromlist, level)

        monkeypatch.setattr(builtins, "__import__", without)
        return looked

    yield start
    scoring_graph._entries.cache_clear()


@pytest.mark.parametrize("name", PRIVATE)
def test_without_a_private_name_there_is_a_graph_that_answers_the_same(
    name, hide, good_folder, picture_factory, tmp_path
):
    scoring_graph._entries.cache_clear()
    looked = hide(name)
    detector = Detector(**SMALL).fit(good_folder)
    detector.save(tmp_path / "part.handful")
    assert max(archive.read(tmp_path / "part.handful")[0]["graph"].values()) < scoring_graph.TOLERANCE / 10
    (own,), (found,) = (
        each.inspect(picture_factory(9, defect=True)) for each in (detector, Inspector.load(tmp_path / "part.handful"))
    )
    assert found.score == pytest.approx(own.score, rel=1e-4)  # sums of float32 in another order
    written = detector.export(tmp_path / "out", formats=("openvino", "onnx"))
    assert all(max(one.score, one.map) < scoring_graph.TOLERANCE / 10 for one in written.agreements)
    assert looked and set(looked) == {PRIVATE[name]}


def test_the_private_names_serve_here(monkeypatch, good_folder, tmp_path):
    monkeypatch.setattr(torch.export, "export", None)  # the public way would call it
    scoring_graph._entries.cache_clear()
    detector = Detector(**SMALL).fit(good_folder)
    detector.save(tmp_path / "part.handful")
    assert detector.export(tmp_path / "out").agreements
    assert "why" not in archive.read(tmp_path / "part.handful")[0]["graph"]


def test_a_network_that_neither_way_can_convert_is_one_sentence(monkeypatch):
    def unable(network, size):
        raise RuntimeError("No conversion rule found for operations: aten.strange.default\nand more")

    monkeypatch.setattr("handful.graphs.openvino_writer.network_entries", unable)
    with pytest.raises(
        SettingError,
        match=r"test_efficientnet must .* openvino knows, got: .*aten.strange.default; use the torch engine",
    ):
        backbones.create("test_efficientnet", weights="random", size=(64, 64), engine="openvino")


def test_missing_names_are_not_blamed_on_the_settings(monkeypatch, good_folder, tmp_path):
    monkeypatch.setattr(openvino, "convert_model", None)
    monkeypatch.delattr(torch.export, "export")
    scoring_graph._entries.cache_clear()
    detector = Detector(**SMALL | {"engine": "torch", "device": "cpu"}).fit(good_folder)
    with pytest.raises(SettingError, match="torch must be of versions that work together, got: .*'export'") as caught:
        detector.export(tmp_path / "out")
    assert "other settings" not in str(caught.value)


def test_converting_leaves_the_process_as_it_was(monkeypatch, good_folder, tmp_path):
    Detector(**SMALL).fit(good_folder).save(tmp_path / "first.handful")  # packages add filters when they are imported
    scoring_graph._entries.cache_clear()

    def switches():
        return (
            list(warnings.filters),
            torch.backends.mkldnn.enabled,
            torch.get_num_threads(),
            torch.get_rng_state().sum(),
        )

    before, object_before, called = switches(), warnings.filters, []
    monkeypatch.setattr(warnings, "catch_warnings", lambda **_: called.append(1))
    network = timm.build("test_efficientnet", levels=None, size=(64, 64), weights="random")
    network_entries(network, (64, 64))
    scoring_entries(Scored().eval(), {"image": torch.ones(1, 3, 8, 6)})
    assert switches() == before and warnings.filters is object_before and not called


class Scored(nn.Module):
    def forward(self, image):
        values = nn.functional.conv2d(image, torch.ones(1, 3, 3, 3), padding=1)[0]
        return values, values.amax((1, 2))


def test_conversions_and_computations_side_by_side_are_as_alone():
    network = timm.build("test_efficientnet", levels=None, size=(64, 64), weights="random")
    picture = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    by_torch = SimpleQueue()  # a backbone for each thread that computes at the time
    for _ in range(6):
        by_torch.put(
            backbones.create("test_efficientnet", weights="random", size=(64, 64), engine="torch", device="cpu")
        )

    def compute():
        backbone = by_torch.get()
        levels = [level.numpy().tobytes() for level in backbone(picture).levels]
        by_torch.put(backbone)
        return levels

    works = (
        lambda: network_entries(network, (64, 64)),
        lambda: scoring_entries(Scored().eval(), {"image": torch.ones(1, 3, 8, 6)}),
        compute,
    )
    alone = [work() for work in works]
    different = []

    def run(number):
        for turn in range(4):
            which = (number + turn) % len(works)
            if works[which]() != alone[which]:
                different.append(which)

    threads = [threading.Thread(target=run, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert different == []


def test_a_picture_scored_while_another_thread_exports_gets_its_own_score(good_folder, picture_factory, tmp_path):
    detector = Detector(**SMALL | {"engine": "torch", "device": "cpu"}).fit(good_folder)
    image = torch.from_numpy(detector._needed.preprocessing(read_picture(picture_factory(9))))[None]
    done, different = threading.Event(), []
    backbone = backbones.load(detector.backbone_spec, detector._needed.backbone.entries, device="cpu")
    alone = backbone(image).levels

    def score():
        while not done.is_set():
            if not all(map(torch.equal, backbone(image).levels, alone)):
                different.append(1)

    thread = threading.Thread(target=score)
    thread.start()
    for number in range(2):
        detector.export(tmp_path / f"{number}", formats=["onnx"])
    done.set()
    thread.join()
    assert different == []


def test_fits_and_saves_side_by_side_are_whole_and_equal_to_those_made_alone(_good_pictures, tmp_path):
    methods = ("handful", "patchcore", "handful")

    def made(number, name):
        pictures = sorted(_good_pictures.iterdir())[number : number + 2]
        detector = Detector(methods[number], size=64, engine="openvino").fit(pictures)
        detector.save(tmp_path / name)
        return archive.read(tmp_path / name)

    alone = [made(number, f"alone-{number}.handful") for number in range(3)]
    assert all("score" in manifest["graph"] for manifest, _, _ in alone)
    scoring_graph._entries.cache_clear()
    beside = {}

    def make(number):
        beside[number] = made(number, f"beside-{number}.handful")

    threads = [threading.Thread(target=make, args=(number,)) for number in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [beside[number] for number in range(3)] == alone
