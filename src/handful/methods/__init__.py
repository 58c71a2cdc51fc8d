"""Features → Scores; one file for each paper. `METHODS` is the list that everything else reads."""

import json
import re
from collections.abc import Mapping
from dataclasses import fields
from typing import Any, TypeVar

from handful.errors import SettingError, needing

with needing("handful.methods", "fit"):
    import torch  # noqa: F401 - every method computes with it

from handful.methods.base import Configured, Head, Method, Turn
from handful.methods.base_training import HeadTraining, Tuning
from handful.methods.coft import COFT, ContrastiveTuning
from handful.methods.fasl import FASL, ScoreLearning
from handful.methods.fastrecon import FastRecon
from handful.methods.handful import Handful
from handful.methods.patchcore import PatchCore
from handful.methods.reb import REB, DefectClassification
from handful.methods.resad import ResAD, ResidualTraining
from handful.methods.winclip import WinCLIP

__all__ = [
    "HEAD_TRAININGS",
    "METHODS",
    "TUNINGS",
    "Head",
    "HeadTraining",
    "Method",
    "Tuning",
    "Turn",
    "create",
    "create_head_training",
    "create_tuning",
    "describe",
    "made",
    "make",
    "parse",
    "parse_setting",
    "parse_tuning",
]

METHODS: dict[str, type[Method]] = {
    method.name: method for method in (Handful, PatchCore, FastRecon, REB, COFT, ResAD, FASL, WinCLIP)
}
TUNINGS: dict[str, type[Tuning]] = {tuning.name: tuning for tuning in (DefectClassification, ContrastiveTuning)}
HEAD_TRAININGS: dict[str, type[HeadTraining]] = {
    training.name: training for training in (ResidualTraining, ScoreLearning)
}

Kind = TypeVar("Kind", bound=Configured)


def create(name: str, settings: Mapping[str, Any]) -> Method:
    """Make a method by name.

    Raises:
        SettingError: for an unknown name or setting (with the known ones), or a value out of bounds or of another type.
    """
    return _create(METHODS, "method", name, settings)


def make(kind: type[Kind], settings: Mapping[str, Any]) -> Kind:
    """Make a method or a training of a class, which need not stand in a list here; raises as `create`."""
    names = kind.setting_names()
    for setting in settings:
        if setting not in names:
            raise SettingError(f"{kind.name} has the settings {', '.join(names)}, got {setting!r}.")
    return kind(**settings)


def made(method: str | Method, settings: Mapping[str, Any] | None) -> Method:
    """A method, not fitted and without a head, by name or of an object's class and settings.

    Args:
        method: a name in `METHODS`, or an object of any class; the object itself stays as it is.
        settings: by name; None beside an object, which has its own.

    Raises:
        SettingError: as `create`; for an object with settings beside it; and for one whose class is none of `METHODS`,
            but has the name of one, or a name that no file could have.
    """
    if not isinstance(method, Method):
        return create(method, settings or {})
    if settings is not None:
        raise SettingError(
            f"`settings` must be left out where `method` is an object, got {dict(settings)}; make the object with them."
        )
    kind = type(method)
    if METHODS.get(kind.name, kind) is not kind or not re.fullmatch(r"[\w.-]+", kind.name):
        raise SettingError(
            f"A method's name must be its own, of letters, digits and _.-, got {kind.name!r} for {kind.__name__}; give "
            f"the class another `name`."
        )
    return kind(**method.settings)


def create_tuning(name: str, settings: Mapping[str, Any]) -> Tuning:
    """Make a training of the backbone by name; raises as `create`."""
    return _create(TUNINGS, "training", name, settings)


def create_head_training(name: str, settings: Mapping[str, Any]) -> HeadTraining:
    """Make a training of a method's head by the method's name; raises as `create`."""
    return _create(HEAD_TRAININGS, "training", name, settings)


def parse(text: str) -> Method:
    """Make a method from NAME or NAME:SETTING=VALUE,SETTING=VALUE.

    Raises:
        SettingError: as `create` and `parse_setting`.
    """
    return create(*_name_and_settings(text))


def parse_tuning(text: str) -> Tuning:
    """Make a training of the backbone from text as `parse` makes a method."""
    return create_tuning(*_name_and_settings(text))


def describe(configured: Method | Tuning) -> str:
    """The text that makes the same one again: its name and the settings that differ from the default."""
    defaults = {setting.name: setting.default for setting in fields(configured)}
    settings = [
        f"{name}={_value_text(value)}" for name, value in configured.settings.items() if value != defaults[name]
    ]
    return configured.name + (f":{','.join(settings)}" if settings else "")


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


def _create(known: Mapping[str, type[Kind]], what: str, name: str, settings: Mapping[str, Any]) -> Kind:
    if name not in known:
        raise SettingError(f"`{what}` must be one of {', '.join(sorted(known))}, got {name!r}.")
    return make(known[name], settings)


def _name_and_settings(text: str) -> tuple[str, dict[str, Any]]:
    name, _, settings = text.partition(":")
    return name, dict(parse_setting(setting) for setting in settings.split(",") if setting)


def _value_text(value: object) -> str:
    if isinstance(value, float) and value.is_integer():
        value = int(value)  # 2.0 and 2 are the same setting
    return value if isinstance(value, str) else json.dumps(value)
