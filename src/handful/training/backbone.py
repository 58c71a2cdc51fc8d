"""The training of a backbone on references, with progress, and checkpoints from which a stopped training goes on."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
from numpy.typing import NDArray

from handful import backbones
from handful.backbones import timm
from handful.data import images
from handful.data.depths import bits_of
from handful.data.images import Picture, Pictures
from handful.data.preprocessing import Preprocessing
from handful.errors import SettingError
from handful.files import replacing
from handful.methods.base_training import Tuning
from handful.training.checkpoint import on_cpu, read_checkpoint, write_checkpoint

SAVE_EVERY = 30.0  # seconds from one checkpoint to the next


@dataclass(frozen=True)
class Progress:
    """The progress of a training.

    Attributes:
        number: the number of updates made.
        updates: the largest number of updates.
        loss: the loss of the last update.
        seconds_left: the estimated time of the remaining updates, from the updates of this run.
    """

    number: int
    updates: int
    loss: float
    seconds_left: float


class Pace:
    """The speed of a training that had made `first` of at most `updates` updates before this run."""

    def __init__(self, first: int, updates: int) -> None:
        self._first, self._updates, self._begin = first, updates, time.monotonic()

    def after(self, number: int, loss: float) -> Progress:
        """The progress after `number` updates; raises SettingError unless the last loss is finite."""
        if not math.isfinite(loss):
            raise SettingError(f"The loss must stay finite, got {loss} at update {number}; lower `lr`.")
        left = (time.monotonic() - self._begin) / (number - self._first) * (self._updates - number)
        return Progress(number, self._updates, loss, left)


class BackboneTrainer:
    """Trains a backbone on references.

        training = BackboneTrainer(tuning, "good/", seed=0)
        for progress in training.run():
            print(progress.loss)
        training.save("tuned.safetensors")

    The file can be given as `weights` of the backbone. Equal seeds give equal weights on machines of the same kind.

    Args:
        tuning: the training and its settings.
        references: good pictures, see `handful.data.images.gather`.
        backbone, weights: see `handful.backbones.create`.
        seed: the seed of all random draws.
        device: the device that torch runs on.
        checkpoint: a file that is saved every half minute and on an interruption; an existing checkpoint is continued.

    Raises:
        InputError: without a picture; ImageError for an unreadable picture.
        SettingError, WeightsError: see `handful.backbones.create`.
    """

    def __init__(
        self,
        tuning: Tuning,
        references: Pictures,
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
        """Make the remaining updates, and yield the progress after each.

        Raises:
            InputError: if the checkpoint belongs to another training or is damaged.
            SettingError: if the loss does not stay finite.
            OutputError: if the checkpoint cannot be written.
        """
        number = self._resume()
        pace, saved = Pace(number, self.tuning.updates), time.monotonic()
        try:
            while not self.tuning.done(number):
                loss = self.tuning.update(number)
                progress = pace.after(number + 1, loss)
                number += 1
                if time.monotonic() - saved >= SAVE_EVERY:
                    self._save_checkpoint(number)
                    saved = time.monotonic()
                yield progress
        except (KeyboardInterrupt, GeneratorExit):
            self._save_checkpoint(number)
            raise

    def save(self, path: Path) -> None:
        """Write the trained backbone's weights as safetensors, and remove the checkpoint.

        Raises:
            OutputError: if the file cannot be written.
        """
        words = f"{self.tuning.name} on {len(self._identity['references'])} references"
        metadata = {timm.TRAINED_BY: words, "handful": json.dumps(self._identity)}
        with replacing(path) as file:
            file.write(safetensors.torch.save(on_cpu(self.trunk.model.state_dict()), metadata))
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _save_checkpoint(self, number: int) -> None:
        if self.checkpoint is not None:
            learnt = self.tuning.learnt_.state_dict()
            write_checkpoint(self.checkpoint, self._identity, number, learnt, self.tuning.optimiser_, {})

    def _resume(self) -> int:
        """Restore an existing checkpoint, and return the number of updates made."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0
        found = read_checkpoint(self.checkpoint, self._identity)
        found.restore(self.tuning.learnt_, self.tuning.optimiser_)
        return found.number


def _at_size(pictures: Sequence[Picture], size: int) -> list[NDArray[np.uint8]]:
    """The references in the form for a training: each (size, size, 3) uint8."""
    preprocessing = Preprocessing((size, size), bits_of(list(pictures)))
    return [(preprocessing(picture) * 255).round().astype(np.uint8).transpose(1, 2, 0) for picture in pictures]
