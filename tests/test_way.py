"""A picture's way from pixels to verdict passes through few of the package's files, so that a reader can follow it."""

import inspect
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import pytest
import torch

import handful
from handful import Detector, Inspector

MOST = {"OK": 7, "DEFECT": 8}  # files of the package that run for a picture with this verdict
PACKAGE = Path(handful.__file__).parent


@pytest.fixture(scope="module")
def saved(_good_pictures, tmp_path_factory):
    """A saved inspector on a small random network."""
    path = tmp_path_factory.mktemp("way") / "part.handful"
    torch.manual_seed(0)  # of the random weights
    detector = Detector(backbone="test_efficientnet", weights="random", size=64, engine="openvino", device="cpu")
    detector.fit(_good_pictures, try_defects=False).save(path)
    return path


def functions_run(call: Callable[[], object]) -> dict[str, set[str]]:
    """The functions of the package that a call runs in this thread, by file; modules and class bodies are left out."""
    found: dict[str, set[str]] = {}

    def note(frame: FrameType, event: str, _: object) -> None:
        code = frame.f_code
        if event == "call" and code.co_flags & inspect.CO_OPTIMIZED and Path(code.co_filename).is_relative_to(PACKAGE):
            file = Path(code.co_filename).relative_to(PACKAGE).as_posix()
            found.setdefault(file, set()).add(code.co_qualname)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(before)
    return found


@pytest.mark.parametrize("verdict", MOST)
def test_a_picture_passes_through_few_files(saved, picture_factory, verdict):
    inspector = Inspector.load(saved)
    picture = inspector.preprocessing.read(picture_factory(9, defect=verdict == "DEFECT"), "part")
    answers = []
    found = functions_run(lambda: answers.append(inspector(picture)))
    assert [str(one.verdict) for one in answers] == [verdict]
    assert "inspector.py" in found  # else nothing is noted
    assert len(found) <= MOST[verdict], "\n".join(f"{file}: {', '.join(sorted(found[file]))}" for file in found)
