"""What an inspector keeps of the pictures that it was taught from, so that it can be taught anew without them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import learning, methods
from handful.artifact import IGNORED_PART, LEARNT_PART
from handful.learning import join
from handful.types import Features

DEFECTS_PART = "defects.safetensors"


@dataclass(frozen=True, eq=False)
class Memory:
    """Features as the backbone gave them, float32, so that fitting to them again gives the same to the bit.

    Attributes:
        learnt: of every picture that the method has learnt, one each: the references, then those taught since.
        augmented: of each of these the averaged features of the random variations that the method wants, as one batch;
            empty where it wants none.
        turned: of each of these what turned copies show, see `handful.turning.learn`; empty where parts do not turn.
        defects: of every missed defect, one each.
        masks: (H, W) bool, the ignored regions by the number of their revision.
        tiles: of each picture learnt the patches kept of its tiles, (1, 1, N, D) at every level, which the method has
            learnt; empty where pictures are not looked at in tiles. `learnt` is then of each picture as a whole, and
            `defects` of the strangest tile of each.
    """

    learnt: tuple[Features, ...]
    augmented: tuple[Features, ...] = ()
    turned: tuple[Features, ...] = ()
    defects: tuple[Features, ...] = ()
    masks: Mapping[int, NDArray[np.bool_]] = field(default_factory=dict)
    tiles: tuple[Features, ...] = ()

    @cached_property
    def ignored(self) -> NDArray[np.bool_] | None:
        """All ignored regions as one: (H, W) bool, or None."""
        return np.any(list(self.masks.values()), 0) if self.masks else None

    @property
    def good(self) -> Features:
        """Of the picture that stands in for the ignored region."""
        return self.learnt[0]

    def with_learnt(
        self,
        features: Sequence[Features],
        augmented: Sequence[Features],
        turned: Sequence[Features],
        tiles: Sequence[Features] = (),
    ) -> "Memory":
        """The same with more pictures learnt."""
        return replace(
            self,
            learnt=(*self.learnt, *features),
            augmented=(*self.augmented, *augmented),
            turned=(*self.turned, *turned),
            tiles=(*self.tiles, *tiles),
        )

    def without_learnt(self, rows: Sequence[int]) -> "Memory":
        """The same without some of the pictures."""
        kept = [row for row in range(len(self.learnt)) if row not in rows]
        learnt, augmented, turned, tiles = (
            tuple(found[row] for row in kept) if found else ()
            for found in (self.learnt, self.augmented, self.turned, self.tiles)
        )
        return replace(self, learnt=learnt, augmented=augmented, turned=turned, tiles=tiles)

    def fitted(self, method: methods.Method) -> methods.Method:
        """A new method of the same settings and scale, fitted to all that was learnt."""
        augmented, turned = (join(found) if found else None for found in (self.augmented, self.turned))
        learnt = join(self.tiles or self.learnt)
        return method.unfitted().fit(learnt, augmented=augmented, turned=turned).weighed_as(method)

    def factors(
        self, method: methods.Method, references: int, image: Sequence[float], peaks: Sequence[float]
    ) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """By how much the ignored region changes the score that each reference has where it is left out.

        Measured on the picture itself, and taken for its variations too, whose features are not kept. A single
        reference cannot be left out: its scores stay as they are, and the threshold errs towards fewer false alarms.

        Args:
            method: as was fitted.
            references: k, how many of the pictures learnt are references.
            image, peaks: (k,) image score and highest map value of each, all counting.
        """
        if self.ignored is None or references == 1:
            return (1.0,) * references, (1.0,) * references
        views = [[features] for features in self.learnt[:references]]
        augmented = [[features] for features in self.augmented[:references]]
        now_image, now_peaks = learning.good_scores(
            method, views, augmented, self.turned[:references], ignored=self.ignored
        )
        return (
            tuple(now / max(before, 1e-12) for now, before in zip(now_image[:, 0].tolist(), image, strict=True)),
            tuple(now / max(before, 1e-12) for now, before in zip(now_peaks[:, 0].tolist(), peaks, strict=True)),
        )

    def to_parts(self) -> dict[str, bytes]:
        """For the saved inspector."""
        tensors = _named("level", join(self.learnt))
        if self.augmented:
            tensors |= _named("augmented", join(self.augmented))
        if self.turned:
            tensors |= _named("turned", join(self.turned))
        if self.tiles:
            tensors |= _named("tiles", join(self.tiles))
        parts = {LEARNT_PART: safetensors.torch.save(tensors)}
        if self.defects:
            parts[DEFECTS_PART] = safetensors.torch.save(_named("level", join(self.defects)))
        if self.masks:
            parts[IGNORED_PART] = safetensors.numpy.save({str(number): mask for number, mask in self.masks.items()})
        return parts


def from_parts(parts: Mapping[str, bytes], *, size: tuple[int, int], device: str) -> Memory:
    """Out of a saved inspector.

    Args:
        parts: of the inspector.
        size: (H, W) of the model input.
        device: where the features are to lie.

    Raises:
        SafetensorError, KeyError: if they cannot be read.
    """
    learnt = safetensors.torch.load(parts[LEARNT_PART])
    defects = safetensors.torch.load(parts[DEFECTS_PART]) if DEFECTS_PART in parts else {}
    masks = safetensors.numpy.load(parts[IGNORED_PART]) if IGNORED_PART in parts else {}
    pictures = _split("level", learnt, size, device)
    variations = _split("augmented", learnt, size, device)
    views = len(variations) // len(pictures)
    return Memory(
        tuple(pictures),
        tuple(join(variations[start : start + views]) for start in range(0, len(variations), views or 1)),
        tuple(_split("turned", learnt, size, device)),
        tuple(_split("level", defects, size, device)),
        {int(number): masks[number] for number in sorted(masks, key=int)},
        tuple(_split("tiles", learnt, size, device)),
    )


def _named(name: str, features: Features) -> dict[str, Tensor]:
    """All that features consist of, to be saved."""
    tensors = {f"{name}.{number}": level for number, level in enumerate(features.levels)}
    tensors |= {f"{name}.{kind}": one for kind in ("image", "text") if (one := getattr(features, kind)) is not None}
    named = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
    if features.windows is not None:
        named |= {f"{name}.windows.size": torch.tensor(features.windows.size)}
        named |= _named(f"{name}.windows", features.windows)
    return named


def _features(name: str, tensors: Mapping[str, Tensor], size: tuple[int, int], device: str) -> Features | None:
    """What `_named` gave; None where there is none of that name."""
    if f"{name}.0" not in tensors:
        return None
    count = sum(key.removeprefix(f"{name}.").isdigit() for key in tensors)
    image, text, of_windows = (tensors.get(f"{name}.{kind}") for kind in ("image", "text", "windows.size"))
    windows = None
    if of_windows is not None:
        height, width = of_windows.tolist()
        windows = _features(f"{name}.windows", tensors, (height, width), device)
    return Features(
        tuple(tensors[f"{name}.{number}"].to(device) for number in range(count)),
        size,
        None if image is None else image.to(device),
        None if text is None else text.to(device),
        windows,
    )


def _split(name: str, tensors: Mapping[str, Tensor], size: tuple[int, int], device: str) -> list[Features]:
    """One `Features` for each picture of a part."""
    features = _features(name, tensors, size, device)
    return [] if features is None else [features[[row]] for row in range(len(features))]
