"""What can go wrong, drawn once.

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
