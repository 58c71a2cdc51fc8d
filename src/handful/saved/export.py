"""The export of a fitted inspector as a graph, backbone and method together, for programs without Handful.

    image (1, 3, H, W) float32 in [0, 1]  →  map (1, H, W) and score (1,), float32, both in the method's own unit

The graph is traced from the backbone's network and the method's own `score`, so no scoring is implemented twice. An
export succeeds only after the graph's answers have been compared with the inspector's.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from handful import backbones
from handful.data import images
from handful.data.images import Pictures
from handful.data.thumbnails import thumbnail_picture
from handful.data.writing import new_folder
from handful.errors import OutputError, SettingError
from handful.graphs.names import GRAPH_INPUT, GRAPH_OUTPUTS, Graph
from handful.inspection.threshold import Calibration
from handful.ops.frames import ALIKE
from handful.saved.scoring_graph import TOLERANCE, check_traceable, operations_of, relative_difference
from handful.saved.state import InspectorState
from handful.types import Features, Scores
from handful.version import __version__

GraphFormat = Literal["openvino", "onnx"]
DESCRIPTION = "inspector.json"
DESCRIPTION_VERSION = 3  # version 1 squeezed every picture to the input; version 2 named the raw score `score`


@dataclass(frozen=True)
class Agreement:
    """The largest differences between a graph's answers and the inspector's, in the unit of `TOLERANCE`.

    Attributes:
        format: the format of the graph.
        pictures: the number of pictures compared.
        score, map: the largest difference between image scores, and between values of the maps.
    """

    format: GraphFormat
    pictures: int
    score: float
    map: float


@dataclass(frozen=True)
class Export:
    """The files of an export.

    Attributes:
        folder: the folder of the files.
        files: the size of each file in bytes, by name.
        agreements: of the graph of each format with the inspector.
    """

    folder: Path
    files: dict[str, int]
    agreements: tuple[Agreement, ...]


class Whole(nn.Module):
    """A backbone's network, (1, 3, H, W) → levels, followed by the inspector's scoring."""

    def __init__(self, network: nn.Module, score: Callable[[Features], Scores], size: tuple[int, int]) -> None:
        super().__init__()
        self.network, self.score, self.size = network, score, size

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """(1, 3, H, W) in [0, 1] → map (1, H, W), image score (1,)."""
        scores = self.score(Features(self.network(image), self.size))
        return scores.maps, scores.image


def export(folder: Path, fitted: InspectorState, *, formats: Sequence[GraphFormat], check: Pictures | None) -> Export:
    """Write an inspector as graphs, with a file `DESCRIPTION` for the program that runs the graphs.

    Args:
        folder: a new or empty folder.
        fitted: the inspector.
        formats: the formats of the graphs.
        check: pictures, or folders of pictures, on which each graph is compared with the inspector, besides the
            thumbnails of the references.

    Raises:
        SettingError: for a method, backbone, precision, device or format that cannot be exported, or if a format's
            packages are missing.
        OutputError: if the folder cannot be written, or a graph's answers differ from the inspector's; no file is then
            left.
        InputError: if a folder of `check` holds no picture; ImageError for an unreadable picture.
    """
    _check(fitted, formats)
    writers = {kind: _writer(kind) for kind in formats}
    with new_folder(folder) as temporary:
        inputs = _check_images(fitted, check)
        own = [fitted.score(fitted.backbone(image)) for image in inputs]
        size, what = fitted.preprocessing.size, f"{fitted.method.name} on {fitted.backbone.spec.name}"
        with operations_of(what, "torch"):
            whole = Whole(backbones.network_of(fitted.backbone), fitted.score, size).eval()
        example = torch.full((1, 3, *size), 0.5)
        agreements = []
        for kind, write in writers.items():
            with operations_of(what, kind):
                # The graph must not be kept in a variable: Windows renames no folder whose files are open.
                agreements.append(_agreement(kind, write(whole, example, temporary), inputs, own, fitted.calibration))
        described = _describe(fitted, temporary, agreements)
        (temporary / DESCRIPTION).write_text(json.dumps(described, indent=1), "utf-8")
        files = {path.name: path.stat().st_size for path in sorted(temporary.iterdir())}
    return Export(folder, files, tuple(agreements))


def _check(fitted: InspectorState, formats: Sequence[str]) -> None:
    check_traceable(fitted.method)
    if fitted.preprocessing.tiles is not None:
        raise SettingError(
            "An inspector must take each picture as a single input to be written as a graph, got an inspector with "
            "tiles; fit it again with a number as `--size`."
        )
    if fitted.backbone.spec.precision != "f32":
        raise SettingError(
            f"An inspector must compute in f32 to be written as a graph, got {fitted.backbone.spec.precision}; fit it "
            f"again at f32."
        )
    if fitted.backbone.device != "cpu":
        raise SettingError(
            f"An inspector must be on the CPU to be written as a graph, got {fitted.backbone.device}; save it and load "
            f"it with `device` cpu."
        )
    for kind in formats or (None,):
        if kind not in get_args(GraphFormat):
            raise SettingError(f"`format` must be one of {', '.join(get_args(GraphFormat))}, got {kind!r}.")


def _writer(kind: GraphFormat) -> Callable[[nn.Module, Tensor, Path], Graph]:
    """The writer of a format's graphs; raises SettingError if its packages are missing."""
    if kind == "onnx":
        from handful.graphs import onnx_writer

        return onnx_writer.write_graph

    from handful.graphs import openvino_writer

    return openvino_writer.write_graph


def _check_images(fitted: InspectorState, check: Pictures | None) -> list[Tensor]:
    """Model inputs (1, 3, H, W) of the references' thumbnails, and of the pictures given."""
    pictures = [thumbnail_picture(reference.thumbnail, name=reference.name) for reference in fitted.references]
    given = [] if check is None else images.gather(check, recursive=True)
    pictures += [fitted.preprocessing.read(source, name) for source, name in given]
    return [torch.from_numpy(fitted.preprocessing(picture))[None] for picture in pictures]


def _agreement(
    kind: GraphFormat, graph: Graph, inputs: Sequence[Tensor], own: Sequence[Scores], calibration: Calibration
) -> Agreement:
    """The agreement of a graph with the inspector's scores of the inputs; raises OutputError beyond `TOLERANCE`."""
    of_scores, of_maps = [], []
    for image, scores in zip(inputs, own, strict=True):
        found_map, found = graph(image)
        own_score, own_map = scores.image.cpu().numpy(), scores.maps.cpu().numpy()
        of_scores.append(relative_difference(found, own_score, calibration.typical, calibration.threshold))
        of_maps.append(relative_difference(found_map, own_map, calibration.map_typical, calibration.map_threshold))
    agreement = Agreement(kind, len(inputs), float(np.max(of_scores)), float(np.max(of_maps)))
    if not (agreement.score <= TOLERANCE and agreement.map <= TOLERANCE):  # NaN is neither
        raise OutputError(
            f"A graph must answer as its inspector within {TOLERANCE:g} of the calibrated score, got {kind} off by "
            f"{agreement.score:.2g} in a score and {agreement.map:.2g} in a map; nothing was written, try another "
            f"format."
        )
    return agreement


def _describe(fitted: InspectorState, folder: Path, agreements: Sequence[Agreement]) -> dict[str, Any]:
    """The description for a program without Handful, ready for JSON."""
    spec, (height, width) = fitted.backbone.spec, fitted.preprocessing.size
    calibration = fitted.calibration.as_dict()
    del calibration["references"]  # a number; "references" below lists the pictures instead
    return {
        "format_version": DESCRIPTION_VERSION,
        "handful": __version__,
        **calibration,
        "verdict": "DEFECT where raw_score > threshold, else OK",
        "score": "(raw_score - typical) / (threshold - typical): 0 a typical good part, 1 the threshold",
        "map": "(raw_map - map_typical) / (map_threshold - map_typical): above 1 a pixel is part of a defect",
        "input": {"name": GRAPH_INPUT, "shape": [1, 3, height, width], "type": "float32", "range": [0, 1]},
        "batch": "one picture at a time; reshaped or edited to another shape, the graph refuses to run",
        "outputs": {
            name: {"shape": shape, "type": "float32"}
            for name, shape in zip(GRAPH_OUTPUTS, ([1, height, width], [1]), strict=True)
        },
        "preprocessing": _preprocessing(fitted),
        "precision": "float32; in OpenVINO set INFERENCE_PRECISION_HINT to f32, or scores differ between computers",
        "left_out": _left_out(fitted),
        "ignores_a_region": fitted.features.ignored is not None,
        "files": {path.name: _digest(path) for path in sorted(folder.iterdir())},
        "agreement": {"tolerance": TOLERANCE, "formats": [asdict(agreement) for agreement in agreements]},
        "method": {"name": fitted.method.name, "settings": fitted.method.settings},
        "backbone": {"name": spec.name, "levels": list(spec.levels), "weights": spec.weights}
        | {"weights_sha256": spec.weights_sha256},
        "references": [{"name": reference.name, "sha256": reference.sha256} for reference in fitted.references],
    }


def _preprocessing(fitted: InspectorState) -> dict[str, Any]:
    preprocessing, (height, width) = fitted.preprocessing, fitted.preprocessing.size
    return {
        "upright": "turn the picture as its EXIF orientation says",
        "channels": "RGB; grey three times, transparency laid over black",
        "size": [height, width],
        "resize": "the whole picture to size, or to its part of it: bicubic and anti-aliased, as Pillow's BICUBIC, "
        "across and then down, rounded to 8 bits after each",
        "keeps_aspect_beyond": ALIKE if preprocessing.keeps_aspect else None,
        "part": "a picture whose aspect, width to height, differs from size's by a factor of more than "
        "keeps_aspect_beyond keeps its aspect: it is resized to the largest height and width inside size, rounded, put "
        "in the middle (nearer to the top left) and mirrored around, its edge repeated, and only its own part of the "
        "map is its. Where keeps_aspect_beyond is null, and for any other picture, the part is all of size.",
        "jpeg_draft": images.DRAFT_FACTOR * preprocessing.detail,
        "divide_8_bit_by": 255,
        "divide_16_bit_by": 2 ** (preprocessing.bits if preprocessing.bits > 8 else 16) - 1,
        "clip": [0, 1],
    }


def _left_out(fitted: InspectorState) -> list[str]:
    """Functions of the inspector that the graph lacks."""
    return [
        f"the capture gate ({', '.join(fitted.gate.checks) or 'none'}): pictures that Handful would have taken again "
        "(RETAKE) are scored as any other",
        "regions, and the good places that they are compared with: threshold the calibrated map at 1",
        "corrections: teach the .handful file and export it again",
    ]


def _digest(path: Path) -> dict[str, Any]:
    return {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": path.stat().st_size}
