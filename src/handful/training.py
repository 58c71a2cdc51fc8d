"""The loop behind every training on references: updates, progress, checkpoints. A stop in the middle loses nothing."""

import json
import math
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from handful import backbones
from handful.backbones import timm
from handful.data import images
from handful.data.images import Picture, PictureSource
from handful.data.preprocessing import Preprocessing, bits_of
from handful.errors import InputError, SettingError
from handful.files import replacing
from handful.methods.base import Tuning

SAVE_EVERY = 30.0  # seconds from one checkpoint to the next


@dataclass(frozen=True)
class Progress:
    """How far a training has come.

    Attributes:
        number: updates made.
        updates: at most.
        loss: of the last one.
        seconds_left: if the other updates take as long as those of this run.
    """

    number: int
    updates: int
    loss: float
    seconds_left: float


class Training:
    """Trains a backbone on references.

        training = Training(tuning, "good/", seed=0)
        for progress in training.run():
            print(progress.loss)
        training.save("tuned.safetensors")

    The file serves wherever a backbone's `weights` are asked for. The same seed gives the same weights on the same kind
    of machine.

    Args:
        tuning: what to train, and how.
        references: as `handful.data.images.gather` takes them.
        backbone, weights: see `handful.backbones.create`.
        seed: of all that is random.
        device: where torch runs.
        checkpoint: a file to save to every half minute and on an interruption, and to go on from where it exists.

    Raises:
        InputError: without a picture; ImageError for one that cannot be read.
        SettingError, WeightsError: see `handful.backbones.create`.
    """

    def __init__(
        self,
        tuning: Tuning,
        references: PictureSource | Sequence[PictureSource],
        *,
        backbone: str = backbones.DEFAULT_BACKBONE,
        weights: str = "auto",
        seed: int = 0,
        device: backbones.Device = "auto",
        checkpoint: Path | None = None,
    ) -> None:
        sources = images.gather(references, recursive=False)
        pictures = [images.read_picture(source, name=name, detail=tuning.size) for source, name in sources]
        self.trunk = timm.trunk(backbone, size=tuning.size, weights=weights).to(backbones.choose_device(device))
        self.tuning, self.checkpoint = tuning, checkpoint
        digests = [images.digest(source, picture) for (source, _), picture in zip(sources, pictures, strict=True)]
        self._identity: dict[str, Any] = {
            "training": tuning.name,
            "settings": tuning.settings,
            "backbone": backbone,
            "weights_sha256": timm.digest(self.trunk),
            "references": digests,
            "seed": seed,
        }
        tuning.start(self.trunk, _at_size(pictures, tuning.size), seed=seed)

    def run(self) -> Iterator[Progress]:
        """Make every update that is left; the progress after each.

        Raises:
            InputError: if the checkpoint is another training's or damaged.
            SettingError: if the loss does not stay finite.
            OutputError: if the checkpoint cannot be written.
        """
        number = first = self._resume()
        begin = saved = time.monotonic()
        try:
            while not self.tuning.done(number):
                loss = self.tuning.update(number)
                if not math.isfinite(loss):
                    raise SettingError(f"The loss must stay finite, got {loss} at update {number + 1}; lower `lr`.")
                number += 1
                now = time.monotonic()
                if now - saved >= SAVE_EVERY:
                    self._save_checkpoint(number)
                    saved = now
                left = (now - begin) / (number - first) * (self.tuning.updates - number)
                yield Progress(number, self.tuning.updates, loss, left)
        except (KeyboardInterrupt, GeneratorExit):
            self._save_checkpoint(number)
            raise

    def save(self, path: Path) -> None:
        """Write the trained backbone's weights as safetensors, and remove the checkpoint.

        Raises:
            OutputError: if they cannot be written.
        """
        words = f"{self.tuning.name} on {len(self._identity['references'])} references"
        metadata = {timm.TRAINED_BY: words, "handful": json.dumps(self._identity)}
        with replacing(path) as file:
            file.write(safetensors.torch.save(_on_cpu(self.trunk.model.state_dict()), metadata))
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _save_checkpoint(self, number: int) -> None:
        if self.checkpoint is None:
            return
        tensors = {f"learnt.{name}": tensor for name, tensor in self.tuning.learnt_.state_dict().items()}
        for row, values in self.tuning.optimiser_.state_dict()["state"].items():
            tensors |= {f"optimiser.{row}.{name}": torch.as_tensor(value) for name, value in values.items()}
        metadata = {"handful": json.dumps(self._identity), "number": str(number)}
        with replacing(self.checkpoint) as file:
            file.write(safetensors.torch.save(_on_cpu(tensors), metadata))

    def _resume(self) -> int:
        """Take over the checkpoint, where there is one; the number of updates that it stands for."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0
        try:
            with safe_open(self.checkpoint, framework="pt") as file:
                metadata = file.metadata() or {}
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - it is no mapping
            identity, number = json.loads(metadata["handful"]), int(metadata["number"])
        except (OSError, SafetensorError, KeyError, ValueError) as error:
            raise InputError(
                f"{self.checkpoint} must be a whole checkpoint, got one that cannot be read; remove it to begin anew."
            ) from error
        if identity != json.loads(json.dumps(self._identity)):
            other = next(name for name in self._identity if identity.get(name) != self._identity[name])
            raise InputError(
                f"{self.checkpoint} must be of this training, got one of other {other.replace('_', ' ')}; remove it to "
                f"begin anew."
            )
        self.tuning.learnt_.load_state_dict(_part(tensors, "learnt"))
        state: dict[int, dict[str, Tensor]] = {}
        for name, tensor in _part(tensors, "optimiser").items():
            row, _, key = name.partition(".")
            state.setdefault(int(row), {})[key] = tensor
        groups = self.tuning.optimiser_.state_dict()["param_groups"]
        self.tuning.optimiser_.load_state_dict({"state": state, "param_groups": groups})
        return number


def _at_size(pictures: Sequence[Picture], size: int) -> list[NDArray[np.uint8]]:
    """The references as trainings take them: each (size, size, 3)."""
    preprocessing = Preprocessing((size, size), bits_of(list(pictures)))
    return [(preprocessing(picture) * 255).round().byte().permute(1, 2, 0).numpy() for picture in pictures]


def _part(tensors: Mapping[str, Tensor], part: str) -> dict[str, Tensor]:
    return {name.removeprefix(f"{part}."): tensor for name, tensor in tensors.items() if name.startswith(f"{part}.")}


def _on_cpu(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Tensors as safetensors stores them: on the CPU, contiguous, none sharing memory with another."""
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in state.items()}
