"""The tree of errors.

    HandfulError
    ├── SettingError    (ValueError)    an option or setting is outside what it may be
    ├── InputError      (ValueError)    a folder, a list of pictures or a tensor does not serve
    │   └── ImageError                  one picture cannot be read or used
    ├── WeightsError    (RuntimeError)  a backbone's weights cannot be had, or are not the right ones
    ├── NotFittedError  (RuntimeError)  asked to score, inspect or save before `fit`
    ├── InspectorError  (ValueError)    a saved inspector is damaged, altered, newer or foreign
    ├── ProcessError    (RuntimeError)  a forked process cannot do what is asked
    └── OutputError     (OSError)       a result cannot be written

Every message says in one sentence what must hold, what came, and what to do.

    try:
        inspector = handful.load("nothing.handful")
    except handful.InspectorError as error:
        print(error)
    except (handful.WeightsError, handful.SettingError, handful.ProcessError) as error:
        print(f"The file is sound, but not for this computer or process: {error}")

    try:
        detector = handful.Detector().fit(["good/001.png", "nothing.png"])
        detector.save("part.handful")
    except handful.ImageError as error:
        print(f"Leave that picture out: {error}")
    except (handful.InputError, handful.NotFittedError, handful.OutputError, handful.HandfulError) as error:
        print(error)
"""


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


class OutputError(HandfulError, OSError):
    """A result cannot be written."""


def first_cause(error: BaseException) -> BaseException:
    """The error that another package's chain of errors began with."""
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
