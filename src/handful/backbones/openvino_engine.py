"""The OpenVINO engine: a network, or a whole inspector, on the CPU, without torch.

The precision is pinned: by default OpenVINO computes in bf16 on CPUs with bf16, and the same inspector would score
differently on another computer.
"""

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from queue import SimpleQueue
from typing import TYPE_CHECKING, Generic, Literal, TypeVar

import numpy as np
from numpy.typing import NDArray

from handful.backbones.base import BackboneSpec, Precision
from handful.backbones.processes import check_compiling, computing, keep, lost
from handful.errors import InspectorError, SettingError
from handful.graphs.names import CONSTANTS_ENTRY, GRAPH_ENTRY, LEVEL_INPUT, SCORING_CONSTANTS_ENTRY, SCORING_ENTRY
from handful.graphs.openvino import openvino
from handful.types import Features, ModelOutput

if TYPE_CHECKING:  # torch takes a second to import, and a saved inspector needs none of it
    from torch import Tensor

_PRECISIONS: dict[Precision, openvino.Type] = {"f32": openvino.Type.f32, "bf16": openvino.Type.bf16}


def _hints(hint: Literal["LATENCY", "THROUGHPUT"], threads: int | None = None) -> dict[str, object]:
    """OpenVINO's properties for the least latency or the highest throughput, with a number of threads."""
    limits = {} if threads is None else {"INFERENCE_NUM_THREADS": threads, "ENABLE_CPU_PINNING": False}
    return {"PERFORMANCE_HINT": hint, **limits}


Answer = TypeVar("Answer")


class Requests(Generic[Answer]):
    """Inference requests for any number of threads: each request computes for one thread at a time.

    Args:
        requests: of the same compiled graph.
        forked: replaces `requests` in a process that was forked after OpenVINO had run, in which a graph compiled for
            several pictures at once would wait for lost threads for ever; None if `requests` compute there too.

    Attributes:
        count: the number of pictures computed at once; further threads wait.
    """

    def __init__(
        self, requests: Sequence[Callable[[NDArray[np.float32]], Answer]], *, forked: "Requests[Answer] | None" = None
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
        """Whether a further thread would have to wait now."""
        return self._free.empty()


class OpenVINOBackbone:
    """A network in OpenVINO, at a pinned precision, for any number of threads.

    Raises:
        SettingError: if this CPU cannot compute in the precision of the spec.
        InspectorError: if the graph cannot be read.
        ProcessError: in a process that was forked after OpenVINO had run.
    """

    device = "cpu"

    def __init__(self, spec: BackboneSpec, entries: Mapping[str, bytes]) -> None:
        self.spec, self.entries = spec, entries
        self._compiled = _compiled(
            _read(entries[GRAPH_ENTRY], entries[CONSTANTS_ENTRY]), spec.precision, _hints("LATENCY")
        )
        self._levels = Requests([partial(_levels, self._compiled.create_infer_request())])

    def __call__(self, images: "Tensor") -> Features:
        """Compute the levels of (B, 3, H, W) images in [0, 1], one picture at a time."""
        import torch

        single = [self._levels(image.numpy()) for image in images]
        levels = tuple(torch.cat([torch.from_numpy(level) for level in batch]) for batch in zip(*single, strict=True))
        return Features(levels, self.spec.size)


class WholeGraph:
    """Backbone and scoring of a saved inspector: a single graph at float32, two graphs in turn for a backbone at bf16.

    The scoring always runs at float32, as the cancellation in distances would leave no correct digit at bf16.

    Any number of threads may use a `WholeGraph`, and each picture gets the same answer alone and beside others. As long
    as threads do not overlap, each picture is computed with all cores, which gives the least latency. When two threads
    first overlap, the graph is compiled a second time, to compute several pictures at once (half a second).

    Args:
        spec: of the backbone.
        entries: of the backbone, and of its scoring, see `handful.graphs.openvino_writer.scoring_entries`.
        learnt: the inputs of the scoring besides the levels, by name.
        threads: the largest number of threads that compute at once; None for a thread per core.

    Raises:
        SettingError, InspectorError, ProcessError: see `OpenVINOBackbone`.
    """

    def __init__(
        self,
        spec: BackboneSpec,
        entries: Mapping[str, bytes],
        learnt: Mapping[str, NDArray[np.float32]],
        *,
        threads: int | None = None,
    ) -> None:
        backbone = _read(entries[GRAPH_ENTRY], entries[CONSTANTS_ENTRY])
        scoring = _read(entries[SCORING_ENTRY], entries[SCORING_CONSTANTS_ENTRY])
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
        """Compute the output for a picture (3, H, W) in [0, 1]."""
        see = self.several() if self._single.busy and self._threads != 1 else self._single
        return see(image)

    def several(self, count: int | None = None) -> Requests[ModelOutput]:
        """The requests that compute several pictures at once, with the highest throughput.

        In a process that was forked after OpenVINO had run, pictures are computed one at a time.

        Args:
            count: the number of requests; None for twice OpenVINO's optimal number, so that pictures are read while
                others are computed.

        Raises:
            SettingError, InspectorError: see `OpenVINOBackbone`.
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
        """Compile the graph, and make `count` requests; None for twice OpenVINO's optimal number."""
        compiled = [_compiled(model, precision, hints) for model, precision in self._models]
        count = count or 2 * compiled[0].get_property("OPTIMAL_NUMBER_OF_INFER_REQUESTS")
        return [partial(_seen, [model.create_infer_request() for model in compiled]) for _ in range(count)]


def _feed(parameter: "openvino.op.Parameter", source: "openvino.Output") -> None:
    """Replace an input of a model by another node's output."""
    for target in parameter.output(0).get_target_inputs():
        target.replace_source_output(source)


def _levels(request: "openvino.InferRequest", image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    return tuple(request.infer([image[None]], share_inputs=True).to_tuple())


def _seen(requests: "Sequence[openvino.InferRequest]", image: NDArray[np.float32]) -> ModelOutput:
    """The output for a picture, by the request of the whole graph or by requests of backbone and scoring in turn."""
    computed = requests[0].infer([image[None]], share_inputs=True).to_tuple()
    if len(requests) == 1:
        maps, score, *levels = computed
    else:
        levels = computed
        maps, score = requests[1].infer(levels, share_inputs=True).to_tuple()
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
        raise SettingError(f"`precision` must be a precision that this CPU computes in, got {precision}; use f32.")
    return compiled


def _unreadable(error: RuntimeError) -> InspectorError:
    return InspectorError(
        f"The inspector's graph must be readable by OpenVINO {openvino.__version__}, got: "
        f"{str(error).splitlines()[0]}; load with the torch engine instead."
    )
