"""Joins pictures, backbone, method and decision into an inspector; nothing else does."""

import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any, Literal, Self

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
    oddity,
    revisions,
    scoring,
    sizing,
    turning,
)
from handful.artifact import GATE_PART, STATE_PART
from handful.backbones.base import Backbone, BackboneSpec, Precision
from handful.backbones.windows import windowed
from handful.corrections import Corrections, one_at_a_time
from handful.data import images
from handful.data.images import Picture, Pictures, PictureSource
from handful.data.preprocessing import Preprocessing, thumbnail_jpeg, thumbnail_picture
from handful.errors import InspectorError, SettingError
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
from handful.oddity import Oddity
from handful.ops.frames import LONGEST, frame_size, part_of, shared_aspect, whole
from handful.ops.planting import plan
from handful.ops.tiles import Tiles
from handful.ops.views import mild_views, random_views
from handful.processes import check_torch
from handful.revisions import CHANGING, History
from handful.sizing import Sizing
from handful.tiling import Tiling
from handful.turning import Turning
from handful.types import Features, Inspection, Reference, Seen
from handful.version import __version__
from handful.visibility import Trial, Trials, Visibility

IN_TILES = Turning(False, "parts are learnt as they lie where pictures are looked at in tiles")
EVIDENCE_OF_TILES = "single patches of tiles; wide ones and turned copies do not count in tiles"


class Detector(Corrections):
    """A visual inspector taught from a handful of good pictures.

        detector = Detector().fit("good/")
        detector.save("bottle.handful")
        for inspection in Detector.load("bottle.handful").inspect("incoming/"):
            print(inspection.path, inspection.verdict, inspection.calibrated_score)

    Args:
        method: a name in `handful.methods.METHODS`.
        settings: of the method, by name.
        backbone, levels, weights, engine, precision, device, object_name: see `handful.backbones.create`. `backbone`
            may also be one that was made before, whose options then hold; its size too, unless `size` is one number.
        size: of the model's input in pixels. One number N, or None for the backbone's own: about N² pixels at the
            references' aspect, see `handful.ops.frames.frame_size`; square references give N x N. Height and width:
            exactly these. "auto": as many pixels as the references show, within limits, see `handful.sizing.choose`.
            References and pictures of another shape lie in the input as a whole, their aspect kept.
        squeeze: resize every picture to `size`, N x N for one number, whatever its aspect, as papers do. With a head it
            is always so, as in the head's training.
        false_alarm_rate: the share of good parts that the threshold may reject.
        head: of an auxiliary-trained method: a file that `handful train` wrote, or one read by `handful.heads.read`, to
            be shared by many detectors.
        gate: the checks of `handful.capture.CHECKS` that a picture must pass to be OK: one that fails is a RETAKE, or
            a DEFECT where its score is beyond the threshold; () for none.
        max_pixels: that a picture's file may have, told from its header before it is decoded.

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
        size: int | tuple[int, int] | Literal["auto"] | None = None,
        squeeze: bool = False,
        weights: str = "auto",
        engine: backbones.EngineChoice = "auto",
        precision: Precision = "f32",
        device: backbones.Device = "auto",
        false_alarm_rate: float = decision.DEFAULT_RATE,
        head: heads.Head = None,
        object_name: str | None = None,
        gate: Sequence[str] | str = capture.CHECKS,
        max_pixels: int = images.MAX_PIXELS,
    ) -> None:
        if max_pixels < 1:
            raise SettingError(f"`max_pixels` must be at least 1, got {max_pixels}.")
        self.max_pixels = max_pixels
        self.gate = capture.check_names(gate)
        self.head = heads.read(Path(head)) if isinstance(head, (str, os.PathLike)) else head
        self.method = methods.create(method, settings or {}).take_head(self.head.module if self.head else None)
        _check_size(size)
        decision.check_rate(false_alarm_rate)
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
        self._fitted: Fitted | None = None
        self._inspector: tuple[Fitted, Inspector] | None = None
        self._digest: tuple[Fitted, str] | None = None
        self._files: dict[str, str] = {}  # the digest of each file that was loaded or saved, by its absolute path
        self._changing = threading.RLock()

    @one_at_a_time
    def fit(
        self, references: Pictures, *, accept_odd: bool = False, try_defects: bool = True, track: Track = quietly
    ) -> Self:
        """Learn from good pictures: 1 to 8 are the promise, more cost time and memory in proportion.

        Args:
            references: a folder (its own pictures, not those of its subfolders), or one or several pictures, see
                `handful.data.images.read_picture`.
            accept_odd: whether references may be learnt that are clearly unlike the others, see `oddities`.
            try_defects: whether to measure `visibility`, which takes as long as about 33 inspections and changes
                nothing else; 18 of them are needed anyway where the method weighs its evidence by synthetic defects.
            track: shows progress.

        Raises:
            InputError: without a picture, with the same picture twice, or with one that is clearly unlike the others
                without `accept_odd`; ImageError for one that cannot be read.
            SettingError, WeightsError: see `handful.backbones.create`.
        """
        check_torch()
        sources = images.gather(references, recursive=False)
        asked = self._backbone_options["size"]
        sized = None
        if asked == "auto":
            sources = [(images.held(source), name) for source, name in sources]
            sized = self._sized(sources)
            asked = sized.side
        backbone, pictures, preprocessing = self._read(sources, asked, fine=sized.fine if sized else 0)
        parts = [preprocessing.part(picture.size) for picture in pictures]
        aspects = [preprocessing.aspect(picture) for picture in pictures]
        digests = [images.digest(source, picture) for (source, _), picture in zip(sources, pictures, strict=True)]
        names = [picture.name for picture in pictures]
        images.check_distinct(pictures, digests)
        inputs = [torch.from_numpy(preprocessing(picture)) for picture in pictures]

        method = self.method.unfitted()
        in_tiles = Tiling(backbone, preprocessing) if preprocessing.tiles else None
        variations = [mild_views(image, view_count(len(inputs))) for image in inputs]
        views, augmented = [], []
        for image, of_image in track(list(zip(inputs, variations, strict=True)), description="features"):
            views.append([backbone(view[None]) for view in (of_image[:1] if in_tiles else of_image)])
            augmented.append([averaged(backbone(view[None])) for view in random_views(image, method.views_wanted)])
        upright = [of_image[0] for of_image in views]
        taken = [[view.numpy() for view in of_image] for of_image in variations]
        fine = [in_tiles.blocks(picture) for picture in pictures] if in_tiles else None
        learnt = capture.learn(taken, [features.arrays() for features in upright], fine=fine)
        oddities = oddity.find(names, [p.size for p in pictures], upright, learnt, parts=parts)
        if not accept_odd:
            oddity.check(oddities)
        turns = IN_TILES
        if in_tiles is None:
            turns = turning.decide(method.turn_wanted, inputs, upright, backbone, aspects=aspects)
        rows = list(zip(inputs, upright, aspects, strict=True)) if turns.turned else []
        turned = [
            turning.learn(image, features, backbone, aspect=aspect)
            for image, features, aspect in track(rows, description="turned")
        ]
        order = sorted(range(len(inputs)), key=digests.__getitem__)  # whatever order the references came in
        if in_tiles and try_defects:
            variations = [in_tiles.middles(picture, alone=len(pictures) == 1) for picture in pictures]
            parts = [whole(backbone.spec.size)] * len(pictures)
        shown = [in_tiles.shown(picture) if in_tiles else picture.size for picture in pictures]
        patch = inputs[0].shape[1] / upright[0].levels[0].shape[1]
        planned = [of_one[0] for of_one in variations]
        weighs = method.weighs_defects and len(inputs) > 1 and not in_tiles and not turned
        plantings = []
        if try_defects or weighs:
            plantings = plan(planned, order, parts, shown, views=len(variations[0]), patch=patch, spots=try_defects)
        planted = [
            (one.row, one.view, backbone(one.draw(variations[one.row][one.view])[None]))
            for one in track(plantings, description="defects")
        ]
        defects = [
            (row, features)
            for one, (row, _, features) in zip(plantings, planted, strict=True)
            if weighs and one.diameter is None
        ]
        tiles: list[Features] = []
        if in_tiles:
            tiles, *good, tried, prior = in_tiles.fit(method, pictures, planted=planted, track=track)
        else:
            *good, tried = learning.fit_and_try(
                method, views, augmented, turned, defects=defects, planted=planted if try_defects else (), track=track
            )
            prior = learning.prior(method, upright)
        trials = tuple(
            Trial(one.kind, clean, found, one.diameter)
            for one, (clean, found) in zip(plantings if try_defects else (), tried.tolist(), strict=True)
        )
        history = History.start(*good, rate=self.false_alarm_rate, prior=prior)
        self._fitted = Fitted(
            method=method,
            backbone=backbone,
            preprocessing=preprocessing,
            calibration=history.calibration(),
            references=tuple(
                Reference(picture.name, digest, thumbnail_jpeg(picture), preprocessing.depth_of(picture), picture.size)
                for picture, digest in zip(pictures, digests, strict=True)
            ),
            gate=capture.Gate(self.gate, learnt),
            turning=turns,
            memory=Memory(
                tuple(upright), tuple(join(found) for found in augmented if found), tuple(turned), tiles=tuple(tiles)
            ),
            history=history,
            oddities=oddities,
            sizing=sized.why if sized else None,
            trials=Trials(trials, pictures[order[0]].size, len(pictures) == 1) if trials else None,
        )
        self.method = method
        return self

    def _sized(self, sources: Sequence[tuple[PictureSource, str]]) -> Sizing:
        """The size that references show to be worth it; they are read with all their pixels, one at a time."""
        known = self._fitted.backbone if self._fitted else self._ready_backbone
        least = backbones.square_side(known.spec.name if known else self._backbone_options["name"], None)
        pictures = (images.read_picture(source, name=name, max_pixels=self.max_pixels) for source, name in sources)
        return sizing.choose(pictures, least=least, tiled=self.method.takes_loose_patches)

    def _read(
        self, sources: Sequence[tuple[PictureSource, str]], asked: int | tuple[int, int] | None, *, fine: int
    ) -> tuple[Backbone, list[Picture], Preprocessing]:
        """Read references: the backbone for a frame of their shape, or of that asked for, and how they come into it.

        Args:
            sources: of the references, and their names.
            asked: the size of the input.
            fine: the side of a square of as many pixels as tiles are to cover; 0 for no tiles.
        """
        options = {**self._backbone_options, "size": asked}
        # Fitted before or loaded from a file, it has the backbone that its options, or the file, stand for.
        backbone = self._fitted.backbone if self._fitted else self._ready_backbone
        exact = self.squeeze or isinstance(asked, tuple) or (asked is None and self._ready_backbone is not None)
        if exact and backbone is None:
            backbone = backbones.create(**options)
        side = 0 if exact else backbones.square_side(options["name"], asked)
        detail = LONGEST if fine else max(backbone.spec.size) if exact and backbone else side
        pictures = [
            images.read_picture(source, name=name, detail=detail, max_pixels=self.max_pixels)
            for source, name in sources
        ]
        shared = shared_aspect([picture.aspect for picture in pictures]) if side else None
        if side:
            aspect = 1.0 if shared is None else shared
            if backbone is None:
                backbone = backbones.create(**options, aspect=aspect)
            else:
                plain = windowed(backbone, None)
                backbone = backbones.at_size(plain, backbones.frame_of(plain.spec.name, side, aspect))
        assert backbone is not None
        backbone = windowed(backbone, self.method.windows_wanted)
        if self.head is not None:
            self.head.check(backbone.spec)
            self.head.module.to(backbone.device)
        preprocessing = Preprocessing.learnt(
            backbone.spec.size,
            pictures,
            max_pixels=self.max_pixels,
            keeps_aspect=not self.squeeze and (exact or shared is not None),
            side=side,
            fine=frame_size(fine, 1.0 if shared is None else shared) if fine else None,
        )
        return backbone, pictures, preprocessing

    @property
    def calibration(self) -> decision.Calibration:
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
        """What it finds of synthetic defects at its threshold, from scores that `fit` kept.

        After a correction of what is learnt or ignored these are still the scores of the inspector as it was fitted,
        see `handful.visibility.Visibility.changed`. None where `fit` tried none, and for one saved before it did.
        """
        fitted = self._needed
        if fitted.trials is None:
            return None
        changed = len(fitted.history.standing(*CHANGING)) if fitted.history else 0
        return fitted.trials.at(fitted.calibration.threshold, changed=changed)

    @property
    def turning(self) -> Turning | None:
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
        return EVIDENCE_OF_TILES if self.tiles else self._needed.method.evidence

    @property
    def reshaped(self) -> tuple[str, ...]:
        """The references of another shape than the input, which lie in it as a whole or are squeezed to it."""
        fitted = self._needed
        frame = fitted.preprocessing.size
        return tuple(one.name for one in fitted.references if one.size and not part_of(one.size, frame).is_whole)

    @property
    def keeps_aspect(self) -> bool:
        """Whether a picture of another shape than the input lies in it as a whole; else it is squeezed to it."""
        return self._needed.preprocessing.keeps_aspect

    @property
    def bits(self) -> int:
        """The depth of the references' values."""
        return self._needed.preprocessing.bits

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
            self._inspector = fitted, self._make_inspector(fitted)
        return self._inspector[1]

    def _make_inspector(self, fitted: Fitted) -> Inspector:
        memory, graph = fitted.memory, None
        if fitted.graph is not None and memory is not None:
            graph = scoring.opened(fitted.graph.parts, fitted.method, memory, fitted.backbone)
        return Inspector(
            look=graph or partial(self._look, fitted),
            side_by_side=graph.several if graph else None,
            method=fitted.method.name,
            backbone=fitted.backbone.spec,
            preprocessing=fitted.preprocessing,
            calibration=fitted.calibration,
            references=fitted.references,
            gate=fitted.gate,
            digest=self._digest_of(fitted),
            again=lambda: (_inspector_again, self._packed(fitted)),
            learnt=tuple(features.arrays() for features in memory.learnt) if memory else (),
            ignored=memory.ignored if memory else None,
        )

    @property
    def digest(self) -> str:
        """The name of the inspector with its calibration: sha256 in hex, another one after every correction.

        Raises:
            NotFittedError: before `fit`.
        """
        return self._digest_of(self._needed)

    def _digest_of(self, fitted: Fitted) -> str:
        if self._digest is None or self._digest[0] is not fitted:
            manifest, parts = self._described(fitted)
            digest = artifact.digest_of(manifest, fitted.calibration.as_dict(), artifact.digests_of(parts))
            self._digest = fitted, digest
            return digest
        return self._digest[1]

    def __reduce__(self) -> "tuple[Callable[..., Detector], tuple[Any, ...]]":
        """Pickle and copy by way of the saved file; a detector that is not fitted, by its arguments."""
        if self._fitted is not None:
            return _again, self._packed(self._fitted)
        backbone = self._ready_backbone
        kept = None if backbone is None else (backbone.spec, dict(backbone.parts))
        options = {name: value for name, value in self._backbone_options.items() if name != "name"}
        arguments = options | {
            "settings": self.method.settings,
            "backbone": self._backbone_options["name"] if backbone is None else backbones.DEFAULT_BACKBONE,
            "false_alarm_rate": self.false_alarm_rate,
            "head": self.head,
            "gate": self.gate,
            "max_pixels": self.max_pixels,
            "squeeze": self.squeeze,
        }
        return _unfitted_again, (self.method.name, arguments, kept)

    def _packed(self, fitted: Fitted) -> tuple[bytes, heads.TrainedHead | None, backbones.Device]:
        """The bytes of its file, its head, and where torch runs; no graph is made for it."""
        manifest, parts = self._described(fitted)
        graph, said = self._kept_graph(fitted, make=False)
        content = artifact.pack(manifest | {"graph": said}, fitted.calibration.as_dict(), parts | graph)
        return content, self.head, self._backbone_options["device"]

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

    def _look(self, fitted: Fitted, image: NDArray[np.float32]) -> Seen:
        """See a picture (3, H, W) through torch."""
        check_torch()
        features = fitted.backbone(torch.from_numpy(image)[None])
        scores = self._scores(features, fitted.memory, fitted.method)
        return Seen(features.arrays(), scores.maps[0].cpu().numpy(), float(scores.image[0]))

    @property
    def has_graph(self) -> bool:
        """Whether it came with the graph that inspects without torch, and no correction has made that another."""
        return self._needed.graph is not None

    @one_at_a_time
    def save(self, path: str | os.PathLike[str], *, graph: bool = True) -> None:
        """Save the fitted inspector as one file that needs neither the references nor a network to run elsewhere.

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
        fitted, place = self._needed, os.path.realpath(path)
        manifest, parts = self._described(fitted)
        scoring_parts, said = self._kept_graph(fitted, make=graph)
        manifest |= {"graph": said}
        calibration = fitted.calibration.as_dict()
        artifact.write(Path(path), manifest, calibration, parts | scoring_parts, expected=self._files.get(place))
        self._files[place] = self._digest_of(fitted)

    def _described(self, fitted: Fitted) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The manifest and the parts of the saved file, without the graph, which follows from the rest."""
        method = fitted.method
        manifest = {
            "handful": __version__,
            "method": {"name": method.name, "settings": method.settings},
            "backbone": asdict(fitted.backbone.spec),
            "preprocessing": _preprocessing(fitted.preprocessing),
            "contrast": float(fitted.gate.learnt.contrast.min()),  # all that versions before the gate ask for
            "gate": list(fitted.gate.checks),
            "turning": asdict(fitted.turning) if fitted.turning else None,
            "evidence": EVIDENCE_OF_TILES if fitted.preprocessing.tiles else fitted.method.evidence,
            "head": {"name": self.head.name, "sha256": self.head.sha256} if self.head else None,
            "references": [
                {"name": r.name, "sha256": r.sha256}
                | ({"bits": r.bits} if r.bits else {})
                | ({"size": list(r.size)} if r.size else {})
                for r in fitted.references
            ],
            **({"oddities": [asdict(one) for one in fitted.oddities]} if fitted.oddities else {}),
            **({"sizing": fitted.sizing} if fitted.sizing else {}),
            **({"visibility": fitted.trials.as_dict()} if fitted.trials else {}),
        }
        state = {name: tensor.cpu().contiguous() for name, tensor in method.state().items()}
        parts = {STATE_PART: safetensors.torch.save(state), **fitted.backbone.parts}
        parts |= {thumbnail_part(number): r.thumbnail for number, r in enumerate(fitted.references)}
        parts |= {GATE_PART: safetensors.numpy.save(fitted.gate.learnt.as_dict())}
        parts |= fitted.memory.to_parts() if fitted.memory else {}
        parts |= {revisions.PART: revisions.to_part(fitted.history)} if fitted.history else {}
        return manifest, parts

    def _kept_graph(self, fitted: Fitted, *, make: bool) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The graph's files, none where there are none, and what the manifest says of it."""
        if fitted.graph is None and not make:
            return {}, {"why": "It was saved before its graph was made; load it in Python and save it again."}
        try:
            graph = fitted.graph or scoring.keep(
                fitted.method,
                fitted.memory,
                fitted.backbone,
                fitted.calibration,
                partial(self._look, fitted),
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
        score = partial(self._scores, memory=fitted.memory, method=fitted.method)
        return export(Path(folder), fitted, fitted.method, score, formats=formats, check=check)

    @classmethod
    def load(
        cls,
        source: artifact.Source,
        *,
        engine: backbones.EngineChoice | None = None,
        device: backbones.Device = "auto",
        head: heads.Head = None,
    ) -> Self:
        """Load a saved inspector.

        Args:
            source: the path of a saved inspector, or the bytes of its file.
            engine: None for the one it was fitted with.
            device: where torch runs.
            head: that it was fitted with, where it needs one: a file, or one read before; None to look for the file of
                that name beside the inspector.

        Raises:
            InspectorError: if it is missing, damaged, altered, newer than this version, or no inspector, or if the head
                is not the one that it was fitted with.
            WeightsError: if the head cannot be read.
            SettingError: if its engine, device or precision cannot be had here.
            ProcessError: in a process that was forked after OpenVINO or torch had run.
        """
        content, name = artifact.content_of(source)
        manifest, calibration, parts = artifact.read(content, name=name)
        with reading(name):
            method, spec = manifest["method"], spec_of(manifest)
            found = heads.named(Path(name), manifest, head)
            detector = cls(method["name"], settings=method["settings"], device=device, head=found)
            backbone = backbones.load(
                spec,
                {name: parts[name] for name in parts if name.startswith("backbone.")},
                engine=engine,
                device=device,
            )
            backbone = windowed(backbone, detector.method.windows_wanted)
            detector.method.load_state(safetensors.torch.load(parts[STATE_PART])).to(backbone.device)
            preprocessing = preprocessing_of(manifest)
            detector.squeeze = not (preprocessing.keeps_aspect or preprocessing.side)
            side = preprocessing.side or preprocessing.size
            detector._backbone_options["size"] = "auto" if preprocessing.tiles else side
            detector._fitted = Fitted(
                method=detector.method,
                backbone=backbone,
                preprocessing=preprocessing,
                calibration=decision.Calibration.from_dict(calibration),
                references=references_of(manifest, parts),
                gate=gate_of(manifest, parts),
                turning=Turning(**kept) if (kept := manifest.get("turning")) else None,
                memory=memory.from_parts(parts, size=preprocessing.size, device=backbone.device),
                history=revisions.from_parts(parts),
                graph=scoring.from_parts(manifest, parts) if backbone.spec == spec else None,
                oddities=oddity.from_manifest(manifest),
                sizing=manifest.get("sizing"),
                trials=Trials.from_manifest(manifest),
            )
        detector.false_alarm_rate = detector.calibration.false_alarm_rate
        detector.max_pixels = preprocessing.max_pixels
        detector.gate = capture.CHECKS if "gate" not in manifest else detector._fitted.gate.checks
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


def _preprocessing(preprocessing: Preprocessing) -> dict[str, Any]:
    """Ready for the manifest; where pictures were to be squeezed, as inspectors up to format 2 say it."""
    fields = asdict(preprocessing)
    if not (preprocessing.keeps_aspect or preprocessing.side):
        del fields["keeps_aspect"], fields["side"]
    if preprocessing.fine is None:
        del fields["fine"]
    return fields


def _again(content: bytes, head: heads.TrainedHead | None, device: backbones.Device) -> Detector:
    """A fitted detector that was pickled or copied."""
    return Detector.load(content, head=head, device=device)


def _inspector_again(content: bytes, head: heads.TrainedHead | None, device: backbones.Device) -> Inspector:
    """The inspector of a fitted detector that was pickled or copied."""
    return _again(content, head, device).inspector


def _unfitted_again(
    method: str, arguments: dict[str, Any], backbone: tuple[BackboneSpec, dict[str, bytes]] | None
) -> Detector:
    """A detector that was pickled or copied before it was fitted."""
    if backbone is not None:
        arguments = arguments | {"backbone": backbones.load(*backbone, device=arguments["device"])}
    return Detector(method, **arguments)
