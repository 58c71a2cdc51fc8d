"""The record of code, machine and data of a benchmark, and whether a run may be continued."""

import json
import platform
import subprocess
from collections.abc import Mapping
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from handful.errors import InputError
from handful.evaluation.machine import cpu_name
from handful.files import replacing
from handful.types import Dataset
from handful.version import __version__

ENVIRONMENT = "environment.json"
SAME = ("handful", "commit", "torch", "backbone", "false_alarm_rate")  # facts that all runs of one table share
BY_DATASET = ("missing", "test_sets")  # facts by data set: a later run may add data sets, not change their facts


def describe(*, command: str, device: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The environment, ready for JSON: versions, commit, command, machine, and the facts given."""
    return {
        "handful": __version__,
        "commit": commit(),
        "command": command,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "python": platform.python_version(),
        **{package: version(package) for package in ("torch", "openvino", "timm", "numpy")},
        "platform": f"{platform.system()} {platform.machine()}",
        "cpu": cpu_name(),
        "cpu_cores": torch.get_num_threads(),
        "device": torch.cuda.get_device_name() if device == "cuda" else "cpu",
        **facts,
    }


def commit() -> str:
    """The commit of the running code, followed by -dirty if files have changed since; empty outside a checkout."""
    root = Path(__file__).parents[3]
    if not (root / ".git").exists():  # installed, perhaps inside somebody else's checkout
        return ""
    command = ("git", "describe", "--always", "--dirty", "--abbrev=10")
    try:
        return subprocess.run(command, capture_output=True, text=True, cwd=root).stdout.strip()
    except OSError:
        return ""


def write(folder: Path, environment: Mapping[str, Any]) -> None:
    """Write environment.json.

    Raises:
        OutputError: if the file cannot be written.
    """
    with replacing(folder / ENVIRONMENT, make_folder=True) as file:
        file.write(json.dumps(environment, indent=2).encode())


def joined(folder: Path, environment: Mapping[str, Any]) -> dict[str, Any]:
    """The environment of a continued table: the new environment with the data sets of the old environment added.

    Raises:
        InputError: if the table was begun with other code, weights, sizes, rates or data (the message names the first
            difference), or if environment.json cannot be parsed.
    """
    path = folder / ENVIRONMENT
    new: dict[str, Any] = json.loads(json.dumps(environment))  # in the form in which JSON is read back
    if not path.exists():
        return new
    try:
        old = json.loads(path.read_text(encoding="utf-8"))
        shared = old["test_sets"].keys() & new["test_sets"].keys()
        different = [name for name in SAME if old[name] != new[name]]
        different += [name for name in BY_DATASET if any(old[name][key] != new[name][key] for key in shared)]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise InputError(f"{path} must be as written, got: {error!r}; choose another folder.") from error
    if different:
        raise InputError(
            f"A table goes on with the {different[0].replace('_', ' ')} that it began with, got another in {path}; "
            f"choose another folder."
        )
    return {**new, **{name: {**old[name], **new[name]} for name in BY_DATASET}}


def test_sets(dataset: Dataset) -> dict[str, dict[str, int]]:
    """The numbers of good, anomalous and masked test pictures of each category."""
    return {
        category.name: {
            "good": sum(not sample.anomalous for sample in category.test),
            "anomalous": sum(bool(sample.anomalous) for sample in category.test),
            "masks": sum(bool(sample.masks) for sample in category.test),
        }
        for category in dataset.categories
    }
