"""Teaches an inspector from good pictures, corrects, saves, loads and exports it."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from handful.errors import NotFittedError, SettingError, needing

with needing("handful.Detector", "fit"):
    from handful import corrections, methods

from handful import backbones
from handful.backbones.base import Backbone, BackboneSpec, Precision
from handful.backbones.processes import check_torch
from handful.corrections import Corrected
from handful.data import images
from handful.data.images import Picture, Pictures, PictureSource
from handful.data.progress import bar, quietly
from handful.data.thumbnails import thumbnail_jpeg
from handful.fitting.fit import fit
from handful.fitting.oddity import Oddity
from handful.fitting.references import Reader
from handful.fitting.revisions import Basis, Correction, Revision
from handful.fitting.rotation import Rotation
from handful.fitting.visibility import Visibility
from handful.inspection.gate import CHECKS, Gate, check_names
from handful.inspection.threshold import DEFAULT_RATE, Calibration, check_rate
from handful.inspector import Inspector
from handful.ops.frames import placement_of
from handful.ops.tiles import Tiles
from handful.report.result import Inspection
from handful.saved import archive, scoring_graph
from handful.saved.export import Export, GraphFormat, export
from handful.saved.manifest import reading
from handful.saved.state import InspectorState, method_of
from handful.training import head_file
from handful.types import Reference

Self_ = TypeVar("Self_", bound="Detector")
Arguments = ParamSpec("Arguments")
Result = TypeVar("Result")


def one_at_a_time(
    change: Callable[Concatenate[Self_, Arguments], Result],
) -> Callable[Concatenate[Self_, Arguments], Result]:
    """Let a thread that changes a detector wait until another thread's change is complete."""

    @wraps(change)
    def waiting(detector: Self_, /, *arguments: Arguments.args, **options: Arguments.kwargs) -> Result:
        with detector._changing:
            return change(detector, *arguments, **options)

    return waiting


class Detector:
    """A visual inspector taught from a handful of good pictures.

        detector = handful.Detector().fit("good/")
        detector.save("part.handful")
        for inspection in handful.load("part.handful").inspect("incoming/"):
            print(inspection.path, inspection.verdict, inspection.score)

    Args:
        method: a name in `handful.methods.METHODS`, or an object of any class derived from `handful.methods.Method`;
            the object itself is never fitted, as the detector makes others of its class and settings.
        settings: of the method, by name; to be left out where `method` is an object.
        backbone, levels, weights, engine, precision, device, object_name: see `handful.backbones.create`. `backbone`
            may also be one that was made before, whose options then hold; its size too, unless `size` is one number.
        size: of the model's input in pixels. One number N, or None for the backbone's own: about N² pixels at the
            references' aspect, see `handful.ops.frames.frame_size`; square references give N x N. Height and width:
            exactly these. "auto": as many pixels as the references show, within limits, see
            `handful.fitting.sizing.choose`.
            References and pictures of another shape lie in the input as a whole, their aspect kept.
        squeeze: resize every picture to `size`, N x N for one number, whatever its aspect, as papers do. With a head it
            is always so, as in the head's training.
        false_alarm_rate: the share of good parts that the threshold may reject.
        head: of an auxiliary-trained method: a file that `handful train` wrote, or a head read by
            `handful.training.head_file.read`, to be shared by many detectors.
        gate: the checks of `handful.inspection.gate.CHECKS` that a picture must pass to be OK; a picture that fails is
            a RETAKE, or a DEFECT where its score is beyond the threshold; () for none.
        max_pixels: that a picture's file may have, told from its header before it is decoded.

    Raises:
        SettingError: for an unknown method, setting or check, a value out of bounds, or a head of another method.
        WeightsError: if the head cannot be read.
    """

    def __init__(
        self,
        method: str | methods.Method = "handful",
        *,
        settings: Mapping[str, Any] | None = None,
        backbone: str | Backbone = backbones.DEFAULT_BACKBONE,
        levels: Sequence[str | int] | None = None,
        size: int | tuple[int, int] | Literal["auto"] | None = None,
        squeeze: bool = False,
        weights: str = "auto",
        engine: backbones.EngineChoice = "auto",
        precision: Precision = "f32",
        device: backbones.Device = "auto",
        false_alarm_rate: float = DEFAULT_RATE,
        head: head_file.Head = None,
        object_name: str | None = None,
        gate: Sequence[str] | str = CHECKS,
        max_pixels: int = images.MAX_PIXELS,
    ) -> None:
        if max_pixels < 1:
            raise SettingError(f"`max_pixels` must be at least 1, got {max_pixels}.")
        self.max_pixels = max_pixels
        self.gate = check_names(gate)
        self.head = head_file.read(Path(head)) if isinstance(head, (str, os.PathLike)) else head
        self.method = methods.made(method, settings).take_head(self.head.module if self.head else None)
        _check_size(size)
        check_rate(false_alarm_rate)
        self.false_alarm_rate = false_alarm_rate
        self.squeeze = squeeze or self.head is not None
        if size == "auto" and self.squeeze:
            way = "a head, whose training squeezes them" if self.head else "squeeze"
            raise SettingError(
                f"`size` must be numbers where pictures are squeezed, got auto with {way}; name numbers."
            )
        self._ready_backbone = None if isinstance(backbone, str) else backbone
        self._backbone_options: dict[str, Any] = {
            "name": backbone,
            "levels": levels,
            "size": size if size is None or isinstance(size, (int, str)) else tuple(size),
            "weights": weights,
            "engine": engine,
            "precision": precision,
            "device": device,
            "object_name": object_name,
        }
        self._state: InspectorState | None = None
        self._inspector: tuple[InspectorState, Inspector] | None = None
        self._files: dict[str, str] = {}  # the digest of each file that was loaded or saved, by its absolute path
        self._changing = threading.RLock()

    @one_at_a_time
    def fit(
        self, references: Pictures, *, accept_odd: bool = False, try_defects: bool = True, progress: bool = False
    ) -> Self:
        """Learn from good pictures: 1 to 8 are the promise, more cost time and memory in proportion.

            detector = handful.Detector().fit("good/")

        Args:
            references: a folder (its own pictures, not those of its subfolders), or one or several pictures, see
                `handful.data.images.read_picture`.
            accept_odd: whether references may be learnt that are clearly unlike the others, see `oddities`.
            try_defects: whether to measure `visibility`, which takes as long as about 33 inspections and changes
                nothing else; a method that weighs its evidence by synthetic defects needs 18 of them anyway.
            progress: whether to show a bar on stderr, where that is a terminal, or in a notebook.

        Raises:
            InputError: without a picture, with the same picture twice, or with one that is clearly unlike the others
                without `accept_odd`; ImageError for one that cannot be read.
            SettingError, WeightsError: see `handful.backbones.create`.
        """
        check_torch()
        # Fitted before or loaded from a file, the detector keeps the backbone of its options, or of the file.
        known, given = self._state.backbone if self._state else self._ready_backbone, self._ready_backbone is not None
        reader = Reader(self._backbone_options, known, given, self.squeeze, self.max_pixels)
        good = reader.read(images.gather(references, recursive=False), self.method)
        if self.head is not None:
            self.head.check(good.backbone.spec)
            self.head.module.to(good.backbone.device)
        method, depth_of = self.method.unfitted(), good.preprocessing.depth_of
        learnt = fit(
            method,
            good,
            rate=self.false_alarm_rate,
            accept_odd=accept_odd,
            try_defects=try_defects,
            track=bar if progress else quietly,
        )
        self._state = InspectorState(
            method=method,
            backbone=good.backbone,
            preprocessing=good.preprocessing,
            calibration=learnt.history.calibration(),
            references=tuple(
                Reference(picture.name, digest, thumbnail_jpeg(picture), depth_of(picture), picture.size)
                for picture, digest in zip(good.pictures, good.digests, strict=True)
            ),
            gate=Gate(self.gate, learnt.statistics),
            turning=learnt.turning,
            features=learnt.features,
            history=learnt.history,
            head={"name": self.head.name, "sha256": self.head.sha256} if self.head else None,
            oddities=learnt.oddities,
            trials=learnt.trials,
            sizing=good.sizing,
        )
        self.method = method
        return self

    @property
    def is_fitted(self) -> bool:
        """Whether it has been fitted, or loaded."""
        return self._state is not None

    @property
    def raw_threshold(self) -> float:
        """The raw score above which a picture is a DEFECT: 1 on the scale of `Inspection.score`."""
        return self._needed.calibration.threshold

    @property
    def calibration(self) -> Calibration:
        """The threshold and what it rests on."""
        return self._needed.calibration

    @property
    def references(self) -> tuple[Reference, ...]:
        """The good pictures that it has learnt from."""
        return self._needed.references

    @property
    def oddities(self) -> tuple[Oddity, ...]:
        """The references that `fit` found unlike the others, and what is odd about each."""
        return self._needed.oddities

    @property
    def visibility(self) -> Visibility | None:
        """The share of synthetic defects found at the threshold, from scores that `fit` kept.

        After a correction of what is learnt or ignored these are still the scores of the inspector as it was fitted,
        see `handful.fitting.visibility.Visibility.changed`. None where `fit` planted no defects.
        """
        return self._needed.visibility

    @property
    def turning(self) -> Rotation | None:
        """Whether the references were learnt in turned copies, and why; None for one saved before there were any."""
        return self._needed.turning

    @property
    def sizing(self) -> str | None:
        """Which size `auto` chose for the input, and why; None where a size was asked for."""
        return self._needed.sizing

    @property
    def tiles(self) -> Tiles | None:
        """The tiles that pictures are looked at in; None where they are looked at in one input alone."""
        return self._needed.preprocessing.tiles

    @property
    def evidence(self) -> str | None:
        """Which kinds of evidence count in the scores, and why others do not, in words."""
        return self._needed.evidence

    @property
    def reshaped(self) -> tuple[str, ...]:
        """The references of another shape than the input, which lie in it as a whole or are squeezed to it."""
        fitted = self._needed
        frame = fitted.preprocessing.size
        return tuple(one.name for one in fitted.references if one.size and not placement_of(one.size, frame).is_whole)

    @property
    def keeps_aspect(self) -> bool:
        """Whether a picture of another shape than the input lies in it as a whole; else it is squeezed to it."""
        return self._needed.preprocessing.keeps_aspect

    @property
    def bits(self) -> int:
        """The depth of the references' values."""
        return self._needed.preprocessing.bits

    @property
    def backbone_spec(self) -> BackboneSpec:
        """The identity of the backbone: name, levels, size, weights, engine."""
        return self._needed.backbone.spec

    @property
    def inspector(self) -> Inspector:
        """The inspector of the present state; a correction or another fit makes another inspector.

        Raises:
            NotFittedError: before `fit`.
        """
        fitted = self._needed
        if self._inspector is None or self._inspector[0] is not fitted:
            self._inspector = fitted, self._make_inspector(fitted)
        return self._inspector[1]

    def _make_inspector(self, state: InspectorState) -> Inspector:
        features, graph = state.features, None
        if state.graph is not None:
            graph = scoring_graph.opened(state.graph.entries, state.method, features, state.backbone)
        return Inspector(
            _forward=graph or state.forward,
            _side_by_side=graph.several if graph else None,
            method_name=state.method.name,
            backbone_spec=state.backbone.spec,
            preprocessing=state.preprocessing,
            calibration=state.calibration,
            references=state.references,
            _gate=state.gate,
            digest=state.digest,
            _again=lambda: (_inspector_again, self._packed(state)),
            _learnt=tuple(one.arrays() for one in features.learnt),
            _ignored=features.ignored,
        )

    @property
    def digest(self) -> str:
        """The name of the inspector with its calibration: sha256 in hex, another one after every correction.

        Raises:
            NotFittedError: before `fit`.
        """
        return self._needed.digest

    def __reduce__(self) -> "tuple[Callable[..., Detector], tuple[Any, ...]]":
        """Pickle and copy by way of the saved file; a detector that is not fitted, by its arguments."""
        if self._state is not None:
            return _again, self._packed(self._state)
        backbone = self._ready_backbone
        kept = None if backbone is None else (backbone.spec, dict(backbone.entries))
        options = {name: value for name, value in self._backbone_options.items() if name != "name"}
        arguments = options | {
            "backbone": self._backbone_options["name"] if backbone is None else backbones.DEFAULT_BACKBONE,
            "false_alarm_rate": self.false_alarm_rate,
            "head": self.head,
            "gate": self.gate,
            "max_pixels": self.max_pixels,
            "squeeze": self.squeeze,
        }
        return _unfitted_again, (type(self.method), self.method.settings, arguments, kept)

    def _packed(self, state: InspectorState) -> "_Packed":
        """The bytes of its file, its method's class, its head, and where torch runs; no graph is made for it."""
        content = archive.pack(*state.packed(make_graph=False))
        return content, type(state.method), self.head, self._backbone_options["device"]

    def __call__(self, picture: PictureSource | Picture) -> Inspection:
        """Inspect one picture; one that cannot be read gets the verdict ERROR.

            print(detector("incoming/001.png").score)

        Args:
            picture: as `handful.data.images.read_picture` takes it, or one that it has read.

        Raises:
            NotFittedError: before `fit`.
        """
        return self.inspector(picture)

    def inspect(self, pictures: Pictures) -> list[Inspection]:
        """Inspect one picture, several, or a folder with its subfolders; always a list, in the order given.

            defects = [one.path for one in detector.inspect("incoming/") if one.is_defect]

        A picture that cannot be read gets the verdict ERROR and the others go on.

        Raises:
            InputError: if there is no picture at all.
            NotFittedError: before `fit`.
        """
        return self.inspector.inspect(pictures)

    def stream(self, pictures: Pictures) -> Iterator[Inspection]:
        """Inspect pictures and yield one answer at a time.

            for inspection in detector.stream("incoming/"):
                print(inspection.path, inspection.score)

        See `Inspector.stream`.
        """
        return self.inspector.stream(pictures)

    @property
    def has_graph(self) -> bool:
        """Whether it came with the graph that inspects without torch, and no correction has made that another."""
        return self._needed.graph is not None

    @one_at_a_time
    def save(self, path: str | os.PathLike[str], *, graph: bool = True) -> None:
        """Save the fitted inspector as one file that needs neither the references nor a network to run elsewhere.

            detector.save("part.handful")

        Only a trained head stays in its own file, which the inspector names by its digest: hundreds may share it.
        A file that this detector has loaded or saved before is replaced only if it still holds the same inspector, so
        that of two corrections at the same time none is lost silently. Any other file is replaced as it is.

        Args:
            path: of the file.
            graph: whether to make the graph that inspects without torch where it is missing, which takes seconds.

        Raises:
            NotFittedError: before `fit`.
            OutputError: if it cannot be written, or the file holds another inspector by now; nothing is then changed.
        """
        state, place = self._needed, os.path.realpath(path)
        archive.write(Path(path), *state.packed(make_graph=graph), expected=self._files.get(place))
        self._files[place] = state.digest

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        formats: Sequence[GraphFormat] = ("openvino",),
        check: Pictures | None = None,
    ) -> Export:
        """Write the fitted inspector as graphs for programs without Handful.

            detector.export("graphs/", check="incoming/")

        `handful.saved.export.export` says how.
        """
        return export(Path(folder), self._needed, formats=formats, check=check)

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """Every correction so far, those undone included."""
        return self._needed.history.revisions

    @property
    def basis(self) -> Basis:
        """The threshold, its basis, and the range that the threshold may lie in."""
        return corrections.basis(self._needed)

    @one_at_a_time
    def teach_good(self, good: Pictures, *, accept_odd: bool = False) -> Correction:
        """Learn pictures as good, false alarms say; the threshold stays.

            correction = detector.teach_good("false_alarm.png")
            print(correction.revision.words, correction.scores)

        Args:
            good: one or several, or a folder.
            accept_odd: whether a picture may be learnt that is far from all that is known to be good: its calibrated
                score is above `handful.fitting.oddity.FAR`.

        Raises:
            InputError: for a picture that was given before or that the gate doubts, or one far from good without
                `accept_odd`; ImageError for one that cannot be read.
        """
        return self._corrected(corrections.teach_good(self._needed, good, accept_odd=accept_odd))

    @one_at_a_time
    def ignore(self, mask: PictureSource, *, accept_odd: bool = False) -> Correction:
        """Let a region of the frame never count.

            detector.ignore("mask.png")

        Maps and regions leave it out. For the score every patch that touches it is taken as what the first reference
        shows there, so parts should lie as in the references.

        Args:
            mask: a picture of any size, white where to ignore; it covers of the frame what a picture of its shape does.
            accept_odd: whether more than half of the frame may be ignored, with the regions ignored already.

        Raises:
            InputError: if it leaves nothing to ignore, or nothing to inspect, or ignores most of the frame without
                `accept_odd`; ImageError if it cannot be read.
            SettingError: where the method looks at more than patches: at crops, or the picture as a whole; or where
                pictures are looked at in tiles.
        """
        return self._corrected(corrections.ignore(self._needed, mask, accept_odd=accept_odd))

    @one_at_a_time
    def teach_defect(self, pictures: Pictures, *, accept_cost: bool = False) -> Correction:
        """Record defects that were missed, and lower the threshold below their scores.

            detector.teach_defect("missed.png", accept_cost=True)

        A defect that was a RETAKE is recorded as any other.

        Args:
            pictures: one or several, or a folder.
            accept_cost: whether to do so at the cost that the sentence without it names.

        Raises:
            InputError: for a picture that was given before; ImageError for one that cannot be read.
            SettingError: without `accept_cost`, with the cost in false alarms; for a picture that is a DEFECT already;
                and for one that scores no higher than a typical good part.
        """
        return self._corrected(corrections.teach_defect(self._needed, pictures, accept_cost=accept_cost))

    @one_at_a_time
    def add_normals(self, good: Pictures, *, accept_odd: bool = False, progress: bool = False) -> Correction:
        """Sharpen the threshold by further good pictures, which are not learnt.

            detector.add_normals("more/", progress=True)

        Args:
            good: one or several, or a folder: all that came by, not a choice of those that score high.
            accept_odd: whether pictures may count whose scores are unlike those of good pictures.
            progress: whether to show a bar on stderr, where that is a terminal, or in a notebook.

        Raises:
            InputError: for a picture that was given before or that the gate doubts, or an odd one without
                `accept_odd`; ImageError for one that cannot be read.
        """
        track = bar if progress else quietly
        return self._corrected(corrections.add_normals(self._needed, good, accept_odd=accept_odd, track=track))

    @one_at_a_time
    def set_rate(self, false_alarm_rate: float) -> Correction:
        """Set the threshold anew for another false-alarm rate, from the scores that are kept.

            detector.set_rate(0.01)

        Raises:
            SettingError: for a rate out of bounds.
        """
        return self._corrected(corrections.set_rate(self._needed, false_alarm_rate))

    @one_at_a_time
    def set_threshold(self, raw_threshold: float) -> Correction:
        """Set the raw threshold by hand; it stays until another rate is set or further good pictures are added.

            detector.set_threshold(1.1 * detector.raw_threshold)

        Raises:
            SettingError: if it does not lie above the typical score.
        """
        return self._corrected(corrections.set_threshold(self._needed, raw_threshold))

    @one_at_a_time
    def undo(self, number: int) -> Correction:
        """Take a revision back; scores and threshold are then to the bit what they would have been without it.

            correction = detector.set_rate(0.01)
            detector.undo(correction.revision.number)

        Raises:
            SettingError: if there is no such revision, or it was undone already.
        """
        return self._corrected(corrections.undo(self._needed, number))

    def _corrected(self, corrected: Corrected) -> Correction:
        """Take a corrected state on, whole."""
        self._state, correction = corrected
        self.method = self._state.method
        return correction

    @property
    def _needed(self) -> InspectorState:
        if self._state is None:
            raise NotFittedError("A detector must be fitted before it is used; call `fit` or `Detector.load` first.")
        return self._state

    @classmethod
    def load(
        cls,
        source: archive.Source,
        *,
        method: type[methods.Method] | None = None,
        engine: backbones.EngineChoice | None = None,
        device: backbones.Device = "auto",
        head: head_file.Head = None,
    ) -> Self:
        """Load a saved inspector.

            detector = handful.Detector.load("part.handful")

        Args:
            source: the path of a saved inspector, or the bytes of its file.
            method: the class of its method, where that is not in `handful.methods.METHODS`.
            engine: None for the one it was fitted with.
            device: where torch runs.
            head: that it was fitted with, where it needs one: a file, or one read before; None to look for the file of
                that name beside the inspector.

        Raises:
            InspectorError: if it is missing, damaged, altered, newer than this version, or no inspector, or if the head
                or the method is not the one that it was fitted with.
            WeightsError: if the head cannot be read.
            SettingError: if its engine, device or precision cannot be had here.
            ProcessError: in a process that was forked after OpenVINO or torch had run.
        """
        content, name = archive.content_of(source)
        manifest, calibration, entries = archive.read(content, name=name)
        with reading(name):
            made = method_of(manifest, method, name=name)
            found = head_file.named(Path(name), manifest, head)
            detector = cls(made, device=device, head=found)
            state = InspectorState.from_file(
                manifest, calibration, entries, detector.method, engine=engine, device=device
            )
        preprocessing = state.preprocessing
        detector._state = state
        detector.squeeze = not (preprocessing.keeps_aspect or preprocessing.side)
        side = preprocessing.side or preprocessing.size
        detector._backbone_options["size"] = "auto" if preprocessing.tiles else side
        detector.false_alarm_rate = detector.calibration.false_alarm_rate
        detector.max_pixels = preprocessing.max_pixels
        detector.gate = state.gate.checks
        if not isinstance(source, bytes):
            detector._files[os.path.realpath(source)] = manifest["digest"]
        return detector


def _check_size(size: int | tuple[int, int] | str | None) -> None:
    """Check a size asked for.

    Raises:
        SettingError: unless it is None, "auto", or one number or two of 32 to 4096.
    """
    if size is None or size == "auto":
        return
    sides = (size,) if isinstance(size, int) else () if isinstance(size, str) else size
    if not (len(sides) in (1, 2) and all(32 <= side <= 4096 for side in sides)):
        raise SettingError(f"`size` must be 32 to 4096 pixels, one number or height and width, or auto, got {size!r}.")


_Packed = tuple[bytes, type[methods.Method], head_file.TrainedHead | None, backbones.Device]


def _again(
    content: bytes, method: type[methods.Method], head: head_file.TrainedHead | None, device: backbones.Device
) -> Detector:
    """A fitted detector that was pickled or copied."""
    return Detector.load(content, method=method, head=head, device=device)


def _inspector_again(*packed: Any) -> Inspector:
    """The inspector of a fitted detector that was pickled or copied."""
    return _again(*packed).inspector


def _unfitted_again(
    method: type[methods.Method],
    settings: dict[str, Any],
    arguments: dict[str, Any],
    backbone: tuple[BackboneSpec, dict[str, bytes]] | None,
) -> Detector:
    """A detector that was pickled or copied before it was fitted."""
    if backbone is not None:
        arguments = arguments | {"backbone": backbones.load(*backbone, device=arguments["device"])}
    return Detector(method(**settings), **arguments)
