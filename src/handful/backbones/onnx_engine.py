"""Write a whole inspector as ONNX and run it on the CPU; the only file that imports onnxruntime."""

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.backbones.base import GRAPH_INPUT, GRAPH_OUTPUTS, Graph
from handful.errors import SettingError
from handful.ops.tracing import exporting

try:
    import onnxruntime
    import onnxscript  # noqa: F401 - torch writes ONNX with it
except ImportError as error:
    raise SettingError(
        f'ONNX needs the packages onnxscript and onnxruntime, got no {error.name}; run `pip install "handful[export]"`.'
    ) from error

onnxruntime.disable_telemetry_events()  # its builds for Windows report every session


@torch.no_grad()
def write_graph(whole: nn.Module, example: Tensor, folder: Path) -> Graph:
    """Write a whole inspector as model.onnx, one file; what runs this file."""
    with exporting():
        whole(example)  # a value that is computed once and remembered must not be made of torch.export's tensors
        written = torch.onnx.export(
            torch.export.export(whole, (example,), strict=False),
            dynamo=True,
            input_names=[GRAPH_INPUT],
            output_names=list(GRAPH_OUTPUTS),
            external_data=False,
            verbose=False,
        )
    assert written is not None  # `dynamo` says so
    for node in written.model.graph.all_nodes():  # where in this computer's files each came from
        node.metadata_props.clear()
    file = folder / "model.onnx"
    written.save(file, external_data=False)
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores, score = session.run(list(GRAPH_OUTPUTS), {GRAPH_INPUT: image.numpy()})
        return scores, score

    return run
