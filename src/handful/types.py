"""The records that the other modules pass to each other, with the shapes of their arrays.

Letters: B pictures, H W pixels of the model-input frame, h w patch grid, D channels.
"""

from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:  # torch takes a second to import, and verdicts need none of it
    from torch import Tensor


class Verdict(StrEnum):
    """The answer for a picture in a word; each verdict is equal to its name as a string.

        if inspection.verdict is handful.Verdict.RETAKE or inspection.verdict == "ERROR":
            print(inspection.reason)

    Attributes:
        OK: the score is not above the threshold.
        DEFECT: the score is above the threshold.
        RETAKE: the score is not above the threshold, but the gate doubts the picture: take the picture again.
        ERROR: the picture cannot be read, or gets no finite score.
    """

    OK = "OK"
    DEFECT = "DEFECT"
    RETAKE = "RETAKE"
    ERROR = "ERROR"


@dataclass(frozen=True)
class Sample:
    """One picture of a labelled data set.

    Attributes:
        path: where the picture lies.
        anomalous: False for a good part, True for a defect, None for an unlabelled picture.
        kind: the defect's type in the data set's words, "good" for good parts.
        masks: the paths of the defect masks: none, one for the picture, or one for each defect.
    """

    path: str
    anomalous: bool | None
    kind: str
    masks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Saturation:
    """The area of a defect that must be found for the defect to count as wholly found (MVTec LOCO, section 5).

    Attributes:
        pixel_value: the value that a defect of this type has in its mask.
        area: in pixels of the original picture, or as a share of the defect's own area.
        relative: whether `area` is a share.
    """

    pixel_value: int
    area: float
    relative: bool


@dataclass(frozen=True)
class Category:
    """One product of a labelled data set.

    Attributes:
        train: paths of good pictures, sorted: references are drawn from these.
        test: labelled pictures, sorted by path.
        saturation: for each type of defect, if the data set defines it; else empty.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[Sample, ...]
    saturation: tuple[Saturation, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A labelled data set in a folder.

    Attributes:
        layout: the name of the layout in `handful.data.layouts.registry.LAYOUTS`, whose reader read the folder.
        root: the path of the folder.
        categories: sorted by name.
        missing: a sentence for each file or folder that the layout requires and the data set lacks.
    """

    layout: str
    root: str
    categories: tuple[Category, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TrueRegion:
    """The mask of one defect in a labelled data set.

    Attributes:
        mask: (H, W) bool, in the frame of the anomaly maps that the mask is compared with.
        saturation: the share of the mask's pixels, in (0, 1], that must be found for the defect to count as wholly
            found; the whole mask is then a single region (MVTec LOCO). None if every connected component is a region.
    """

    mask: NDArray[np.bool_]
    saturation: float | None = None


@dataclass(frozen=True)
class Crops:
    """The crops that a method needs besides the whole picture; lengths in patches of the finest grid.

    Attributes:
        size: side of each crop.
        stride: distance between neighbouring crops; the last crop of each row and column ends at the picture's edge.
        seen: side to which a crop is resized for the backbone: `size` keeps its pixels, a larger side enlarges them.
    """

    size: int
    stride: int
    seen: int


@dataclass(frozen=True)
class Features:
    """The features of a batch of pictures.

    Attributes:
        levels: one tensor (B, h, w, D) float32 for each level, finest grid first.
        size: (H, W), the model-input frame that the grids cover.
        image: (B, E) float32, the embedding of each whole picture in a space that it shares with texts; None for a
            backbone without one.
        text: (2, E) float32 in the same space, at length 1, of the prompts for a normal and an anomalous object; None
            for a backbone without texts.
        crops: the features of W crops of each picture, row by row, where a method wants crops: levels
            (B, W, h, w, D), and the size at which the backbone saw the crops.
    """

    levels: "tuple[Tensor, ...]"
    size: tuple[int, int]
    image: "Tensor | None" = None
    text: "Tensor | None" = None
    crops: "Features | None" = None

    def __len__(self) -> int:
        return len(self.levels[0])

    def __getitem__(self, rows: list[int]) -> "Features":
        """The features of some of the pictures, by row, as a batch."""
        image = None if self.image is None else self.image[rows]
        crops = None if self.crops is None else self.crops[rows]
        return Features(tuple(level[rows] for level in self.levels), self.size, image, self.text, crops)

    def arrays(self, row: int = 0) -> "tuple[NDArray[np.float32], ...]":
        """The levels of one picture as NumPy arrays, (h, w, D) each."""
        return tuple(level[row].cpu().numpy() for level in self.levels)

    @property
    def depths(self) -> tuple[int, ...]:
        """The channels D of each level."""
        return tuple(level.shape[-1] for level in self.levels)

    @cached_property
    def unfinite_level(self) -> int | None:
        """The number of the first level that holds NaN or infinity, None if all are finite; computed once."""
        for number, level in enumerate(self.levels):
            # A finite sum proves that every value is finite; an infinite sum may be an overflow of finite values.
            if not level.sum().isfinite() and not level.isfinite().all():
                return number
        return None


@dataclass(frozen=True, eq=False)
class AuxiliaryClass:
    """The features and masks of a class of a labelled data set, for the training of a head.

    The features lie on the backbone's device, all other tensors on the CPU.

    Attributes:
        name: data set and category.
        references: features of good pictures, from which the training draws references.
        queries: features of N labelled pictures to learn from.
        anomalous: (N,) bool, whether each query is a defect.
        masks: for each level (N, h, w) bool, the anomalous patches of each query.
        own: (N,) int64, the row of `references` that is the query itself, which must not be its own reference; -1 for
            no such row.
        pixels: (N, H, W) bool, the anomalous pixels of each query in the model-input frame.
        augmented: (N,) bool, whether the training composed the query from other pictures, see `HeadTraining.augment`.
    """

    name: str
    references: Features
    queries: Features
    anomalous: "Tensor"
    masks: "tuple[Tensor, ...]"
    own: "Tensor"
    pixels: "Tensor"
    augmented: "Tensor"


@dataclass(frozen=True)
class Scores:
    """The raw scores of a batch of pictures, in the method's own unit; higher is more anomalous.

    Attributes:
        maps: (B, H, W) float32 in the model-input frame.
        image: (B,) float32.
        parts: (B, …) each, the input of `Method.over_test_set`; empty unless the method is transductive.
    """

    maps: "Tensor"
    image: "Tensor"
    parts: "tuple[Tensor, ...]" = ()


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """The output of backbone and method for one picture, as arrays without torch; higher is more anomalous.

    Attributes:
        levels: the backbone's features, (h, w, D) float32 each, finest grid first.
        map: (H, W) float32, the raw anomaly map in the model-input frame.
        score: the raw image score.
    """

    levels: tuple[NDArray[np.float32], ...]
    map: NDArray[np.float32]
    score: float


@dataclass(frozen=True)
class Reference:
    """One good picture that an inspector has learnt from.

        reference: handful.Reference = inspector.references[0]
        print(reference.name, reference.size)

    Attributes:
        name: the picture's path, or the name given to a picture in memory.
        sha256: the digest of the picture's file, or of its pixels.
        thumbnail: the picture as a small JPEG file.
        bits: the bit depth that the pixels were scaled by; None in files of versions that did not save the depth.
        size: width, height of the upright original; None in files of versions that did not save the size.
    """

    name: str
    sha256: str
    thumbnail: bytes
    bits: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class NearestReference:
    """A place of a good picture, with its distance from the place of the inspected picture that is compared with it.

        missing: handful.NearestReference = inspection.missing
        print(missing.picture, missing.at)

    Attributes:
        picture: the good picture's name.
        at: x, y of the place's centre, as shares of the good picture's width and height.
        distance: Euclidean distance between the backbone's features of the two places, each level scaled to a root mean
            square length of 1; 0 for equal features.
    """

    picture: str
    at: tuple[float, float]
    distance: float


@dataclass(frozen=True)
class Region:
    """One connected defect region, in pixels of the upright original picture.

        strongest: handful.Region = inspection.regions[0]
        left, top, width, height = strongest.box

    Attributes:
        box: left, top, width, height.
        area: pixels that belong to the region.
        peak: highest calibrated map value inside (1 = the map's threshold).
        peak_at: x, y of the peak.
        nearest: the place in the good pictures nearest to the peak; None if the inspector keeps no good pictures.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    peak_at: tuple[int, int]
    nearest: NearestReference | None = None
