"""The torch engine: a network on the CPU or on CUDA."""

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from handful.backbones.base import BackboneSpec
from handful.backbones.processes import check_torch
from handful.ops.tracing import computing
from handful.types import Features


class TorchBackbone:
    """A network in torch, in float32.

    Attributes:
        at_a_time: the number of pictures that pass through the network together. Convolutions of a batch may round
            differently than convolutions of a single picture, so a number above 1 is for crops, which always come in
            equal batches.
    """

    def __init__(
        self, network: nn.Module, spec: BackboneSpec, entries: Mapping[str, bytes], device: str, *, at_a_time: int = 1
    ) -> None:
        self.spec, self.entries, self.device, self.at_a_time = spec, entries, device, at_a_time
        self.network = network.to(device)

    @computing()
    @torch.inference_mode()
    def __call__(self, images: Tensor) -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1], `at_a_time` pictures at a time."""
        check_torch()
        done = [self.network(some.to(self.device)) for some in images.split(self.at_a_time)]
        return Features(tuple(torch.cat(levels).contiguous() for levels in zip(*done, strict=True)), self.spec.size)
