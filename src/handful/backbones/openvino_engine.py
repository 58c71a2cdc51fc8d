"""Run a network in OpenVINO on the CPU; the only file that imports openvino.

The precision is pinned: left alone, OpenVINO computes in bf16 wherever the CPU can, and the same inspector would score
differently on another computer.
"""

import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from handful.backbones.base import BackboneSpec
from handful.errors import InspectorError, SettingError
from handful.types import Features

# openvino reports every import and conversion over the network unless its telemetry package is absent; Handful
# does not call home, so it is hidden while openvino is imported.
_hidden = sys.modules.get("openvino_telemetry")
sys.modules["openvino_telemetry"] = None  # type: ignore[assignment]
try:
    import openvino
finally:
    if _hidden is None:
        del sys.modules["openvino_telemetry"]
    else:
        sys.modules["openvino_telemetry"] = _hidden

GRAPH_PART, CONSTANTS_PART = "backbone.xml", "backbone.bin"
_PRECISIONS = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}


def convert(network: nn.Module, size: tuple[int, int]) -> dict[str, bytes]:
    """Turn a torch network into OpenVINO's graph and constants, unrounded, for one picture at a time."""
    example = torch.zeros(1, 3, *size)
    with warnings.catch_warnings():
        # OpenVINO traces. torch deprecates that, and warns of every decision that depends on a shape: fixed here.
        warnings.simplefilter("ignore", DeprecationWarning)
        warnings.simplefilter("ignore", torch.jit.TracerWarning)  # type: ignore[attr-defined]
        model = openvino.convert_model(network, example_input=example, input=[1, 3, *size])
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, GRAPH_PART)
        openvino.save_model(model, graph, compress_to_fp16=False)
        return {GRAPH_PART: graph.read_bytes(), CONSTANTS_PART: graph.with_suffix(".bin").read_bytes()}


class OpenVINOBackbone:
    """A network in OpenVINO, at a pinned precision.

    Raises:
        SettingError: if this CPU does not compute in the precision asked for.
        InspectorError: if the graph cannot be read.
    """

    device = "cpu"

    def __init__(self, spec: BackboneSpec, parts: Mapping[str, bytes]) -> None:
        self.spec, self.parts = spec, parts
        wanted = _PRECISIONS[spec.precision]
        core = openvino.Core()
        try:
            model = core.read_model(parts[GRAPH_PART], parts[CONSTANTS_PART])
            hints = {"INFERENCE_PRECISION_HINT": wanted, "PERFORMANCE_HINT": "LATENCY"}
            self._compiled = core.compile_model(model, "CPU", hints)
        except RuntimeError as error:
            raise InspectorError(
                f"The backbone's graph must be readable by OpenVINO {openvino.__version__}, "
                f"got: {str(error).splitlines()[0]}; load with the torch engine instead."
            ) from error
        if self._compiled.get_property("INFERENCE_PRECISION_HINT") != wanted:
            raise SettingError(f"`precision` must be one that this CPU computes in, got {spec.precision}; use f32.")

    def __call__(self, images: Tensor) -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1], one picture at a time."""
        single = [self._compiled([image[None].numpy()]).to_tuple() for image in images]
        levels = tuple(torch.cat([torch.from_numpy(level) for level in batch]) for batch in zip(*single, strict=True))
        return Features(levels, self.spec.size)
