"""A module imports only from the rows below its own; a folder's own files may import each other's bases."""

import ast
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "handful"
ROWS = [
    {"errors", "version"},
    {"types", "files", "processes"},
    {"ops", "metrics"},
    {"data", "backbones", "methods", "decision", "capture", "artifact", "checkpoints"},
    {"learning", "heads", "revisions", "heatmap", "turning", "signs", "sizing", "visibility"},
    {"memory", "evidence", "oddity", "tiling"},
    {"inspector", "scoring"},
    {"fitted"},
    {"corrections", "exporting"},
    {"detector", "training"},
    {"report", "auxiliary", "budget"},
    {"benchmark"},
    {"cli"},
    {"__main__"},
]
ROW = {module: number for number, modules in enumerate(ROWS) for module in modules}
ONLY_IN = {  # the one file or room that may import a package
    "timm": {"backbones/timm.py"},
    "open_clip": {"backbones/clip.py"},
    "torchvision": {"backbones/timm.py"},
    "huggingface_hub": {"backbones/timm.py"},
    "openvino": {"backbones/openvino_engine.py"},
    "onnx": {"backbones/onnx_engine.py"},
    "onnxruntime": {"backbones/onnx_engine.py"},
    "onnxscript": {"backbones/onnx_engine.py"},
    "typer": {
        "cli/main.py",
        "cli/options.py",
        "cli/inspector.py",
        "cli/bench.py",
        "cli/data.py",
        "cli/train.py",
        "cli/correct.py",
    },
    "FrEIA": {"ops/flow.py"},
    "jinja2": {"report.py"},
    "markupsafe": {"report.py"},
    "kornia": {"data/corruption.py"},
    "rich": {"cli/output.py", "cli/bench.py", "cli/train.py"},
    "safetensors": {
        "checkpoints.py",
        "heads.py",
        "backbones/__init__.py",
        "backbones/clip.py",
        "backbones/timm.py",
        "detector.py",
        "inspector.py",
        "memory.py",
        "training.py",
    },
    "PIL": {
        "data/colours.py",
        "data/decoding.py",
        "data/images.py",
        "data/preprocessing.py",
        "data/writing.py",
        "heatmap.py",
        "report.py",
    },
    "sklearn": {"metrics.py", "methods/coft.py"},
    "scipy": {"metrics.py", "decision.py", "ops/flow.py", "ops/foreground.py", "data/masks.py"},
    "polars": {"benchmark/tables.py", "benchmark/plots.py"},
    "matplotlib": {"benchmark/plots.py", "benchmark/sheets.py"},
}
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
    if own == "__init__":
        return  # the public names; nothing is imported until used
    for name in imports(file):
        top, _, rest = name.partition(".")
        if top == "handful" and rest:
            other = rest.split(".")[0]
            assert other == own or ROW[other] < ROW[own], f"{own} (row {ROW[own]}) imports {other} (row {ROW[other]})"
        elif top in ONLY_IN:
            assert str(file.relative_to(SOURCE)) in ONLY_IN[top], f"{top} may be imported in {ONLY_IN[top]} only"


@pytest.mark.parametrize("file", sorted((SOURCE / "methods").glob("*.py")), ids=lambda file: file.name)
def test_methods_are_strangers_to_each_other(file):
    if file.name == "__init__.py":
        return
    siblings = {name for name in imports(file) if name.startswith("handful.methods")}
    assert siblings <= {"handful.methods.base", "handful.methods.base_training"}


def test_every_module_has_a_row():
    assert {room(file) for file in FILES} - {"__init__"} == set(ROW)
