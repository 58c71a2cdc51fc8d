"""Fixtures that any test may use: pictures drawn on the spot and one small inspector, fitted once."""

import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image
from scipy import ndimage

from handful import backbones
from handful.cli.main import main
from handful.detector import Detector
from handful.fitting import visibility

torch.set_num_threads(1)  # the tests' tensors are small: more threads would only wait for each other

PictureFactory = Callable[..., NDArray[np.uint8]]
Rezip = Callable[..., Path]


def draw_picture(seed: int, *, side: int = 96, defect: bool = False) -> NDArray[np.uint8]:
    """A textured disc on a dark ground, every seed another one, always the same: (side, side, 3).

    A defect is a bright scratch across the disc's lower right.
    """
    random = np.random.default_rng(seed)
    y, x = np.mgrid[:side, :side] / side - 0.5
    disc = np.hypot(x - random.normal(0, 0.01), y - random.normal(0, 0.01)) < 0.36
    texture = ndimage.gaussian_filter(random.normal(size=(side, side)), 1.5)
    grey = np.where(disc, 150 + 60 * texture / texture.std() / 3, 30 + 3 * random.normal(size=(side, side)))
    picture = grey[:, :, None] * np.array([1.0, 0.9, 0.75])
    if defect:
        picture[(abs(y - x) < 0.02) & (x > 0.02) & (x < 0.2)] = 255
    return picture.clip(0, 255).astype(np.uint8)


@pytest.fixture(scope="session")
def picture_factory() -> PictureFactory:
    """`draw_picture`."""
    return draw_picture


@pytest.fixture(scope="session")
def _good_pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return _write_good(tmp_path_factory.mktemp("good"))


@pytest.fixture
def good_folder(tmp_path: Path) -> Path:
    """A folder of four good pictures, PNG; the test's own, so it may add to it."""
    folder = tmp_path / "good"
    folder.mkdir()
    return _write_good(folder)


def _write_good(folder: Path) -> Path:
    for seed in range(4):
        Image.fromarray(draw_picture(seed)).save(folder / f"{seed}.png")
    return folder


@pytest.fixture(scope="session")
def fitted(_good_pictures: Path) -> Detector:
    """The default method on `good_folder`, the default backbone at 64 pixels on torch; do not fit it again."""
    return Detector(size=64, engine="torch", device="cpu").fit(_good_pictures)


@pytest.fixture(scope="session")
def saved(fitted: Detector, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """`fitted` as a file; do not change it, see `rezip`."""
    path = tmp_path_factory.mktemp("saved") / "part.handful"
    fitted.save(path)
    return path


@pytest.fixture(scope="session")
def saved_with_graph(_good_pictures: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An inspector that holds the graph by which it inspects without torch; do not change it."""
    torch.manual_seed(0)  # of the random weights
    backbone = {"backbone": "test_efficientnet", "weights": "random", "size": 64, "engine": "openvino"}
    path = tmp_path_factory.mktemp("saved") / "part.handful"
    Detector(device="cpu", **backbone).fit(_good_pictures).save(path)  # type: ignore[arg-type]
    return path


@pytest.fixture
def ready_backbone(fitted: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let every detector have `fitted`'s backbone, whatever it asks for: making one takes seconds."""
    backbone = fitted._needed.backbone
    monkeypatch.setattr(backbones, "create", lambda *_, **__: backbone)
    monkeypatch.setattr(backbones, "load", lambda *_, **__: backbone)


@pytest.fixture
def command_line(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, list[str], list[str]]]:
    """Call the command line in this process: exit code, lines of stdout, lines of stderr.

    Inspectors of so few pixels find few synthetic defects, which `fit` would say each time.
    """
    monkeypatch.setattr(visibility, "LOW", 0.0)

    def call(*arguments: object) -> tuple[int, list[str], list[str]]:
        monkeypatch.setattr(sys, "argv", ["handful", *(str(argument) for argument in arguments)])
        with pytest.raises(SystemExit) as ended:
            main()
        said = capsys.readouterr()
        return int(ended.value.code or 0), said.out.splitlines(), said.err.splitlines()

    return call


@pytest.fixture
def rezip(tmp_path: Path) -> Rezip:
    """Zip an inspector anew as a person would, with some parts replaced; None leaves a part out."""

    def zip_anew(source: Path, parts: Mapping[str, bytes | None], *, compression: int = zipfile.ZIP_STORED) -> Path:
        with zipfile.ZipFile(source) as archive:
            contents = {name: archive.read(name) for name in archive.namelist()} | dict(parts)
        target = tmp_path / f"rezipped-{len(list(tmp_path.iterdir()))}.handful"
        with zipfile.ZipFile(target, "w", compression) as archive:
            for name, part in contents.items():
                if part is not None:
                    archive.writestr(name, part)
        return target

    return zip_anew


@pytest.fixture(scope="session")
def tiny_clip(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The name of a small CLIP that open_clip is taught, of 4 x 4 patches at 32 pixels; its weights must be random."""
    from handful.backbones.clip import open_clip

    vision = {"image_size": 32, "layers": 3, "width": 16, "head_width": 8, "patch_size": 8}
    text = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2}
    folder = tmp_path_factory.mktemp("models")
    shape = {"embed_dim": 12, "vision_cfg": vision, "text_cfg": text}
    (folder / "tiny-clip.json").write_text(json.dumps(shape))
    open_clip.add_model_config(folder)
    return "clip:tiny-clip"
