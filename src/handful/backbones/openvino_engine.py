"""Run a network, or a whole inspector, in OpenVINO on the CPU; the only file that imports openvino, and without torch.

The precision is pinned: left alone, OpenVINO computes in bf16 wherever the CPU can, and the same inspector would score
differently on another computer.
"""

import sys
import tempfile
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from handful.backbones.base import (
    GRAPH_INPUT,
    GRAPH_OUTPUTS,
    LEVEL_INPUT,
    SCORING_CONSTANTS_PART,
    SCORING_PART,
    BackboneSpec,
    Graph,
    Precision,
)
from handful.backbones.processes import check_compiling, computing, keep, lost
from handful.errors import HandfulError, InspectorError, SettingError
from handful.types import Features, ModelOutput

if TYPE_CHECKING:  # torch takes a second to import, and a saved inspector needs none of it
    from torch import Tensor, nn

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
_PRECISIONS: dict[Precision, openvino.Type] = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}
Hint = Literal["LATENCY", "THROUGHPUT"]


def convert(network: "nn.Module", size: tuple[int, int]) -> dict[str, bytes]:
    """Turn a torch network into OpenVINO's graph and constants, unrounded, for one picture (1, 3, H, W) at a time."""
    import torch

    model = _converted(network, (torch.full((1, 3, *size), 0.5),), decomposed=False)
    return dict(zip((GRAPH_PART, CONSTANTS_PART), _saved(model), strict=True))


def scoring_parts(scoring: "nn.Module", example: "Mapping[str, Tensor]") -> dict[str, bytes]:
    """Turn a method's scoring into OpenVINO's graph and constants, unrounded, its inputs of these names and shapes."""
    return dict(zip((SCORING_PART, SCORING_CONSTANTS_PART), _saved(_scored(scoring, example)), strict=True))


def _scored(whole: "nn.Module", example: "Mapping[str, Tensor]") -> "openvino.Model":
    """All operations from named inputs to map and score."""
    model = _converted(whole, tuple(example.values()), decomposed=True)
    for found, name in zip((*model.inputs, *model.outputs), (*example, *GRAPH_OUTPUTS), strict=True):
        found.set_names({name})
    return model


def _converted(module: "nn.Module", inputs: "tuple[Tensor, ...]", *, decomposed: bool) -> "openvino.Model":
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
    import torch

    from handful.ops.tracing import exporting, tracing

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


def _quickly_converted(module: "nn.Module", inputs: "tuple[Tensor, ...]", *, decomposed: bool) -> "openvino.Model":
    """As `_converted`, by private names alone.

    The operations are traced once. Given a program of torch.export, OpenVINO would have the program traced again to
    take operations apart.
    """
    import torch
    from openvino.frontend.pytorch.fx_decoder import TorchFXPythonDecoder
    from torch.fx.experimental.proxy_tensor import make_fx

    if not decomposed:
        return openvino.convert_model(TorchFXPythonDecoder(make_fx(module)(*inputs)))

    from openvino.frontend.pytorch.torchdynamo.export_decompositions import ops_to_not_decompose

    known = set(ops_to_not_decompose())
    every = torch.export.default_decompositions()
    parts_of = {operation: parts for operation, parts in every.items() if operation not in known}
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


def write_graph(whole: "nn.Module", example: "Tensor", folder: Path) -> Graph:
    """Write a whole inspector as model.xml and model.bin, unrounded; what runs these files.

    However the graph is reshaped, it refuses an input of another shape than the example's.
    """
    file = folder / "model.xml"
    model = _scored(whole, {GRAPH_INPUT: example})
    _guard(model, tuple(example.shape))
    openvino.save_model(model, file, compress_to_fp16=False)
    hints = {**_hints("LATENCY"), "INFERENCE_PRECISION_HINT": openvino.Type.f32}
    compiled = openvino.Core().compile_model(file, "CPU", hints)

    def run(image: "Tensor") -> tuple[NDArray[np.float32], NDArray[np.float32]]:
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


def _hints(hint: Hint, threads: int | None = None) -> dict[str, object]:
    """How to compute: one picture as quickly as can be, or as many pictures as can be; with how many threads."""
    limits = {} if threads is None else {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    return {"PERFORMANCE_HINT": hint, **limits}


Answer = TypeVar("Answer")


class Requests(Generic[Answer]):
    """Inference requests for any number of threads: each request computes for one thread at a time.

    Args:
        requests: of one compiled graph.
        forked: computes instead in a process that was forked after OpenVINO had run, where a graph that was compiled
            for several pictures at once would wait for lost threads for ever; None where `requests` compute there too.

    Attributes:
        count: how many pictures are computed at once; a further thread waits.
    """

    def __init__(
        self,
        requests: Sequence[Callable[[NDArray[np.float32]], Answer]],
        *,
        forked: "Requests[Answer] | None" = None,
    ) -> None:
        self.count, self._forked = len(requests), forked
        self._free = SimpleQueue[Callable[[NDArray[np.float32]], Answer]]()
        for request in requests:
            self._free.put(request)
        keep(self)

    def __call__(self, image: NDArray[np.float32]) -> Answer:
        """Compute one picture (3, H, W) in [0, 1], as soon as a request is free."""
        if self._forked is not None and lost("openvino"):
            return self._forked(image)
        with computing("openvino"):
            request = self._free.get()
            try:
                return request(image)
            finally:
                self._free.put(request)

    @property
    def busy(self) -> bool:
        """Whether a thread would have to wait now."""
        return self._free.empty()


class OpenVINOBackbone:
    """A network in OpenVINO, at a pinned precision; any number of threads may use it.

    Raises:
        SettingError: if this CPU does not compute in the precision asked for.
        InspectorError: if the graph cannot be read.
        ProcessError: in a process that was forked after OpenVINO had run.
    """

    device = "cpu"

    def __init__(self, spec: BackboneSpec, parts: Mapping[str, bytes]) -> None:
        self.spec, self.parts = spec, parts
        self._compiled = _compiled(_read(parts[GRAPH_PART], parts[CONSTANTS_PART]), spec.precision, _hints("LATENCY"))
        self._levels = Requests([partial(_levels, self._compiled.create_infer_request())])

    def __call__(self, images: "Tensor") -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1], one picture at a time."""
        import torch

        single = [self._levels(image.numpy()) for image in images]
        levels = tuple(torch.cat([torch.from_numpy(level) for level in batch]) for batch in zip(*single, strict=True))
        return Features(levels, self.spec.size)


class WholeGraph:
    """Backbone and scoring of a saved inspector: as one graph, or one after the other where the backbone is at bf16.

    Scoring is at float32 always: where lengths all but cancel, bf16 would leave nothing of a distance.

    Any number of threads may use it, and each picture gets the answer that it gets alone. As long as no two threads
    meet, a picture is computed with all cores, which is quickest for one picture. The first time that two threads meet,
    the graph is compiled once more to compute several pictures at once (half a second).

    Args:
        spec: of the backbone.
        parts: those of the backbone and of `scoring_parts`.
        learnt: what goes into the scoring beside the levels, by name.
        threads: the most threads that compute at once; None for one a core.

    Raises:
        SettingError, InspectorError, ProcessError: as `OpenVINOBackbone`.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        parts: Mapping[str, bytes],
        learnt: Mapping[str, NDArray[np.float32]],
        *,
        threads: int | None = None,
    ) -> None:
        backbone = _read(parts[GRAPH_PART], parts[CONSTANTS_PART])
        scoring = _read(parts[SCORING_PART], parts[SCORING_CONSTANTS_PART])
        inputs = {parameter.output(0).any_name: parameter for parameter in scoring.get_parameters()}
        levels = [inputs.pop(f"{LEVEL_INPUT}{number}") for number in range(len(backbone.outputs))]
        for name, parameter in inputs.items():
            _feed(parameter, openvino.opset13.constant(learnt[name]).output(0))
        self._models: list[tuple[openvino.Model, Precision]]
        if spec.precision == "f32":
            for parameter, result in zip(levels, backbone.get_results(), strict=True):
                _feed(parameter, result.input_value(0))
            results = [*scoring.get_results(), *backbone.get_results()]
            self._models = [(openvino.Model(results, backbone.get_parameters(), "inspector"), "f32")]
        else:
            self._models = [
                (backbone, spec.precision),
                (openvino.Model(scoring.get_results(), levels, "scoring"), "f32"),
            ]
        self._threads = threads
        self._single = Requests(self._compile(_hints("LATENCY", threads), 1))
        self._several: dict[int | None, Requests[ModelOutput]] = {}
        self._compiling = threading.Lock()

    def __call__(self, image: NDArray[np.float32]) -> ModelOutput:
        """See a picture (3, H, W) in [0, 1]."""
        see = self.several() if self._single.busy and self._threads != 1 else self._single
        return see(image)

    def several(self, count: int | None = None) -> Requests[ModelOutput]:
        """See several pictures at once, the quickest way for many pictures.

        In a process that was forked after OpenVINO had run pictures are seen one at a time.

        Args:
            count: how many at once. None for twice as many as the engine computes at once: meanwhile the pictures of
                the others are read.

        Raises:
            SettingError, InspectorError: as the graph itself.
        """
        with computing("openvino"), self._compiling:
            if lost("openvino"):
                return self._single
            if count not in self._several:
                hints = _hints("THROUGHPUT", self._threads) | ({} if count is None else {"NUM_STREAMS": count})
                self._several[count] = Requests(self._compile(hints, count), forked=self._single)
            return self._several[count]

    def _compile(
        self, hints: "Mapping[str, object]", count: int | None
    ) -> list[Callable[[NDArray[np.float32]], ModelOutput]]:
        """Compile the graph, and make so many requests; None for twice as many as the engine computes at once."""
        compiled = [_compiled(model, precision, hints) for model, precision in self._models]
        count = count or 2 * compiled[0].get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        see = _seen if len(compiled) == 1 else _seen_in_turn
        return [partial(see, *(one.create_infer_request() for one in compiled)) for _ in range(count)]


def _feed(parameter: "openvino.op.Parameter", source: "openvino.Output") -> None:
    """Have what comes from an input come from elsewhere."""
    for target in parameter.output(0).get_target_inputs():
        target.replace_source_output(source)


def _levels(request: "openvino.InferRequest", image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    return tuple(request.infer([image[None]], share_inputs=True).to_tuple())


def _seen(request: "openvino.InferRequest", image: NDArray[np.float32]) -> ModelOutput:
    maps, score, *levels = request.infer([image[None]], share_inputs=True).to_tuple()
    return ModelOutput(tuple(level[0] for level in levels), maps[0], float(score[0]))


def _seen_in_turn(
    backbone: "openvino.InferRequest", scoring: "openvino.InferRequest", image: NDArray[np.float32]
) -> ModelOutput:
    levels = backbone.infer([image[None]], share_inputs=True).to_tuple()
    maps, score = scoring.infer(levels, share_inputs=True).to_tuple()
    return ModelOutput(tuple(level[0] for level in levels), maps[0], float(score[0]))


def _read(graph: bytes, constants: bytes) -> "openvino.Model":
    try:
        return openvino.Core().read_model(graph, constants)
    except RuntimeError as error:
        raise _unreadable(error) from error


def _compiled(model: "openvino.Model", precision: Precision, hints: "Mapping[str, object]") -> "openvino.CompiledModel":
    """A model ready to run at a precision."""
    check_compiling()
    wanted = _PRECISIONS[precision]
    try:
        with computing("openvino"):
            compiled = openvino.Core().compile_model(model, "CPU", {**hints, "INFERENCE_PRECISION_HINT": wanted})
    except RuntimeError as error:
        raise _unreadable(error) from error
    if compiled.get_property("INFERENCE_PRECISION_HINT") != wanted:
        raise SettingError(f"`precision` must be one that this CPU computes in, got {precision}; use f32.")
    return compiled


def _unreadable(error: RuntimeError) -> InspectorError:
    return InspectorError(
        f"The inspector's graph must be readable by OpenVINO {openvino.__version__}, got: "
        f"{str(error).splitlines()[0]}; load with the torch engine instead."
    )
