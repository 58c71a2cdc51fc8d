"""The checkpoint of a training, a safetensors file from which a stopped training goes on."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from handful.errors import InputError
from handful.files import replacing


@dataclass(frozen=True)
class Checkpoint:
    """The state from which a training goes on.

    Attributes:
        number: the number of updates made.
        learnt: the state of the trained modules.
        optimiser: the optimiser's state for each weight, by row.
        facts: further values of the training, as a dictionary for JSON.
    """

    number: int
    learnt: dict[str, Tensor]
    optimiser: dict[int, dict[str, Tensor]]
    facts: dict[str, Any]

    def restore(self, learnt: nn.Module, optimiser: torch.optim.Optimizer) -> None:
        """Load the state into a module and its optimiser."""
        learnt.load_state_dict({name: self.learnt[name] for name in learnt.state_dict()})
        groups = optimiser.state_dict()["param_groups"]
        optimiser.load_state_dict({"state": self.optimiser, "param_groups": groups})


def write_checkpoint(
    path: Path,
    identity: Mapping[str, Any],
    number: int,
    learnt: Mapping[str, Tensor],
    optimiser: torch.optim.Optimizer,
    facts: Mapping[str, Any],
) -> None:
    """Write a checkpoint of a training; `identity` tells the training from other trainings.

    Raises:
        OutputError: if the file cannot be written.
    """
    tensors = {f"learnt.{name}": tensor for name, tensor in learnt.items()}
    for row, values in optimiser.state_dict()["state"].items():
        tensors |= {f"optimiser.{row}.{name}": torch.as_tensor(value) for name, value in values.items()}
    metadata = {"handful": json.dumps(identity), "number": str(number), "facts": json.dumps(facts)}
    with replacing(path) as file:
        file.write(safetensors.torch.save(on_cpu(tensors), metadata))


def read_checkpoint(path: Path, identity: Mapping[str, Any]) -> Checkpoint:
    """Read a checkpoint.

    Raises:
        InputError: if the checkpoint belongs to another training or is damaged.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
        found, number, facts = json.loads(metadata["handful"]), int(metadata["number"]), json.loads(metadata["facts"])
    except (OSError, SafetensorError, KeyError, ValueError) as error:
        raise InputError(
            f"{path} must be a whole checkpoint, got an unreadable file; remove it to begin anew."
        ) from error
    if found != json.loads(json.dumps(identity)):
        other = next(name for name in identity if found.get(name) != json.loads(json.dumps(identity[name])))
        raise InputError(
            f"{path} must be of this training, got a checkpoint of other {other.replace('_', ' ')}; remove it to begin "
            f"anew."
        )
    state: dict[int, dict[str, Tensor]] = {}
    for name, tensor in _part(tensors, "optimiser").items():
        row, _, key = name.partition(".")
        state.setdefault(int(row), {})[key] = tensor
    return Checkpoint(number, _part(tensors, "learnt"), state, facts)


def on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of tensors for safetensors: on the CPU, contiguous and without shared memory."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}
