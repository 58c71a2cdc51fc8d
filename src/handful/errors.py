"""The tree of errors.

    HandfulError
    ├── SettingError    (ValueError)    an option or setting is outside what it may be
    ├── InputError      (ValueError)    a folder, a list of pictures or a tensor does not serve
    │   └── ImageError                  one picture cannot be read or used
    ├── WeightsError    (RuntimeError)  a backbone's weights cannot be had, or are not the right ones
    ├── NotFittedError  (RuntimeError)  asked to score, inspect or save before `fit`
    ├── InspectorError  (ValueError)    a saved inspector is damaged, altered, newer or foreign
    ├── ProcessError    (RuntimeError)  a forked process cannot do what is asked
    ├── PackageError    (ImportError)   a package is not installed that an extra of Handful brings
    └── OutputError     (OSError)       a result cannot be written

Every message says in one sentence what must hold, what came, and what to do.

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

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.util import find_spec

# Of each extra in pyproject.toml: the module that shows whether a package is there → the package. Weights are left out:
# a backbone without its weights has a sentence of its own.
_FIT = {"scipy": "scipy", "timm": "timm", "torch": "torch"}
EXTRAS: Mapping[str, Mapping[str, str]] = {
    "bench": {**_FIT, "matplotlib": "matplotlib", "polars": "polars", "sklearn": "scikit-learn"},
    "clip": {**_FIT, "open_clip": "open_clip_torch"},
    "corrupt": {**_FIT, "kornia": "kornia"},
    "export": {**_FIT, "onnx": "onnx", "onnxruntime": "onnxruntime", "onnxscript": "onnxscript"},
    "fit": _FIT,
    "sklearn": {**_FIT, "sklearn": "scikit-learn"},
    "train": {**_FIT, "FrEIA": "FrEIA", "sklearn": "scikit-learn"},
}


class HandfulError(Exception):
    """The base of every error that Handful raises on purpose."""


class SettingError(HandfulError, ValueError):
    """An option or setting is outside what it may be."""


class InputError(HandfulError, ValueError):
    """A folder, a list of pictures or a tensor does not serve."""


class ImageError(InputError):
    """One picture cannot be read or used."""


class WeightsError(HandfulError, RuntimeError):
    """A backbone's weights cannot be had, or are not the ones that an inspector was fitted with."""


class NotFittedError(HandfulError, RuntimeError):
    """Asked to score, inspect or save before `fit`."""


class InspectorError(HandfulError, ValueError):
    """A saved inspector is damaged, altered, newer or foreign."""


class ProcessError(HandfulError, RuntimeError):
    """A forked process cannot do what is asked."""


class PackageError(HandfulError, ImportError):
    """A package is not installed that an extra of Handful brings."""


class OutputError(HandfulError, OSError):
    """A result cannot be written."""


@contextmanager
def needing(subject: str, extra: str) -> Iterator[None]:
    """Import what needs the packages of an extra.

        with needing("`handful fit`", "fit"):
            from handful.detector import Detector

    Args:
        subject: what needs them, the beginning of a sentence.
        extra: a name in `EXTRAS`.

    Raises:
        PackageError: where one of its packages is not installed.
    """
    missing = [package for module, package in EXTRAS[extra].items() if find_spec(module) is None]
    if missing:
        named = " and ".join(filter(None, (", ".join(missing[:-1]), missing[-1])))
        raise PackageError(f'{subject} needs {named}: pip install "handful[{extra}]".', name=missing[0])
    yield


def first_cause(error: BaseException) -> BaseException:
    """The error that another package's chain of errors began with."""
    return error if error.__cause__ is None else first_cause(error.__cause__)


def conversion_error(subject: str, writer: str, error: Exception, *, remedy: str) -> SettingError:
    """The sentence about an error of a package that turns computations into graphs.

    Args:
        subject: the computation, a noun.
        writer: the package, or the format that it writes.
        remedy: against an operation that the package lacks.
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
