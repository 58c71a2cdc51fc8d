"""Run a network in torch, on the CPU or on CUDA."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handful.backbones.base import BackboneSpec
from handful.types import Features


class TorchBackbone:
    """A network in torch, in float32."""

    def __init__(self, network: nn.Module, spec: BackboneSpec, parts: Mapping[str, bytes], device: str) -> None:
        self.spec, self.parts, self.device = spec, parts, device
        self.network = network.to(device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1], one picture at a time."""
        # One at a time: a batch's convolutions may round otherwise than a single picture's.
        single = [self.network(image[None].to(self.device)) for image in images]
        return Features(tuple(torch.cat(levels).contiguous() for levels in zip(*single, strict=True)), self.spec.size)
