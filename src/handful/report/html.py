"""An HTML page about many pictures: a single file, or with many pictures a file and a folder beside the page."""

import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from functools import cache
from importlib import resources
from pathlib import Path
from types import TracebackType
from typing import BinaryIO, Self

import jinja2
from markupsafe import Markup

from handful.data.images import Picture
from handful.files import output_error, replacing
from handful.report.card import show, split
from handful.report.histogram import Histogram
from handful.report.overlay import CLEAR_UP_TO, NUMBERED_REGIONS, SATURATED_FROM, SCALE
from handful.report.pictures import FOLDER, PictureFiles, data_uri
from handful.report.result import Inspection
from handful.types import Verdict

VERDICTS = (Verdict.DEFECT, Verdict.OK, Verdict.RETAKE, Verdict.ERROR)  # the order of the page
ONE_FILE_MOST = 16_000_000  # bytes of pictures up to which the page holds all pictures; beyond, the page holds none

_SPELLED = "backslashreplace"  # spells out characters that UTF-8 cannot hold, such as undecodable bytes of a file name


class Report:
    """A page `index.html` about many pictures, used with `with`; inside the block cards are added one by one.

    Up to `ONE_FILE_MOST` bytes of pictures, the page is a single file that holds all pictures; with more bytes all
    pictures lie beside the page, in the folder `pictures`. Until the block ends, the cards wait in a nameless file and
    the pictures in a hidden folder, both on the page's disk, so memory hardly grows with the number of cards. If the
    block ends without an error, the page appears, or replaces an older page and its pictures; if the block raises, the
    folder stays as it was before.

    Attributes:
        path: the path of the page.
        pictures: the folder beside the page that holds the pictures; None while the page holds the pictures.
        size: bytes of all pictures so far.

    Raises:
        OutputError: on entering, adding or leaving, if the folder cannot be made or written to.
    """

    def __init__(self, folder: Path, facts: Mapping[str, str], references: Sequence[tuple[str, bytes]]) -> None:
        """Prepare a report; nothing is written yet.

        Args:
            folder: the folder of the page; made with its parents if missing.
            facts: label → value, the rows at the page's top.
            references: name and JPEG or PNG of each good picture that the inspector was fitted with.
        """
        self.path = folder / "index.html"
        self._facts = dict(facts)
        self._references = tuple(references)
        self._good = dict(references)
        self._counts: Counter[Verdict] = Counter()
        self._histogram = Histogram()
        self._files = PictureFiles(folder)
        self._made: list[Path] = []  # folders, innermost first

    @property
    def pictures(self) -> Path | None:
        return self.path.parent / FOLDER if self.size > ONE_FILE_MOST else None

    @property
    def size(self) -> int:
        return self._files.size

    def __enter__(self) -> Self:
        folder = self.path.parent
        try:
            self._made = [path for path in (folder, *folder.parents) if not path.exists()]
            folder.mkdir(parents=True, exist_ok=True)
            self._cards = tempfile.TemporaryFile("w+", encoding="utf-8", errors=_SPELLED, newline="\n", dir=folder)
            self._files.__enter__()
        except OSError as error:
            self._remove_folders()
            raise output_error(self.path, error) from error
        self._began = time.time()
        return self

    def add(self, inspection: Inspection, picture: Picture | None) -> None:
        """Append the card of a picture; `picture` is None if the picture could not be read."""
        number = self._counts.total() + 1
        folder, name = split(inspection.path)
        try:
            shown = picture and show(
                inspection, picture, self._files, number=number, good=self._good, since=self._began
            )
            card = _template("card.html").render(
                inspection=inspection,
                folder=folder,
                name=name,
                number=number,
                shown=shown,
                clear_up_to=CLEAR_UP_TO,
                saturated_from=SATURATED_FROM,
                numbered=NUMBERED_REGIONS,
            )
            self._cards.write(card)
        except OSError as error:
            raise output_error(self.path, error) from error
        self._counts[inspection.verdict] += 1
        if inspection.score is not None:
            self._histogram.add(inspection.score, inspection.verdict)

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        finished = False
        try:
            if error is None:
                self._write()
                finished = True
        finally:
            with suppress(OSError):
                self._cards.close()
            self._files.__exit__(None, None, None)
            if not finished:
                self._files.take_away()
                self._remove_folders()

    def _write(self) -> None:
        """Put the page in its place, and many pictures beside the page."""
        try:
            if self.pictures is not None:
                self._files.put_beside()
            with replacing(self.path, make_folder=True) as page:
                self._write_page(page)
        except OSError as error:
            raise output_error(self.path, error) from error
        self._files.remove_older()

    def _write_page(self, page: BinaryIO) -> None:
        self._cards.seek(0)
        cards: Iterator[str] = iter(self._cards)
        if self.pictures is None:
            cards = self._files.embedded(cards)
        parts = _template("template.html").generate(
            facts=self._facts,
            references=[(split(name)[1], data_uri(data)) for name, data in self._references],
            counts=[(verdict, self._counts[verdict]) for verdict in VERDICTS],
            total=self._counts.total(),
            histogram=self._histogram,
            beside=self.pictures is not None,
            clear_up_to=CLEAR_UP_TO,
            saturated_from=SATURATED_FROM,
            scale=SCALE.tolist(),
            cards=map(Markup, cards),
        )
        for part in parts:
            page.write(part.encode("utf-8", _SPELLED))

    def _remove_folders(self) -> None:
        for folder in self._made:
            with suppress(OSError):
                folder.rmdir()


@cache
def _template(name: str) -> jinja2.Template:
    """A template that escapes every value and raises an error for a missing value."""
    environment = jinja2.Environment(
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.from_string(resources.files("handful.report").joinpath(name).read_text("utf-8"))
