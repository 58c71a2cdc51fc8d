"""Write a whole inspector as ONNX and run it on the CPU; the only file that imports onnxruntime."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.errors import needing
from handful.graphs.names import GRAPH_INPUT, GRAPH_OUTPUTS, Graph
from handful.ops.tracing import exporting

with needing("Writing ONNX", "export"):
    import onnx
    import onnxruntime
    import onnxscript  # noqa: F401 - torch writes ONNX with it

onnxruntime.disable_telemetry_events()  # its builds for Windows report every session


@torch.no_grad()
def write_graph(whole: nn.Module, example: Tensor, folder: Path) -> Graph:
    """Write a whole inspector as model.onnx, one file; what runs this file.

    Whatever shape the file's input is edited to, the graph refuses an input of another shape than the example's.
    """
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
    model = written.model_proto
    _guard(model.graph, tuple(example.shape))
    file = folder / "model.onnx"
    file.write_bytes(model.SerializeToString())
    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])

    def run(image: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        scores, score = session.run(list(GRAPH_OUTPUTS), {GRAPH_INPUT: image.numpy()})
        return scores, score

    return run


def _guard(graph: onnx.GraphProto, shape: tuple[int, ...]) -> None:
    """Have a graph refuse an input of another shape, also after its input's dimensions were edited.

    A Reshape stands behind the input. Its target is the shape where the input has that shape, or else -2 for each side,
    which ONNX Runtime refuses.
    """
    inner = f"{GRAPH_INPUT}_of_{'x'.join(map(str, shape))}_alone"
    for node in graph.node:
        node.input[:] = [inner if name == GRAPH_INPUT else name for name in node.input]
    constants = {"wanted": np.array(shape, np.int64), "refused": np.full(len(shape), -2, np.int64)}
    graph.initializer.extend(
        onnx.numpy_helper.from_array(value, f"{inner}.{name}") for name, value in constants.items()
    )
    steps: list[tuple[str, list[str], str, dict[str, Any]]] = [
        ("Shape", [GRAPH_INPUT], "came", {}),
        ("Equal", [f"{inner}.came", f"{inner}.wanted"], "equal", {}),
        ("Cast", [f"{inner}.equal"], "numbers", {"to": onnx.TensorProto.INT64}),
        ("ReduceMin", [f"{inner}.numbers"], "least", {"keepdims": 1}),
        ("Cast", [f"{inner}.least"], "same", {"to": onnx.TensorProto.BOOL}),
        ("Where", [f"{inner}.same", f"{inner}.wanted", f"{inner}.refused"], "target", {}),
    ]
    nodes = [onnx.helper.make_node(kind, given, [f"{inner}.{made}"], **how) for kind, given, made, how in steps]
    nodes.append(onnx.helper.make_node("Reshape", [GRAPH_INPUT, f"{inner}.target"], [inner], name=inner, allowzero=1))
    for number, node in enumerate(nodes):
        graph.node.insert(number, node)
