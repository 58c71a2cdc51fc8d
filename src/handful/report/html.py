"""One HTML page about many pictures that needs nothing but itself."""

import base64
import io
import os
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import cache
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import jinja2
import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray
from PIL import Image

from handful.data.images import Picture
from handful.data.thumbnails import thumbnail
from handful.files import output_error, replacing
from handful.report.overlay import CLEAR_UP_TO, NUMBERED_REGIONS, SATURATED_FROM, SCALE, overlay
from handful.report.result import Inspection
from handful.types import Verdict

VERDICTS = (Verdict.DEFECT, Verdict.OK, Verdict.RETAKE, Verdict.ERROR)  # the order of the page

_CARD_LONGEST = 420  # pixels of the longer side
_TINY = 105  # up to this longer side a picture in the page is enlarged by a whole factor, and a PNG
_EXPLAINED_REGIONS = 3  # how many are shown beside the good place that they were compared with
_CLOSEST, _WIDEST = 0.2, 0.6  # shares of the longer side that a crop shows
_CROP = 132  # its side in the page's pixels
_SPELLED = "backslashreplace"  # what UTF-8 cannot hold, as undecodable bytes of a file's name, is spelled out


class Report:
    """One self-contained page `index.html` about many pictures; used with `with`, in which cards are added one by one.

    The cards wait in a nameless file on the page's disk, so memory does not grow with their number. The page appears,
    or replaces an older one, when the block ends well; if it raises, what was there before is all that remains.

    Attributes:
        path: where the page will lie.

    Raises:
        OutputError: on entering, adding or leaving, if the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str], references: Sequence[tuple[str, bytes]]) -> None:
        """Prepare a report; nothing is written yet.

        Args:
            folder: where the page goes; made with its parents where missing.
            facts: label → value, the rows at the page's top.
            references: name and JPEG or PNG of each good picture that the inspector was fitted with.
        """
        self.path = folder / "index.html"
        self._facts = dict(facts)
        self._references = tuple(references)
        self._counts: Counter[Verdict] = Counter()
        self._made: list[Path] = []  # folders, innermost first

    def __enter__(self) -> Self:
        folder = self.path.parent
        try:
            self._made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            self._cards = tempfile.TemporaryFile("w+", encoding="utf-8", errors=_SPELLED, newline="\n", dir=folder)
        except OSError as error:
            self._remove_folders()
            raise output_error(self.path, error) from error
        return self

    def add(self, inspection: Inspection, picture: Picture | None) -> None:
        """Append the card of one picture; None where it could not be read."""
        pixels = None if picture is None else thumbnail(picture, longest=_CARD_LONGEST)
        card = _card(inspection, pixels, dict(self._references))
        try:
            self._cards.write(card)
        except OSError as error:
            raise output_error(self.path, error) from error
        self._counts[inspection.verdict] += 1

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            if error is None:
                with replacing(self.path, make_folder=True) as page:
                    self._write_page(page)
                finished = True
        finally:
            with suppress(OSError):
                self._cards.close()
            if not finished:
                self._remove_folders()

    def _write_page(self, page: BinaryIO) -> None:
        self._cards.seek(0)
        parts = _template("template.html").generate(
            facts=self._facts,
            references=[(_split(name)[1], _data_uri(data)) for name, data in self._references],
            counts=[(verdict, self._counts[verdict]) for verdict in VERDICTS],
            total=self._counts.total(),
            clear_up_to=CLEAR_UP_TO,
            saturated_from=SATURATED_FROM,
            scale=SCALE.tolist(),
            cards=map(Markup, self._cards),
        )
        for part in parts:
            page.write(part.encode("utf-8", _SPELLED))

    def _remove_folders(self) -> None:
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()


@dataclass(frozen=True)
class _Figure:
    """A picture (h, w, 3) as the page shows it, "PNG" or "JPEG", and the words under it."""

    caption: str
    pixels: NDArray[np.uint8]
    kind: str = "PNG"

    @property
    def source(self) -> str:
        buffer = io.BytesIO()
        Image.fromarray(self.pixels).save(buffer, self.kind, quality=82)
        return _data_uri(buffer.getvalue())


@cache
def _template(name: str) -> jinja2.Template:
    """A template in which every value is escaped, and one that is missing is an error."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(resources.files("handful.report").joinpath(name).read_text("utf-8"))


def _card(inspection: Inspection, pixels: NDArray[np.uint8] | None, good: Mapping[str, bytes]) -> str:
    """One picture's part of the page; `pixels` (h, w, 3) for display, and good pictures as files by name."""
    folder, name = _split(inspection.path)
    return _template("card.html").render(
        inspection=inspection,
        folder=folder,
        name=name,
        figures=() if pixels is None else _figures(inspection, pixels),
        pairs=() if pixels is None else _evidence(inspection, pixels, good),
        clear_up_to=CLEAR_UP_TO,
        saturated_from=SATURATED_FROM,
        numbered=NUMBERED_REGIONS,
    )


def _figures(inspection: Inspection, pixels: NDArray[np.uint8]) -> list[_Figure]:
    """The picture and, where there is a heatmap, its overlay unless both look the same."""
    factor = max(1, 2 * _TINY // max(pixels.shape))
    pixels = pixels.repeat(factor, 0).repeat(factor, 1)
    shown = {"Picture": pixels}
    if inspection.heatmap is not None and not np.array_equal(laid := overlay(pixels, inspection), pixels):
        shown["Heatmap"] = laid
    return [_Figure(caption, each, "PNG" if factor > 1 else "JPEG") for caption, each in shown.items()]


def _evidence(
    inspection: Inspection, pixels: NDArray[np.uint8], good: Mapping[str, bytes]
) -> list[tuple[_Figure, _Figure]]:
    """The strongest regions beside the good places that they were compared with, and what may be missing."""
    pairs = []
    for number, region in enumerate(inspection.regions[:_EXPLAINED_REGIONS], 1):
        if inspection.size is not None and region.nearest is not None and region.nearest.picture in good:
            here = tuple(at / side for at, side in zip(region.peak_at, inspection.size, strict=True))
            extent = max(length / side for length, side in zip(region.box[2:], inspection.size, strict=True))
            share = min(_WIDEST, max(_CLOSEST, 1.2 * extent))
            there = _crop(_pixels(good[region.nearest.picture]), region.nearest.at, share)
            caption = f"nearest good place: {_split(region.nearest.picture)[1]}"
            pairs.append((_Figure(f"region {number}", _crop(pixels, here, share)), _Figure(caption, there)))
    if (lacking := inspection.missing) is not None and lacking.picture in good:
        seen, shown = _crop(pixels, lacking.at, _CLOSEST), _crop(_pixels(good[lacking.picture]), lacking.at, _CLOSEST)
        caption = f"found least here: {_split(lacking.picture)[1]}"
        pairs.append((_Figure(caption, shown), _Figure("the same place here", seen)))
    return pairs


def _crop(pixels: NDArray[np.uint8], at: tuple[float, ...], share: float) -> NDArray[np.uint8]:
    """The square of this share of the longer side around a place (x, y in shares), moved inside: (_CROP, _CROP, 3)."""
    height, width = pixels.shape[:2]
    side = min(height, width, max(4, round(share * max(height, width))))
    left, top = (
        min(max(0, round(place * length - side / 2)), length - side)
        for place, length in zip(at, (width, height), strict=True)
    )
    cut = Image.fromarray(pixels[top : top + side, left : left + side])
    return np.asarray(cut.resize((_CROP, _CROP), Image.Resampling.BICUBIC))


def _pixels(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))


def _data_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _split(path: str) -> tuple[str, str]:
    """The folder, with its last separator, and the name."""
    cut = max(path.rfind("/"), path.rfind(os.sep)) + 1
    return path[:cut], path[cut:]
