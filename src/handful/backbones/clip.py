"""CLIP's vision transformers: blocks, patches and windows as levels, text prototypes; the only file with open_clip.

A name is `clip:MODEL` or `clip:MODEL.TAG` with open_clip's names: `clip:ViT-B-16-plus-240.laion400m_e31`. The tag says
which weights are meant and which activation they were trained with; without one it is the first that open_clip lists.
Windows and prompts are those of Jeong et al., WinCLIP, CVPR 2023, https://arxiv.org/abs/2303.14814, sections 4.1, 4.2.
"""

import difflib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torch.nn.functional as F
from torch import Tensor

from handful.backbones import timm  # first: open_clip needs the torchvision that this file sees to
from handful.backbones.base import CLIP_PREFIX, WEIGHTS_ENTRY, BackboneSpec
from handful.backbones.clip_tower import Model, VisualTower, block_of, side_of
from handful.backbones.processes import check_torch
from handful.backbones.prompts import ANOMALOUS_STATES, NORMAL_STATES, prompts
from handful.errors import SettingError, WeightsError, needing
from handful.ops.seeding import seeded
from handful.ops.tracing import computing
from handful.types import Features

with needing("A clip: backbone", "clip"):
    import open_clip

TEXT_ENTRY = "backbone.text.safetensors"
WINDOWS = (2, 3)  # sides of the default windows, in patches
DEFAULT_OBJECT = "object"
PROMPTS_AT_A_TIME = 64

_NO_TEXT = {"context_length": 8, "vocab_size": 8, "width": 8, "heads": 1, "layers": 1}  # where no text tower is needed
_HUB_FILES = ("open_clip_model.safetensors", "open_clip_pytorch_model.safetensors", "open_clip_pytorch_model.bin")


class TextTower:
    """CLIP's text tower: the name of an object → its prototypes, remembered."""

    def __init__(self, model: Model, name: str, device: str) -> None:
        self._model, self._tokenizer, self._device = model, open_clip.get_tokenizer(name), device
        self._known: dict[str, Tensor] = {}

    def prototypes(self, object_name: str) -> Tensor:
        """The normal and the anomalous prototype (2, E), of length 1: the mean direction of the prompts' embeddings."""
        if object_name not in self._known:
            both = [self._mean(prompts(object_name, states)) for states in (NORMAL_STATES, ANOMALOUS_STATES)]
            self._known[object_name] = torch.stack(both)
        return self._known[object_name]

    @computing()
    @torch.inference_mode()
    def _mean(self, texts: Sequence[str]) -> Tensor:
        tokens = self._tokenizer(texts).to(self._device).split(PROMPTS_AT_A_TIME)
        embeddings = torch.cat([self._model.encode_text(some, normalize=True) for some in tokens])  # (texts, E)
        return F.normalize(embeddings.mean(0), dim=0)


class CLIPBackbone:
    """A CLIP vision transformer in torch, in float32, and the text prototypes of one object.

    Attributes:
        at_a_time: how many pictures go through the network together; a batch may round otherwise than a single picture.
    """

    def __init__(
        self,
        tower: VisualTower,
        spec: BackboneSpec,
        tower_entry: bytes,
        text: Tensor | None,
        device: str,
        texts: TextTower | None = None,
        *,
        at_a_time: int = 1,
    ) -> None:
        self.spec, self.device, self.network, self.at_a_time = spec, device, tower.to(device), at_a_time
        self._text = None if text is None else text.to(device)
        self._texts = texts
        self.entries: Mapping[str, bytes] = {WEIGHTS_ENTRY: tower_entry}
        if text is not None:
            self.entries = {**self.entries, TEXT_ENTRY: safetensors.torch.save({"text": text.cpu().contiguous()})}

    @computing()
    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1], `at_a_time` pictures at a time."""
        check_torch()
        done = [self.network(some.to(self.device)) for some in images.split(self.at_a_time)]
        levels, embeddings = zip(*done, strict=True)
        return Features(
            tuple(torch.cat(level).contiguous() for level in zip(*levels, strict=True)),
            self.spec.size,
            image=torch.cat(embeddings) if self.network.shared else None,
            text=self._text,
        )

    def at_size(self, size: tuple[int, int], *, at_a_time: int) -> "CLIPBackbone":
        """The same network for pictures of (H, W), so many together; see `handful.backbones.at_size`.

        Raises:
            SettingError: if patches or a level's windows do not fit the size.
        """
        vision = _vision(self.spec.name, _split(self.spec.name)[0])
        height, width = _checked_size(self.spec.name, vision, size)
        _level_names(self.spec.name, vision, size, self.spec.levels)
        grid = (height // vision["patch_size"], width // vision["patch_size"])
        tower, spec = self.network.at_size(size, grid), replace(self.spec, size=size)
        entry = safetensors.torch.save(tower.state_dict())
        return CLIPBackbone(tower, spec, entry, self._text, self.device, self._texts, at_a_time=at_a_time)

    def about(self, object_name: str) -> "CLIPBackbone":
        """The same network with the prototypes of another object; itself where it has no prototypes.

        Raises:
            SettingError: if it was loaded from an inspector, which holds no text tower.
        """
        if self._text is None or object_name == self.spec.object_name:
            return self
        if self._texts is None:
            raise SettingError(
                f"The object must be {self.spec.object_name!r}, as the inspector was fitted for, got {object_name!r}; "
                f"fit another one."
            )
        text, spec = self._texts.prototypes(object_name), replace(self.spec, object_name=object_name)
        return CLIPBackbone(self.network, spec, self.entries[WEIGHTS_ENTRY], text, self.device, self._texts)


def create(
    name: str,
    *,
    levels: Sequence[str | int] | None,
    size: tuple[int, int] | None,
    weights: str,
    object_name: str | None,
    device: str,
) -> CLIPBackbone:
    """Make a CLIP backbone with its weights.

    Args:
        name: see the module.
        levels: names as `VisualTower` has them, or numbers of blocks from 1, -1 for the last; None for WinCLIP's: the
            last block and windows of 2 and 3 patches.
        size: (H, W), to which the position embedding is interpolated; None for the size that it was trained at.
        weights: "auto" (open_clip's hub), "random" (for tests), or a file with a whole CLIP of that name.
        object_name: what the pictures show, for the text prototypes; None for "object". They are made where a level
            lies in the shared space.
        device: where torch runs: cpu or cuda.

    Raises:
        SettingError: for an unknown name or level, a size that the network cannot take, or an object without a name or
            use.
        WeightsError: if the weights cannot be had or do not fit.
    """
    if object_name is not None and not object_name.strip():
        raise SettingError("The object must have a name, got an empty one; leave it out for 'object'.")
    model_name, tag = _split(name)
    vision = _vision(name, model_name)
    size = _checked_size(name, vision, size)
    level_names = _level_names(name, vision, size, levels)
    if object_name is not None and all(block_of(level) for level in level_names):
        raise SettingError(f"The object must be left out with blocks alone, which read no text, got {object_name!r}.")
    full_name = f"{CLIP_PREFIX}{model_name}" + (f".{tag}" if tag else "")
    model, source = _model(full_name, model_name, tag, size, weights)
    config = open_clip.get_model_preprocess_cfg(model)
    tower = VisualTower(model.visual, level_names, config["mean"], config["std"])
    about = (object_name or DEFAULT_OBJECT) if tower.shared else None
    digest = timm.state_digest(tower.model.state_dict())
    spec = BackboneSpec(full_name, level_names, size, source, digest, "torch", "f32", about)
    entry = safetensors.torch.save(tower.state_dict())
    if about is None:
        return CLIPBackbone(tower, spec, entry, None, device)
    texts = TextTower(model.eval().to(device), model_name, device)
    return CLIPBackbone(tower, spec, entry, texts.prototypes(about), device, texts)


def load(spec: BackboneSpec, entries: Mapping[str, bytes], *, device: str) -> CLIPBackbone:
    """Make a saved backbone again; it needs no text tower, and its prototypes stay those that were saved.

    Raises:
        SettingError: if this open_clip does not know the model.
    """
    model_name, tag = _split(spec.name)
    _vision(spec.name, model_name)
    model = _made(model_name, tag, spec.size, text_cfg=_NO_TEXT)
    tower = VisualTower(model.visual, spec.levels, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    tower.load_state_dict(safetensors.torch.load(entries[WEIGHTS_ENTRY]))
    text = safetensors.torch.load(entries[TEXT_ENTRY])["text"] if spec.object_name else None
    return CLIPBackbone(tower, spec, entries[WEIGHTS_ENTRY], text, device)


def patch_of(name: str) -> int:
    """The side of a CLIP's patches in pixels; raises SettingError for an unknown name."""
    patch: int = _vision(name, _split(name)[0])["patch_size"]
    return patch


def own_side(name: str) -> int:
    """The side of a CLIP's training pictures in pixels; raises SettingError for an unknown name."""
    side: int = _vision(name, _split(name)[0])["image_size"]
    return side


def _split(name: str) -> tuple[str, str | None]:
    """The model and the tag of a name; without a tag the first that open_clip lists, None where it lists none."""
    model_name, _, tag = name.removeprefix(CLIP_PREFIX).partition(".")
    known: list[str] = open_clip.list_pretrained_tags_by_model(model_name)
    if tag and tag not in known:
        raise SettingError(f"The tag of {model_name} must be one of {', '.join(known) or 'none'}, got {tag!r}.")
    return model_name, tag or next(iter(known), None)


def _vision(name: str, model_name: str) -> dict[str, Any]:
    """The shape of a model's vision transformer."""
    config = open_clip.get_model_config(model_name)
    if config is None:
        near = difflib.get_close_matches(model_name, open_clip.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see open_clip.list_models()."
        raise SettingError(f"`backbone` must be {CLIP_PREFIX} and a name that open_clip knows, got {name!r}; {hint}")
    vision: dict[str, Any] = config["vision_cfg"]
    plain = isinstance(vision.get("layers"), int) and vision.get("pool_type", "tok") == "tok"
    if not plain or vision.get("timm_model_name") or vision.get("attentional_pool"):
        raise SettingError(
            f"A {CLIP_PREFIX} backbone must be one of open_clip's own vision transformers with a class token, got "
            f"{name!r}; choose one such as {CLIP_PREFIX}ViT-L-14-336."
        )
    return vision


def _checked_size(name: str, vision: Mapping[str, Any], size: tuple[int, int] | None) -> tuple[int, int]:
    size = size or (vision["image_size"], vision["image_size"])
    timm.check_patches(name, size, (vision["patch_size"], vision["patch_size"]))
    return size


def _level_names(
    name: str, vision: Mapping[str, Any], size: tuple[int, int], levels: Sequence[str | int] | None
) -> tuple[str, ...]:
    """Resolve numbers and the default; finest grid first, then in order of computation."""
    depth, widest = vision["layers"], min(size) // vision["patch_size"]
    if levels is None:
        levels = (f"block{depth}", *(f"windows{side}" for side in WINDOWS))
    names = [_level_name(level, depth, widest) for level in levels]
    for level, found in zip(levels, names, strict=True):
        if not found:
            raise SettingError(
                f"A level of {name} must be block1 to block{depth} (or its number, -1 for the last), patches, or "
                f"windows2 to windows{widest}, got {level!r}."
            )
    if not names or len(set(names)) < len(names):
        raise SettingError(f"`levels` must name at least one level and none twice, got {names}.")
    return tuple(sorted(names, key=lambda found: (side_of(found), block_of(found) or depth + 1)))


def _level_name(level: str | int, depth: int, widest: int) -> str:
    """The name that a level is known by; empty where there is no such level."""
    if isinstance(level, int):
        level = f"block{level if level >= 0 else depth + 1 + level}"
    known = {"patches", *(f"block{number}" for number in range(1, depth + 1))}
    return level if level in known | {f"windows{side}" for side in range(2, widest + 1)} else ""


def _model(full_name: str, model_name: str, tag: str | None, size: tuple[int, int], weights: str) -> tuple[Model, str]:
    """The whole model, and where its weights came from in words."""
    if weights == "random":
        with seeded(0):
            return _made(model_name, tag, size), "random"
    if weights == "auto":
        return _from_hub(full_name, model_name, tag, size), "open_clip's hub"
    file = Path(weights)
    if not file.is_file():
        raise WeightsError(f"`weights` must be auto, random or a file that exists, got {file}; check the path.")
    try:
        return _made(model_name, tag, size, pretrained=str(file), require_pretrained=True), f"file {file.name}"
    except Exception as error:  # damaged and foreign files fail in many ways, pickled code among them
        raise WeightsError(
            f"{file} must hold the weights of {full_name}, both towers, in safetensors or plain torch format, got: "
            f"{timm.reason(error)}; save it again, or name the model that it belongs to."
        ) from error


def _from_hub(full_name: str, model_name: str, tag: str | None, size: tuple[int, int]) -> Model:
    try:
        if tag is None:
            raise WeightsError("no weights that open_clip lists")
        repository = open_clip.get_pretrained_cfg(model_name, tag).get("hf_hub", "").rstrip("/")
        if repository:
            timm.check_hub(repository, _HUB_FILES)
        return _made(model_name, tag, size, pretrained=tag, require_pretrained=True)
    except Exception as error:  # a download fails in as many ways as there are networks between here and the hub
        raise WeightsError(
            f"Weights of {full_name} must be in a local file or within reach of open_clip's hub, got: "
            f"{timm.reason(error)}; download them where there is a network and pass the file as `weights`."
        ) from error


def _made(model_name: str, tag: str | None, size: tuple[int, int], **options: Any) -> Model:
    """The model of open_clip at a size, with random weights unless the options name others; open_clip does not log."""
    quick_gelu = bool(tag and open_clip.get_pretrained_cfg(model_name, tag).get("quick_gelu"))  # as OpenAI's weights
    before = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    try:
        return open_clip.create_model(model_name, force_image_size=size, force_quick_gelu=quick_gelu, **options)
    finally:
        logging.disable(before)
