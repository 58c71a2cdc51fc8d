"""The contract of a backbone: images in, Features out, on one engine."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, Protocol

from handful.types import Features

if TYPE_CHECKING:  # torch takes a second to import, and graphs need none of it
    from torch import Tensor

EngineName = Literal["openvino", "torch"]
Precision = Literal["f32", "bf16"]

WEIGHTS_ENTRY = "backbone.safetensors"
DEFAULT_SIDE = 320  # pixels of a square input of timm's networks; a CLIP has the side that it was trained at
CLIP_PREFIX = "clip:"  # the prefix of the names in `handful.backbones.clip`


@dataclass(frozen=True)
class BackboneSpec:
    """The identity of a backbone, enough to make the same backbone on another computer.

    Attributes:
        name: timm's name, or `clip:` and open_clip's name.
        levels: the modules whose outputs are the levels, finest grid first; for CLIP see
            `handful.backbones.clip_tower.VisualTower`.
        size: (H, W) of the input.
        weights: the source of the weights, in words.
        weights_sha256: digest of the weights that the levels need.
        engine: the engine that runs the network.
        precision: the precision of the computation; pinned, so that every computer gives the same scores.
        object_name: the object that the text prototypes describe; None without text prototypes.
    """

    name: str
    levels: tuple[str, ...]
    size: tuple[int, int]
    weights: str
    weights_sha256: str
    engine: EngineName
    precision: Precision
    object_name: str | None = None


class Backbone(Protocol):
    """Images → Features."""

    @property
    def spec(self) -> BackboneSpec:
        """The identity of this backbone."""

    @property
    def entries(self) -> Mapping[str, bytes]:
        """The files by name from which `handful.backbones.load` makes this backbone again."""

    @property
    def device(self) -> str:
        """The device of the features: cpu or cuda."""

    def __call__(self, images: "Tensor") -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1]; no picture's levels depend on the other pictures."""
