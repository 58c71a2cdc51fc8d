"""The records that pass between the rooms; shapes are defined here once.

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
    """The answer for one picture in one word; each is equal to its name as text.

        if inspection.verdict is handful.Verdict.RETAKE or inspection.verdict == "ERROR":
            print(inspection.reason)

    Attributes:
        OK: the score is not above the threshold.
        DEFECT: the score is above the threshold.
        RETAKE: the score is not above the threshold, but the gate doubts the picture: take it again.
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
        anomalous: False for a good part, True for a defect, None where nobody said.
        kind: the defect's type as the data set names it, "good" for good parts.
        masks: where the defect's masks lie: none, one, or one for each defect.
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
        saturation: of each type of defect, where the data set says so.
    """

    name: str
    train: tuple[str, ...]
    test: tuple[Sample, ...]
    saturation: tuple[Saturation, ...] = ()


@dataclass(frozen=True)
class Dataset:
    """A labelled data set in a folder.

    Attributes:
        layout: the reader that knows it, a name in `handful.data.layouts.registry.LAYOUTS`.
        categories: sorted by name.
        missing: what the layout promises and the folder lacks, a sentence each.
    """

    layout: str
    root: str
    categories: tuple[Category, ...]
    missing: tuple[str, ...] = ()


@dataclass(frozen=True, eq=False)
class TrueRegion:
    """One defect as the data set marks it.

    Attributes:
        mask: (H, W) bool, in the frame of the maps that it is compared with.
        saturation: the share of its pixels, in (0, 1], that must be found for it to count as wholly found; then it is
            one region whatever its parts (MVTec LOCO). None where every connected component is a region of its own.
    """

    mask: NDArray[np.bool_]
    saturation: float | None = None


@dataclass(frozen=True)
class Crops:
    """Which crops of each picture a method wants to see besides the whole; lengths in patches of the finest grid.

    Attributes:
        size: side of each crop.
        stride: from one crop to the next; the last of a row and of a column end at the picture's edge.
        seen: side to which a crop is resized before the backbone sees it: `size` for its own pixels, more to enlarge.
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
        """The levels of one picture, (h, w, D) each, for what works without torch."""
        return tuple(level[row].cpu().numpy() for level in self.levels)

    @property
    def depths(self) -> tuple[int, ...]:
        """The channels D of each level."""
        return tuple(level.shape[-1] for level in self.levels)

    @cached_property
    def unfinite_level(self) -> int | None:
        """The number of the first level that holds NaN or infinity; looked for once, however many methods ask."""
        for number, level in enumerate(self.levels):
            # A sum is quick, and finite only where all is; where it is not, it may have overflowed.
            if not level.sum().isfinite() and not level.isfinite().all():
                return number
        return None


@dataclass(frozen=True, eq=False)
class AuxiliaryClass:
    """One class of a labelled data set that a head is trained on, as a backbone sees it.

    Its features lie on the backbone's device, all else on the CPU.

    Attributes:
        name: data set and category.
        references: good pictures, from which references are drawn.
        queries: pictures to learn from.
        anomalous: (N,) bool, of each query.
        masks: for each level (N, h, w) bool, the places of each query that are anomalous.
        own: (N,) int64, the row of `references` that is the query itself, so as not to be its reference; -1 for none.
        pixels: (N, H, W) bool, the anomalous pixels of each query in the model-input frame.
        augmented: (N,) bool, of each query whether the training made it of others, see `HeadTraining.augment`.
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
        parts: (B, …) each, the input of `Method.over_test_set`; empty but for a transductive method.
    """

    maps: "Tensor"
    image: "Tensor"
    parts: "tuple[Tensor, ...]" = ()


@dataclass(frozen=True, eq=False)
class ModelOutput:
    """The output of backbone and method for one picture, as arrays without torch; higher is more anomalous.

    Attributes:
        levels: of the backbone, (h, w, D) float32 each, finest grid first.
        map: (H, W) float32, raw, in the model-input frame.
        score: raw.
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
        name: its path, or the name given to a picture in memory.
        sha256: of its file, or of its pixels.
        thumbnail: a small JPEG of it.
        bits: the depth that its pixels were scaled by; None where an older version did not keep it.
        size: width, height of the upright original; None where it was saved before that was kept.
    """

    name: str
    sha256: str
    thumbnail: bytes
    bits: int | None = None
    size: tuple[int, int] | None = None


@dataclass(frozen=True)
class NearestReference:
    """A place of a good picture that a place of another picture was compared with.

        missing: handful.NearestReference = inspection.missing
        print(missing.picture, missing.at)

    Attributes:
        picture: the good picture's name.
        at: x, y of the place's middle, as shares of the good picture's width and height.
        distance: of the backbone's features there and here, each level of root mean square length 1; 0 for the same.
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
        peak_at: x, y of that peak.
        nearest: the place of the good pictures that is most like that of the peak; None where they are not kept.
    """

    box: tuple[int, int, int, int]
    area: int
    peak: float
    peak_at: tuple[int, int]
    nearest: NearestReference | None = None
