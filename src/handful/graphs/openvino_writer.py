"""The OpenVINO writer of networks, scorings and whole inspectors.

This module alone uses private names of torch and OpenVINO; where such a name is missing, the documented conversion is
used instead.
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
    """Convert a torch network to OpenVINO's graph and constants, unrounded, for one picture (1, 3, H, W) at a time."""
    model = _converted(network, (torch.full((1, 3, *size), 0.5),), decomposed=False)
    return dict(zip((GRAPH_ENTRY, CONSTANTS_ENTRY), _saved(model), strict=True))


def scoring_entries(scoring: nn.Module, example: Mapping[str, Tensor]) -> dict[str, bytes]:
    """Convert a method's scoring to OpenVINO's graph and constants, unrounded; `example` gives inputs by name."""
    return dict(zip((SCORING_ENTRY, SCORING_CONSTANTS_ENTRY), _saved(_scored(scoring, example)), strict=True))


def _scored(whole: nn.Module, example: Mapping[str, Tensor]) -> "openvino.Model":
    """The model of a module from named inputs to map and score."""
    model = _converted(whole, tuple(example.values()), decomposed=True)
    for found, name in zip((*model.inputs, *model.outputs), (*example, *GRAPH_OUTPUTS), strict=True):
        found.set_names({name})
    return model


def _converted(module: nn.Module, inputs: tuple[Tensor, ...], *, decomposed: bool) -> "openvino.Model":
    """Convert a torch module to a model for inputs of fixed shapes.

    The conversion by private names of torch and OpenVINO takes a third of the time. If these names are missing or have
    changed, the documented conversion is used; only a failure of the documented conversion is raised.

    Args:
        module: the torch module.
        inputs: example inputs, which fix the shapes.
        decomposed: whether to decompose operations that OpenVINO does not know into known operations.

    Raises:
        HandfulError: raised by the module itself.
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
                module(*inputs)  # computes cached values before, so that they become constants
                program = torch.export.export(module, inputs, strict=False)
                return openvino.convert_model(program, input=[list(value.shape) for value in inputs])


def _quickly_converted(module: nn.Module, inputs: tuple[Tensor, ...], *, decomposed: bool) -> "openvino.Model":
    """Convert a torch module by private names of torch and OpenVINO, see `_converted`.

    The operations are traced once. From a program of torch.export, OpenVINO would trace the program a second time to
    decompose operations.
    """
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from torch.fx.experimental.proxy_tensor import make_fx

    if not decomposed:
        return openvino.convert_model(TorchFXPythonDecoder(make_fx(module)(*inputs)))

    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose

    known = set(ops_to_not_decompose())
    every = torch.export.default_decompositions()
    parts_of = {operation: entries for operation, entries in every.items() if operation not in known}
    module(*inputs)  # computes cached values before, so that they become constants
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
    """Name nodes by their order, so that equal models give equal bytes: OpenVINO's names hold a global counter."""
    model.set_friendly_name("graph")
    for number, node in enumerate(model.get_ordered_ops()):
        node.set_friendly_name(str(number))


def write_graph(whole: nn.Module, example: Tensor, folder: Path) -> Graph:
    """Write a whole inspector as model.xml and model.bin, unrounded, and return a function that runs the files.

    The graph refuses any input of another shape than the example's, even if the graph is reshaped.
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
    """Make a model refuse an input of another shape, even after the model was reshaped.

    A Reshape follows the input. Its target is `shape` if the input has that shape, which costs no time, and otherwise
    -2 for each side, which OpenVINO refuses while it reshapes, compiles or runs the model.
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
    guarded.set_friendly_name(f"takes_pictures_of_{'x'.join(map(str, shape))}_alone")  # errors show the name
