"""Every public name has an example in a docstring, in the README or in docs/, and every example runs."""

import inspect
import re
import shutil
import textwrap
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import handful
import handful.scale
import handful.sklearn
from handful import Detector, Inspection, Inspector, backbones, errors, methods
from handful.training import head_file

ROOT = Path(__file__).parents[1]
CLASSES = (Detector, Inspector, Inspection, handful.sklearn.AnomalyDetector)
INHERITED = set(dir(handful.sklearn.OutlierMixin)) | set(dir(handful.sklearn.BaseEstimator))


def public_methods(kind):
    """Methods of a class with a docstring of its own, and of a result everything that it computes."""
    for name, member in vars(kind).items():
        called = (
            callable(member) or isinstance(member, classmethod) or (kind is Inspection and isinstance(member, property))
        )
        if called and (name == "__call__" or not name.startswith("_")) and inspect.getdoc(member):
            yield name, member


def examples():
    """The indented blocks of docstrings, which stand alone between blank lines, and the blocks of Python on pages."""
    documented = {f"handful.{name}": getattr(handful, name) for name in handful.__all__ if name != "__version__"}
    documented |= {f"handful.scale.{name}": getattr(handful.scale, name) for name in handful.scale.__all__}
    documented["handful.errors"] = errors
    documented["handful.sklearn.AnomalyDetector"] = handful.sklearn.AnomalyDetector
    for kind in CLASSES:
        documented |= {f"{kind.__name__}.{name}": member for name, member in public_methods(kind)}
    for name, member in documented.items():
        text = inspect.getdoc(member) or ""
        for number, block in enumerate(re.findall(r"(?<=\n\n)((?:    .*\n?|\n(?=    ))+)", text)):
            if "├" not in block:  # the tree of errors
                yield f"{name}-{number}", textwrap.dedent(block)
    for page in (ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))):
        if page.parent.name == "first-steps":  # tests/test_first_steps.py runs these
            continue
        for number, block in enumerate(re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)):
            yield f"{page.relative_to(ROOT)}-{number}", block


EXAMPLES = dict(examples())


@pytest.fixture(scope="module")
def template(tmp_path_factory, picture_factory):
    """A folder with all that the examples speak of, and a network of random weights that is made in a moment."""
    folder = tmp_path_factory.mktemp("template")
    pictures = {f"good/{number + 1:03}.png": picture_factory(number) for number in range(4)}
    pictures |= {f"more/{number + 1:03}.png": picture_factory(10 + number) for number in range(2)}
    pictures["incoming/001.png"], pictures["incoming/002.png"] = picture_factory(20), picture_factory(21, defect=True)
    pictures |= {f"archive/part/{number + 1:03}.png": picture_factory(24 + number) for number in range(2)}
    pictures["false_alarm.png"] = picture_factory(22)
    pictures["mask.png"] = np.pad(np.full((20, 20), 255, np.uint8), ((0, 76), (0, 76)))
    tiny = backbones.create("test_efficientnet", weights="random", size=64, engine="openvino", device="cpu")
    detector = Detector(backbone=tiny).fit([pictures[f"good/{n}.png"] for n in ("001", "002", "003")])
    pictures["missed.png"] = max(map(picture_factory, range(30, 40)), key=lambda pixels: detector(pixels).score)
    detector.set_threshold(1.2 * detector(pictures["missed.png"]).raw_score)
    for name, pixels in pictures.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(folder / name)
    detector.save(folder / "part.handful")
    for name in methods.HEAD_TRAININGS:
        head = methods.create_head_training(name, {}).make_head(tiny(torch.zeros(1, 3, 64, 64)).depths, seed=0)
        record = head_file.Record(name, {}, head.depths, head_file.identity(tiny.spec), (), (), {}, (), 0)
        head_file.write(folder / f"{name}.safetensors", head, record)
    return folder, tiny


@pytest.fixture
def place(template, tmp_path, monkeypatch, request):
    """The names that the examples use, in a folder of their own."""
    folder, tiny = template
    create = backbones.create

    def small(name="", **options):
        if not name.startswith(backbones.CLIP_PREFIX):
            return tiny
        pytest.importorskip("open_clip", reason="needs the extra clip")
        clip = request.getfixturevalue("tiny_clip")
        return create(clip, weights="random", device="cpu", object_name=options.get("object_name"))

    monkeypatch.setattr(backbones, "create", small)
    for name in ("load", "at_size"):
        monkeypatch.setattr(backbones, name, lambda *_, **__: tiny)
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)
    detector = Detector.load("part.handful")
    answer = detector("incoming/002.png")
    assert answer.is_defect and answer.regions
    return {"handful": handful, "detector": detector, "inspector": detector.inspector, "inspection": answer}


@pytest.fixture
def scores(name, place):
    """The run `scores` of archive/, where an example speaks of it; finished, unless the example scores it."""
    if name.startswith(("handful.scale", "docs/scale.md")):
        handful.scale.plan("scores", pictures=["archive/"], inspector="part.handful")
        if not re.search(r"scale\.(score|Worker)\(", EXAMPLES[name]):
            worker = handful.scale.Worker("scores")
            assert not any(worker(shard).failed for shard in handful.scale.todo("scores"))


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_example_runs(name, place, scores):
    code = EXAMPLES[name]
    imports = "import json\nimport numpy as np\n"
    exec(compile(imports + code, name, "exec"), place)


NAMES = [name for name in handful.__all__ if name != "__version__"]


@pytest.mark.parametrize("name", [*NAMES, *(f"scale.{name}" for name in handful.scale.__all__)])
def test_every_public_name_stands_in_an_example(name):
    assert any(re.search(rf"\bhandful\.{re.escape(name)}\b", code) for code in EXAMPLES.values())


@pytest.mark.parametrize("kind", CLASSES, ids=lambda kind: kind.__name__)
def test_every_public_method_stands_in_an_example(kind):
    for name, _ in public_methods(kind):
        if name != "__call__" and name not in INHERITED:
            assert any(re.search(rf"\.{name}\b", code) for code in EXAMPLES.values()), f"{kind.__name__}.{name}"
