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

from handful import (
    artifact,
    backbones,
    capture,
    decision,
    heads,
    learning,
    memory,
    methods,
    revisions,
    scoring,
    turning,
)
from handful.artifact import GATE_PART, STATE_PART
from handful.backbones.base import Backbone, BackboneSpec, Precision
from handful.backbones.windows import windowed
from handful.corrections import Corrections
from handful.data import images
from handful.data.images import Picture, Pictures, PictureSource
from handful.data.preprocessing import Preprocessing, bits_of, thumbnail_jpeg, thumbnail_picture
from handful.errors import InputError, InspectorError, SettingError
from handful.exporting import Export, GraphFormat, export
from handful.fitted import Fitted
from handful.inspector import (
    Inspector,
    gate_of,
    preprocessing_of,
    reading,
    references_of,
    spec_of,
    thumbnail_part,
)
from handful.learning import Track, averaged, join, quietly, view_count
from handful.memory import Memory
from handful.ops.views import mild_views, random_views
from handful.revisions import History
from handful.turning import Turning
from handful.types import Inspection, Reference, Seen
from handful.version import __version__


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
        gate: the checks of `handful.capture.CHECKS` that a picture must pass to be OK: one that fails is a RETAKE, or
            a DEFECT where its score is beyond the threshold; () for none.

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
        head: heads.Head = None,
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
        self._inspector: tuple[Fitted, Inspector] | None = None

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
            gate=capture.Gate(self.gate, capture.learn(taken, [features.arrays() for features in upright])),
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

    @property
    def inspector(self) -> Inspector:
        """What it inspects by; it stays as it is when the detector is corrected or fitted anew.

        Raises:
            NotFittedError: before `fit`.
        """
        fitted = self._needed
        if self._inspector is None or self._inspector[0] is not fitted:
            memory, graph = fitted.memory, None
            if fitted.graph is not None and memory is not None:
                graph = scoring.opened(fitted.graph.parts, self.method, memory, fitted.backbone)
            inspector = Inspector(
                look=graph or partial(self._look, fitted, self.method),
                side_by_side=graph.side_by_side if graph else None,
                method=self.method.name,
                backbone=self.backbone,
                preprocessing=fitted.preprocessing,
                calibration=fitted.calibration,
                references=fitted.references,
                gate=fitted.gate,
                learnt=tuple(features.arrays() for features in memory.learnt) if memory else (),
                ignored=memory.ignored if memory else None,
            )
            self._inspector = fitted, inspector
        return self._inspector[1]

    def inspect(self, pictures: Pictures) -> list[Inspection]:
        """Inspect one picture, several, or a folder with its subfolders; always a list, in the order given.

        A picture that cannot be read gets the verdict ERROR and the others go on.

        Raises:
            InputError: if there is no picture at all.
            NotFittedError: before `fit`.
        """
        return self.inspector.inspect(pictures)

    def stream(self, pictures: Pictures) -> Iterator[Inspection]:
        """As `inspect`, one answer at a time: for more pictures than memory holds heatmaps."""
        return self.inspector.stream(pictures)

    def inspect_source(self, source: PictureSource, *, name: str) -> tuple[Inspection, Picture | None]:
        """As `Inspector.inspect_source`."""
        return self.inspector.inspect_source(source, name=name)

    def inspect_picture(self, picture: Picture) -> Inspection:
        """Inspect a picture that has been read."""
        return self.inspector.inspect_picture(picture)

    def _look(self, fitted: Fitted, method: methods.Method, image: NDArray[np.float32]) -> Seen:
        """See a picture (3, H, W) through torch."""
        features = fitted.backbone(torch.from_numpy(image)[None])
        scores = self._scores(features, fitted.memory, method)
        return Seen(features.arrays(), scores.maps[0].cpu().numpy(), float(scores.image[0]))

    @property
    def has_graph(self) -> bool:
        """Whether it came with the graph that inspects without torch, and no correction has made that another."""
        return self._needed.graph is not None

    def save(self, path: str | os.PathLike[str], *, graph: bool = True) -> None:
        """Save the fitted inspector as one file that needs neither the references nor a network to run elsewhere.

        Only a trained head stays in its own file, which the inspector names by its digest: hundreds may share it.

        Args:
            path: of the file.
            graph: whether to make the graph that inspects without torch where it is missing, which takes seconds.

        Raises:
            NotFittedError: before `fit`.
            OutputError: if it cannot be written; nothing is then left behind.
        """
        fitted = self._needed
        state = {name: tensor.cpu().contiguous() for name, tensor in self.method.state().items()}
        scoring_parts, said = self._kept_graph(fitted, make=graph)
        manifest = {
            "handful": __version__,
            "method": {"name": self.method.name, "settings": self.method.settings},
            "backbone": asdict(fitted.backbone.spec),
            "preprocessing": asdict(fitted.preprocessing),
            "contrast": float(fitted.gate.learnt.contrast.min()),  # all that versions before the gate ask for
            "gate": list(fitted.gate.checks),
            "turning": asdict(fitted.turning) if fitted.turning else None,
            "graph": said,
            "head": {"name": self.head.name, "sha256": self.head.sha256} if self.head else None,
            "references": [{"name": r.name, "sha256": r.sha256} for r in fitted.references],
        }
        thumbnails = {thumbnail_part(number): r.thumbnail for number, r in enumerate(fitted.references)}
        kept = {GATE_PART: safetensors.numpy.save(fitted.gate.learnt.as_dict())}
        kept |= fitted.memory.to_parts() if fitted.memory else {}
        kept |= {revisions.PART: revisions.to_part(fitted.history)} if fitted.history else {}
        parts = {
            STATE_PART: safetensors.torch.save(state),
            **fitted.backbone.parts,
            **scoring_parts,
            **thumbnails,
            **kept,
        }
        artifact.write(Path(path), manifest, fitted.calibration.as_dict(), parts)

    def _kept_graph(self, fitted: Fitted, *, make: bool) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The graph's files, none where there are none, and what the manifest says of it."""
        if fitted.graph is None and not make:
            return {}, {"why": "It was saved before its graph was made; load it in Python and save it again."}
        try:
            graph = fitted.graph or scoring.keep(
                self.method,
                fitted.memory,
                fitted.backbone,
                fitted.calibration,
                partial(self._look, fitted, self.method),
                [fitted.preprocessing(thumbnail_picture(r.thumbnail, name=r.name)) for r in fitted.references],
            )
        except (SettingError, InspectorError) as error:
            return {}, {"why": str(error)}
        return graph.parts, {"score": graph.score, "map": graph.map}

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
        head: heads.Head = None,
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
        with reading(path):
            method, spec = manifest["method"], spec_of(manifest)
            detector = cls(method["name"], settings=method["settings"], head=heads.named(Path(path), manifest, head))
            backbone = backbones.load(
                spec,
                {name: parts[name] for name in parts if name.startswith("backbone.")},
                engine=engine,
                device=device,
            )
            backbone = windowed(backbone, detector.method.windows_wanted)
            detector.method.load_state(safetensors.torch.load(parts[STATE_PART])).to(backbone.device)
            preprocessing = preprocessing_of(manifest)
            detector._fitted = Fitted(
                backbone=backbone,
                preprocessing=preprocessing,
                calibration=decision.Calibration.from_dict(calibration),
                references=references_of(manifest, parts),
                gate=gate_of(manifest, parts),
                turning=Turning(**kept) if (kept := manifest.get("turning")) else None,
                memory=memory.from_parts(parts, size=preprocessing.size, device=backbone.device),
                history=revisions.from_parts(parts),
                graph=scoring.from_parts(manifest, parts) if backbone.spec == spec else None,
            )
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
