"""Joins pictures, backbone, method and decision into an inspector; nothing else does."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Self

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError

from handful import artifact, backbones, capture, decision, heads, learning, memory, methods, revisions, turning
from handful.backbones.base import Backbone, BackboneSpec, Precision
from handful.backbones.windows import windowed
from handful.corrections import Corrections, Pictures
from handful.data import images
from handful.data.images import Picture, PictureSource
from handful.data.preprocessing import Preprocessing, bits_of, thumbnail_jpeg
from handful.errors import HandfulError, InputError, InspectorError, SettingError
from handful.exporting import Export, GraphFormat, export
from handful.fitted import Fitted, Reference
from handful.learning import Track, averaged, join, quietly, view_count
from handful.memory import Memory
from handful.ops.cells import hidden_levels
from handful.ops.views import mild_views, random_views
from handful.revisions import History
from handful.turning import Turning
from handful.types import Features, Inspection, Likeness, Region
from handful.version import __version__

STATE_PART = "method.safetensors"
GATE_PART = "capture.safetensors"

Head = str | os.PathLike[str] | heads.TrainedHead | None


class Detector(Corrections):
    """A visual inspector taught from a handful of good pictures.

        detector = Detector().fit("good/")
        detector.save("bottle.handful")
        for inspection in Detector.load("bottle.handful").inspect("incoming/"):
            print(inspection.path, inspection.verdict, inspection.calibrated_score)

    Args:
        method: a name in `handful.methods.METHODS`.
        settings: of the method, by name.
        backbone, levels, size, weights, engine, precision, device, object_name: see `handful.backbones.create`; `size`
            may be one number for a square input. `backbone` may also be one that was made before, whose other options
            then hold.
        false_alarm_rate: the share of good parts that the threshold may reject.
        head: of an auxiliary-trained method: a file that `handful train` wrote, or one read by `handful.heads.read`, to
            be shared by many detectors.
        gate: the checks of `handful.capture.CHECKS` that a picture must pass to be judged, else it is a RETAKE; () for
            none.

    Raises:
        SettingError: for an unknown method, setting or check, a value out of bounds, or a head of another method.
        WeightsError: if the head cannot be read.
    """

    def __init__(
        self,
        method: str = "handful",
        *,
        settings: Mapping[str, Any] | None = None,
        backbone: str | Backbone = backbones.DEFAULT_BACKBONE,
        levels: Sequence[str | int] | None = None,
        size: int | tuple[int, int] | None = None,
        weights: str = "auto",
        engine: backbones.EngineChoice = "auto",
        precision: Precision = "f32",
        device: backbones.Device = "auto",
        false_alarm_rate: float = 0.01,
        head: Head = None,
        object_name: str | None = None,
        gate: Sequence[str] | str = capture.CHECKS,
    ) -> None:
        self.gate = capture.check_names(gate)
        self.head = heads.read(Path(head)) if isinstance(head, (str, os.PathLike)) else head
        self.method = methods.create(method, settings or {}).take_head(self.head.module if self.head else None)
        frame = (size, size) if isinstance(size, int) else size
        if frame is not None and not (len(frame) == 2 and all(32 <= side <= 4096 for side in frame)):
            raise SettingError(f"`size` must be 32 to 4096 pixels, one number or height and width, got {size!r}.")
        decision.check_rate(false_alarm_rate)
        self.false_alarm_rate = false_alarm_rate
        self._ready_backbone = None if isinstance(backbone, str) else backbone
        self._backbone_options: dict[str, Any] = {
            "name": backbone,
            "levels": levels,
            "size": frame,
            "weights": weights,
            "engine": engine,
            "precision": precision,
            "device": device,
            "object_name": object_name,
        }
        self._fitted: Fitted | None = None

    def fit(self, references: Pictures, *, track: Track = quietly) -> Self:
        """Learn from good pictures: 1 to 8 are the promise, more cost time and memory in proportion.

        Args:
            references: a folder (its own pictures, not those of its subfolders), or one or several pictures, see
                `handful.data.images.read_picture`.
            track: shows progress.

        Raises:
            InputError: without a picture, or with the same picture twice; ImageError for one that cannot be read.
            SettingError, WeightsError: see `handful.backbones.create`.
        """
        sources = images.gather(references, recursive=False)
        # Fitted before or loaded from a file, it has the backbone that its options, or the file, stand for.
        backbone = self._fitted.backbone if self._fitted else self._ready_backbone
        if backbone is None:
            backbone = backbones.create(**self._backbone_options)
        backbone = windowed(backbone, self.method.windows_wanted)
        if self.head is not None:
            self.head.check(backbone.spec)
            self.head.module.to(backbone.device)
        size = backbone.spec.size
        pictures = [images.read_picture(source, name=name, detail=max(size)) for source, name in sources]
        digests = [images.digest(source, picture) for (source, _), picture in zip(sources, pictures, strict=True)]
        _check_distinct(pictures, digests)
        preprocessing = Preprocessing(size, bits_of(pictures))
        inputs = [torch.from_numpy(preprocessing(picture)) for picture in pictures]

        method = self.method.unfitted()
        variations = [mild_views(image, view_count(len(inputs))) for image in inputs]
        views, augmented = [], []
        for image, of_image in track(list(zip(inputs, variations, strict=True)), description="features"):
            views.append([backbone(view[None]) for view in of_image])
            augmented.append([averaged(backbone(view[None])) for view in random_views(image, method.views_wanted)])
        upright = [of_image[0] for of_image in views]
        turns = turning.decide(
            method.turn_wanted, inputs, upright, backbone, aspects=[picture.aspect for picture in pictures]
        )
        rows = list(zip(inputs, upright, pictures, strict=True)) if turns.turned else []
        turned = [
            turning.learn(image, features, backbone, aspect=picture.aspect)
            for image, features, picture in track(rows, description="turned")
        ]
        good = learning.fit(method, views, augmented, turned, track=track)
        history = History.start(*good, rate=self.false_alarm_rate, prior=learning.prior(method, upright))
        taken = [[view.numpy() for view in of_image] for of_image in variations]
        self.method = method
        self._fitted = Fitted(
            backbone=backbone,
            preprocessing=preprocessing,
            calibration=history.calibration(),
            references=tuple(
                Reference(picture.name, digest, thumbnail_jpeg(picture))
                for picture, digest in zip(pictures, digests, strict=True)
            ),
            gate=capture.Gate(self.gate, capture.learn(taken, [features.arrays(0) for features in upright])),
            turning=turns,
            memory=Memory(tuple(upright), tuple(join(found) for found in augmented if found), tuple(turned)),
            history=history,
        )
        return self

    @property
    def calibration(self) -> decision.Calibration:
        """The threshold and what it rests on."""
        return self._needed.calibration

    @property
    def references(self) -> tuple[Reference, ...]:
        """The good pictures that it has learnt from."""
        return self._needed.references

    @property
    def turning(self) -> Turning | None:
        """Whether the references were learnt in turned copies, and why; None for one saved before there were any."""
        return self._needed.turning

    @property
    def backbone(self) -> BackboneSpec:
        """What computes the features."""
        return self._needed.backbone.spec

    def inspect(self, pictures: Pictures) -> list[Inspection]:
        """Inspect one picture, several, or a folder with its subfolders; always a list, in the order given.

        A picture that cannot be read gets the verdict ERROR and the others go on.

        Raises:
            InputError: if there is no picture at all.
            NotFittedError: before `fit`.
        """
        return list(self.stream(pictures))

    def stream(self, pictures: Pictures) -> Iterator[Inspection]:
        """As `inspect`, one answer at a time: for more pictures than memory holds heatmaps."""
        for source, name in images.gather(pictures, recursive=True):
            yield self.inspect_source(source, name=name)[0]

    def inspect_source(self, source: PictureSource, *, name: str) -> tuple[Inspection, Picture | None]:
        """Inspect one source; with the answer comes the picture as it was read, or None where it cannot be read."""
        try:
            picture = images.read_picture(source, name=name, detail=max(self._needed.preprocessing.size))
            return self.inspect_picture(picture), picture
        except InputError as error:
            return Inspection(name, "ERROR", reason=str(error)), None

    def inspect_picture(self, picture: Picture) -> Inspection:
        """Inspect a picture that has been read."""
        fitted = self._needed
        calibration = fitted.calibration
        image = fitted.preprocessing(picture)
        features = self._features(picture, image)
        if isinstance(features, str):
            return Inspection(picture.name, "RETAKE", size=picture.size, reason=features)
        scores = self._scores(features, fitted.memory, self.method)
        score = float(scores.image[0])
        heatmap = calibration.calibrated_map(scores.maps[0].cpu().numpy())
        defect = score > calibration.threshold
        regions, missing = self._regions(heatmap, features, picture) if defect else ((), None)
        return Inspection(
            path=picture.name,
            verdict="DEFECT" if defect else "OK",
            score=score,
            calibrated_score=calibration.calibrated(score),
            threshold=calibration.threshold,
            heatmap=heatmap,
            regions=regions,
            missing=missing,
            size=picture.size,
        )

    def _regions(
        self, heatmap: NDArray[np.float32], features: Features, picture: Picture
    ) -> tuple[tuple[Region, ...], Likeness | None]:
        """The regions of a defect, each beside what it was compared with, and what may be missing."""
        fitted = self._needed
        regions = decision.regions(heatmap, picture.size)
        if fitted.evidence is None or fitted.memory is None:
            return regions, None
        levels = features.arrays(0)
        if fitted.memory.ignored is not None:
            levels = hidden_levels(levels, fitted.memory.ignored.numpy(), fitted.memory.good.arrays(0))
        return fitted.evidence.explain(regions, levels, picture.size)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Save the fitted inspector as one file that needs neither the references nor a network to run elsewhere.

        Only a trained head stays in its own file, which the inspector names by its digest: hundreds may share it.

        Raises:
            NotFittedError: before `fit`.
            OutputError: if it cannot be written; nothing is then left behind.
        """
        fitted = self._needed
        state = {name: tensor.cpu().contiguous() for name, tensor in self.method.state().items()}
        manifest = {
            "handful": __version__,
            "method": {"name": self.method.name, "settings": self.method.settings},
            "backbone": asdict(fitted.backbone.spec),
            "preprocessing": asdict(fitted.preprocessing),
            "contrast": float(fitted.gate.learnt.contrast.min()),  # all that versions before the gate ask for
            "gate": list(fitted.gate.checks),
            "turning": asdict(fitted.turning) if fitted.turning else None,
            "head": {"name": self.head.name, "sha256": self.head.sha256} if self.head else None,
            "references": [{"name": r.name, "sha256": r.sha256} for r in fitted.references],
        }
        thumbnails = {_thumbnail_part(number): r.thumbnail for number, r in enumerate(fitted.references)}
        kept = {GATE_PART: safetensors.numpy.save(fitted.gate.learnt.as_dict())}
        kept |= fitted.memory.to_parts() if fitted.memory else {}
        kept |= {revisions.PART: revisions.to_part(fitted.history)} if fitted.history else {}
        parts = {STATE_PART: safetensors.torch.save(state), **fitted.backbone.parts, **thumbnails, **kept}
        artifact.write(Path(path), manifest, fitted.calibration.as_dict(), parts)

    def export(
        self,
        folder: str | os.PathLike[str],
        *,
        formats: Sequence[GraphFormat] = ("openvino",),
        check: Pictures | None = None,
    ) -> Export:
        """Write the fitted inspector as graphs for programs without Handful; `handful.exporting.export` says how."""
        fitted = self._needed
        score = partial(self._scores, memory=fitted.memory, method=self.method)
        return export(Path(folder), fitted, self.method, score, formats=formats, check=check)

    @classmethod
    def load(
        cls,
        path: str | os.PathLike[str],
        *,
        engine: backbones.EngineChoice | None = None,
        device: backbones.Device = "auto",
        head: Head = None,
    ) -> Self:
        """Load a saved inspector.

        Args:
            path: of the file.
            engine: None for the one it was fitted with.
            device: where torch runs.
            head: that it was fitted with, where it needs one: a file, or one read before; None to look for the file of
                that name beside the inspector.

        Raises:
            InspectorError: if it is missing, damaged, altered, newer than this version, or no inspector, or if the head
                is not the one that it was fitted with.
            WeightsError: if the head cannot be read.
            SettingError: if its engine, device or precision cannot be had here.
        """
        manifest, calibration, parts = artifact.read(Path(path))
        try:
            method = manifest["method"]
            spec = _spec(manifest["backbone"])
            detector = cls(method["name"], settings=method["settings"], head=_head(Path(path), manifest, head))
            backbone = backbones.load(
                spec,
                {name: parts[name] for name in parts if name.startswith("backbone.")},
                engine=engine,
                device=device,
            )
            backbone = windowed(backbone, detector.method.windows_wanted)
            detector.method.load_state(safetensors.torch.load(parts[STATE_PART])).to(backbone.device)
            preprocessing = Preprocessing(tuple(manifest["preprocessing"]["size"]), manifest["preprocessing"]["bits"])
            detector._fitted = Fitted(
                backbone=backbone,
                preprocessing=preprocessing,
                calibration=decision.Calibration.from_dict(calibration),
                references=tuple(
                    Reference(reference["name"], reference["sha256"], parts[_thumbnail_part(number)])
                    for number, reference in enumerate(manifest["references"])
                ),
                gate=_gate(manifest, parts),
                turning=Turning(**kept) if (kept := manifest.get("turning")) else None,
                memory=memory.from_parts(parts, size=preprocessing.size, device=backbone.device),
                history=revisions.from_parts(parts),
            )
        except HandfulError:
            raise
        except (KeyError, TypeError, AttributeError, ValueError, RuntimeError, SafetensorError) as error:
            raise InspectorError(
                f"{path} must hold a whole inspector, got one that cannot be read ({error}); fit it again."
            ) from error
        detector.false_alarm_rate = detector.calibration.false_alarm_rate
        detector.gate = capture.CHECKS if "gate" not in manifest else detector._fitted.gate.checks
        return detector


def _check_distinct(pictures: Sequence[Picture], digests: Sequence[str]) -> None:
    seen: dict[str, str] = {}
    for picture, digest in zip(pictures, digests, strict=True):
        if digest in seen:
            raise InputError(
                f"References must be different pictures, got the same in {seen[digest]} and {picture.name}; "
                f"leave one out."
            )
        seen[digest] = picture.name


def _head(path: Path, manifest: Mapping[str, Any], given: Head) -> heads.TrainedHead | None:
    """The head that an inspector names.

    Raises:
        InspectorError: if another one was given or lies beside it.
        WeightsError: if there is none, or it cannot be read.
    """
    named = manifest.get("head")  # inspectors saved before there were heads name none
    if named is None:
        return None
    if given is None:
        given = path.parent / Path(named["name"]).name
    head = given if isinstance(given, heads.TrainedHead) else heads.read(Path(given))
    if head.sha256 != named["sha256"]:
        raise InspectorError(
            f"{path} must be given the head that it was fitted with, {named['name']} of sha256 {named['sha256']}, got "
            f"{head.sha256}; name that file."
        )
    return head


def _gate(manifest: Mapping[str, Any], parts: Mapping[str, bytes]) -> capture.Gate:
    """The gate that an inspector was saved with; one saved before there was a gate knows only blank pictures."""
    if "gate" not in manifest:
        return capture.only_blank(float(manifest["contrast"]))
    return capture.Gate(
        capture.check_names(manifest["gate"]), capture.Learnt(**safetensors.numpy.load(parts[GATE_PART]))
    )


def _spec(fields: Mapping[str, Any]) -> BackboneSpec:
    return BackboneSpec(**{**fields, "levels": tuple(fields["levels"]), "size": tuple(fields["size"])})


def _thumbnail_part(number: int) -> str:
    return f"reference-{number:03d}.jpg"
