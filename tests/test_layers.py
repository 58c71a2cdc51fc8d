"""A module imports only from the rows below its own; a folder's own files may import each other's bases."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "handful"
ROWS = [
    {"errors", "version", "types"},
    {"files", "ops", "metrics"},
    {"graphs"},
    {"data", "backbones", "methods", "inspection"},
    {"fitting", "report"},
    {"saved", "training"},
    {"inspector", "corrections"},
    {"detector"},
    {"evaluation", "sklearn"},
    {"cli"},
]
ROW = {module: number for number, modules in enumerate(ROWS) for module in modules}
ONLY_IN = {  # the one file or room that may import a package
    "timm": {"backbones/timm.py"},
    "open_clip": {"backbones/clip.py"},
    "torchvision": {"backbones/timm.py"},
    "huggingface_hub": {"backbones/timm.py"},
    "openvino": {"graphs/openvino.py", "graphs/openvino_writer.py"},
    "onnx": {"graphs/onnx_writer.py"},
    "onnxruntime": {"graphs/onnx_writer.py"},
    "onnxscript": {"graphs/onnx_writer.py"},
    "typer": {f"cli/{verb}.py" for verb in ("bench", "correct", "data", "export", "fit", "info", "inspect", "train")}
    | {"cli/main.py", "cli/options.py"},
    "FrEIA": {"ops/flow.py"},
    "jinja2": {"report/html.py"},
    "markupsafe": {"report/html.py"},
    "kornia": {"data/corruption.py"},
    "rich": {"data/progress.py", "cli/output.py", "cli/bench.py", "cli/train.py"},
    "safetensors": {
        "backbones/__init__.py",
        "backbones/clip.py",
        "backbones/timm.py",
        "inspector.py",
        "saved/manifest.py",
        "saved/state.py",
        "training/backbone.py",
        "training/checkpoint.py",
        "training/head_file.py",
    },
    "PIL": {
        "data/colours.py",
        "data/decoding.py",
        "data/images.py",
        "data/preprocessing.py",
        "data/thumbnails.py",
        "data/writing.py",
        "report/html.py",
        "report/overlay.py",
    },
    "sklearn": {"sklearn.py", "metrics.py", "methods/coft/scoring.py"},
    "scipy": {
        "data/masks.py",
        "metrics.py",
        "ops/flow.py",
        "ops/foreground.py",
    },
    "polars": {"evaluation/tables.py", "evaluation/plots.py"},
    "matplotlib": {"evaluation/plots.py", "evaluation/sheets.py"},
}
FACES = {"__init__", "__main__"}  # the public names, imported when they are used; the command line
FILES = sorted(SOURCE.rglob("*.py"))


def imports(file):
    for node in ast.walk(ast.parse(file.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{file} imports relatively"
            if node.module == "handful":
                yield from (f"handful.{alias.name}" for alias in node.names)
            else:
                yield node.module


def room(file):
    return file.relative_to(SOURCE).parts[0].removesuffix(".py")


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(SOURCE)))
def test_imports_come_from_lower_rows_only(file):
    own = room(file)
    if own in FACES:
        return
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "handful" and rest:
            other = rest.split(".")[0]
            assert other == own or ROW[other] < ROW[own], f"{own} (row {ROW[own]}) imports {other} (row {ROW[other]})"
        elif top in ONLY_IN:
            assert str(file.relative_to(SOURCE)) in ONLY_IN[top], f"{top} may be imported in {ONLY_IN[top]} only"


@pytest.mark.parametrize(
    "file", sorted((SOURCE / "methods").rglob("*.py")), ids=lambda file: str(file.relative_to(SOURCE / "methods"))
)
def test_methods_are_strangers_to_each_other(file):
    if file == SOURCE / "methods" / "__init__.py":
        return
    own = f"handful.methods.{file.relative_to(SOURCE / 'methods').parts[0].removesuffix('.py')}"
    siblings = {name for name in imports(file) if name.startswith("handful.methods.") and not name.startswith(own)}
    assert siblings <= {"handful.methods.base", "handful.methods.base_training"}


def test_every_module_has_a_row():
    assert {room(file) for file in FILES} - FACES == set(ROW)


def test_the_root_has_few_modules_and_the_house_few_rows():
    assert len({file.stem for file in SOURCE.glob("*.py")} - {"__main__"}) <= 10
    assert len(ROWS) <= 10
