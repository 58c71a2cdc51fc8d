"""The tree of errors.

    HandfulError
    ├── SettingError    (ValueError)    an option or setting is out of bounds
    ├── InputError      (ValueError)    a folder, a list of pictures or a tensor cannot be used
    │   └── ImageError                  a picture cannot be read or used
    ├── WeightsError    (RuntimeError)  a backbone's weights are not available, or do not fit
    ├── NotFittedError  (RuntimeError)  a detector must score, inspect or save before `fit`
    ├── InspectorError  (ValueError)    a saved inspector is damaged, altered, newer or foreign
    ├── ProcessError    (RuntimeError)  a forked process cannot run an engine
    ├── PackageError    (ImportError)   a package is not installed that an extra of Handful brings
    └── OutputError     (OSError)       a result cannot be written

Every message is a sentence that states the condition, the value that came, and the remedy.

    try:
        inspector = handful.load("nothing.handful")
    except handful.InspectorError as error:
        print(error)
    except (handful.WeightsError, handful.SettingError, handful.ProcessError, handful.PackageError) as error:
        print(f"The file is sound, but not for this computer or process: {error}")

    try:
        detector = handful.Detector().fit(["good/001.png", "nothing.png"])
        detector.save("part.handful")
    except handful.ImageError as error:
        print(f"Leave that picture out: {error}")
    except (handful.InputError, handful.NotFittedError, handful.OutputError, handful.HandfulError) as error:
        print(error)
"""

import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

# Of each extra in pyproject.toml: the module that shows whether a package is there → the package. Weights are left out:
# a backbone without its weights has a sentence of its own.
_FIT = {"scipy": "scipy", "timm": "timm", "torch": "torch", "FrEIA": "FrEIA"}
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "bench": {**_FIT, "matplotlib": "matplotlib", "polars": "polars", "sklearn": "scikit-learn"},
    "clip": {**_FIT, "open_clip": "open_clip_torch"},
    "corrupt": {**_FIT, "kornia": "kornia"},
    "export": {**_FIT, "onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
    "fit": _FIT,
    "ray": {"pyarrow": "pyarrow", "ray": "ray"},
    "scale": {"pyarrow": "pyarrow"},
    "sklearn": {**_FIT, "sklearn": "scikit-learn"},
    "train": {**_FIT, "sklearn": "scikit-learn"},
}


class HandfulError(Exception):
    """The base of every error that Handful raises on purpose."""


class SettingError(HandfulError, ValueError):
    """An option or setting is out of bounds."""


class InputError(HandfulError, ValueError):
    """A folder, a list of pictures or a tensor cannot be used."""


class ImageError(InputError):
    """A picture cannot be read or used."""


class WeightsError(HandfulError, RuntimeError):
    """A backbone's weights are not available, or do not fit the backbone."""


class NotFittedError(HandfulError, RuntimeError):
    """A detector or method must score, inspect or save before `fit`."""


class InspectorError(HandfulError, ValueError):
    """A saved inspector is damaged, altered, newer or foreign."""


class ProcessError(HandfulError, RuntimeError):
    """A forked process cannot run an engine that its parent has used."""


class PackageError(HandfulError, ImportError):
    """A package is not installed that an extra of Handful brings."""


class OutputError(HandfulError, OSError):
    """A result cannot be written."""


@contextmanager
def needing(subject: str, extra: str) -> Iterator[None]:
    """Check the packages of an extra before imports that need these packages.

        with needing("`handful fit`", "fit"):
            from handful.detector import Detector

    Args:
        subject: the command or class that needs the packages; it begins the sentence.
        extra: a name in `EXTRAS`.

    Raises:
        PackageError: if a package of the extra is not installed.
    """
    check_packages(subject, extra)
    yield


def check_packages(subject: str, extra: str) -> None:
    """Raise PackageError if a package of an extra is not installed; `subject` begins the sentence, see `needing`."""
    if missing := missing_packages(extra):
        named = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise PackageError(f"{subject} needs {named}: {install_command(extra)}.", name=missing[0])


def missing_packages(extra: str) -> list[str]:
    """The packages of an extra in `EXTRAS` that are not installed."""
    return [package for module, package in EXTRAS[extra].items() if find_spec(module) is None]


def install_command(extra: str) -> str:
    """The command that adds an extra to the installation that runs: pip's, or that of pipx or uv.

    pip does not reach an environment that pipx or uv has made for `handful` alone. A uv tool holds only the packages
    that its last command named, so the command names the extras that are installed, too.
    """
    place = Path(sys.prefix)
    if (place / "uv-receipt.toml").is_file():
        extras = sorted({extra, *(one for one in EXTRAS if not missing_packages(one))})
        return f'uv tool install "handful[{",".join(extras)}]"'
    return f'{_pip(place)} install "handful[{extra}]"'


def repair_command(*words: str) -> str:
    """The command that repairs a package of the installation that runs: `pip install` with words, or that of uv."""
    place = Path(sys.prefix)
    if (place / "uv-receipt.toml").is_file():
        return "uv tool upgrade --reinstall handful"
    return f"{_pip(place)} install {' '.join(words)}"


def _pip(place: Path) -> str:
    return f"pipx runpip {place.name}" if (place / "pipx_metadata.json").is_file() else "pip"


def number_of(count: int, noun: str) -> str:
    """A number with its noun, for messages: 1 picture, 4 pictures."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


def first_cause(error: BaseException) -> BaseException:
    """The first error in the chain of causes of an error."""
    return error if error.__cause__ is None else first_cause(error.__cause__)


def conversion_error(subject: str, writer: str, error: Exception, *, remedy: str) -> SettingError:
    """A SettingError with a sentence on the error that a package raised while it made a graph.

    Args:
        subject: the computation that was to become a graph, a noun.
        writer: the package, or the format that the package writes.
        remedy: the advice to a user whose computation has an operation that the package lacks.
    """
    cause = first_cause(error)
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    said = next((line for line in lines if "aten." in line), lines[0]).rstrip(".:")[:200]  # torch's operations
    if isinstance(cause, (ImportError, AttributeError)):
        return SettingError(
            f"To turn {subject} into a graph, {writer} and torch must be of versions that work together, got: {said}; "
            f"install the versions that Handful's constraints.txt names."
        )
    return SettingError(f"{subject} must consist of operations that {writer} knows, got: {said}; {remedy}.")
