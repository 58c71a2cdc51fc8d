"""A module imports only from the rows below its own, and a package only where the package belongs.

A folder's own files may import each other's bases.
"""

import ast
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from handful.errors import EXTRAS

SOURCE = Path(__file__).parents[1] / "src" / "handful"
ROWS = [
    {"errors", "version", "types"},
    {"files", "ops", "metrics"},
    {"graphs"},
    {"data", "backbones", "methods", "inspection"},
    {"fitting", "report"},
    {"saved", "training"},
    {"inspector", "corrections"},
    {"detector", "scale"},
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
    "typer": {
        f"cli/{name}.py"
        for name in (
            *("bench", "correct", "data", "demo", "doctor", "export", "fit", "info", "inspect"),
            *("main", "options", "papers", "score", "train"),
        )
    },
    "FrEIA": {"ops/flow.py"},
    "jinja2": {"report/html.py"},
    "markupsafe": {"report/html.py"},
    "kornia": {"data/corruption.py"},
    "rich": {"data/progress.py", "cli/output.py", "cli/cells.py", "cli/score.py", "cli/train.py"},
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
        "report/card.py",
        "report/overlay.py",
        "report/pictures.py",
    },
    "sklearn": {"sklearn.py", "metrics.py", "methods/coft/scoring.py"},
    "scipy": {
        "data/masks.py",
        "metrics.py",
        "ops/flow.py",
        "ops/foreground.py",
        "training/products.py",
    },
    "pyarrow": {
        f"scale/{name}.py"
        for name in (*("inspectors", "places", "planning", "results", "rows", "run", "scoring", "sources", "worker"),)
    },
    "ray": {"scale/engines/ray.py"},
    "polars": {"evaluation/tables.py", "evaluation/plots.py"},
    "matplotlib": {"evaluation/papers/figure.py", "evaluation/plots.py", "evaluation/sheets.py"},
}
# The doors of the base installation: the verbs that need no extra, and what Python programs import.
BASE_DOORS = [
    "__init__",
    "cli/main",
    "inspector",
    "fitting/visibility",
    "report/html",
    "report/overlay",
    "saved/recalibration",
    "backbones/openvino_engine",
    "cli/heatmaps",
    "scale/inspecting",
]
WITH_TIMM = {"huggingface_hub", "torchvision"}  # timm depends on these
WITH_JINJA2 = {"markupsafe"}
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


def at_import(body):
    """The imports that run when a module is imported: neither those for the type checker nor those in functions."""
    for node in body:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from (f"{node.module}.{alias.name}" for alias in node.names)
        elif isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            yield from at_import(node.orelse)
        elif not isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef)):
            for part in ("body", "orelse", "finalbody", "handlers"):
                yield from at_import(getattr(node, part, []))


def file_of(name):
    """The file of a module of Handful, or of the module that holds the name; None for another package's."""
    parts = name.split(".")
    if parts[0] != "handful":
        return None
    for count in range(len(parts), 0, -1):
        path = SOURCE.joinpath(*parts[1:count])
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def reached(doors):
    """The files that importing these doors imports, with the packages that each imports."""
    found, left = {}, [SOURCE / f"{door}.py" for door in doors]
    while left:
        file = left.pop()
        if file in found:
            continue
        names = set(at_import(ast.parse(file.read_text()).body))
        found[file] = {name.partition(".")[0] for name in names} - {"handful", *sys.stdlib_module_names}
        own = [inner for name in names if (inner := file_of(name))]
        left += own + [folder / "__init__.py" for one in own for folder in one.parents if SOURCE in folder.parents]
    return found


def base_modules():
    """The modules of the packages in pyproject.toml's `dependencies`, with the module that one of them depends on."""
    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    wanted = {requirement.split(">")[0] for requirement in project["dependencies"]}
    found = {module for module, packages in packages_distributions().items() if wanted & {p.lower() for p in packages}}
    return found | WITH_JINJA2


def test_the_doors_of_the_base_installation_import_its_packages_alone():
    files = reached(BASE_DOORS)
    assert {"inspection/evidence.py", "cli/fit.py", "fitting/revisions.py", "data/images.py"} <= {
        str(file.relative_to(SOURCE)) for file in files
    }
    base = base_modules()
    astray = {str(file.relative_to(SOURCE)): packages - base for file, packages in files.items()}
    assert not {file: packages for file, packages in astray.items() if packages}


def test_a_door_of_an_extra_is_seen_to_import_more():
    """The test above can fail."""
    found = set().union(*reached(["detector"]).values())
    assert {"torch", "scipy"} <= found - base_modules()


def test_every_package_belongs_to_the_base_or_an_extra():
    known = base_modules() | WITH_TIMM | {module for extra in EXTRAS.values() for module in extra}
    used = {name.partition(".")[0] for file in FILES for name in imports(file)}
    assert used - {"handful", *sys.stdlib_module_names} <= known


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
