"""Pictures from paths, bytes, files, images, arrays or tensors, as upright RGB pixels with a name."""

import hashlib
import os
import re
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image

from handful.data.decoding import DRAFT_FACTOR, MAX_PIXELS, Decoded, Pixels, Wanted, decode, over_black, pixels_of
from handful.data.formats import SUFFIXES, RefusedError
from handful.data.listing import LeftOut, find_pictures, is_folder, list_pictures
from handful.data.orientation import upright
from handful.errors import ImageError, InputError

if TYPE_CHECKING:  # torch takes a second to import
    from torch import Tensor

__all__ = [
    "DRAFT_FACTOR",
    "MAX_PIXELS",
    "SUFFIXES",
    "Gathered",
    "LeftOut",
    "Picture",
    "PictureSource",
    "Pictures",
    "check_distinct",
    "digest",
    "find",
    "gather",
    "held",
    "list_pictures",
    "name_of",
    "read_picture",
    "stream",
    "unreadable",
]

PictureSource = Union[
    str, os.PathLike[str], bytes, bytearray, memoryview, BinaryIO, Image.Image, NDArray[Any], "Tensor"
]
Pictures = PictureSource | Iterable[PictureSource]  # a picture, a folder or several pictures; a stack counts as several

_NARROWEST = 32  # the least width of a stack of grey arrays; a shorter last axis counts as channels
_NUMBERED = re.compile(r"(.+)#(\d{1,6})", re.DOTALL)  # FILE#2: the second picture of a file


@dataclass(frozen=True, eq=False)
class Picture:
    """An upright picture.

    Attributes:
        name: the picture's path, or the name given to a picture in memory.
        pixels: (h, w, 3) RGB, uint8 or uint16; a large JPEG may be decoded at a smaller size than the original.
        size: width, height of the upright original.
        bits: the depth that the file states for 16-bit pixels, 9 to 16; 8 for 8-bit pixels.
        sha256: the digest of the file in hex, if the picture was read from a file object; else None.
    """

    name: str
    pixels: Pixels
    size: tuple[int, int]
    bits: int = 16
    sha256: str | None = None

    @property
    def aspect(self) -> float:
        """Width to height of the original."""
        return self.size[0] / self.size[1]


@dataclass(frozen=True)
class Gathered:
    """The result of `find`.

    Attributes:
        sources: each a picture and its name.
        left_out: all other files and folders in the pictures' folders.
    """

    sources: list[tuple[PictureSource, str]]
    left_out: tuple[LeftOut, ...] = ()


def gather(pictures: Pictures, *, recursive: bool) -> list[tuple[PictureSource, str]]:
    """A flat list of (picture, name) from a picture, several pictures, or folders of pictures.

    Several pictures are any iterable of pictures, or a stack: an array (B, h, w, 3) or (B, h, w) of at least 32 pixels
    across, or a tensor (B, 3, h, w) or (B, h, w). Tensors (1, h, w), (3, h, w) and (4, h, w) are a single picture.

    Args:
        pictures: the picture, pictures or folders.
        recursive: whether to look into the subfolders of folders too.

    Raises:
        InputError: see `find`.
    """
    return find(pictures, recursive=recursive).sources


def find(pictures: Pictures, *, recursive: bool) -> Gathered:
    """The pictures for the arguments of `gather`, and all other files in their folders.

    Raises:
        InputError: if there is no picture, a folder holds none, or a folder cannot be read.
    """
    found: list[tuple[PictureSource, str]] = []
    left_out: list[LeftOut] = []
    for source in _several(pictures):
        gathered = _gathered(source, len(found), recursive=recursive)
        found += gathered.sources
        left_out += gathered.left_out
    _check_any(len(found))
    return Gathered(found, tuple(left_out))


def stream(pictures: Iterable[PictureSource], *, recursive: bool) -> Iterator[tuple[PictureSource, str]]:
    """Yield (picture, name), see `gather`; the next picture is taken from the iterator only when it is asked for."""
    count = 0
    for source in pictures:
        found = _gathered(source, count, recursive=recursive).sources
        count += len(found)
        yield from found
    _check_any(count)


def name_of(source: object) -> str | None:
    """The name of a path or an open file; None for any other source."""
    if isinstance(source, (str, os.PathLike)):
        return str(Path(source))
    name = getattr(source, "name", None) if hasattr(source, "read") else None
    return name if isinstance(name, str) else None


def _several(pictures: Any) -> Iterable[Any]:
    """The pictures in an argument: the items of a stack or an iterable, else the argument itself."""
    if isinstance(pictures, np.ndarray):
        stack = pictures.ndim == 4 or (pictures.ndim == 3 and pictures.shape[2] >= _NARROWEST)
        return pictures if stack else (pictures,)
    if _is_tensor(pictures):
        stack = pictures.ndim == 4 or (pictures.ndim == 3 and pictures.shape[0] not in (1, 3, 4))
        return pictures if stack else (pictures,)
    kinds = (str, bytes, bytearray, memoryview, os.PathLike)
    alone = isinstance(pictures, kinds) or hasattr(pictures, "read") or not isinstance(pictures, Iterable)
    return (pictures,) if alone else pictures


def _gathered(source: Any, number: int, *, recursive: bool) -> Gathered:
    """A single picture, or the pictures of a folder; a picture in memory is named by its number."""
    if not isinstance(source, (str, os.PathLike)):
        return Gathered([(source, name_of(source) or f"picture {number}")])
    if is_folder(Path(source)):
        listed = find_pictures(source, recursive=recursive)
        return Gathered([(path, str(path)) for path in listed.pictures], tuple(listed.left_out))
    return Gathered([(Path(source), str(Path(source)))])


def _check_any(count: int) -> None:
    """Raise InputError for no picture at all."""
    if not count:
        raise InputError("At least one picture is needed, got none; name pictures or a folder.")


def read_picture(
    source: PictureSource, *, name: str | None = None, detail: int | None = None, max_pixels: int = MAX_PIXELS
) -> Picture:
    """Read a picture as upright RGB.

    A file is decoded exactly as its format says, at its own depth, or refused. EXIF orientation is applied, unreadable
    EXIF is passed over; grey becomes three equal channels; transparency is laid over black; embedded colour profiles
    are converted to sRGB. `FILE#2` is the second picture of a file of several pictures, unless a file has that name;
    without a number, a file of several pictures is refused.

    Args:
        source: a path; a file's content as bytes; a binary file object, read from its position to its end; a PIL image;
            an array (h, w), (h, w, 1), (h, w, 3) RGB or (h, w, 4) RGBA, uint8, uint16, or float in [0, 1] (reverse the
            channels of OpenCV's BGR first); or a tensor of these types, (h, w), (1, h, w), (3, h, w) or (4, h, w).
        name: the name of a picture in memory; a path, and a file object with a name, need none.
        detail: the longer side of the model's input; a JPEG may then be decoded smaller than stored, which is faster.
        max_pixels: the largest number of pixels; a file of more pixels is refused before decoding. Half as many for
            WebP.

    Raises:
        ImageError: if the picture is missing, unreadable, half-copied, too large, of another shape or type, or no
            picture.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), Wanted(detail, max_pixels))
    name = name or name_of(source) or "picture"
    try:
        if isinstance(source, (bytes, bytearray, memoryview)):
            if not len(source):
                raise RefusedError("must be a picture, got an empty file; copy it again.")
            return _picture(name, decode(bytes(source), Wanted(detail, max_pixels)))
        if hasattr(source, "read"):
            data = _content(source)
            return _picture(name, decode(data, Wanted(detail, max_pixels)), hashlib.sha256(data).hexdigest())
        if isinstance(source, Image.Image):
            pixels = _from_image(source)
        elif _is_tensor(source):
            tensor = source.detach().cpu().to_dense()
            array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
            pixels = _from_array(array, channels_first=True)
        elif isinstance(source, np.ndarray):
            pixels = _from_array(source, channels_first=False)
        else:
            raise ImageError(
                f"A picture must be a path, bytes, a binary file object, a PIL image, an array or a tensor, got "
                f"{type(source).__name__} for {name}."
            )
    except RefusedError as refused:
        raise ImageError(f"{name} {refused}") from refused
    return Picture(name, pixels, (pixels.shape[1], pixels.shape[0]))


def unreadable(name: str, said: object) -> ImageError:
    """The error for a picture of which no byte can be read; `said` is the reason."""
    return ImageError(f"{name} must be a readable picture, got: {said}; check the path.")


def held(source: PictureSource) -> PictureSource:
    """A source that can be read more than once: the content of a file object, else the source itself.

    Raises:
        ImageError: if the file object cannot be read.
    """
    if isinstance(source, Image.Image) or not hasattr(source, "read"):
        return source
    try:
        return _content(source)
    except RefusedError as refused:
        raise ImageError(f"{name_of(source) or 'picture'} {refused}") from refused


def digest(source: PictureSource, picture: Picture) -> str:
    """The sha256, in hex, that tells pictures apart: of the file if there is a file, else of the pixels."""
    if picture.sha256 is not None:
        return picture.sha256
    if isinstance(source, (str, os.PathLike)):
        path, number = _file_and_number(Path(source))
        content = path.read_bytes() + (b"" if number is None else f"#{number}".encode())
        return hashlib.sha256(content).hexdigest()
    if isinstance(source, (bytes, bytearray, memoryview)):
        return hashlib.sha256(source).hexdigest()
    return hashlib.sha256(picture.pixels.tobytes()).hexdigest()


def check_distinct(pictures: Sequence[Picture], digests: Sequence[str]) -> None:
    """Raise InputError for a picture that is given twice among references, with both names."""
    seen: dict[str, str] = {}
    for picture, digest in zip(pictures, digests, strict=True):
        if digest in seen:
            raise InputError(
                f"References must be different pictures, got the same in {seen[digest]} and {picture.name}; "
                f"leave one out."
            )
        seen[digest] = picture.name


def _is_tensor(source: object) -> "TypeGuard[Tensor]":
    """Whether a source is a torch tensor, without importing torch."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _file_and_number(path: Path) -> tuple[Path, int | None]:
    """The file of a path and the number of a picture in it, None without a number.

    `FILE#2` has a number if there is no file of that name but a file named `FILE`.
    """
    numbered = _NUMBERED.fullmatch(str(path))
    if numbered is None or os.path.lexists(path):
        return path, None
    return (Path(numbered[1]), int(numbered[2])) if Path(numbered[1]).is_file() else (path, None)


def _read_file(path: Path, wanted: Wanted) -> Picture:
    try:
        file, number = _file_and_number(path)
        data = file.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        raise unreadable(str(path), error.strerror if isinstance(error, OSError) else error) from error
    if not data:
        raise ImageError(f"{path} must be a picture, got an empty file; copy it again.")
    try:
        return _picture(str(path), decode(data, Wanted(wanted.detail, wanted.max_pixels, number)))
    except RefusedError as refused:
        raise ImageError(f"{path} {refused}") from refused


def _content(source: Any) -> bytes:
    """The rest of a binary file object; raises RefusedError if the object gives no bytes or cannot be read."""
    try:
        data = source.read()
    except (OSError, ValueError) as error:
        raise RefusedError(f"must be readable, got: {error}; open it in binary mode.") from error
    if not isinstance(data, (bytes, bytearray, memoryview)):
        raise RefusedError(
            f"must be a file object that gives bytes, got {type(data).__name__}; open it in binary mode."
        )
    if not len(data):
        raise RefusedError("must be a picture, got an empty file; rewind it or copy it again.")
    return bytes(data)


def _picture(name: str, decoded: Decoded, sha256: str | None = None) -> Picture:
    return Picture(name, decoded.pixels, decoded.size, decoded.bits, sha256)


def _from_image(source: Image.Image) -> Pixels:
    """The upright pixels of an image that Pillow has opened or made; `source` does not change.

    Raises:
        RefusedError: if the image cannot be loaded, or if Pillow reduces its 16 bits of colour to 8.
    """
    if 0 in source.size:
        raise RefusedError(f"must have at least one pixel, got {source.width} x {source.height}.")
    if any(";16" in str(tile.args) for tile in getattr(source, "tile", ())) and not source.mode.startswith("I"):
        raise RefusedError("must keep its depth, got 16 bits of colour that Pillow reduces to 8; give the file's path.")
    try:
        image = source.copy()
        return upright(pixels_of(image), _orientation(image))
    except RefusedError:
        raise
    except Exception as error:  # Pillow's plugins raise errors of any kind
        said = str(error).rstrip(".") or "it cannot be decoded"
        raise RefusedError(f"must be a readable picture, got: {said}; save it again.") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation of a loaded image; 1 without EXIF."""
    try:
        return int(image.getexif().get(ExifTags.Base.Orientation, 1))
    except Exception:  # broken EXIF fails in many ways, and the picture may still be whole
        return 1


def _from_array(array: NDArray[Any], *, channels_first: bool) -> Pixels:
    """Check an array in memory and convert it to RGB."""
    came = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and channels_first:
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        layout = "(3, h, w)" if channels_first else "(h, w, 3)"
        raise RefusedError(f"must have the shape {layout}, or 1 or 4 channels, got {came}.")
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
            raise RefusedError(
                f"must hold values in [0, 1] if they are floating point, got {array.min():.4g} to {array.max():.4g}; "
                f"scale them."
            )
        array = (array * 255).round().astype(np.uint8)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in (np.uint8, np.uint16):
        raise RefusedError(f"must be uint8, uint16 or floating point, got {array.dtype}.")
    if array.shape[2] == 4:
        array = over_black(array[:, :, :3], array[:, :, 3:])
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
