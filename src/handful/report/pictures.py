"""The pictures of a report: in the page itself while that stays small, else in a folder beside it."""

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
OWN_MOST = 16_000_000  # bytes of a picture's file that a report takes in as it is
COPY_LONGEST = 2048  # pixels of the longer side of a copy that stands for a file which it does not take in
_KINDS = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp"}  # the formats that every browser shows, and their suffixes
_NAMES = {"TIFF": "TIFF", "JPEG2000": "JPEG 2000", "BMP": "BMP", "PNM": "PNM", "GIF": "GIF"}  # of all others
_MEDIA = {"jpg": "jpeg", "png": "png", "webp": "webp"}
_LOSSLESS = 512 * 512  # up to so many pixels a copy is a PNG
_TURNED = re.compile(rb'tiff:Orientation(?:="|>)[2-8]')  # XMP's word for it, which browsers do not heed
_RUN = re.compile("report-[0-9a-f]{16}")  # the folder of one report's pictures
_NAME = re.compile(r"[0-9]{6}-(small|heatmap|large|place-[0-9])\.(jpg|png|webp)")  # of a picture in it
_MAY_BE_TURNED = (b"eXIf", b"EXIF", b"Raw profile type exif")  # in PNG and WebP, where browsers differ


class PictureFiles:
    """The pictures of one page, used with `with`: they wait in a hidden folder until the page is written.

    Each has an address, `pictures/RUN/NAME`, from the page. RUN is drawn at random for each report: an older page in
    the same folder keeps its pictures until the new page has taken its place, and no name of a file can look like an
    address.

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
        """Keep a picture and return its address.

        Args:
            name: six digits, -small, -heatmap, -large or -place- with a digit, then .jpg, .png or .webp; used once.
            data: the file.
        """
        (self._waiting / name).write_bytes(data)
        self.size += len(data)
        return f"{FOLDER}/{self._run}/{name}"

    def embedded(self, lines: Iterable[str]) -> Iterator[str]:
        """Text in which every address is replaced by the picture itself."""
        for line in lines:
            yield self._address.sub(lambda found: data_uri((self._waiting / found[1]).read_bytes()), line)

    def put_beside(self) -> None:
        """Put the pictures where their addresses say."""
        self._home.mkdir(exist_ok=True)
        self._waiting.rename(self._home / self._run)
        if hasattr(os, "sync"):  # not on Windows: they are on the disk before the page that shows them
            os.sync()

    def take_away(self) -> None:
        """Remove the pictures that were put beside a page which could not be written."""
        with suppress(OSError):
            shutil.rmtree(self._home / self._run)
            self._home.rmdir()

    def remove_older(self) -> None:
        """Remove the pictures of earlier reports, which no page shows any more; all else in their folder stays."""
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
    """A picture as the page shows it when it is opened.

    Attributes:
        data: a JPEG, PNG or WebP.
        suffix: of its name, without a dot.
        words: a sentence that says which pixels these are.
    """

    data: bytes
    suffix: str
    words: str


def large(inspection: Inspection, picture: Picture, *, since: float) -> Large:
    """The picture's own file where browsers show that as it was inspected, else a copy of its pixels.

    Args:
        inspection: of the picture.
        picture: as it was read.
        since: when the inspection began, in seconds as `time.time` counts; a file that changed later is not shown.
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
    """A JPEG, PNG or WebP as an address that holds it whole."""
    suffix = _KINDS.get(format_of(data[:HEAD]) or "", "jpg")
    return f"data:image/{_MEDIA[suffix]};base64,{base64.b64encode(data).decode()}"


def _own_file(path: Path, since: float) -> tuple[bytes | None, str]:
    """The picture's file, or None and why it cannot be shown as it is."""
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
