"""Read one picture, whatever it comes as, into upright RGB pixels."""

import hashlib
import io
import os
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError

from handful.errors import ImageError, InputError

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
DRAFT_FACTOR = 2  # a JPEG is decoded at least this many times larger than the model's input, so that resizing stays smooth

PictureSource = str | os.PathLike[str] | Image.Image | NDArray[Any] | torch.Tensor


@dataclass(frozen=True, eq=False)
class Picture:
    """One upright picture.

    Attributes:
        name: its path, or what the caller named a picture in memory.
        pixels: (h, w, 3) RGB, uint8 or uint16; a large JPEG's are fewer than the original's.
        size: width, height of the upright original.
    """

    name: str
    pixels: NDArray[np.uint8] | NDArray[np.uint16]
    size: tuple[int, int]


def list_pictures(folder: str | os.PathLike[str], *, recursive: bool) -> list[Path]:
    """The pictures of a folder by suffix, sorted by path; hidden files and folders are passed over.

    Raises:
        InputError: if the folder does not exist, cannot be read, or holds no picture.
    """
    root = Path(folder)
    if not root.is_dir():
        raise InputError(f"A folder of pictures must exist, got {root}; check the path.")
    try:
        entries = sorted(root.rglob("*") if recursive else root.iterdir())
    except OSError as error:
        raise InputError(f"The folder {root} must be readable, got {error.strerror}; check its permissions.") from error
    visible = [path for path in entries if not any(p.startswith(".") for p in path.relative_to(root).parts)]
    pictures = [path for path in visible if path.suffix.lower() in SUFFIXES and path.is_file()]
    if not pictures:
        folders = [path.name for path in visible if path.is_dir()]
        inside = f"only the folders {', '.join(folders[:5])}; name one of them" if folders else "none; check the path"
        raise InputError(f"{root} must hold pictures ({' '.join(SUFFIXES)}), got {inside}.")
    return pictures


def gather(pictures: PictureSource | Sequence[PictureSource], *, recursive: bool) -> list[tuple[PictureSource, str]]:
    """One picture, several, or folders of them, as a flat list of (picture, name).

    Raises:
        InputError: if there is none, or a folder holds none.
    """
    several = isinstance(pictures, Sequence) and not isinstance(pictures, str)
    found: list[tuple[PictureSource, str]] = []
    for source in pictures if several else [pictures]:
        if isinstance(source, (str, os.PathLike)):
            paths = list_pictures(source, recursive=recursive) if Path(source).is_dir() else [Path(source)]
            found += [(path, str(path)) for path in paths]
        else:
            found.append((source, f"picture {len(found)}"))
    if not found:
        raise InputError("At least one picture is needed, got none; name pictures or a folder.")
    return found


def read_picture(source: PictureSource, *, name: str | None = None, detail: int | None = None) -> Picture:
    """Read one picture as upright RGB.

    EXIF orientation is applied; grey becomes three equal channels; transparency is laid over black; of several frames the
    first is read. 16-bit grey keeps its depth; 16-bit colour files are reduced to 8 bits by Pillow.

    Args:
        source: a path; a PIL image; an array (h, w), (h, w, 1), (h, w, 3) RGB or (h, w, 4) RGBA, uint8, uint16, or float
            in [0, 1] (OpenCV's BGR must be turned round first); or a tensor of the same types as (h, w), (1, h, w),
            (3, h, w) or (4, h, w).
        name: for a picture in memory; a path names itself.
        detail: the longer side of the model's input. A JPEG may then be decoded smaller than it is stored, which is faster.

    Raises:
        ImageError: if it is missing, unreadable, no picture, too large, or of another shape or type.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), detail)
    name = name or "picture"
    if isinstance(source, Image.Image):
        with _as_image_error(name):
            pixels = _decode(source.copy(), name)
    elif isinstance(source, torch.Tensor):
        array = source.detach().cpu()
        pixels = _from_array((array.movedim(0, -1) if array.ndim == 3 else array).numpy(), name, layout="(3, h, w)")
    elif isinstance(source, np.ndarray):
        pixels = _from_array(source, name, layout="(h, w, 3)")
    else:
        raise ImageError(
            f"A picture must be a path, a PIL image, an array or a tensor, got {type(source).__name__} for {name}."
        )
    return Picture(name, pixels, (pixels.shape[1], pixels.shape[0]))


def digest(source: PictureSource, picture: Picture) -> str:
    """sha256 in hex that tells pictures apart: of the file where there is one, else of the pixels."""
    if isinstance(source, (str, os.PathLike)):
        return hashlib.sha256(Path(source).read_bytes()).hexdigest()
    return hashlib.sha256(picture.pixels.tobytes()).hexdigest()


def _read_file(path: Path, detail: int | None) -> Picture:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"{path} must be a readable picture, got: {error.strerror}; check the path.") from error
    if not data:
        raise ImageError(f"{path} must be a picture, got an empty file; copy it again.")
    with _as_image_error(str(path)), Image.open(io.BytesIO(data)) as image:
        lies_on_its_side = image.getexif().get(ExifTags.Base.Orientation) in (5, 6, 7, 8)
        size = image.size[::-1] if lies_on_its_side else image.size
        if image.format == "JPEG" and detail is not None:
            image.draft(None, (DRAFT_FACTOR * detail, DRAFT_FACTOR * detail))
        pixels = _decode(image, str(path))
    return Picture(str(path), pixels, size)


class _as_image_error:
    """Turn whatever Pillow raises, its warning about decompression bombs included, into an ImageError with the name."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        self.filters.__enter__()
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        self.filters.__exit__(None, None, None)
        if isinstance(error, (Image.DecompressionBombError, Image.DecompressionBombWarning)):
            limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
            raise ImageError(
                f"{self.name} must have at most {limit} million pixels, got more; crop it or save it smaller."
            ) from error
        if isinstance(error, Exception) and not isinstance(error, ImageError):
            unknown = isinstance(error, UnidentifiedImageError)
            said = "no picture format that can be read" if unknown else str(error).rstrip(".") or type(error).__name__
            raise ImageError(f"{self.name} must be a readable picture, got: {said}; save it again.") from error


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Load, turn upright and bring to RGB."""
    image.load()
    image = ImageOps.exif_transpose(image)
    if image.mode.startswith("I"):  # 16-bit grey: I;16 and its byte orders, or I
        wide = np.asarray(image)
        if wide.min() < 0 or wide.max() > 65535:
            raise ImageError(f"{name} must hold grey values of at most 16 bits, got {wide.min()} to {wide.max()}.")
        return np.repeat(wide.astype(np.uint16)[:, :, None], 3, axis=2)
    if image.mode == "F":
        raise ImageError(f"{name} must hold whole numbers, got floating point; save it with 8 or 16 bits.")
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), coloured)
    return np.asarray(image.convert("RGB"))


def _from_array(array: NDArray[Any], name: str, *, layout: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Check an array in memory and bring it to RGB."""
    if array.ndim == 2:
        array = array[:, :, None]
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        raise ImageError(f"{name} must have the shape {layout}, or 1 or 4 channels, got {array.shape}.")
    if np.issubdtype(array.dtype, np.floating):
        if not (np.isfinite(array).all() and array.min() >= 0 and array.max() <= 1):
            raise ImageError(f"{name} holds floating-point values, which must be in [0, 1]; divide it by its maximum.")
        array = (array * 255).round().astype(np.uint8)
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name} must be uint8, uint16 or floating point, got {array.dtype}.")
    if array.shape[2] == 4:
        opacity = array[:, :, 3:] / np.iinfo(array.dtype).max
        array = (array[:, :, :3] * opacity).round().astype(array.dtype)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
