"""The decoding of picture files: upright RGB pixels exactly as the format says, or a refusal with the cause.

Pillow decodes. A single plugin of Pillow is opened, chosen by the file's first bytes, so that neither Pillow's list of
formats (some of which start other programs) nor its process-wide limit of pixels applies; `max_pixels` is compared with
the header's size before a pixel is decoded. Pictures that Pillow would reduce or misread are read in another way here,
or refused.
"""

import io
import struct
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from importlib import import_module
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageFile

from handful.data import colours, jpeg2000, pnm, tiff, wholeness
from handful.data.formats import HEAD, SAVE_AS_JPEG, RefusedError, format_of, is_heic
from handful.data.orientation import ON_ITS_SIDE, orientation_of, upright

MAX_PIXELS = 50_000_000  # 0.35 GB while an 8-bit picture is decoded; larger area cameras are rare and need an option
DRAFT_FACTOR = 2  # a JPEG is decoded at least at this factor of the model's input size, so that resizing stays smooth
_WEBP_COST = 2  # libwebp's memory for each pixel, relative to the other decoders
_SRGB_CODE = bytes([1, 13, 0, 1])  # in PNG's cICP chunk: primaries, transfer, matrix, full range
_STRIP = 1_000_000  # pixels converted at a time, so that no second copy of a large picture is held

Pixels = NDArray[np.uint8] | NDArray[np.uint16]


@dataclass(frozen=True, eq=False)
class Decoded:
    """A decoded, upright picture.

    Attributes:
        pixels: (h, w, 3) RGB, uint8 or uint16; a JPEG may be decoded at a smaller size than the original.
        bits: the depth stated in the file: 8, or 9 to 16 in uint16.
        size: width, height of the upright original.
    """

    pixels: Pixels
    bits: int
    size: tuple[int, int]


@dataclass(frozen=True)
class Wanted:
    """The options of decoding.

    Attributes:
        detail: the longer side of the model's input; None to decode a JPEG at full size.
        max_pixels: the largest number of pixels of the stored picture.
        number: the number of the picture in a file of several, from 1; None if the file must hold a single picture.
    """

    detail: int | None = None
    max_pixels: int = MAX_PIXELS
    number: int | None = None

    def check_size(self, size: tuple[int, int], *, cost: int = 1) -> None:
        """Raise RefusedError for a size without pixels or of too many pixels; `cost` divides `max_pixels`."""
        if min(size) < 1:
            raise RefusedError(f"must have at least one pixel, got {size[0]} x {size[1]}.")
        most = self.max_pixels // cost
        if size[0] * size[1] > most:
            raise RefusedError(
                f"must have at most {most / 1e6:g} million pixels, got {size[0]} x {size[1]}; crop it, save it "
                f"smaller, or raise `max_pixels`."
            )

    def index(self, count: int) -> int:
        """The index, from 0, of the picture to read in a file of `count` pictures; raises RefusedError for none."""
        if self.number is None and count > 1:
            raise RefusedError(
                "must hold one picture, got several; name one by its number, FILE#1, FILE#2, …, or split the file."
            )
        number = 1 if self.number is None else self.number
        if not 1 <= number <= count:
            raise RefusedError(f"must hold a picture number {number}, got a file of {count}; check the number.")
        return number - 1


def decode(data: bytes, wanted: Wanted) -> Decoded:
    """Decode a picture file.

    EXIF orientation is applied, unreadable EXIF passed over; grey becomes three equal channels; transparency is laid
    over black; colour profiles are converted to sRGB.

    Raises:
        RefusedError: if the file cannot be read as its format says, is too large, or holds several pictures.
    """
    kind = format_of(data[:HEAD])
    if kind is None:
        if is_heic(data[:HEAD]):
            raise RefusedError(f"must be a picture of a format that is read, got HEIC or AVIF; {SAVE_AS_JPEG}.")
        raise RefusedError("must be a readable picture, got: no picture format that can be read; save it again.")
    try:
        return _DECODERS[kind](data, wanted)
    except RefusedError:
        raise
    except Exception as error:  # decoders raise errors of any kind
        said = " ".join(str(error).split()).rstrip(".") or "it cannot be decoded"
        raise RefusedError(f"must be a readable picture, got: {said}; save it again.") from error


def _jpeg(data: bytes, wanted: Wanted) -> Decoded:
    exif = wholeness.check_jpeg(data)
    # EXIF is cut out, as Pillow warns of faulty EXIF while it opens a JPEG.
    image = _opened("Jpeg", data[: exif.start] + data[exif.stop :] if exif else data)
    if exif:
        image.info["exif"] = data[exif.start + 4 : exif.stop]
    wanted.check_size(image.size)
    wanted.index(1)
    if image.mode == "CMYK":
        raise RefusedError("must be grey or RGB, got a JPEG of inks, stored as such or inverted; save it as RGB.")
    stored = image.size
    if wanted.detail is not None:
        image.draft(None, (DRAFT_FACTOR * wanted.detail, DRAFT_FACTOR * wanted.detail))
    return _finished(image, stored)


def _png(data: bytes, wanted: Wanted) -> Decoded:
    chunks = wholeness.check_png(data)
    if chunks.get(b"cICP", _SRGB_CODE)[:3] != _SRGB_CODE[:3]:
        raise RefusedError("must be sRGB, got a PNG file of another colour space (its cICP chunk); save it as sRGB.")
    image = _opened("Png", data)
    wanted.check_size(image.size)
    index = wanted.index(getattr(image, "n_frames", 1))
    bits, colour = data[24], data[25]
    has_profile = "icc_profile" in image.info or "srgb" in image.info
    key = image.info.pop("transparency", None) if colour in (0, 2) else None
    gamma = None if has_profile else image.info.get("gamma")
    chromaticity = None if has_profile else image.info.get("chromaticity")
    if index:
        image.seek(index)
    pixels: NDArray[Any] = _deep_png(data, image, colour) if bits == 16 else pixels_of(image)
    if key is not None:
        scale = 255 // (2**bits - 1) if bits < 8 else 1
        same = pixels == np.multiply(key, scale)  # whether each channel equals the transparent colour's
        pixels = np.where(same.all(axis=2, keepdims=True), 0, pixels).astype(pixels.dtype)
    return _turned(colours.from_gamma(pixels, gamma, chromaticity), image, bits=max(8, bits))


def _deep_png(data: bytes, image: ImageFile.ImageFile, colour: int) -> NDArray[Any]:
    """The pixels (h, w, 3) of a PNG of 16 bits; Pillow itself keeps 16 bits only for grey."""
    if profile := image.info.get("icc_profile"):
        colours.refuse_profile(profile)
    if getattr(image, "n_frames", 1) > 1 and colour != 0:
        raise RefusedError("must have 8 bits if it moves, got a PNG file of several frames in 16; split the file.")
    if colour == 0:
        return _grey(np.asarray(image))
    if colour == 4:  # grey and opacity, four bytes a pixel, read as Pillow's four channels of a byte
        halves = _loaded_as(_opened("Png", data), "RGBA")
        grey_alpha = np.ascontiguousarray(halves).view(">u2").astype(np.uint16)  # (h, w, 2)
        return over_black(np.repeat(grey_alpha[:, :, :1], 3, axis=2), grey_alpha[:, :, 1:])
    deep = _both_halves(lambda: _opened("Png", data), "RGB" if colour == 2 else "RGBA", "B")
    return deep if colour == 2 else over_black(deep[:, :, :3], deep[:, :, 3:])


def _tiff(data: bytes, wanted: Wanted) -> Decoded:
    pages = tiff.read_pages(data)
    page = pages[wanted.index(len(pages))]
    wanted.check_size(page.size)
    page.refuse_unknown()
    wholeness.check_strips(data, page.strips(), row=page.row_bytes())

    def opened() -> ImageFile.ImageFile:
        image = _opened("Tiff", data)
        image.seek(page.number)
        return image

    image = opened()
    bits, samples, photometric = page.bits, page.samples, page.one(tiff.PHOTOMETRIC, 0)
    if bits == 16 and (profile := image.info.get("icc_profile")):
        colours.refuse_profile(profile)
    if bits == 16 and photometric == tiff.RGB:
        native = image.tile[0].codec_name == "libtiff"
        little = sys.byteorder == "little" if native else page.little_endian
        raw = "RGB" if samples == 3 else "RGBA" if page.opacity else "RGBX"
        deep = _both_halves(opened, raw, "L" if little else "B", keep=image)
        pixels: Pixels = over_black(deep[:, :, :3], deep[:, :, 3:]) if page.opacity == tiff.SEPARATE else deep[:, :, :3]
        return _whole(pixels, 16)
    if page.opacity == tiff.MULTIPLIED:  # colours are multiplied by opacity already; Pillow would divide by it
        grey = photometric != tiff.RGB
        loaded = np.asarray(image) if grey else _loaded_as(image, "RGBA")
        return _whole(_grey(loaded[:, :, 0]) if grey else np.ascontiguousarray(loaded[:, :, :3]), 8)
    pixels = pixels_of(image)
    if bits > 8 and photometric == tiff.WHITE_IS_ZERO:
        pixels = (2**bits - 1 - pixels).astype(np.uint16)
    return _whole(pixels, max(8, bits))  # upright: Pillow turns TIFFs itself


def _jpeg2000(data: bytes, wanted: Wanted) -> Decoded:
    header = jpeg2000.read_header(data)
    wanted.check_size(header.size)
    wanted.index(1)
    wholeness.check_jpeg2000(header.codestream)
    bits = header.depths[0]
    if len(set(header.depths)) > 1 or bits > 16 or header.palette:
        raise RefusedError(
            "must have channels of one depth up to 16 bits and no palette, got another JPEG 2000 file; save it as PNG."
        )
    if bits > 8 and len(header.depths) > 1:
        raise RefusedError(
            f"must have 8 bits for each channel of colour in a JPEG 2000 file, got {bits}; save it as PNG or TIFF."
        )
    if bits < 8 and len(header.depths) in (2, 4):
        raise RefusedError(f"must have 8 bits where it has opacity, got {bits} in a JPEG 2000 file; save it as PNG.")
    image = _opened("Jpeg2K", data)
    if header.profile and not colours.is_srgb(header.profile):
        if bits > 8:
            colours.refuse_profile(header.profile)
        image.info["icc_profile"] = header.profile
    pixels = pixels_of(image)
    if bits > 8:  # Pillow shifts the values to 16 bits
        return _turned((pixels >> (16 - bits)).astype(np.uint16), image, bits=bits)
    if bits < 8:  # Pillow shifts the values to 8 bits, which makes white grey
        pixels = np.rint((pixels >> (8 - bits)) * (255 / (2**bits - 1))).astype(np.uint8)
    return _turned(pixels, image, bits=8)


def _webp(data: bytes, wanted: Wanted) -> Decoded:
    wanted.check_size(_webp_size(data), cost=_WEBP_COST)  # before opening: the plugin allocates the canvas
    doubtful = wholeness.check_webp(data)
    image = _opened("WebP", data)
    if index := wanted.index(getattr(image, "n_frames", 1)):
        image.seek(index)
    pixels = pixels_of(image)
    if doubtful:
        wholeness.check_bottom(pixels)
    return _turned(pixels, image, bits=8)


def _webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas (RFC 9649, sections 2.5 to 2.7)."""
    kind = data[12:16]
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    width, height = struct.unpack_from("<HH", data, 26)
    return width & 0x3FFF, height & 0x3FFF


def _gif(data: bytes, wanted: Wanted) -> Decoded:
    image = _opened("Gif", data)
    wanted.check_size(image.size)
    wholeness.check_gif(data)
    several = getattr(image, "is_animated", False)
    if index := wanted.index((2 if wanted.number is None else getattr(image, "n_frames", 1)) if several else 1):
        image.seek(index)
        wanted.check_size(image.size)  # a frame may be larger than the first
    return _finished(image, image.size)


def _bmp(data: bytes, wanted: Wanted) -> Decoded:
    image = _opened("Bmp", data)
    wanted.check_size(image.size)
    wanted.index(1)
    wholeness.check_bmp(data)
    if int.from_bytes(data[14:18], "little") == 124 and data[70:74] == b"DEBM":  # a version 5 header with a profile
        start, length = struct.unpack_from("<II", data, 14 + 112)
        image.info["icc_profile"] = data[14 + start : 14 + start + length]
    return _finished(image, image.size)


def _pnm(data: bytes, wanted: Wanted) -> Decoded:
    _, size, _, _ = pnm.read_header(data)
    wanted.check_size(size)
    wanted.index(1)
    pixels, bits = pnm.decode(data)
    return Decoded(_grey(pixels[:, :, 0]) if pixels.shape[2] == 1 else pixels, bits, size)


_DECODERS: dict[str, Callable[[bytes, Wanted], Decoded]] = {
    "BMP": _bmp,
    "GIF": _gif,
    "JPEG": _jpeg,
    "JPEG2000": _jpeg2000,
    "PNG": _png,
    "PNM": _pnm,
    "TIFF": _tiff,
    "WEBP": _webp,
}


def _opened(plugin: str, data: bytes) -> ImageFile.ImageFile:
    """Open a picture by a plugin of Pillow, which reads the header and checks no size."""
    module = import_module(f"PIL.{plugin}ImagePlugin")
    image: ImageFile.ImageFile = getattr(module, f"{plugin}ImageFile")(io.BytesIO(data))
    return image


def _finished(image: ImageFile.ImageFile, stored: tuple[int, int]) -> Decoded:
    """Decode an 8-bit picture, which may have been reduced from its `stored` width and height."""
    pixels, orientation = pixels_of(image), orientation_of(image.info)
    size = stored[::-1] if orientation in ON_ITS_SIDE else stored
    return Decoded(upright(pixels, orientation), 8, size)


def pixels_of(image: Image.Image) -> Pixels:
    """Load an image as RGB (h, w, 3) in sRGB, transparency over black; not yet upright.

    Raises:
        RefusedError: if the image holds floating point, values beyond 16 bits, or colours that cannot be converted.
    """
    image.load()
    profile = image.info.get("icc_profile")
    if image.mode == "F":
        raise RefusedError("must hold whole numbers, got floating point; save it with 8 or 16 bits.")
    if image.mode.startswith("I"):  # 16-bit grey: I;16 and its byte orders, or I
        if profile:
            colours.refuse_profile(profile)
        values = np.asarray(image)
        if values.min() < 0 or values.max() > 65535:
            raise RefusedError(f"must hold grey values of at most 16 bits, got {values.min()} to {values.max()}.")
        return _grey(values.astype(np.uint16))
    if profile and not colours.is_srgb(profile):
        plain = {"1": "L", "P": "RGBA" if image.has_transparency_data else "RGB", "PA": "RGBA", "YCbCr": "RGB"}
        image = colours.to_srgb(image.convert(plain[image.mode]) if image.mode in plain else image, profile)
    if image.width * image.height <= _STRIP:
        return np.asarray(_opaque(image))
    pixels = np.empty((image.height, image.width, 3), np.uint8)
    for rows in _strips(image.height, image.width):
        pixels[rows] = np.asarray(_opaque(image.crop((0, rows.start, image.width, rows.stop))))
    return pixels


def _opaque(image: Image.Image) -> Image.Image:
    """An 8-bit image as RGB, transparency over black."""
    if image.has_transparency_data:
        coloured = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, (0, 0, 0, 255)), coloured)
    return image if image.mode == "RGB" else image.convert("RGB")


def _strips(height: int, width: int) -> Iterator[slice]:
    """The rows of a picture in strips of at most `_STRIP` pixels, to bound the memory of conversions."""
    rows = max(1, _STRIP // width)
    return (slice(top, min(top + rows, height)) for top in range(0, height, rows))


def _grey(values: NDArray[Any]) -> Pixels:
    """(h, w) → three equal channels, in the machine's byte order."""
    native = values.astype(values.dtype.newbyteorder("="), copy=False)
    return np.repeat(native[:, :, None], 3, axis=2)


def over_black(colour: NDArray[Any], opacity: NDArray[Any]) -> NDArray[Any]:
    """Colour (h, w, 3) with opacity (h, w, 1), of equal type, laid over black."""
    laid, most = np.empty(colour.shape, colour.dtype), np.iinfo(opacity.dtype).max
    for rows in _strips(*colour.shape[:2]):
        laid[rows] = (colour[rows] * (opacity[rows] / most)).round()
    return laid


def _both_halves(
    opened: Callable[[], ImageFile.ImageFile], raw: str, high: str, *, keep: ImageFile.ImageFile | None = None
) -> NDArray[np.uint16]:
    """Decode 16-bit colour in two passes: Pillow gives the higher byte in one byte order and the lower in the other.

    Args:
        opened: opens the file.
        raw: RGB, RGBA, or RGBX for a fourth channel that does not count.
        high: the byte order, B or L, in which Pillow takes the higher byte of each value.
        keep: an opened image for the second pass, after which its orientation is known.
    """
    mode = raw.replace("X", "")
    both = _loaded_as(opened(), f"{raw};16{high}", mode=mode).astype(np.uint16)
    both <<= 8
    both |= _loaded_as(keep or opened(), f"{raw};16{'L' if high == 'B' else 'B'}", mode=mode)
    return both


def _loaded_as(image: ImageFile.ImageFile, raw: str, *, mode: str = "RGBA") -> NDArray[np.uint8]:
    """Decode an image of `mode` by Pillow's raw mode `raw`, which spreads the decoded bytes over the channels."""
    if image.mode != mode:
        raise RefusedError("must be a picture of a kind that is decoded, got another; save it as PNG.")
    image.tile = [
        tile._replace(args=raw if isinstance(tile.args, str) else (raw, *(tile.args or ())[1:])) for tile in image.tile
    ]
    image.load()
    return np.asarray(image)


def _turned(pixels: NDArray[Any], image: ImageFile.ImageFile, *, bits: int) -> Decoded:
    """Turn pixels upright by the orientation in an image's EXIF."""
    return _whole(upright(pixels, orientation_of(image.info)), bits)


def _whole(pixels: NDArray[Any], bits: int) -> Decoded:
    return Decoded(pixels, bits, (pixels.shape[1], pixels.shape[0]))
