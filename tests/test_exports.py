import subprocess
import sys

import pytest

import handful
from handful import errors


def test_public_names_are_sorted_complete_and_there():
    assert handful.__all__ == sorted(handful.__all__)
    assert set(handful._HOMES) < set(handful.__all__) == set(dir(handful))
    for name in handful.__all__:
        assert getattr(handful, name) is not None


def test_every_error_is_public():
    raised = {name for name, kind in vars(errors).items() if isinstance(kind, type) and issubclass(kind, Exception)}
    assert raised == {name for name in handful.__all__ if name.endswith("Error")}


def test_an_unknown_name_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'Judge'"):
        handful.Judge  # noqa: B018 - the access is the test


# What inspecting a picture needs, but for backbone and method.
INSPECTING = (
    "inspection.gate inspection.evidence inspection.threshold data.images data.preprocessing saved.archive "
    "saved.manifest saved.history report.overlay report.html"
)


@pytest.mark.parametrize("modules", ["", "cli", INSPECTING])
def test_light_modules_do_not_import_torch(modules):
    names = ", ".join(["handful", *(f"handful.{module}" for module in modules.split())])
    code = f"import sys, {names}; print([m for m in ('torch', 'timm', 'openvino') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
