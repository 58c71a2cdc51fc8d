"""The answer for one picture."""

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
    """The answer for one picture, which shows itself.

        inspection: handful.Inspection = inspector("incoming/002.png")
        print(inspection.verdict, inspection.score, inspection.regions)
        inspection.save("002.heatmap.png")

    Attributes:
        path: the picture's path, or the name given to a picture in memory.
        verdict: OK, DEFECT, RETAKE or ERROR.
        score: on one scale for every inspector: 0 a typical good part, 1 the threshold; higher is more anomalous. None
            for ERROR alone, as the next three.
        raw_score: the same in the method's own unit.
        raw_threshold: the raw score above which a picture is a DEFECT.
        heatmap: (H, W) float32 over the whole picture, calibrated: 0 typical of good parts, 1 the map's threshold. It
            has the pixels of the model-input frame, or of that of tiles, which the picture fills: all but for a picture
            of another shape.
        regions: the defect's regions, strongest first; empty unless the verdict is DEFECT.
        size: width, height of the upright original picture; None for ERROR.
        reason: a sentence for RETAKE and ERROR, else None.
        notes: sentences that a person should read beside the verdict: on another depth or shape than the references',
            and the gate's doubt about a DEFECT; most pictures have none.
        inspector: the digest that names the inspector with its calibration; None where no inspector was asked.
        missing: where the verdict is DEFECT, the place of the most alike good picture that is least like anything in
            this one: what may be missing here. None elsewhere, and where good pictures are not kept.
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
        """Everything but the heatmap, ready for JSON.

            print(json.dumps(inspection.as_dict()))

        `reason` and `notes` stand in it only where there are any.
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
        """(height, width) of the upright original picture: True where the heatmap exceeds 1, the map's threshold.

            share = inspection.mask.mean()

        Raises:
            ImageError: for the verdict ERROR, which has no heatmap.
        """
        return self.heatmap_at(self.size or (1, 1)) > 1

    def heatmap_at(self, size: tuple[int, int]) -> NDArray[np.float32]:
        """The heatmap in as many pixels as wanted: (height, width) float32.

            heatmap = inspection.heatmap_at((640, 480))

        A large heatmap is made smaller by the highest value of each block, so that a small peak stays one.

        Args:
            size: width and height, as `Inspection.size`.

        Raises:
            ImageError: for the verdict ERROR, which has no heatmap.
        """
        from handful.report.overlay import resized

        return resized(self._needed, size)

    def overlay(self, picture: PictureSource | Picture | None = None, *, longest: int = LONGEST) -> NDArray[np.uint8]:
        """The picture with its heatmap and the outlines of its regions: (h, w, 3) uint8, RGB.

            shown = inspection.overlay(longest=512)

        Args:
            picture: that was inspected, where it cannot be read again at `path`.
            longest: the most pixels of the longer side.

        Raises:
            ImageError: for the verdict ERROR, or if the picture cannot be read (any more) or has another size by now.
        """
        from handful.report.overlay import overlay

        self._needed  # noqa: B018 - it raises
        return overlay(thumbnail(self._read(picture, longest), longest=longest), self)

    def save(self, file: str | os.PathLike[str], picture: PictureSource | Picture | None = None) -> None:
        """Write the overlay as a PNG, its longer side at most 1024 pixels; makes the folder where missing.

            inspection.save("heatmaps/002.png")

        It does not look for what killed processes left in the folder, which may hold millions: `handful.files.sweep`
        does.

        Args:
            file: NAME.png.
            picture: as `overlay` takes it.

        Raises:
            ImageError: as `overlay`.
            OutputError: if it cannot be written; a file that was there before is then left as it was.
        """
        from handful.files import replacing
        from handful.report.overlay import write_png

        laid = self.overlay(picture)
        with replacing(Path(file), make_folder=True, sweeping=False) as output:
            write_png(laid, output)

    def _repr_png_(self) -> bytes | None:
        """The overlay, for notebooks; None where there is nothing to show."""
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
