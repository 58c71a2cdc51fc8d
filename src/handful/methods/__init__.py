"""Features → Scores; one file for each paper. `METHODS` is the list that everything else reads."""

from collections.abc import Mapping
from typing import Any

from handful.errors import SettingError
from handful.methods.base import Method
from handful.methods.fastrecon import FastRecon
from handful.methods.patchcore import PatchCore

__all__ = ["METHODS", "Method", "create"]

METHODS: dict[str, type[Method]] = {method.name: method for method in (PatchCore, FastRecon)}


def create(name: str, settings: Mapping[str, Any]) -> Method:
    """Make a method by name.

    Raises:
        SettingError: for an unknown name or setting (with the known ones), or a value out of bounds or of another type.
    """
    if name not in METHODS:
        raise SettingError(f"`method` must be one of {', '.join(sorted(METHODS))}, got {name!r}.")
    known = METHODS[name].setting_names()
    for setting in settings:
        if setting not in known:
            raise SettingError(f"{name} has the settings {', '.join(known)}, got {setting!r}.")
    return METHODS[name](**settings)
