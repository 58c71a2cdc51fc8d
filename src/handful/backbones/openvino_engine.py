"""Run a network, or a whole inspector, in OpenVINO on the CPU, without torch.

The precision is pinned: left alone, OpenVINO computes in bf16 wherever the CPU can, and the same inspector would score
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
    """OpenVINO's properties for the least latency or the most throughput, with a number of threads."""
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
    """Backbone and scoring of a saved inspector: as one graph, or one after the other where the backbone is at bf16.

    Scoring is at float32 always: where lengths all but cancel, bf16 would leave nothing of a distance.

    Any number of threads may use it, and each picture gets the answer that it gets alone. As long as no two threads
    meet, a picture is computed with all cores, which is quickest for one picture. The first time that two threads meet,
    the graph is compiled once more to compute several pictures at once (half a second).

    Args:
        spec: of the backbone.
        parts: those of the backbone and of `scoring_entries`.
        learnt: what goes into the scoring beside the levels, by name.
        threads: the most threads that compute at once; None for one a core.

    Raises:
        SettingError, InspectorError, ProcessError: as `OpenVINOBackbone`.
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
        return [partial(_seen, [model.create_infer_request() for model in compiled]) for _ in range(count)]


def _feed(parameter: "openvino.op.Parameter", source: "openvino.Output") -> None:
    """Replace an input by another node's output."""
    for target in parameter.output(0).get_target_inputs():
        target.replace_source_output(source)


def _levels(request: "openvino.InferRequest", image: NDArray[np.float32]) -> tuple[NDArray[np.float32], ...]:
    return tuple(request.infer([image[None]], share_inputs=True).to_tuple())


def _seen(requests: "Sequence[openvino.InferRequest]", image: NDArray[np.float32]) -> ModelOutput:
    """Compute a picture by the whole graph, or by the backbone and then the scoring."""
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
        raise SettingError(f"`precision` must be one that this CPU computes in, got {precision}; use f32.")
    return compiled


def _unreadable(error: RuntimeError) -> InspectorError:
    return InspectorError(
        f"The inspector's graph must be readable by OpenVINO {openvino.__version__}, got: "
        f"{str(error).splitlines()[0]}; load with the torch engine instead."
    )
