"""The state of a fitted inspector: its parts, its scores, and the contents of its saved file."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from typing import Any, Self

import numpy as np
import safetensors.numpy
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from handful import backbones, methods
from handful.backbones.base import Backbone
from handful.backbones.crops import with_crops
from handful.backbones.processes import check_torch
from handful.data.images import Picture
from handful.data.preprocessing import Preprocessing
from handful.data.thumbnails import thumbnail_picture
from handful.errors import InspectorError, SettingError
from handful.fitting.calibration import join, score_ignoring
from handful.fitting.oddity import Oddity
from handful.fitting.reference_features import ReferenceFeatures
from handful.fitting.revisions import CHANGING, History
from handful.fitting.rotation import Rotation
from handful.fitting.tiling import Tiling
from handful.fitting.visibility import Trials, Visibility
from handful.inspection.gate import Gate
from handful.inspection.threshold import Calibration
from handful.saved import archive, scoring_graph
from handful.saved.archive import GATE_ENTRY, IGNORED_ENTRY, LEARNT_ENTRY, STATE_ENTRY
from handful.saved.history import HISTORY_ENTRY, history_entry, history_of
from handful.saved.manifest import gate_of, preprocessing_of, references_of, spec_of, thumbnail_entry
from handful.saved.scoring_graph import KeptGraph
from handful.types import Features, ModelOutput, Reference, Scores
from handful.version import __version__

DEFECTS_ENTRY = "defects.safetensors"
OF_THE_FILE = ("digest", "format_version", "graph")  # manifest fields that are computed when a file is written
EVIDENCE_OF_TILES = "single patches of tiles; wide ones and turned copies do not count in tiles"


@dataclass(frozen=True, eq=False, kw_only=True)
class InspectorState:
    """The immutable state of a fitted inspector; a correction makes a new state.

    Attributes:
        method: the fitted method.
        backbone: computes the features.
        preprocessing: the steps from pixels to the input of the backbone.
        calibration: the threshold and its basis.
        references: the learnt good pictures, in the order in which the method has learnt them.
        gate: says which pictures are doubtful.
        turning: whether turned copies of the references were learnt, and why; None in files older than turned copies.
        features: of the learnt pictures and of the missed defects.
        history: the scores of the references, and all corrections.
        head: name and sha256 of the trained head that the method scores with; None without a head.
        graph: the saved graph of the scoring; None if there is no graph yet.
        oddities: references that are unlike the other references.
        trials: scores of synthetic defects; None if none were planted.
        sizing: the size that `auto` chose, and why, in words; None if the size was given.
        loaded: the manifest of the file that the state was loaded from, until a correction of more than the threshold,
            so that settings which a later version adds do not change the digest; None for any other state.
    """

    method: methods.Method
    backbone: Backbone
    preprocessing: Preprocessing
    calibration: Calibration
    references: tuple[Reference, ...]
    gate: Gate
    turning: Rotation | None
    features: ReferenceFeatures
    history: History
    head: Mapping[str, str] | None = None
    graph: KeptGraph | None = None
    oddities: tuple[Oddity, ...] = ()
    trials: Trials | None = None
    sizing: str | None = None
    loaded: Mapping[str, Any] | None = None

    @property
    def tiling(self) -> Tiling | None:
        """The scoring of pictures in tiles; None if each picture is a single input."""
        return Tiling(self.backbone, self.preprocessing) if self.preprocessing.tiles else None

    @property
    def evidence(self) -> str | None:
        """The kinds of evidence that count in the scores, and the reason why others do not, in words."""
        return EVIDENCE_OF_TILES if self.preprocessing.tiles else self.method.evidence

    @property
    def visibility(self) -> Visibility | None:
        """The detection rates of synthetic defects at the threshold; None if none were planted."""
        if self.trials is None:
            return None
        return self.trials.at(self.calibration.threshold, changed=len(self.history.standing(*CHANGING)))

    def forward(self, image: NDArray[np.float32]) -> ModelOutput:
        """The output of backbone and method for a picture (3, H, W) in [0, 1], through torch."""
        check_torch()
        features = self.backbone(torch.from_numpy(image)[None])
        scores = self.score(features)
        return ModelOutput(features.arrays(), scores.maps[0].cpu().numpy(), float(scores.image[0]))

    def score(self, features: Features) -> Scores:
        """The scores of features; ignored regions do not count."""
        if self.features.ignored is None:
            return self.method.score(features)
        return score_ignoring(self.method, features, ignored=self.features.ignored, good=self.features.good)

    def judge(self, picture: Picture, features: Features) -> tuple[Scores, Features]:
        """A picture's scores, and the features that give its image score: `features`, or the highest tile's."""
        if self.tiling is None:
            return self.score(features), features
        return self.tiling.score(self.method, self.preprocessing.in_detail(picture))

    def image_score(self, features: Features) -> float:
        """The image score of features that `judge` returned, of a whole picture or of a tile."""
        scores = self.score(features)
        return float(scores.maps.max() if self.preprocessing.tiles else scores.image[0])

    def doubt(self, picture: Picture, image: NDArray[np.float32], features: Features) -> str | None:
        """The gate's doubt about a picture, as the end of a sentence; None without a doubt.

        Args:
            picture: as read.
            image: (3, H, W), the input of the backbone.
            features: of `image`.
        """
        good = [one.arrays() for one in self.features.learnt]
        fine = self.preprocessing.in_detail(picture) if self.preprocessing.tiles else None
        return self.gate.refuse_image(image, fine) or self.gate.refuse_features(features.arrays(), good)

    @cached_property
    def digest(self) -> str:
        """The identity of the inspector with its calibration: sha256 in hex; every correction changes the digest."""
        manifest, entries = self.described()
        return archive.digest_of(manifest, self.calibration.as_dict(), archive.digests_of(entries))

    def described(self) -> tuple[dict[str, Any], dict[str, bytes]]:
        """The manifest and the entries of the saved file, without the graph, which follows from the other entries."""
        manifest = self._manifest() if self.loaded is None else {**self.loaded, "handful": __version__}
        method_state = {name: tensor.cpu().contiguous() for name, tensor in self.method.state().items()}
        entries = {STATE_ENTRY: safetensors.torch.save(method_state), **self.backbone.entries}
        entries |= {thumbnail_entry(number): r.thumbnail for number, r in enumerate(self.references)}
        entries |= {GATE_ENTRY: safetensors.numpy.save(self.gate.statistics.as_dict())}
        entries |= _feature_entries(self.features)
        return manifest, entries | {HISTORY_ENTRY: history_entry(self.history)}

    def _manifest(self) -> dict[str, Any]:
        return {
            "handful": __version__,
            "method": {"name": self.method.name, "settings": self.method.settings},
            "backbone": asdict(self.backbone.spec),
            "preprocessing": _preprocessing(self.preprocessing),
            "contrast": float(self.gate.statistics.contrast.min()),  # unused; kept for the digests of earlier files
            "gate": list(self.gate.checks),
            "turning": asdict(self.turning) if self.turning else None,
            "evidence": self.evidence,
            "head": self.head,
            "references": [
                {"name": r.name, "sha256": r.sha256}
                | ({"bits": r.bits} if r.bits else {})
                | ({"size": list(r.size)} if r.size else {})
                for r in self.references
            ],
            **({"oddities": [asdict(one) for one in self.oddities]} if self.oddities else {}),
            **({"sizing": self.sizing} if self.sizing else {}),
            **({"visibility": self.trials.as_dict()} if self.trials else {}),
        }

    def packed(self, *, make_graph: bool) -> tuple[dict[str, Any], dict[str, Any], dict[str, bytes]]:
        """Manifest, calibration and entries of the saved file, with the graph.

        Args:
            make_graph: whether to make a graph that is missing.
        """
        manifest, entries = self.described()
        graph, said = self._kept_graph(make=make_graph)
        return manifest | {"graph": said}, self.calibration.as_dict(), entries | graph

    def _kept_graph(self, *, make: bool) -> tuple[dict[str, bytes], dict[str, Any]]:
        """The graph's files, none without a graph, and the manifest's field on the graph."""
        if self.graph is None and not make:
            return {}, {"why": "It was saved before its graph was made; load it in Python and save it again."}
        try:
            graph = self.graph or scoring_graph.keep(
                self.method,
                self.features,
                self.backbone,
                self.calibration,
                self.forward,
                [self.preprocessing(thumbnail_picture(r.thumbnail, name=r.name)) for r in self.references],
            )
        except (SettingError, InspectorError) as error:
            return {}, {"why": str(error)}
        return graph.entries, {"score": graph.score, "map": graph.map}

    @classmethod
    def from_file(
        cls,
        manifest: Mapping[str, Any],
        calibration: Mapping[str, Any],
        entries: Mapping[str, bytes],
        method: methods.Method,
        *,
        engine: backbones.EngineChoice | None,
        device: backbones.Device,
    ) -> Self:
        """The state that a saved file holds.

        Args:
            manifest, calibration, entries: the results of `handful.saved.archive.read`.
            method: an unfitted method of the manifest's name and settings, with its head; its state is loaded.
            engine: the engine that runs the backbone; None for the engine of the manifest.
            device: the device that torch runs on.

        Raises:
            KeyError, TypeError, ValueError, InspectorError, SafetensorError: if the contents cannot be read.
        """
        spec, preprocessing = spec_of(manifest), preprocessing_of(manifest)
        network = {name: entry for name, entry in entries.items() if name.startswith("backbone.")}
        backbone = with_crops(backbones.load(spec, network, engine=engine, device=device), method.crops_wanted)
        method.load_state(safetensors.torch.load(entries[STATE_ENTRY])).to(backbone.device)
        as_saved = backbone.spec == spec  # False with another engine than the saved engine
        return cls(
            method=method,
            backbone=backbone,
            preprocessing=preprocessing,
            calibration=Calibration.from_dict(calibration),
            references=references_of(manifest, entries),
            gate=gate_of(manifest, entries),
            turning=Rotation(**kept) if (kept := manifest.get("turning")) else None,
            features=_reference_features(entries, size=preprocessing.size, device=backbone.device),
            history=history_of(entries),
            head=manifest.get("head"),
            graph=scoring_graph.from_entries(manifest, entries) if as_saved else None,
            oddities=_oddities(manifest),
            sizing=manifest.get("sizing"),
            trials=Trials.from_manifest(manifest),
            loaded={k: v for k, v in manifest.items() if k not in OF_THE_FILE} if as_saved else None,
        )


def method_of(manifest: Mapping[str, Any], given: type[methods.Method] | None, *, name: str) -> methods.Method:
    """The method that a saved file names, unfitted and without a head.

    Args:
        manifest: of the file.
        given: the class of the method; None to look the class up in `handful.methods.METHODS`.
        name: of the file, for error messages.

    Raises:
        InspectorError: if the given class has another name than the file's method, or if no class was given and the
            method is not in `METHODS`.
    """
    wanted = manifest["method"]["name"]
    kind = methods.METHODS.get(wanted) if given is None else given
    if kind is None or kind.name != wanted:
        raise InspectorError(
            f"{name} must be loaded with the class of its method, {wanted}, got {kind.name if kind else 'none'}; give "
            f"the class as `Detector.load(path, method=CLASS)`."
        )
    return methods.make(kind, manifest["method"]["settings"])


def _preprocessing(preprocessing: Preprocessing) -> dict[str, Any]:
    """The preprocessing for the manifest; a preprocessing that squeezes pictures has the fields of format 2."""
    fields = asdict(preprocessing)
    if not (preprocessing.keeps_aspect or preprocessing.side):
        del fields["keeps_aspect"], fields["side"]
    if preprocessing.fine is None:
        del fields["fine"]
    return fields


def _oddities(manifest: Mapping[str, Any]) -> tuple[Oddity, ...]:
    kept = (Oddity(**fields) for fields in manifest.get("oddities", ()))
    return tuple(replace(one, at=(one.at[0], one.at[1]) if one.at else None) for one in kept)


def _feature_entries(features: ReferenceFeatures) -> dict[str, bytes]:
    """The entries that hold the features of learnt pictures and defects, and the ignored regions."""
    tensors = _named("level", join(features.learnt))
    for name in ("augmented", "turned", "tiles"):
        if found := getattr(features, name):
            tensors |= _named(name, join(found))
    entries = {LEARNT_ENTRY: safetensors.torch.save(tensors)}
    if features.defects:
        entries[DEFECTS_ENTRY] = safetensors.torch.save(_named("level", join(features.defects)))
    if features.masks:
        entries[IGNORED_ENTRY] = safetensors.numpy.save({str(number): mask for number, mask in features.masks.items()})
    return entries


def _reference_features(entries: Mapping[str, bytes], *, size: tuple[int, int], device: str) -> ReferenceFeatures:
    """The features in the entries that `_feature_entries` made, for an input of (H, W) = `size`, on a device."""
    learnt = safetensors.torch.load(entries[LEARNT_ENTRY])
    defects = safetensors.torch.load(entries[DEFECTS_ENTRY]) if DEFECTS_ENTRY in entries else {}
    masks = safetensors.numpy.load(entries[IGNORED_ENTRY]) if IGNORED_ENTRY in entries else {}
    pictures = _split("level", learnt, size, device)
    variations = _split("augmented", learnt, size, device)
    views = len(variations) // len(pictures)
    return ReferenceFeatures(
        tuple(pictures),
        tuple(join(variations[start : start + views]) for start in range(0, len(variations), views or 1)),
        tuple(_split("turned", learnt, size, device)),
        tuple(_split("level", defects, size, device)),
        {int(number): masks[number] for number in sorted(masks, key=int)},
        tuple(_split("tiles", learnt, size, device)),
    )


def _named(name: str, features: Features) -> dict[str, Tensor]:
    """The tensors of features by their names in the saved file."""
    tensors = {f"{name}.{number}": level for number, level in enumerate(features.levels)}
    tensors |= {f"{name}.{kind}": one for kind in ("image", "text") if (one := getattr(features, kind)) is not None}
    named = {key: tensor.cpu().contiguous() for key, tensor in tensors.items()}
    if features.crops is not None:
        named |= {f"{name}.windows.size": torch.tensor(features.crops.size)}
        named |= _named(f"{name}.windows", features.crops)
    return named


def _features(name: str, tensors: Mapping[str, Tensor], size: tuple[int, int], device: str) -> Features | None:
    """The features whose tensors `_named` gave; None if there are no tensors of that name."""
    if f"{name}.0" not in tensors:
        return None
    count = sum(key.removeprefix(f"{name}.").isdigit() for key in tensors)
    image, text, of_windows = (tensors.get(f"{name}.{kind}") for kind in ("image", "text", "windows.size"))
    crops = None
    if of_windows is not None:
        height, width = of_windows.tolist()
        crops = _features(f"{name}.windows", tensors, (height, width), device)
    return Features(
        tuple(tensors[f"{name}.{number}"].to(device) for number in range(count)),
        size,
        None if image is None else image.to(device),
        None if text is None else text.to(device),
        crops,
    )


def _split(name: str, tensors: Mapping[str, Tensor], size: tuple[int, int], device: str) -> list[Features]:
    """The features of each picture in an entry, in a list."""
    features = _features(name, tensors, size, device)
    return [] if features is None else [features[[row]] for row in range(len(features))]
