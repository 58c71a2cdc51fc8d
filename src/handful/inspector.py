"""The inspector: from a picture to a verdict, without torch where the saved file holds a graph of the scoring."""

import math
import os
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Any, Protocol, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from handful.backbones.base import BackboneSpec
from handful.backbones.processes import undisturbed
from handful.data import images
from handful.data.images import Picture, Pictures, PictureSource
from handful.data.preprocessing import Preprocessing
from handful.errors import InputError, InspectorError, SettingError
from handful.graphs.names import GOOD_INPUT, SCORING_ENTRY, STATE_INPUT
from handful.inspection import threshold
from handful.inspection.evidence import Evidence, regions
from handful.inspection.gate import Gate
from handful.ops.frames import whole
from handful.ops.ignoring_numpy import hidden_levels
from handful.report.result import Inspection
from handful.saved import archive
from handful.saved.archive import STATE_ENTRY
from handful.saved.manifest import Arrays, gate_of, preprocessing_of, reading, reference_levels, references_of, spec_of
from handful.types import ModelOutput, NearestReference, Reference, Region, Verdict

PICTURES_PER_CORE = 2  # inspected at the same time: more pictures would push each other out of the caches
MANY = 50  # pictures; from this many on, a second graph for many pictures at once repays its half second of compilation

# a picture (3, H, W) in [0, 1] → output of backbone and method
Forward = Callable[[NDArray[np.float32]], ModelOutput]


class SideBySide(Protocol):
    """A `Forward` that any number of threads may call at the same time."""

    @property
    def count(self) -> int:
        """The number of pictures computed at once."""

    def __call__(self, image: NDArray[np.float32]) -> ModelOutput:
        """The output of backbone and method for one picture (3, H, W) in [0, 1]."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Inspector:
    """Inspects pictures and learns nothing: for programs that only inspect and must start quickly.

        inspector = handful.Inspector.load("part.handful")
        print(inspector("incoming/001.png").verdict)
        for inspection in inspector.stream("incoming/"):
            print(inspection.path, inspection.verdict, inspection.score)

    Threads: any number of threads may use an inspector at once. A picture gets the same answer alone and beside others,
    to the last bit, and no call changes a setting of the process.
    Processes: an inspector can be pickled and copied, as the bytes of its file. An inspector that was loaded before a
    fork answers in the forked process too, with one thread; `load` raises ProcessError there.

    Attributes:
        method_name: the name of the method.
        backbone_spec: the identity of the backbone, which computes the features.
        preprocessing: the steps from a picture's pixels to the model's input.
        calibration: the threshold and its basis.
        references: the good pictures that the inspector has learnt from.
        digest: the identity of the inspector with its calibration, sha256 in hex; two inspectors of the same digest
            give the same answers.
    """

    method_name: str
    backbone_spec: BackboneSpec
    preprocessing: Preprocessing
    calibration: threshold.Calibration
    references: tuple[Reference, ...] = field(repr=False)
    digest: str
    _gate: Gate = field(repr=False)  # says which pictures are doubtful, and why
    _forward: Forward = field(repr=False)
    # Gives a function and its arguments, by which another process makes the inspector; all of them can be pickled.
    _again: Callable[[], tuple[Callable[..., "Inspector"], tuple[Any, ...]]] = field(repr=False)
    # The features of each good picture, a level each, to look up the good places beside a defect; empty if not saved.
    _learnt: tuple[Arrays, ...] = field(default=(), repr=False)
    _ignored: NDArray[np.bool_] | None = field(default=None, repr=False)  # (H, W), True where the map does not count
    # Makes a `Forward` for a number of pictures at once, None for the quickest number; None where only `_forward` is.
    _side_by_side: Callable[[int | None], SideBySide] | None = field(default=None, repr=False)
    _alone: bool = field(default=True, repr=False)  # pictures come one by one: two threads may resize each
    _evidence: Evidence | None = field(default=None, repr=False)  # None where `_learnt` is empty
    _places: threading.Semaphore | None = field(default=None, repr=False)  # bounds the pictures inspected at once

    def __post_init__(self) -> None:
        if self._places is None:
            object.__setattr__(self, "_places", threading.Semaphore(PICTURES_PER_CORE * (os.cpu_count() or 1)))
        if self._evidence is None and self._learnt:
            frame = self.preprocessing.size
            placements = [
                self.preprocessing.placement(one.size) if one.size else whole(frame) for one in self.references
            ]
            found = Evidence(self._learnt, [reference.name for reference in self.references], placements)
            object.__setattr__(self, "_evidence", found)

    def __reduce__(self) -> tuple[Callable[..., "Inspector"], tuple[Any, ...]]:
        """Pickle and copy by way of the saved file."""
        return self._again()

    @classmethod
    def load(cls, source: archive.Source, *, threads: int | None = None) -> Self:
        """Load a saved inspector without importing torch.

            inspector = handful.Inspector.load("part.handful", threads=2)

        Args:
            source: the path of a saved inspector, or the bytes of its file.
            threads: the largest number of threads that OpenVINO computes with; None for a thread per core. NumPy's
                threads, which resize pictures and look up evidence, are set by OPENBLAS_NUM_THREADS before NumPy is
                imported.

        Raises:
            InspectorError: if the file is missing, damaged, altered, newer than this version, or no inspector; or if it
                holds no graph of its method, as inspectors with a trained head, CLIP or torch's engine: `Detector`
                loads these.
            SettingError: if this CPU cannot compute in the inspector's precision, or for `threads` below 1.
            ProcessError: in a process that was forked after OpenVINO had run.
        """
        loaded = cls._load_graph(source, threads=threads)
        if loaded is None:
            name = archive.content_of(source)[1]
            raise InspectorError(
                f"{name} must hold a graph of its method for an inspection without torch, got none; use "
                f"`Detector.load`, or, if `handful info` names a method and an engine that have a graph, fit and save "
                f"the inspector again with this version."
            )
        return loaded

    @classmethod
    def _load_graph(cls, source: archive.Source, *, threads: int | None = None) -> Self | None:
        """Load a saved inspector; None for an inspector without a graph."""
        if threads is not None and threads < 1:
            raise SettingError(f"`threads` must be at least 1, got {threads}; leave it out for a thread per core.")
        content, name = archive.content_of(source)
        manifest, calibration, entries = archive.read(content, name=name)
        if SCORING_ENTRY not in entries:
            return None
        with reading(name):
            spec = spec_of(manifest)
            learnt, ignored = reference_levels(entries)
            state = safetensors.numpy.load(entries[STATE_ENTRY])
            given = {f"{STATE_INPUT}{name}": value for name, value in state.items()}
            given |= {f"{GOOD_INPUT}{number}": level[None] for number, level in enumerate(learnt[0])}

            from handful.backbones.openvino_engine import WholeGraph  # a fifth of a second, and not to read a file

            graph = WholeGraph(spec, entries, given, threads=threads)
            return cls(
                _forward=graph,
                _side_by_side=graph.several,
                method_name=manifest["method"]["name"],
                backbone_spec=spec,
                preprocessing=preprocessing_of(manifest),
                calibration=threshold.Calibration.from_dict(calibration),
                references=references_of(manifest, entries),
                _gate=gate_of(manifest, entries),
                digest=manifest["digest"],
                _again=lambda: (_loaded, (content, threads)),
                _learnt=learnt,
                _ignored=ignored,
                _alone=threads != 1,
            )

    @property
    def gate(self) -> tuple[str, ...]:
        """The names of the checks that a picture must pass to be OK, from `handful.inspection.gate.CHECKS`."""
        return self._gate.checks

    def _limited(self, max_pixels: int | None) -> Self:
        """This inspector with another largest number of pixels of a picture; None for the number of the fit."""
        if max_pixels is None:
            return self
        return replace(self, preprocessing=replace(self.preprocessing, max_pixels=max_pixels))

    def workers(self, count: int | None = None) -> tuple["Inspector", ...]:
        """Several inspectors for a thread each, which share the graph and the good pictures.

            first, second = inspector.workers(2)

        Args:
            count: the number of inspectors; None for the number with the highest throughput on this computer.

        Raises:
            SettingError: for `count` below 1.
        """
        if count is not None and count < 1:
            raise SettingError(f"`count` must be at least 1, got {count}; leave it out for the highest throughput.")
        if self._side_by_side is None:
            return tuple(replace(self, _alone=False) for _ in range(count or 1))
        forward = self._side_by_side(count)
        workers = range(count or forward.count)
        return tuple(replace(self, _forward=forward, _alone=False, _places=None) for _ in workers)

    def __call__(self, picture: PictureSource | Picture) -> Inspection:
        """Inspect one picture; an unreadable picture gets the verdict ERROR.

            print(inspector("incoming/001.png").score)

        Args:
            picture: a path or pixels, see `handful.data.images.read_picture`, or a `Picture` that it returned.
        """
        if isinstance(picture, Picture):
            return self._inspect_picture(picture)
        return self._inspect_source(picture, name=images.name_of(picture) or "picture")[0]

    def inspect(self, pictures: Pictures) -> list[Inspection]:
        """Inspect one picture, several, or a folder with its subfolders; always a list, in the order given.

            defects = [one.path for one in inspector.inspect("incoming/") if one.is_defect]

        An unreadable picture gets the verdict ERROR; the other pictures are inspected all the same.

        Args:
            pictures: a folder, a picture, an iterable of pictures, or a stack (B, h, w, 3) or (B, h, w), see
                `handful.data.images.gather`.

        Raises:
            InputError: if there is no picture at all.
        """
        return list(self.stream(pictures))

    def stream(self, pictures: Pictures) -> Iterator[Inspection]:
        """Inspect pictures and yield each answer in turn, so that memory need not hold the heatmaps of all.

            for inspection in inspector.stream("incoming/"):
                print(inspection.path, inspection.score)

        From an iterator, such as a generator that takes pictures from a camera, the next picture is taken only after
        the caller has taken the previous answer. Many pictures of a list or a folder are inspected side by side.
        """
        if isinstance(pictures, Iterator):
            for source, name in images.stream(pictures, recursive=True):
                yield self._inspect_source(source, name=name)[0]
            return
        for inspection, _ in self._stream(images.gather(pictures, recursive=True)):
            yield inspection

    def _stream(self, sources: Sequence[tuple[PictureSource, str]]) -> Iterator[tuple[Inspection, Picture | None]]:
        """Run `_inspect_source` for each source and name and yield the answers in order.

        Many pictures are read and inspected side by side, and only pictures under way are held in memory. With tiles,
        whose pictures are large, pictures are inspected one by one.
        """
        if self._side_by_side is None or len(sources) < MANY or self.preprocessing.tiles is not None:
            for source, name in sources:
                yield self._inspect_source(source, name=name)
            return
        forward = self._side_by_side(None)
        worker = replace(self, _forward=forward, _alone=False)
        under_way: deque[Future[tuple[Inspection, Picture | None]]] = deque()
        with ThreadPoolExecutor(forward.count) as pool:
            for source, name in sources:
                under_way.append(pool.submit(worker._inspect_source, source, name=name))
                if len(under_way) > 2 * forward.count:
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

    @undisturbed()
    def _inspect_source(self, source: PictureSource, *, name: str) -> tuple[Inspection, Picture | None]:
        """Inspect one source and return the answer with the picture as read, None for an unreadable picture."""
        try:
            picture = self.preprocessing.read(source, name)
            return self._inspect_picture(picture), picture
        except InputError as error:
            return Inspection(name, Verdict.ERROR, reason=str(error), inspector=self.digest), None

    @undisturbed()
    def _inspect_picture(self, picture: Picture) -> Inspection:
        """Inspect a picture that has been read.

        Every picture is scored. A picture that the gate doubts is a DEFECT if its score is above the threshold, with
        the gate's sentence as a note, and a RETAKE otherwise.
        """
        assert self._places is not None  # `__post_init__` has made them
        with self._places:
            return self._inspected(picture)

    def _inspected(self, picture: Picture) -> Inspection:
        image = self.preprocessing(picture, halves=self._alone)
        placement, notes = (
            self.preprocessing.placement(picture.size),
            self.preprocessing.notes(picture, self.references),
        )
        seen = self._forward(image)
        fine = None
        if self.preprocessing.tiles is not None:
            fine, placement = self.preprocessing.in_detail(picture), self.preprocessing.fine_placement(picture.size)
            seen = self._in_tiles(fine, seen)
        if not math.isfinite(seen.score) or not math.isfinite(float(seen.map.sum(dtype=np.float64))):
            reason = (
                f"{picture.name} must get finite scores, got {seen.score:g}, as the inspector's file is damaged or its "
                "numbers are too large for this picture; copy the inspector, or fit it again."
            )
            return Inspection(picture.name, Verdict.ERROR, reason=reason, inspector=self.digest)
        doubt = self._gate.refuse_image(image, fine) or self._gate.refuse_features(seen.levels, self._learnt)
        sentence = f"{picture.name} {doubt}" if doubt else None
        heatmap = self.calibration.calibrated_map(placement.cut(seen.map))
        defect = seen.score > self.calibration.threshold
        regions, missing = self._regions(heatmap, seen.levels, picture) if defect else ((), None)
        return Inspection(
            path=picture.name,
            verdict=Verdict.DEFECT if defect else Verdict.RETAKE if sentence else Verdict.OK,
            score=self.calibration.calibrated(seen.score),
            raw_score=seen.score,
            raw_threshold=self.calibration.threshold,
            heatmap=heatmap,
            regions=regions,
            missing=missing,
            size=picture.size,
            inspector=self.digest,
            reason=None if defect else sentence,
            notes=(*notes, sentence) if defect and sentence else notes,
        )

    def _in_tiles(self, fine: NDArray[Any], seen: ModelOutput) -> ModelOutput:
        """The joined map of a picture's tiles and the highest peak of any tile, with the levels of the whole picture.

        Args:
            fine: the picture at the tiles' resolution.
            seen: the output for the whole picture.
        """
        tiles, peaks = self.preprocessing.tiles, []

        def maps() -> Iterator[NDArray[np.float32]]:
            for tile in self.preprocessing.inputs(fine):
                found = self._forward(tile).map
                peaks.append(found.max())
                yield found

        assert tiles is not None
        joined = tiles.joined(maps())
        return ModelOutput(seen.levels, joined, float(np.max(peaks)))  # np.max keeps NaN, which Python's max may lose

    def _regions(
        self, heatmap: NDArray[np.float32], levels: Arrays, picture: Picture
    ) -> tuple[tuple[Region, ...], NearestReference | None]:
        """The regions of a defect, each with its nearest good place, and the good place that may be missing."""
        found = regions(heatmap, picture.size)
        if self._evidence is None:
            return found, None
        if self._ignored is not None:
            levels = hidden_levels(levels, self._ignored, self._learnt[0])
        return self._evidence.explain(found, levels, picture.size, self.preprocessing.placement(picture.size))


def _loaded(content: bytes, threads: int | None) -> Inspector:
    """Restore an inspector from its pickle or copy."""
    return Inspector.load(content, threads=threads)
