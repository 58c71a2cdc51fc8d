"""Run a network, or a whole inspector, in OpenVINO on the CPU; the only file that imports openvino.

The precision is pinned: left alone, OpenVINO computes in bf16 wherever the CPU can, and the same inspector would score
differently on another computer.
"""

import sys
import tempfile
import warnings
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import ExportedProgram

from handful.backbones.base import GRAPH_INPUT, GRAPH_OUTPUTS, BackboneSpec, Graph
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


def write_graph(program: ExportedProgram, folder: Path, size: tuple[int, int]) -> Graph:
    """Write a whole inspector for pictures of a size as model.xml and model.bin, unrounded; what runs these files."""
    model = openvino.convert_model(program, input=[1, 3, *size])
    model.input(0).set_names({GRAPH_INPUT})
    for output, name in zip(model.outputs, GRAPH_OUTPUTS, strict=True):
        output.set_names({name})
    file = folder / "model.xml"
    openvino.save_model(model, file, compress_to_fp16=False)
    compiled = openvino.Core().compile_model(file, "CPU", _hints(openvino.Type.f32))

    def run(image: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        answer = compiled({GRAPH_INPUT: image.numpy()})
        scores, score = (answer[name].copy() for name in GRAPH_OUTPUTS)
        return scores, score

    return run


def _hints(precision: openvino.Type) -> dict[str, object]:
    return {"INFERENCE_PRECISION_HINT": precision, "PERFORMANCE_HINT": "LATENCY"}


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
            self._compiled = core.compile_model(model, "CPU", _hints(wanted))
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
