"""The pictures of a report: inside a small page, or in a folder beside a large page."""

import base64
import io
import os
import re
import secrets
import shutil
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

from PIL import Image

from handful.data.formats import HEAD, format_of
from handful.data.images import Picture
from handful.data.thumbnails import thumbnail
from handful.files import aside
from handful.report.result import Inspection

FOLDER = "pictures"  # beside the page
OWN_MOST = 16_000_000  # bytes of the largest picture file that a report includes unchanged
COPY_LONGEST = 2048  # pixels of the longer side of the copy that a report includes instead of a file, at most
_KINDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}  # the formats that every browser shows, and their suffixes
_NAMES = {"TIFF": "TIFF", "JPEG2000": "JPEG 2000", "BMP": "BMP", "PNM": "PNM", "GIF": "GIF"}  # the other formats' names
_MEDIA = {"jpg": "jpeg", "png": "png", "webp": "webp"}
_LOSSLESS = 512 * 512  # pixels up to which a copy is a PNG
_TURNED = re.compile(rb'tiff:Orientation(?:="|>)[2-8]')  # an orientation stated in XMP, which browsers do not heed
_RUN = re.compile("report-[0-9a-f]{16}")  # the name of the folder of a report's pictures
_NAME = re.compile(r"[0-9]{6}-(small|heatmap|large|place-[0-9])\.(jpg|png|webp)")  # the name of a picture in the folder
_MAY_BE_TURNED = (b"eXIf", b"EXIF", b"Raw profile type exif")  # orientations in PNG and WebP, where browsers differ


class PictureFiles:
    """The pictures of a page, used with `with`; the pictures wait in a hidden folder until the page is written.

    Each picture has an address relative to the page, `pictures/RUN/NAME`. RUN is drawn at random for each report: an
    older page in the same folder keeps its pictures until the new page has replaced the older page, and no file name
    can be mistaken for an address.

    Attributes:
        size: bytes of all pictures so far.

    Raises:
        OSError: from every method, if the folder cannot be written to.
    """

    def __init__(self, folder: Path) -> None:
        """Prepare for a page in this folder; nothing is written yet."""
        self.size = 0
        self._run = f"report-{secrets.token_hex(8)}"
        self._home = folder / FOLDER
        self._address = re.compile(rf"{FOLDER}/{self._run}/([\w.-]+)")

    def __enter__(self) -> Self:
        self._stack = ExitStack()
        self._waiting = self._stack.enter_context(aside(self._home, folder=True))
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def add(self, name: str, data: bytes) -> str:
        """Write a picture into the hidden folder and return its address.

        Args:
            name: six digits, -small, -heatmap, -large or -place- with a digit, then .jpg, .png or .webp; used once.
            data: the bytes of the file.
        """
        (self._waiting / name).write_bytes(data)
        self.size += len(data)
        return f"{FOLDER}/{self._run}/{name}"

    def embedded(self, lines: Iterable[str]) -> Iterator[str]:
        """Lines of text in which a data URI of the picture replaces every address."""
        for line in lines:
            yield self._address.sub(lambda found: data_uri((self._waiting / found[1]).read_bytes()), line)

    def put_beside(self) -> None:
        """Move the pictures from the hidden folder to their addresses."""
        self._home.mkdir(exist_ok=True)
        self._waiting.rename(self._home / self._run)
        if hasattr(os, "sync"):  # not on Windows; the pictures reach the disk before the page that shows them
            os.sync()

    def take_away(self) -> None:
        """Remove the pictures that were put beside a page which could not be written."""
        with suppress(OSError):
            shutil.rmtree(self._home / self._run)
            self._home.rmdir()

    def remove_older(self) -> None:
        """Remove the pictures of earlier reports, which no page shows any more; other files in the folder stay."""
        with suppress(OSError):
            for folder in [path for path in self._home.iterdir() if _RUN.fullmatch(path.name)]:
                if folder.name != self._run and not folder.is_symlink():
                    for path in [path for path in folder.iterdir() if _NAME.fullmatch(path.name)]:
                        path.unlink()
                    with suppress(OSError):
                        folder.rmdir()
            self._home.rmdir()  # unless something is left


@dataclass(frozen=True)
class Large:
    """The large picture of a card, which the page shows when the card is opened.

    Attributes:
        data: the bytes of a JPEG, PNG or WebP file.
        suffix: the suffix of the file's name, without a dot.
        words: a sentence that says whether the picture has the file's own pixels or a copy's.
    """

    data: bytes
    suffix: str
    words: str


def large(inspection: Inspection, picture: Picture, *, since: float) -> Large:
    """The picture's own file if browsers show the file as inspected, else a copy of its pixels.

    Args:
        inspection: the inspection of the picture.
        picture: the picture as read for the inspection.
        since: the time at which the inspection began, in seconds since the epoch (`time.time`); a file that has changed
            later is not shown.
    """
    width, height = inspection.size or picture.size
    data, why = _own_file(Path(picture.name), since)
    if data is not None:
        kind = format_of(data[:HEAD])
        if kind not in _KINDS:
            why = f"browsers do not show {_NAMES.get(str(kind), 'its format')}"
        elif picture.bits > 8:
            why = "browsers do not show all of its 16 bits"
        elif _TURNED.search(data) or (kind != "JPEG" and any(mark in data for mark in _MAY_BE_TURNED)):
            why = "browsers may not turn it upright"
        else:
            return Large(data, _KINDS[kind], f"The file's own pixels, {width} x {height}.")
    pixels = thumbnail(picture, longest=COPY_LONGEST)
    lossless = pixels.shape[0] * pixels.shape[1] <= _LOSSLESS
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG" if lossless else "JPEG", quality=90)
    words = f"A copy of {pixels.shape[1]} x {pixels.shape[0]} pixels, as {why}; the picture has {width} x {height}."
    return Large(buffer.getvalue(), "png" if lossless else "jpg", words)


def data_uri(data: bytes) -> str:
    """The data URI of a JPEG, PNG or WebP file, which holds the whole file."""
    suffix = _KINDS.get(format_of(data[:HEAD]) or "", "jpg")
    return f"data:image/{_MEDIA[suffix]};base64,{base64.b64encode(data).decode()}"


def _own_file(path: Path, since: float) -> tuple[bytes | None, str]:
    """The bytes of the picture's file and "", or None and the reason why the file cannot be shown unchanged."""
    try:
        if not path.is_file():
            return None, "it has no file of its own"
        told = path.stat()
        if max(told.st_mtime, told.st_ctime) > since:
            return None, "its file has changed since"
        if told.st_size > OWN_MOST:
            return None, f"its file has more than {OWN_MOST // 1_000_000} MB"
        return path.read_bytes(), ""
    except (OSError, ValueError):  # ValueError: a null character in the name
        return None, "its file cannot be read any more"
