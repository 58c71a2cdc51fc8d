"""Inspects pictures with what a detector has learnt; without torch, where the saved inspector holds its own graph."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from safetensors import SafetensorError

from handful import artifact, capture, decision
from handful.artifact import GATE_PART, IGNORED_PART, LEARNT_PART, STATE_PART
from handful.backbones.base import GOOD_INPUT, SCORING_PART, STATE_INPUT, BackboneSpec
from handful.data import images
from handful.data.images import Picture, Pictures, PictureSource
from handful.data.preprocessing import Preprocessing
from handful.errors import HandfulError, InputError, InspectorError
from handful.evidence import Evidence
from handful.ops.cells import hidden_levels
from handful.types import Inspection, Likeness, Reference, Region, Seen

MANY = 50  # pictures, from which another graph for many is worth the half second that it takes to make

Arrays = tuple[NDArray[np.float32], ...]  # of one picture's levels, (h, w, D) each
Look = Callable[[NDArray[np.float32]], Seen]  # a picture (3, H, W) in [0, 1] → what backbone and method say of it


@dataclass(frozen=True, eq=False, kw_only=True)
class Inspector:
    """What inspects pictures and learns nothing: for a program that needs no more, and starts in a moment.

        inspector = Inspector.load("bottle.handful")
        for inspection in inspector.stream("incoming/"):
            print(inspection.path, inspection.verdict, inspection.calibrated_score)

    `Detector` inspects by one of these.

    Attributes:
        look: backbone and method.
        method: its name.
        backbone: what computes the features.
        preprocessing: from pixels to what `look` sees.
        calibration: the threshold and what it rests on.
        references: the good pictures that were learnt from.
        gate: says which pictures are doubtful, and why.
        learnt: the levels of each good picture, to look up what a defect was compared with; empty where not kept.
        ignored: (H, W) bool, the region that does not count; None for none.
        side_by_side: makes several of `look` that may be used at the same time; None where there is only the one.
        alone: whether no other works beside it, so that a second core is idle while it prepares a picture.
    """

    look: Look = field(repr=False)
    method: str
    backbone: BackboneSpec
    preprocessing: Preprocessing
    calibration: decision.Calibration
    references: tuple[Reference, ...] = field(repr=False)
    gate: capture.Gate = field(repr=False)
    learnt: tuple[Arrays, ...] = field(default=(), repr=False)
    ignored: NDArray[np.bool_] | None = field(default=None, repr=False)
    side_by_side: Callable[[], Sequence[Look]] | None = field(default=None, repr=False)
    alone: bool = field(default=True, repr=False)

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> Self:
        """Load a saved inspector, torch left aside.

        Raises:
            InspectorError: if it is missing, damaged, altered, newer than this version, or no inspector; or if it holds
                no graph of its method, as those of trained heads, of CLIP or of torch's engine: `Detector` loads these.
            SettingError: if this CPU does not compute in its precision.
        """
        loaded = cls.load_graph(path)
        if loaded is None:
            raise InspectorError(
                f"{path} must hold a graph of its method to be inspected with without torch, got none; use "
                f"`Detector.load`, or fit and save it again with this version where `handful info` names a method and "
                f"an engine that have one."
            )
        return loaded

    @classmethod
    def load_graph(cls, path: str | os.PathLike[str]) -> Self | None:
        """As `load`, but None for an inspector without a graph."""
        manifest, calibration, parts = artifact.read(Path(path))
        if SCORING_PART not in parts:
            return None
        with reading(path):
            spec = spec_of(manifest)
            learnt, ignored = _learnt(parts)
            state = safetensors.numpy.load(parts[STATE_PART])
            given = {f"{STATE_INPUT}{name}": value for name, value in state.items()}
            given |= {f"{GOOD_INPUT}{number}": level[None] for number, level in enumerate(learnt[0])}

            from handful.backbones.openvino_engine import WholeGraph  # a fifth of a second, and not to read a file

            graph = WholeGraph(spec, parts, given)
            return cls(
                look=graph,
                side_by_side=graph.side_by_side,
                method=manifest["method"]["name"],
                backbone=spec,
                preprocessing=preprocessing_of(manifest),
                calibration=decision.Calibration.from_dict(calibration),
                references=references_of(manifest, parts),
                gate=gate_of(manifest, parts),
                learnt=learnt,
                ignored=ignored,
            )

    def inspect(self, pictures: Pictures) -> list[Inspection]:
        """Inspect one picture, several, or a folder with its subfolders; always a list, in the order given.

        A picture that cannot be read gets the verdict ERROR and the others go on.

        Raises:
            InputError: if there is no picture at all.
        """
        return list(self.stream(pictures))

    def stream(self, pictures: Pictures) -> Iterator[Inspection]:
        """As `inspect`, one answer at a time: for more pictures than memory holds heatmaps."""
        for inspection, _ in self.stream_sources(images.gather(pictures, recursive=True)):
            yield inspection

    def stream_sources(
        self, sources: Sequence[tuple[PictureSource, str]]
    ) -> Iterator[tuple[Inspection, Picture | None]]:
        """As `inspect_source` for each source and name, in their order; many are read and inspected side by side.

        As many are held at a time as are under way, however many there are.
        """
        if self.side_by_side is None or len(sources) < MANY:
            for source, name in sources:
                yield self.inspect_source(source, name=name)
            return
        looks = self.side_by_side()
        free = SimpleQueue[Inspector]()
        for look in looks:
            free.put(replace(self, look=look, alone=False))

        def inspected(source: PictureSource, name: str) -> tuple[Inspection, Picture | None]:
            inspector = free.get()
            try:
                return inspector.inspect_source(source, name=name)
            finally:
                free.put(inspector)

        under_way: deque[Future[tuple[Inspection, Picture | None]]] = deque()
        with ThreadPoolExecutor(len(looks)) as pool:
            for source, name in sources:
                under_way.append(pool.submit(inspected, source, name))
                if len(under_way) > 2 * len(looks):
                    yield under_way.popleft().result()
            while under_way:
                yield under_way.popleft().result()

    def inspect_source(self, source: PictureSource, *, name: str) -> tuple[Inspection, Picture | None]:
        """Inspect one source; with the answer comes the picture as it was read, or None where it cannot be read."""
        try:
            picture = images.read_picture(source, name=name, detail=max(self.preprocessing.size))
            return self.inspect_picture(picture), picture
        except InputError as error:
            return Inspection(name, "ERROR", reason=str(error)), None

    def inspect_picture(self, picture: Picture) -> Inspection:
        """Inspect a picture that has been read.

        Every picture is scored. A picture that the gate doubts is a DEFECT, with the gate's sentence as a note, where
        its score is beyond the threshold, and a RETAKE elsewhere.
        """
        image = self.preprocessing(picture, halves=self.alone)
        seen = self.look(image)
        doubt = self.gate.refuse_image(image) or self.gate.refuse_features(seen.levels, self.learnt)
        sentence = f"{picture.name} {doubt}" if doubt else None
        heatmap = self.calibration.calibrated_map(seen.map)
        defect = seen.score > self.calibration.threshold
        regions, missing = self._regions(heatmap, seen.levels, picture) if defect else ((), None)
        return Inspection(
            path=picture.name,
            verdict="DEFECT" if defect else "RETAKE" if sentence else "OK",
            score=seen.score,
            calibrated_score=self.calibration.calibrated(seen.score),
            threshold=self.calibration.threshold,
            heatmap=heatmap,
            regions=regions,
            missing=missing,
            size=picture.size,
            reason=None if defect else sentence,
            notes=(sentence,) if defect and sentence else (),
        )

    def _regions(
        self, heatmap: NDArray[np.float32], levels: Arrays, picture: Picture
    ) -> tuple[tuple[Region, ...], Likeness | None]:
        """The regions of a defect, each beside what it was compared with, and what may be missing."""
        regions = decision.regions(heatmap, picture.size)
        if self._evidence is None:
            return regions, None
        if self.ignored is not None:
            levels = hidden_levels(levels, self.ignored, self.learnt[0])
        return self._evidence.explain(regions, levels, picture.size)

    @cached_property
    def _evidence(self) -> Evidence | None:
        """Made for the first defect; None where the good pictures' features are not kept."""
        if not self.learnt:
            return None
        return Evidence(self.learnt, [reference.name for reference in self.references])


@contextmanager
def reading(path: str | os.PathLike[str]) -> Iterator[None]:
    """Turn whatever an inspector's parts raise into one sentence.

    Raises:
        InspectorError: if they cannot be read.
    """
    try:
        yield
    except HandfulError:
        raise
    except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
        raise InspectorError(
            f"{path} must hold a whole inspector, got one that cannot be read ({error}); fit it again."
        ) from error


def spec_of(manifest: Mapping[str, Any]) -> BackboneSpec:
    """The backbone that an inspector's manifest describes."""
    fields = manifest["backbone"]
    return BackboneSpec(**{**fields, "levels": tuple(fields["levels"]), "size": tuple(fields["size"])})


def preprocessing_of(manifest: Mapping[str, Any]) -> Preprocessing:
    """Likewise the preprocessing."""
    return Preprocessing(tuple(manifest["preprocessing"]["size"]), manifest["preprocessing"]["bits"])


def references_of(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> tuple[Reference, ...]:
    """Likewise the references, with their thumbnails."""
    return tuple(
        Reference(reference["name"], reference["sha256"], parts[thumbnail_part(number)])
        for number, reference in enumerate(manifest["references"])
    )


def gate_of(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> capture.Gate:
    """The gate that an inspector was saved with; one saved before there was a gate knows only blank pictures."""
    if "gate" not in manifest:
        return capture.only_blank(float(manifest["contrast"]))
    learnt = safetensors.numpy.load(parts[GATE_PART])
    unknown = np.full(len(learnt["contrast"]), np.inf, np.float32)  # saved before the finest detail was kept
    return capture.Gate(capture.check_names(manifest["gate"]), capture.Learnt(**{"detail": unknown, **learnt}))


def thumbnail_part(number: int) -> str:
    """The name of a reference's thumbnail among the parts."""
    return f"reference-{number:03d}.jpg"


def _learnt(parts: Mapping[str, bytes]) -> tuple[tuple[Arrays, ...], NDArray[np.bool_] | None]:
    """The levels of every picture learnt, and all ignored regions as one, as `handful.memory` wrote them."""
    tensors = safetensors.numpy.load(parts[LEARNT_PART])
    count = sum(name.removeprefix("level.").isdigit() for name in tensors)
    levels = [tensors[f"level.{number}"] for number in range(count)]
    masks = safetensors.numpy.load(parts[IGNORED_PART]) if IGNORED_PART in parts else {}
    return tuple(zip(*levels, strict=True)), np.any(list(masks.values()), 0) if masks else None
