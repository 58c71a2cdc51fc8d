"""Write networks, scorings and whole inspectors as OpenVINO's graphs.

Private names of torch and OpenVINO are used here and nowhere else; the documented way stands in where they are gone.
"""

import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from handful.errors import HandfulError
from handful.graphs.names import (
    CONSTANTS_ENTRY,
    GRAPH_ENTRY,
    GRAPH_INPUT,
    GRAPH_OUTPUTS,
    SCORING_CONSTANTS_ENTRY,
    SCORING_ENTRY,
    Graph,
)
from handful.graphs.openvino import openvino
from handful.ops.tracing import exporting, tracing


def network_entries(network: nn.Module, size: tuple[int, int]) -> dict[str, bytes]:
    """Turn a torch network into OpenVINO's graph and constants, unrounded, for one picture (1, 3, H, W) at a time."""
    model = _converted(network, (torch.full((1, 3, *size), 0.5),), decomposed=False)
    return dict(zip((GRAPH_ENTRY, CONSTANTS_ENTRY), _saved(model), strict=True))


def scoring_entries(scoring: nn.Module, example: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Turn a method's scoring into OpenVINO's graph and constants, unrounded, its inputs of these names and shapes."""
    return dict(zip((SCORING_ENTRY, SCORING_CONSTANTS_ENTRY), _saved(_scored(scoring, example)), strict=True))


def _scored(whole: nn.Module, example: Mapping[str, Tensor]) -> "openvino.Model":
    """All operations from named inputs to map and score."""
    model = _converted(whole, tuple(example.values()), decomposed=True)
    for found, name in zip((*model.inputs, *model.outputs), (*example, *GRAPH_OUTPUTS), strict=True):
        found.set_names({name})
    return model


def _converted(module: nn.Module, inputs: tuple[Tensor, ...], *, decomposed: bool) -> "openvino.Model":
    """All operations of a module, for inputs of these shapes alone.

    Names of torch and OpenVINO that are not public do it in a third of the time. Where they are gone or have changed,
    the documented way stands in; only the failure of that way is raised.

    Args:
        module: torch's.
        inputs: examples.
        decomposed: whether the module may hold operations that OpenVINO knows only by their parts.

    Raises:
        HandfulError: as the module.
        Exception: of any kind, from torch or OpenVINO, for an operation that they cannot convert.
    """
    with torch.no_grad():
        try:
            with tracing():
                return _quickly_converted(module, inputs, decomposed=decomposed)
        except HandfulError:
            raise
        except Exception:
            with exporting():
                module(*inputs)  # a value that is computed once and remembered is then a constant
                program = torch.export.export(module, inputs, strict=False)
                return openvino.convert_model(program, input=[list(value.shape) for value in inputs])


def _quickly_converted(module: nn.Module, inputs: tuple[Tensor, ...], *, decomposed: bool) -> "openvino.Model":
    """As `_converted`, by private names alone.

    The operations are traced once. Given a program of torch.export, OpenVINO would have the program traced again to
    take operations apart.
    """
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from torch.fx.experimental.proxy_tensor import make_fx

    if not decomposed:
        return openvino.convert_model(TorchFXPythonDecoder(make_fx(module)(*inputs)))

    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose

    known = set(ops_to_not_decompose())
    every = torch.export.default_decompositions()
    parts_of = {operation: entries for operation, entries in every.items() if operation not in known}
    module(*inputs)  # a value that is computed once and remembered is then a constant
    graph = make_fx(torch.func.functionalize(module), decomposition_table=parts_of)(*inputs)
    return openvino.convert_model(TorchFXPythonDecoder(graph))


def _saved(model: "openvino.Model") -> tuple[bytes, bytes]:
    """Graph and constants, unrounded; equal models give equal bytes."""
    _number_nodes(model)
    with tempfile.TemporaryDirectory() as folder:
        graph = Path(folder, "model.xml")
        openvino.save_model(model, graph, compress_to_fp16=False)
        return graph.read_bytes(), graph.with_suffix(".bin").read_bytes()


def _number_nodes(model: "openvino.Model") -> None:
    """Name a model and its nodes by their order: OpenVINO's own names count all that the process has made."""
    model.set_friendly_name("graph")
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(str(number))


def write_graph(whole: nn.Module, example: Tensor, folder: Path) -> Graph:
    """Write a whole inspector as model.xml and model.bin, unrounded; what runs these files.

    However the graph is reshaped, it refuses an input of another shape than the example's.
    """
    file = folder / "model.xml"
    model = _scored(whole, {GRAPH_INPUT: example})
    _guard(model, tuple(example.shape))
    openvino.save_model(model, file, compress_to_fp16=False)
    hints = {"PERFORMANCE_HINT": "LATENCY", "INFERENCE_PRECISION_HINT": openvino.Type.f32}
    compiled = openvino.Core().compile_model(file, "CPU", hints)

    def run(image: Tensor) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        answer = compiled.create_infer_request().infer({GRAPH_INPUT: image.numpy()})
        scores, score = (answer[name].copy() for name in GRAPH_OUTPUTS)
        return scores, score

    return run


def _guard(model: "openvino.Model", shape: tuple[int, ...]) -> None:
    """Have a model refuse an input of another shape, also after it was reshaped.

    A Reshape stands behind the input. Its target is the shape where the input has that shape, and then it costs
    nothing, or else -2 for each side, which OpenVINO refuses while it reshapes, compiles or runs the model.
    """
    (parameter,) = model.get_parameters()
    readers = parameter.output(0).get_target_inputs()
    ops = openvino.opset13
    wanted = ops.constant(np.array(shape, np.int64))
    same = ops.reduce_logical_and(ops.equal(ops.shape_of(parameter), wanted), ops.constant(0), keep_dims=True)
    target = ops.select(same, wanted, ops.constant(np.full(len(shape), -2, np.int64)))
    guarded = ops.reshape(parameter, target, special_zero=False)
    for reader in readers:
        reader.replace_source_output(guarded.output(0))
    model.validate_nodes_and_infer_types()
    _number_nodes(model)
    guarded.set_friendly_name(f"takes_pictures_of_{'x'.join(map(str, shape))}_alone")  # errors name the node
