"""Pictures → Features, with any timm network on OpenVINO or torch, or with CLIP on torch."""

import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Literal, get_args

from handful.backbones.base import (
    CLIP_PREFIX,
    DEFAULT_SIDE,
    WEIGHTS_ENTRY,
    Backbone,
    BackboneSpec,
    EngineName,
    Precision,
)
from handful.errors import HandfulError, SettingError, conversion_error, needing
from handful.ops.frames import frame_size

if TYPE_CHECKING:  # torch takes a second to import, and graphs need none of it
    import torch

    from handful.backbones.timm import FeatureNetwork

DEFAULT_BACKBONE = "tf_efficientnet_lite0"  # its weights arrive with pip
CROPS_AT_A_TIME = 64  # of one picture, through the network together on CUDA

EngineChoice = Literal["auto", "openvino", "torch"]
Device = Literal["auto", "cpu", "cuda"]


def create(
    name: str = DEFAULT_BACKBONE,
    *,
    levels: Sequence[str | int] | None = None,
    size: int | tuple[int, int] | None = None,
    aspect: float | None = None,
    weights: str = "auto",
    engine: EngineChoice = "auto",
    precision: Precision = "f32",
    device: Device = "auto",
    object_name: str | None = None,
) -> Backbone:
    """Make a backbone; `handful.backbones.timm.build` explains name, levels and weights.

    A name that begins with `clip:` is one of open_clip's, see `handful.backbones.clip.create`.

    Args:
        size: (H, W) of the input, or the side of a square one; None for 320, of CLIP the side that it was trained at.
        aspect: width to height; the input then has about that and as many pixels as the square, see
            `handful.ops.frames.frame_size`. None for the square itself.
        engine: "auto" is torch on CUDA where there is one, OpenVINO on x86-64 (faster than torch there,
            benchmarks/speed.md), else torch.
        precision: "f32", or "bf16" with OpenVINO on a CPU that has it: the backbone's pass is shorter by a third
            (benchmarks/speed.md), scores differ a little (benchmarks/precision.md) and hold only there.
        device: where torch runs.
        object_name: what the pictures show, for the text prototypes of a `clip:` backbone; None for "object".

    Raises:
        SettingError: for an option outside what it may be, or options that do not go together.
        WeightsError: if the weights cannot be had.
    """
    with needing("handful.backbones.create", "fit"):
        import safetensors.torch
    if precision not in get_args(Precision):
        raise SettingError(f"`precision` must be one of {', '.join(get_args(Precision))}, got {precision!r}.")
    chosen = _choose_engine(engine, device)
    frame = (size, size) if isinstance(size, int) else size
    if name.startswith(CLIP_PREFIX):
        _check_clip(name, engine, precision)
        from handful.backbones import clip

        if aspect is not None:
            frame = frame_of(name, square_side(name, size), aspect)
        return clip.create(
            name, levels=levels, size=frame, weights=weights, object_name=object_name, device=choose_device(device)
        )
    if object_name is not None:
        raise SettingError(f"The object must be left out with {name}, which reads no text, got {object_name!r}.")
    if precision == "bf16" and chosen == "torch":
        raise SettingError("`precision` must be f32 with the torch engine, got bf16; use the openvino engine.")

    from handful.backbones import timm  # seconds to import, and not needed to load an inspector made for OpenVINO

    then = None if aspect is None else frame_of(name, square_side(name, size), aspect)
    network = timm.build(name, levels=levels, size=frame, weights=weights, then=then)
    entries = {WEIGHTS_ENTRY: safetensors.torch.save(network.model.state_dict())}
    spec = BackboneSpec(
        name, network.level_names, network.size, network.weights, timm.digest(network), chosen, precision
    )
    return _on_engine(network, spec, entries, device)


def square_side(name: str, size: int | tuple[int, int] | None) -> int:
    """The side of the square input that `create` makes for a size, before it is rounded to whole patches.

    Raises:
        SettingError: for an unknown `clip:` name.
    """
    if size is not None:
        return size if isinstance(size, int) else max(size)
    if not name.startswith(CLIP_PREFIX):
        return DEFAULT_SIDE
    from handful.backbones import clip

    return clip.own_side(name)


def load(
    spec: BackboneSpec, entries: Mapping[str, bytes], *, engine: EngineChoice | None = None, device: Device = "auto"
) -> Backbone:
    """Make a saved backbone again.

    Args:
        spec: of the saved backbone.
        parts: its `entries`.
        engine: None for the one it was saved with; another gives the same features within float32 rounding, or, for one
            saved at bf16, within that precision's.
        device: where torch runs.

    Raises:
        SettingError: if the engine, device or precision cannot be had here.
        InspectorError: if the parts cannot be read.
    """
    chosen = _choose_engine(spec.engine if engine is None else engine, device)
    if spec.name.startswith(CLIP_PREFIX):
        _check_clip(spec.name, engine, spec.precision)
        from handful.backbones import clip

        return clip.load(spec, entries, device=choose_device(device))
    if chosen == "openvino" and len(entries) > 1:
        from handful.backbones.openvino_engine import OpenVINOBackbone

        return OpenVINOBackbone(replace(spec, engine=chosen), entries)  # the graph is among the parts

    precision = spec.precision if chosen == "openvino" else "f32"
    return _on_engine(_network(spec, entries), replace(spec, engine=chosen, precision=precision), entries, device)


def about(backbone: Backbone, object_name: str) -> Backbone:
    """The same backbone with the text prototypes of this object; one without such is returned as it is.

    Raises:
        SettingError: if it was loaded from an inspector, which holds no text tower.
    """
    if backbone.spec.object_name is None:
        return backbone
    from handful.backbones.clip import CLIPBackbone

    assert isinstance(backbone, CLIPBackbone)  # no other has an object
    return backbone.about(object_name)


def _check_clip(name: str, engine: EngineChoice | None, precision: Precision) -> None:
    if engine == "openvino" or precision != "f32":
        asked = "openvino" if engine == "openvino" else precision
        raise SettingError(f"{name} must run in torch at f32, got {asked}; leave that out.")


def network_of(backbone: Backbone) -> "torch.nn.Module":
    """What a backbone computes, in torch on the CPU at f32, to become part of a graph: (1, 3, H, W) in [0, 1] → levels.

    Raises:
        SettingError: for a `clip:` backbone.
    """
    spec = backbone.spec
    if spec.name.startswith(CLIP_PREFIX):
        raise SettingError(f"The backbone of a graph must be one of timm's, got {spec.name}; fit on another backbone.")

    from handful.backbones import timm

    return timm.followed(_network(spec, backbone.entries))


def frame_of(name: str, side: int, aspect: float) -> tuple[int, int]:
    """The (H, W) of a backbone's input for an aspect (width to height), with as many pixels as a square of `side`.

    Raises:
        SettingError: for an unknown name.
    """
    if name.startswith(CLIP_PREFIX):
        from handful.backbones import clip

        return frame_size(side, aspect, patch=clip.patch_of(name))
    from handful.backbones import timm

    return frame_size(side, aspect, patch=timm.patch_of(name))


def at_size(backbone: Backbone, size: tuple[int, int]) -> Backbone:
    """The same network, on the same engine, for pictures of another size, or for crops, which always come together.

    A vision transformer's position embedding is interpolated from that of the backbone's own size. On CUDA many crops
    go through the network together; a CPU is faster one by one, as its caches hold no batch.

    Raises:
        SettingError: if the network cannot take the size.
    """
    if size == backbone.spec.size:
        return backbone
    device: Device = "cuda" if backbone.device == "cuda" else "cpu"
    at_a_time = CROPS_AT_A_TIME if device == "cuda" else 1
    if backbone.spec.name.startswith(CLIP_PREFIX):
        from handful.backbones.clip import CLIPBackbone

        assert isinstance(backbone, CLIPBackbone)  # no other has such a name
        return backbone.at_size(size, at_a_time=at_a_time)

    import safetensors.torch

    from handful.backbones import timm

    network = _network(backbone.spec, backbone.entries, then=size)
    entries = {WEIGHTS_ENTRY: safetensors.torch.save(network.model.state_dict())}
    spec = replace(backbone.spec, size=size, weights_sha256=timm.digest(network))
    return _on_engine(network, spec, entries, device, at_a_time=at_a_time)


def _network(
    spec: BackboneSpec, entries: Mapping[str, bytes], *, then: tuple[int, int] | None = None
) -> "FeatureNetwork":
    """The network of a saved backbone, in torch, for its own size or another."""
    import safetensors.torch

    from handful.backbones import timm

    state = safetensors.torch.load(entries[WEIGHTS_ENTRY])
    return timm.rebuild(spec.name, levels=spec.levels, size=spec.size, weights=spec.weights, state=state, then=then)


def _on_engine(
    network: "torch.nn.Module", spec: BackboneSpec, entries: Mapping[str, bytes], device: Device, *, at_a_time: int = 1
) -> Backbone:
    if spec.engine == "openvino":
        from handful.backbones.openvino_engine import OpenVINOBackbone
        from handful.graphs.openvino_writer import network_entries

        try:
            graph = network_entries(network, spec.size)
        except HandfulError:
            raise
        except Exception as error:  # torch and OpenVINO raise errors of many kinds
            raise conversion_error(spec.name, "openvino", error, remedy="use the torch engine") from error
        return OpenVINOBackbone(spec, {**entries, **graph})

    from handful.backbones.torch_engine import TorchBackbone

    return TorchBackbone(network, spec, entries, choose_device(device), at_a_time=at_a_time)


def _choose_engine(engine: EngineChoice, device: Device) -> EngineName:
    if device not in get_args(Device):
        raise SettingError(f"`device` must be one of {', '.join(get_args(Device))}, got {device!r}.")
    if engine not in get_args(EngineChoice):
        raise SettingError(f"`engine` must be one of {', '.join(get_args(EngineChoice))}, got {engine!r}.")
    if engine == "openvino" and device == "cuda":
        raise SettingError("`device` must be cpu with the openvino engine, got cuda; use the torch engine.")
    if engine != "auto":
        return engine
    if platform.machine() not in ("x86_64", "AMD64"):
        return "torch"
    on_cuda = device == "cuda" or (device == "auto" and choose_device(device) == "cuda")
    return "torch" if on_cuda else "openvino"


def choose_device(device: Device) -> str:
    """Where torch is to run: cuda or cpu.

    Raises:
        SettingError: for cuda where there is none.
    """
    import torch

    available = torch.cuda.is_available()
    if device == "cuda" and not available:
        raise SettingError("`device` must be cpu where torch finds no CUDA, got cuda.")
    return "cuda" if available and device != "cpu" else "cpu"
