"""The inspection of a picture: verdict, score, heatmap and regions, and the overlay that shows them."""

import io
import math
import os
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from handful.data.images import MAX_PIXELS, Picture, PictureSource, read_picture
from handful.data.thumbnails import thumbnail
from handful.errors import ImageError
from handful.types import NearestReference, Region, Verdict

LONGEST = 1024  # pixels of the longer side of an overlay


@dataclass(frozen=True, eq=False)
class Inspection:
    """The result of inspecting a picture, with methods that draw the result.

        inspection: handful.Inspection = inspector("incoming/002.png")
        print(inspection.verdict, inspection.score, inspection.regions)
        inspection.save("002.heatmap.png")

    Attributes:
        path: the picture's path, or the name given to a picture in memory.
        verdict: OK, DEFECT, RETAKE or ERROR.
        score: the calibrated score, on a scale that all inspectors share: 0 for a typical good part, 1 at the
            threshold; higher is more anomalous. None for ERROR.
        raw_score: the score before calibration, in the method's own unit; None for ERROR.
        raw_threshold: the raw score above which a picture is a DEFECT; None for ERROR.
        heatmap: (H, W) float32 over the whole picture, calibrated: 0 typical of good parts, 1 the map's threshold. Its
            pixels are the pixels of the model's input frame, or of the frame of all tiles, that the picture fills: the
            whole frame for a picture of about the frame's shape. None for ERROR.
        regions: the defect's regions, strongest first; empty unless the verdict is DEFECT.
        size: width, height of the upright original picture; None for ERROR.
        reason: a sentence for RETAKE and ERROR, else None.
        notes: sentences that a person should read beside the verdict: about a depth or shape that differs from the
            references', and about the gate's doubt of a DEFECT; empty for most pictures.
        inspector: the digest that names the inspector with its calibration; None if no inspector was asked.
        missing: for a DEFECT, the place of the most similar good picture that is least similar to any place of the
            inspected picture; its content may be missing in the inspected picture. None for other verdicts, and if the
            inspector keeps no good pictures.
    """

    path: str
    verdict: Verdict
    score: float | None = None
    raw_score: float | None = None
    raw_threshold: float | None = None
    heatmap: NDArray[np.float32] | None = field(default=None, repr=False)
    regions: tuple[Region, ...] = ()
    size: tuple[int, int] | None = None
    reason: str | None = None
    missing: NearestReference | None = None
    notes: tuple[str, ...] = ()
    inspector: str | None = None

    @property
    def is_defect(self) -> bool:
        """Whether the verdict is DEFECT."""
        return self.verdict == Verdict.DEFECT

    def as_dict(self) -> dict[str, Any]:
        """All attributes except the heatmap, ready for JSON.

            print(json.dumps(inspection.as_dict()))

        The keys `reason` and `notes` are left out if the inspection has no reason or no notes.
        """
        answer: dict[str, Any] = {
            "path": self.path,
            "verdict": self.verdict,
            "score": self.score,
            "raw_score": self.raw_score,
            "raw_threshold": self.raw_threshold,
            "regions": [asdict(region) for region in self.regions],
            "missing": asdict(self.missing) if self.missing else None,
            "size": list(self.size) if self.size else None,
            "inspector": self.inspector,
        }
        if self.reason is not None:
            answer["reason"] = self.reason
        if self.notes:
            answer["notes"] = list(self.notes)
        return answer

    @property
    def mask(self) -> NDArray[np.bool_]:
        """The mask of the upright original picture, (height, width) bool: True where the heatmap exceeds 1.

            share = inspection.mask.mean()

        1 is the map's threshold.

        Raises:
            ImageError: for the verdict ERROR, which has no heatmap.
        """
        return self.heatmap_at(self.size or (1, 1)) > 1

    def heatmap_at(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The heatmap resized to a number of pixels: (height, width) float32.

            heatmap = inspection.heatmap_at((640, 480))

        A large heatmap is reduced by the highest value of each block, so that small peaks keep their height.

        Args:
            size: width and height in pixels, in this order.

        Raises:
            ImageError: for the verdict ERROR, which has no heatmap.
        """
        from handful.report.overlay import resized

        return resized(self._needed, size)

    def overlay(self, picture: PictureSource | Picture | None = None, *, longest: int = LONGEST) -> NDArray[np.uint8]:
        """The picture with its heatmap and the outlines of its regions: (h, w, 3) uint8, RGB.

            shown = inspection.overlay(longest=512)

        Args:
            picture: the inspected picture; None to read the picture at `path` again.
            longest: the most pixels of the longer side.

        Raises:
            ImageError: for the verdict ERROR, or if the picture cannot be read (any more) or no longer has the size of
                the inspected picture.
        """
        from handful.report.overlay import overlay

        self._needed  # noqa: B018 - it raises
        return overlay(thumbnail(self._read(picture, longest), longest=longest), self)

    def save(self, file: str | os.PathLike[str], picture: PictureSource | Picture | None = None) -> None:
        """Write the overlay as a PNG, its longer side at most 1024 pixels; makes a missing folder.

            inspection.save("heatmaps/002.png")

        Temporary files that killed processes have left in the folder stay, because a search of a folder with millions
        of files takes long; `handful.files.sweep` removes them.

        Args:
            file: NAME.png.
            picture: the inspected picture; None to read the picture at `path` again.

        Raises:
            ImageError: for the verdict ERROR, or if the picture cannot be read or has another size, see `overlay`.
            OutputError: if the file cannot be written; an existing file then stays unchanged.
        """
        from handful.files import replacing
        from handful.report.overlay import write_png

        laid = self.overlay(picture)
        with replacing(Path(file), make_folder=True, sweeping=False) as output:
            write_png(laid, output)

    def _repr_png_(self) -> bytes | None:
        """The overlay as a PNG, for notebooks; None for the verdict ERROR and if the picture cannot be read."""
        from handful.report.overlay import write_png

        buffer = io.BytesIO()
        try:
            write_png(self.overlay(), buffer)
        except ImageError:
            return None
        return buffer.getvalue()

    @property
    def _needed(self) -> NDArray[np.float32]:
        if self.heatmap is None:
            raise ImageError(
                f"An inspection must have a heatmap to be shown, got {self.path} of verdict {self.verdict}; its "
                f"`reason` says why."
            )
        return self.heatmap

    def _read(self, picture: PictureSource | Picture | None, longest: int) -> Picture:
        """The picture to draw on: the picture given, or the file at `path`."""
        most = max(MAX_PIXELS, math.prod(self.size or ()))
        try:
            if isinstance(picture, Picture):
                found = picture
            elif picture is None:
                found = read_picture(self.path, detail=longest, max_pixels=most)
            else:
                found = read_picture(picture, name=self.path, detail=longest, max_pixels=most)
        except ImageError as error:
            if picture is not None:
                raise
            raise ImageError(
                f"The inspected picture must be readable at its path to be shown, got {self.path}, which cannot be "
                f"read; give the picture itself."
            ) from error
        if found.size != self.size:
            (width, height), wanted = found.size, " x ".join(map(str, self.size or ()))
            raise ImageError(
                f"The picture to be shown must be the inspected one, of {wanted} pixels, got one of {width} x {height} "
                f"for {self.path}; give the inspected picture."
            )
        return found
