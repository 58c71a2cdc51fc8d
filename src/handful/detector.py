"""The detector: learns an inspector from good pictures, corrects, saves, loads and exports the inspector."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import wraps
from pathlib import Path
from typing import Any, Concatenate, Literal, ParamSpec, Self, TypeVar

from handful.errors import NotFittedError, SettingError, needing, number_of

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
            the object itself is never fitted: `fit` makes new objects of its class and settings.
        settings: the method's settings by name; leave out if `method` is an object.
        backbone, levels, weights, engine, precision, device, object_name: see `handful.backbones.create`. `backbone`
            may also be a backbone object, whose options then hold; its size too, unless `size` is a single number.
        size: the size of the model's input in pixels. A single number N, or None for the backbone's own N: about N²
            pixels at the references' aspect ratio, see `handful.ops.frames.frame_size`; square references give N x N.
            Height and width: exactly these. "auto": as many pixels as the references show, within limits, see
            `handful.fitting.sizing.choose`.
            Pictures of another aspect ratio are fitted whole into the input, their aspect ratio kept.
        squeeze: resize every picture to `size`, N x N for a single number, whatever its aspect ratio, as papers do.
            Always so with a head, as in the head's training.
        false_alarm_rate: the share of good parts that the threshold may reject.
        head: the trained head of a method that needs a head: a file that `handful train` wrote, or a head read by
            `handful.training.head_file.read`, which many detectors may share; None for the head that is shipped for
            the method, which needs the default backbone, levels and size.
        gate: the checks of `handful.inspection.gate.CHECKS` that a picture must pass to be OK; a picture that fails is
            a RETAKE, or a DEFECT if its score is above the threshold; () for no checks.
        max_pixels: the largest number of pixels that a picture's file may have, read from its header before decoding.

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
        made = methods.made(method, settings)
        if self.head is None and made.protocol == "auxiliary-trained":
            self.head = head_file.shipped(made.name)
        self.method = made.take_head(self.head.module if self.head else None)
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

    def __repr__(self) -> str:
        if (state := self._state) is None:
            return f"<Detector by {self.method.name}, not fitted>"
        pictures, threshold = number_of(len(state.references), "good picture"), state.calibration.threshold
        return f"<Detector by {self.method.name} on {state.backbone.spec.name}, {pictures}, threshold {threshold:.4g}>"

    @one_at_a_time
    def fit(
        self, references: Pictures, *, accept_odd: bool = False, try_defects: bool = True, progress: bool = False
    ) -> Self:
        """Learn from good pictures: 1 to 8 are intended; time and memory grow in proportion to their number.

            detector = handful.Detector().fit("good/")

        Args:
            references: a folder (without its subfolders), a picture or several pictures, see
                `handful.data.images.read_picture`.
            accept_odd: whether to learn references that are clearly unlike the other references too, see `oddities`.
            try_defects: whether to measure `visibility`, which takes as long as about 33 inspections and changes
                nothing else; a method that weighs its evidence by synthetic defects makes 18 of them in any case.
            progress: whether to show a progress bar, in a notebook or on stderr if stderr is a terminal.

        Raises:
            InputError: without a picture, for a picture given twice, or, without `accept_odd`, for a picture clearly
                unlike the others; ImageError for an unreadable picture.
            SettingError, WeightsError: see `handful.backbones.create`.
        """
        check_torch()
        # A detector that was fitted or loaded before keeps its backbone.
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
        """Whether the detector has been fitted or loaded."""
        return self._state is not None

    @property
    def raw_threshold(self) -> float:
        """The raw score above which a picture is a DEFECT: 1 on the scale of `Inspection.score`."""
        return self._needed.calibration.threshold

    @property
    def calibration(self) -> Calibration:
        """The threshold and its basis."""
        return self._needed.calibration

    @property
    def references(self) -> tuple[Reference, ...]:
        """The good pictures that the detector has learnt from."""
        return self._needed.references

    @property
    def oddities(self) -> tuple[Oddity, ...]:
        """The references that `fit` found unlike the other references, each with its oddity."""
        return self._needed.oddities

    @property
    def visibility(self) -> Visibility | None:
        """The share of synthetic defects found at the present threshold; None if `fit` planted no defects.

        The defects' scores date from `fit`: a later correction of the learnt pictures or of the ignored region does not
        change them, see `handful.fitting.visibility.Visibility.changed`.
        """
        return self._needed.visibility

    @property
    def turning(self) -> Rotation | None:
        """Whether turned copies of the references were learnt, and why; None in files older than turned copies."""
        return self._needed.turning

    @property
    def sizing(self) -> str | None:
        """The input size that `auto` chose, with the reason, in words; None if the size was given."""
        return self._needed.sizing

    @property
    def tiles(self) -> Tiles | None:
        """The tiles that each picture is divided into; None if each picture is a single input."""
        return self._needed.preprocessing.tiles

    @property
    def evidence(self) -> str | None:
        """The kinds of evidence that count in the scores, and the reason why others do not, in words."""
        return self._needed.evidence

    @property
    def reshaped(self) -> tuple[str, ...]:
        """The names of the references of another aspect ratio than the input's, see `keeps_aspect`."""
        fitted = self._needed
        frame = fitted.preprocessing.size
        return tuple(one.name for one in fitted.references if one.size and not placement_of(one.size, frame).is_whole)

    @property
    def keeps_aspect(self) -> bool:
        """Whether a picture of another aspect ratio than the input's is fitted whole into the input, not squeezed."""
        return self._needed.preprocessing.keeps_aspect

    @property
    def bits(self) -> int:
        """The bit depth of the references' pixels."""
        return self._needed.preprocessing.bits

    @property
    def backbone_spec(self) -> BackboneSpec:
        """The identity of the backbone: name, levels, size, weights, engine."""
        return self._needed.backbone.spec

    @property
    def inspector(self) -> Inspector:
        """The inspector of the present state; after a correction or a new fit, a new inspector.

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
        """The identity of the inspector with its calibration: sha256 in hex; every correction changes the digest.

        Raises:
            NotFittedError: before `fit`.
        """
        return self._needed.digest

    def __reduce__(self) -> "tuple[Callable[..., Detector], tuple[Any, ...]]":
        """Pickle and copy a fitted detector by way of its saved file, an unfitted detector by its arguments."""
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
        """The arguments of `_again`: the file's bytes (without making a graph), method's class, head and device."""
        content = archive.pack(*state.packed(make_graph=False))
        return content, type(state.method), self.head, self._backbone_options["device"]

    def __call__(self, picture: PictureSource | Picture) -> Inspection:
        """Inspect one picture; an unreadable picture gets the verdict ERROR.

            print(detector("incoming/001.png").score)

        Args:
            picture: a path or pixels, see `handful.data.images.read_picture`, or a `Picture` that it returned.

        Raises:
            NotFittedError: before `fit`.
        """
        return self.inspector(picture)

    def inspect(self, pictures: Pictures) -> list[Inspection]:
        """Inspect one picture, several, or a folder with its subfolders; always a list, in the order given.

            defects = [one.path for one in detector.inspect("incoming/") if one.is_defect]

        An unreadable picture gets the verdict ERROR; the other pictures are inspected all the same.

        Raises:
            InputError: if there is no picture at all.
            NotFittedError: before `fit`.
        """
        return self.inspector.inspect(pictures)

    def stream(self, pictures: Pictures) -> Iterator[Inspection]:
        """Inspect pictures and yield each answer in turn.

            for inspection in detector.stream("incoming/"):
                print(inspection.path, inspection.score)

        See `Inspector.stream`.
        """
        return self.inspector.stream(pictures)

    @property
    def has_graph(self) -> bool:
        """Whether the detector holds a graph that inspects without torch: saved in its file and still up to date."""
        return self._needed.graph is not None

    @one_at_a_time
    def save(self, path: str | os.PathLike[str], *, graph: bool = True) -> None:
        """Save the fitted inspector as a single file, which needs neither the references nor a network elsewhere.

            detector.save("part.handful")

        Only a trained head stays in its own file, so that hundreds of inspectors may share the head; the inspector
        holds the head's digest. A file that this detector has loaded or saved before is replaced only if the file still
        holds the same inspector, so that a correction by another process is never lost silently. Any other existing
        file is replaced.

        Args:
            path: the path of the file.
            graph: whether to make a missing graph that inspects without torch, which takes seconds.

        Raises:
            NotFittedError: before `fit`.
            OutputError: if the file cannot be written, or holds another inspector by now; the file then stays as it is.
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

        See `handful.saved.export.export` for formats, checks and errors.
        """
        return export(Path(folder), self._needed, formats=formats, check=check)

    @property
    def revisions(self) -> tuple[Revision, ...]:
        """All corrections so far, including undone corrections."""
        return self._needed.history.revisions

    @property
    def basis(self) -> Basis:
        """The threshold, its basis, and the range in which the true threshold probably lies."""
        return corrections.basis(self._needed)

    @one_at_a_time
    def teach_good(self, good: Pictures, *, accept_odd: bool = False) -> Correction:
        """Learn pictures as good, for example false alarms; the threshold stays.

            correction = detector.teach_good("false_alarm.png")
            print(correction.revision.words, correction.scores)

        Args:
            good: a picture, several pictures, or a folder.
            accept_odd: whether to learn pictures far from all known good pictures too: of a calibrated score above
                `handful.fitting.oddity.FAR`.

        Raises:
            InputError: for a picture that was given before or that the gate doubts, or, without `accept_odd`, a picture
                far from good; ImageError for an unreadable picture.
        """
        return self._corrected(corrections.teach_good(self._needed, good, accept_odd=accept_odd))

    @one_at_a_time
    def ignore(self, mask: PictureSource, *, accept_odd: bool = False) -> Correction:
        """Ignore a region of the frame in all later inspections.

            detector.ignore("mask.png")

        Maps and regions leave the region out. For the score, the patches that touch the region are replaced by the
        patches of the first reference there, so parts should lie as in the references.

        Args:
            mask: a picture of any size, white where to ignore; the mask is fitted into the frame as a picture of its
                aspect ratio would be.
            accept_odd: whether more than half of the frame may be ignored, counting the regions ignored before.

        Raises:
            InputError: if the mask leaves nothing to ignore or nothing to inspect, or, without `accept_odd`, if most of
                the frame would be ignored; ImageError if the mask cannot be read.
            SettingError: if the method uses crops or an embedding of the whole picture besides patches, or if pictures
                are inspected in tiles.
        """
        return self._corrected(corrections.ignore(self._needed, mask, accept_odd=accept_odd))

    @one_at_a_time
    def teach_defect(self, pictures: Pictures, *, accept_cost: bool = False) -> Correction:
        """Record defects that were missed, and lower the threshold below their scores.

            detector.teach_defect("missed.png", accept_cost=True)

        The verdict of a missed defect may have been OK or RETAKE.

        Args:
            pictures: a picture, several pictures, or a folder.
            accept_cost: whether to accept the additional false alarms; without `accept_cost` an error states them.

        Raises:
            InputError: for a picture that was given before; ImageError for an unreadable picture.
            SettingError: without `accept_cost`, to state the cost in false alarms; for a picture that is a DEFECT
                already; and for a picture that scores no higher than a typical good part.
        """
        return self._corrected(corrections.teach_defect(self._needed, pictures, accept_cost=accept_cost))

    @one_at_a_time
    def add_normals(self, good: Pictures, *, accept_odd: bool = False, progress: bool = False) -> Correction:
        """Set a more precise threshold by further good pictures, which are scored but not learnt.

            detector.add_normals("more/", progress=True)

        Args:
            good: a picture, several pictures, or a folder: good pictures as they come, not a selection by their scores.
            accept_odd: whether to count pictures too whose scores are unlike the scores of good pictures.
            progress: whether to show a progress bar, in a notebook or on stderr if stderr is a terminal.

        Raises:
            InputError: for a picture that was given before or that the gate doubts, or, without `accept_odd`, a picture
                of an odd score; ImageError for an unreadable picture.
        """
        track = bar if progress else quietly
        return self._corrected(corrections.add_normals(self._needed, good, accept_odd=accept_odd, track=track))

    @one_at_a_time
    def set_rate(self, false_alarm_rate: float) -> Correction:
        """Set the threshold for another false-alarm rate, from the saved scores of good pictures.

            detector.set_rate(0.01)

        Raises:
            SettingError: for a rate out of bounds.
        """
        return self._corrected(corrections.set_rate(self._needed, false_alarm_rate))

    @one_at_a_time
    def set_threshold(self, raw_threshold: float) -> Correction:
        """Set the raw threshold by hand, until `set_rate` or `add_normals` sets another threshold.

            detector.set_threshold(1.1 * detector.raw_threshold)

        Raises:
            SettingError: if the threshold does not lie above the typical score.
        """
        return self._corrected(corrections.set_threshold(self._needed, raw_threshold))

    @one_at_a_time
    def undo(self, number: int) -> Correction:
        """Undo a revision: scores and threshold become, to the last bit, as if the revision had never been made.

            correction = detector.set_rate(0.01)
            detector.undo(correction.revision.number)

        Raises:
            SettingError: if there is no revision of that number, or the revision was undone already.
        """
        return self._corrected(corrections.undo(self._needed, number))

    def _corrected(self, corrected: Corrected) -> Correction:
        """Replace the state by the corrected state, in one step."""
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
            method: the class of the inspector's method, if that class is not in `handful.methods.METHODS`.
            engine: the engine that runs the backbone; None for the engine of the fit.
            device: the device that torch runs on.
            head: the head of the fit, for a method that needs a head: a file, or a head read before; None for the
                shipped head if the fit had that head, else for the file of the head's name beside the inspector.

        Raises:
            InspectorError: if the file is missing, damaged, altered, newer than this version, or no inspector, or if
                the head or the method is not the head or the method of the fit.
            WeightsError: if the head cannot be read.
            SettingError: if the engine, device or precision is not available here.
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
    """Raise SettingError unless a size is None, "auto", or one or two numbers of 32 to 4096."""
    if size is None or size == "auto":
        return
    sides = (size,) if isinstance(size, int) else () if isinstance(size, str) else size
    if not (len(sides) in (1, 2) and all(32 <= side <= 4096 for side in sides)):
        raise SettingError(f"`size` must be 32 to 4096 pixels, one number or height and width, or auto, got {size!r}.")


_Packed = tuple[bytes, type[methods.Method], head_file.TrainedHead | None, backbones.Device]


def _again(
    content: bytes, method: type[methods.Method], head: head_file.TrainedHead | None, device: backbones.Device
) -> Detector:
    """Restore a fitted detector from its pickle or copy."""
    return Detector.load(content, method=method, head=head, device=device)


def _inspector_again(*packed: Any) -> Inspector:
    """Restore the inspector of a fitted detector from its pickle or copy."""
    return _again(*packed).inspector


def _unfitted_again(
    method: type[methods.Method],
    settings: dict[str, Any],
    arguments: dict[str, Any],
    backbone: tuple[BackboneSpec, dict[str, bytes]] | None,
) -> Detector:
    """Restore an unfitted detector from its pickle or copy."""
    if backbone is not None:
        arguments = arguments | {"backbone": backbones.load(*backbone, device=arguments["device"])}
    return Detector(method(**settings), **arguments)
