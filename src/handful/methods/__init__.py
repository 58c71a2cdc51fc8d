"""Features → Scores; one file for each paper. `METHODS` is the list that everything else reads."""

import json
from collections.abc import Mapping
from typing import Any

from handful.errors import SettingError
from handful.methods.base import Method
from handful.methods.fastrecon import FastRecon
from handful.methods.patchcore import PatchCore

__all__ = ["METHODS", "Method", "create", "describe", "parse", "parse_setting"]

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


def parse_setting(text: str) -> tuple[str, Any]:
    """Split NAME=VALUE; a value that reads as JSON (a number, true, null) is that, else text.

    Raises:
        SettingError: if it has another form.
    """
    name, equals, value = text.partition("=")
    if not equals or not name:
        raise SettingError(f"A setting must be NAME=VALUE, got {text!r}.")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value


def parse(text: str) -> Method:
    """Make a method from NAME or NAME:SETTING=VALUE,SETTING=VALUE.

    Raises:
        SettingError: as `create` and `parse_setting`.
    """
    name, _, settings = text.partition(":")
    return create(name, dict(parse_setting(setting) for setting in settings.split(",") if setting))


def describe(method: Method) -> str:
    """The text that `parse` makes the same method from: its name and the settings that differ from the default."""
    defaults = create(method.name, {}).settings
    settings = [
        f"{name}={_value_text(value)}" for name, value in method.settings.items() if value != defaults[name]
    ]
    return method.name + (f":{','.join(settings)}" if settings else "")


def _value_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 2.0 and 2 are the same setting
    return value if isinstance(value, str) else json.dumps(value)
