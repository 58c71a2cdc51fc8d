"""Read one picture, whatever it comes as, into upright RGB pixels."""

import hashlib
import io
import os
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeGuard, Union

import numpy as np
from numpy.typing import NDArray
from PIL import ExifTags, Image, UnidentifiedImageError

from handful.errors import ImageError, InputError

if TYPE_CHECKING:  # torch takes a second to import
    from torch import Tensor

SUFFIXES = (".bmp", ".jpeg", ".jpg", ".png", ".tif", ".tiff", ".webp")
# Of Pillow's formats; it hands some of the others to outside programs, as EPS to Ghostscript. JPEG includes MPO.
FORMATS = ("BMP", "GIF", "JPEG", "JPEG2000", "PNG", "PPM", "TIFF", "WEBP")
DRAFT_FACTOR = 2  # a JPEG is decoded at least this many times the model's input, so that resizing stays smooth

_TO_UPRIGHT = {  # by EXIF orientation
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_ON_ITS_SIDE = (5, 6, 7, 8)

PictureSource = Union[str, os.PathLike[str], Image.Image, NDArray[Any], "Tensor"]
Pictures = PictureSource | Sequence[PictureSource]


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

    @property
    def aspect(self) -> float:
        """Width to height of the original."""
        return self.size[0] / self.size[1]


def list_pictures(folder: str | os.PathLike[str], *, recursive: bool) -> list[Path]:
    """The pictures of a folder by suffix, sorted by path; hidden files and folders are passed over.

    Links to folders are not followed; a link that leads nowhere is listed, so that somebody hears of it.

    Raises:
        InputError: if the folder does not exist, it or a subfolder cannot be read, or there is no picture.
    """
    root = Path(folder)
    if not _is_folder(root):
        raise InputError(f"A folder of pictures must exist, got {root}; check the path.")
    pictures, subfolders = [], []
    try:
        for place, folders, names in os.walk(root, onerror=_raise):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            subfolders += folders
            visible = [Path(place, name) for name in names if not name.startswith(".")]
            pictures += [path for path in visible if path.suffix.lower() in SUFFIXES and _may_be_picture(path)]
            if not recursive:
                break
    except OSError as error:
        raise InputError(
            f"The folder {error.filename} must be readable, got: {error.strerror}; check its permissions."
        ) from error
    if not pictures:
        inside = "none; check the path"
        if subfolders and not recursive:
            inside = f"only the folders {', '.join(subfolders[:5])}; name one of them"
        raise InputError(f"{root} must hold pictures ({' '.join(SUFFIXES)}), got {inside}.")
    return sorted(pictures)


def gather(pictures: PictureSource | Sequence[PictureSource], *, recursive: bool) -> list[tuple[PictureSource, str]]:
    """One picture, several, or folders of them, as a flat list of (picture, name).

    Raises:
        InputError: if there is none, or a folder holds none.
    """
    sources = list(pictures) if isinstance(pictures, Sequence) and not isinstance(pictures, str) else [pictures]
    found: list[tuple[PictureSource, str]] = []
    for source in sources:
        if isinstance(source, (str, os.PathLike)):
            paths = list_pictures(source, recursive=recursive) if _is_folder(Path(source)) else [Path(source)]
            found += [(path, str(path)) for path in paths]
        else:
            found.append((source, f"picture {len(found)}"))
    if not found:
        raise InputError("At least one picture is needed, got none; name pictures or a folder.")
    return found


def read_picture(source: PictureSource, *, name: str | None = None, detail: int | None = None) -> Picture:
    """Read one picture as upright RGB.

    EXIF orientation is applied, unreadable EXIF passed over; grey becomes three equal channels; transparency is laid
    over black; of several frames the first is read. 16-bit grey keeps its depth; 16-bit colour files are reduced to
    8 bits by Pillow.

    Args:
        source: a path; a PIL image; an array (h, w), (h, w, 1), (h, w, 3) RGB or (h, w, 4) RGBA, uint8, uint16, or
            float in [0, 1] (OpenCV's BGR must be turned round first); or a tensor of the same types as (h, w),
            (1, h, w), (3, h, w) or (4, h, w).
        name: for a picture in memory; a path names itself.
        detail: the longer side of the model's input. A JPEG may then be decoded smaller than it is stored, which is
            faster.

    Raises:
        ImageError: if it is missing, unreadable, no picture, too large, or of another shape or type.
    """
    if isinstance(source, (str, os.PathLike)):
        return _read_file(Path(source), detail)
    name = name or "picture"
    if isinstance(source, Image.Image):
        with _as_image_error(name):
            pixels = _decode(source.copy(), name)
    elif _is_tensor(source):
        tensor = source.detach().cpu().to_dense()
        array = (tensor.float() if tensor.is_floating_point() else tensor).numpy()  # NumPy has no bfloat16
        pixels = _from_array(array, name, channels_first=True)
    elif isinstance(source, np.ndarray):
        pixels = _from_array(source, name, channels_first=False)
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


def _is_tensor(source: object) -> "TypeGuard[Tensor]":
    """Whether it is one of torch's, which nobody has before torch is imported."""
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(source, torch.Tensor)


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except OSError:  # a name that is too long, say: reading it will tell
        return False


def _may_be_picture(path: Path) -> bool:
    """Whether it is a file, or a link that leads nowhere; not a pipe, on which reading would wait for ever."""
    return path.is_file() or not path.exists()


def _raise(error: OSError) -> None:
    raise error


def _read_file(path: Path, detail: int | None) -> Picture:
    try:
        data = path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a null character in the name
        said = error.strerror if isinstance(error, OSError) else error
        raise ImageError(f"{path} must be a readable picture, got: {said}; check the path.") from error
    if not data:
        raise ImageError(f"{path} must be a picture, got an empty file; copy it again.")
    with _as_image_error(str(path)), Image.open(io.BytesIO(data), formats=FORMATS) as image:
        stored = image.size
        if image.format == "JPEG" and detail is not None:
            image.draft(None, (DRAFT_FACTOR * detail, DRAFT_FACTOR * detail))
        reduced = image.size != stored
        pixels = _decode(image, str(path))
        if not reduced:
            size = (pixels.shape[1], pixels.shape[0])
        else:
            size = stored[::-1] if _orientation(image) in _ON_ITS_SIDE else stored
    return Picture(str(path), pixels, size)


@contextmanager
def _as_image_error(name: str) -> Iterator[None]:
    """Turn whatever Pillow raises, its warning about decompression bombs included, into an ImageError with the name."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            yield
    except ImageError:
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        limit = (Image.MAX_IMAGE_PIXELS or 0) // 1_000_000
        raise ImageError(
            f"{name} must have at most {limit} million pixels, got more; crop it or save it smaller."
        ) from error
    except Exception as error:
        unknown = isinstance(error, UnidentifiedImageError)
        said = "no picture format that can be read" if unknown else str(error).rstrip(".") or "it cannot be decoded"
        raise ImageError(f"{name} must be a readable picture, got: {said}; save it again.") from error


def _orientation(image: Image.Image) -> object:
    """EXIF's orientation of a loaded picture, 1 where there is none."""
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # broken EXIF fails in many ways, and the picture may still be whole
        return 1


def _decode(image: Image.Image, name: str) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Load, turn upright and bring to RGB."""
    if 0 in image.size:
        raise ImageError(f"{name} must have at least one pixel, got {image.width} x {image.height}.")
    image.load()
    turn = next((how for number, how in _TO_UPRIGHT.items() if number == _orientation(image)), None)
    if turn is not None:
        image = image.transpose(turn)
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
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB"))


def _from_array(array: NDArray[Any], name: str, *, channels_first: bool) -> NDArray[np.uint8] | NDArray[np.uint16]:
    """Check an array in memory and bring it to RGB."""
    came = array.shape
    if array.ndim == 2:
        array = array[:, :, None]
    elif array.ndim == 3 and channels_first:
        array = np.moveaxis(array, 0, 2)
    if array.ndim != 3 or array.shape[2] not in (1, 3, 4) or 0 in array.shape:
        layout = "(3, h, w)" if channels_first else "(h, w, 3)"
        raise ImageError(f"{name} must have the shape {layout}, or 1 or 4 channels, got {came}.")
    if np.issubdtype(array.dtype, np.floating):
        if not (array.min() >= 0 and array.max() <= 1):  # NaN is neither
            raise ImageError(
                f"{name} must hold values in [0, 1] if they are floating point, got {array.min():.4g} to "
                f"{array.max():.4g}; scale them."
            )
        array = (array * 255).round().astype(np.uint8)
    array = array.astype(array.dtype.newbyteorder("="), copy=False)
    if array.dtype not in (np.uint8, np.uint16):
        raise ImageError(f"{name} must be uint8, uint16 or floating point, got {array.dtype}.")
    if array.shape[2] == 4:
        opacity = array[:, :, 3:] / np.iinfo(array.dtype).max
        array = (array[:, :, :3] * opacity).round().astype(array.dtype)
    return np.ascontiguousarray(np.broadcast_to(array, (*array.shape[:2], 3)))
