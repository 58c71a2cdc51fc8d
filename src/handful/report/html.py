"""One HTML page about many pictures that needs nothing but itself."""

import base64
import html
import io
import os
import re
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.images import Picture
from handful.data.thumbnails import thumbnail
from handful.files import output_error, replacing
from handful.report.overlay import CLEAR_UP_TO, NUMBERED_REGIONS, SATURATED_FROM, SCALE, overlay
from handful.types import Inspection, Region, Verdict

VERDICTS = (Verdict.DEFECT, Verdict.OK, Verdict.RETAKE, Verdict.ERROR)  # the order of the page

_CARD_LONGEST = 420  # pixels of the longer side
_TINY = 105  # up to this longer side a picture in the page is enlarged by a whole factor, and a PNG
_EXPLAINED_REGIONS = 3  # how many are shown beside the good place that they were compared with
_CLOSEST, _WIDEST = 0.2, 0.6  # shares of the longer side that a crop shows
_CROP = 132  # its side in the page's pixels


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
            self._cards = tempfile.TemporaryFile(dir=folder)
        except OSError as error:
            self._remove_folders()
            raise output_error(self.path, error) from error
        return self

    def add(self, inspection: Inspection, picture: Picture | None) -> None:
        """Append the card of one picture; None where it could not be read."""
        pixels = None if picture is None else thumbnail(picture, longest=_CARD_LONGEST)
        card = _card(inspection, pixels, dict(self._references))
        try:
            self._cards.write(_utf8(card))
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
        total = self._counts.total()
        template = resources.files("handful").joinpath("report.html").read_text("utf-8")
        head, foot = template.split("{{CARDS}}")
        values = {
            "TITLE": f"Inspection report: {self._counts[Verdict.DEFECT]} DEFECT of {total}",
            "SUMMARY": _summary(self._counts),
            "FACTS": "\n".join(f"<dt>{_text(k)}</dt><dd>{_text(value)}</dd>" for k, value in self._facts.items()),
            "REFERENCES": _reference_row(self._references),
            "LEGEND": _legend(),
            "FILTERS": _filters(self._counts),
        }
        # In one pass, so that a placeholder's name inside a value stays text.
        page.write(_utf8(re.sub(r"\{\{(\w+)\}\}", lambda found: values[found[1]], head)))
        self._cards.seek(0)
        shutil.copyfileobj(self._cards, page, 1 << 20)
        page.write(_utf8(foot))

    def _remove_folders(self) -> None:
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()


def _card(inspection: Inspection, pixels: NDArray[np.uint8] | None, good: Mapping[str, bytes]) -> str:
    """One picture's part of the page; `pixels` (h, w, 3) for display, and good pictures as files by name."""
    score = "" if inspection.calibrated_score is None else f"{inspection.calibrated_score:.9g}"
    folder, name = (_text(part) for part in _split(inspection.path))
    title = f'<h2 class="name" dir="auto"><span class="folder">{folder}</span><bdi>{name}</bdi></h2>'
    parts = [
        f'<article class="card" data-verdict="{inspection.verdict}" data-score="{score}">',
        f"<header>{title}{_badge(inspection.verdict)}</header>",
        _score_bar(inspection),
        "" if inspection.reason is None else f'<p class="reason">{_text(inspection.reason)}</p>',
        *(f'<p class="reason">{_text(note)}</p>' for note in inspection.notes),
        "" if pixels is None else _figures(inspection, pixels),
        _region_table(inspection.regions) if inspection.regions else "",
        "" if pixels is None else _evidence(inspection, pixels, good),
        "</article>\n",
    ]
    return "\n".join(part for part in parts if part)


def _score_bar(inspection: Inspection) -> str:
    if inspection.score is None or inspection.calibrated_score is None or inspection.threshold is None:
        return ""
    filled = 100 * min(1.0, max(0.0, inspection.calibrated_score / SATURATED_FROM))
    return (
        f'<div class="score"><b>{inspection.calibrated_score:.2f}</b>'
        f'<div class="bar" aria-hidden="true"><i style="width:{filled:.1f}%"></i></div>'
        f"<small>raw {inspection.score:.5g}, threshold {inspection.threshold:.5g}</small></div>"
    )


def _figures(inspection: Inspection, pixels: NDArray[np.uint8]) -> str:
    """The picture and, where there is a heatmap, its overlay; words instead where both would look the same."""
    factor = max(1, 2 * _TINY // max(pixels.shape))
    pixels = pixels.repeat(factor, 0).repeat(factor, 1)
    kind = "PNG" if factor > 1 else "JPEG"
    figures = _figure(pixels, "Picture", kind)
    if inspection.heatmap is not None:
        laid = overlay(pixels, inspection)
        nothing = f'<p class="nothing">Nothing on the map comes near the threshold: no value above {CLEAR_UP_TO}.</p>'
        figures += nothing if np.array_equal(laid, pixels) else _figure(laid, "Heatmap", kind)
    return f'<div class="pictures">{figures}</div>'


def _figure(pixels: NDArray[np.uint8], caption: str, kind: str) -> str:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, quality=82)
    return (
        f'<figure><img alt="{_text(caption)}" width="{pixels.shape[1]}" height="{pixels.shape[0]}" decoding="async" '
        f'src="{_data_uri(buffer.getvalue())}"><figcaption>{_text(caption)}</figcaption></figure>'
    )


def _region_table(regions: Sequence[Region]) -> str:
    rows = "".join(
        f"<tr><td>{number}</td><td>{', '.join(map(str, r.box))}</td><td>{r.area}</td><td>{r.peak:.2f}</td></tr>\n"
        for number, r in enumerate(regions[:NUMBERED_REGIONS], 1)
    )
    notes = []
    if len(regions) > NUMBERED_REGIONS:
        notes.append(f"and {len(regions) - NUMBERED_REGIONS} weaker ones")
    if max(region.peak for region in regions) <= 1:
        notes.append("No single place is beyond the map's threshold; outlined is where the part differs most.")
    return (
        '<table><thead><tr><th scope="col">No.</th><th scope="col">Box x, y, w, h (px)</th>'
        f'<th scope="col">Area (px²)</th><th scope="col">Peak</th></tr></thead><tbody>\n{rows}</tbody></table>'
        + "".join(f'<p class="note">{note}</p>' for note in notes)
    )


def _evidence(inspection: Inspection, pixels: NDArray[np.uint8], good: Mapping[str, bytes]) -> str:
    """The strongest regions beside the good places that they were compared with, and what may be missing."""
    pairs = []
    for number, region in enumerate(inspection.regions[:_EXPLAINED_REGIONS], 1):
        if inspection.size is not None and region.nearest is not None and region.nearest.picture in good:
            here = tuple(at / side for at, side in zip(region.peak_at, inspection.size, strict=True))
            extent = max(length / side for length, side in zip(region.box[2:], inspection.size, strict=True))
            share = min(_WIDEST, max(_CLOSEST, 1.2 * extent))
            there = _crop(_pixels(good[region.nearest.picture]), region.nearest.at, share)
            caption = f"nearest good place: {_name(region.nearest.picture)}"
            pairs.append((_crop(pixels, here, share), f"region {number}", there, caption))
    if (lacking := inspection.missing) is not None and lacking.picture in good:
        seen, shown = _crop(pixels, lacking.at, _CLOSEST), _crop(_pixels(good[lacking.picture]), lacking.at, _CLOSEST)
        pairs.append((shown, f"found least here: {_name(lacking.picture)}", seen, "the same place here"))
    if not pairs:
        return ""
    figures = "".join(
        f'<div class="pair">{_figure(left, first, "PNG")}{_figure(right, second, "PNG")}</div>'
        for left, first, right, second in pairs
    )
    return f'<details class="evidence"><summary>Compared with</summary>{figures}</details>'


def _crop(pixels: NDArray[np.uint8], at: tuple[float, ...], share: float) -> NDArray[np.uint8]:
    """The square of this share of the longer side around a place (x, y in shares), as far as it lies inside.

    Returns:
        (_CROP, _CROP, 3), nothing drawn over it.
    """
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


def _name(path: str) -> str:
    return _split(path)[1]


def _badge(verdict: Verdict) -> str:
    return f'<span class="badge {verdict.lower()}">{verdict}</span>'


def _summary(counts: Counter[Verdict]) -> str:
    total = counts.total()
    badges = " ".join(f"<li><b>{counts[verdict]}</b> {_badge(verdict)}</li>" for verdict in VERDICTS)
    return f'<p class="total"><b>{total}</b> {"picture" if total == 1 else "pictures"}</p><ul>{badges}</ul>'


def _filters(counts: Counter[Verdict]) -> str:
    choices = [("", "All", counts.total()), *((verdict, verdict, counts[verdict]) for verdict in VERDICTS)]
    return "".join(
        f'<button type="button" data-show="{value}" aria-pressed="{"false" if value else "true"}">'
        f"{word} <span>{count}</span></button>"
        for value, word, count in choices
    )


def _reference_row(references: Sequence[tuple[str, bytes]]) -> str:
    figures = "".join(
        f'<figure><img alt="" src="{_data_uri(data)}">'
        f"<figcaption><bdi>{_text(_split(name)[1])}</bdi></figcaption></figure>"
        for name, data in references
    )
    return f'<div class="references" tabindex="0">{figures}</div>' if references else "<p>None are kept.</p>"


def _legend() -> str:
    """The colour scale from 0 to `SATURATED_FROM`, as stops of a CSS gradient and the words under it."""
    stops = [
        f"rgb({red:.0f} {green:.0f} {blue:.0f} / {opacity:.3f}) {100 * value / SATURATED_FROM:.1f}%"
        for value, red, green, blue, opacity in SCALE
    ]
    marks = ((0, "good part"), (1, "threshold"), (SATURATED_FROM, "far beyond"))
    words = "".join(f'<li style="left:{100 * v / SATURATED_FROM:.1f}%"><b>{v:g}</b> {word}</li>' for v, word in marks)
    gradient = f"--ramp:linear-gradient(to right, {', '.join(stops)})"
    heading = f"Heatmaps and score bars: one scale for every picture, no colour up to {CLEAR_UP_TO}"
    return f'<h2>{heading}</h2><div class="scale" style="{gradient}"></div><ul>{words}</ul>'


def _data_uri(data: bytes) -> str:
    kind = "png" if data.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def _text(value: str) -> str:
    return html.escape(value, quote=True)


def _split(path: str) -> tuple[str, str]:
    """The folder, with its last separator, and the name."""
    cut = max(path.rfind("/"), path.rfind(os.sep)) + 1
    return path[:cut], path[cut:]


def _utf8(page: str) -> bytes:
    """UTF-8; what it cannot hold, as undecodable bytes of a file's name, is spelled out."""
    return page.encode("utf-8", "backslashreplace")
