"""The conversion of colours to sRGB, from an embedded colour profile or a PNG file's gamma."""

import io
import struct
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from handful.data.formats import RefusedError

# sRGB's primaries as profiles hold them (IEC 61966-2-1, adapted to D50), X Y Z of red, green and blue.
_SRGB = {b"rXYZ": (0.4361, 0.2225, 0.0139), b"gXYZ": (0.3851, 0.7169, 0.0971), b"bXYZ": (0.1431, 0.0606, 0.7141)}
_PRIMARY_TOLERANCE = 0.002  # writers round and adapt a little differently
_CURVE_TOLERANCE = 0.001  # of sRGB's curve from 0 to 1; gamma 2.2 lies 0.004 apart
_SRGB_GAMMA = 0.45455  # in PNG's gAMA
_SRGB_CHROMATICITY = (0.3127, 0.329, 0.64, 0.33, 0.3, 0.6, 0.15, 0.06)  # in PNG's cHRM: white, red, green, blue


def is_srgb(profile: bytes) -> bool:
    """Whether an ICC profile is sRGB's, by its primaries and curves and not by its name.

    Nearly all profiles in cameras' files are, and this check is faster than a conversion. Grey and table-based profiles
    never count as sRGB.
    """
    try:
        if profile[16:20] != b"RGB " or profile[36:40] != b"acsp":
            return False
        count = struct.unpack_from(">I", profile, 128)[0]
        entries = (struct.unpack_from(">4sII", profile, 132 + 12 * number) for number in range(min(count, 100)))
        tags = {name: profile[start : start + length] for name, start, length in entries}
        if b"A2B0" in tags:
            return False
        near = all(
            abs(came / 65536 - wanted) <= _PRIMARY_TOLERANCE
            for name, primary in _SRGB.items()
            for came, wanted in zip(struct.unpack_from(">iii", tags[name], 8), primary, strict=True)
        )
        return near and all(_is_srgb_curve(tags[name]) for name in (b"rTRC", b"gTRC", b"bTRC"))
    except (KeyError, struct.error):
        return False


def _is_srgb_curve(curve: bytes) -> bool:
    """Whether a tone curve, as a table or as parameters, has sRGB's values at 0.1 and 0.5."""
    if curve[:4] == b"curv":
        count = struct.unpack_from(">I", curve, 8)[0]
        if count < 256:
            return False
        table = [value / 65535 for value in struct.unpack_from(f">{count}H", curve, 12)]
        found = [float(np.interp(x * (count - 1), np.arange(count), table)) for x in (0.1, 0.5)]
    elif curve[:4] == b"para" and struct.unpack_from(">H", curve, 8)[0] == 3:
        gamma, a, b, c, d = (value / 65536 for value in struct.unpack_from(">5i", curve, 12))
        found = [(a * x + b) ** gamma if x >= d else c * x for x in (0.1, 0.5)]
    else:
        return False
    return max(abs(came - wanted) for came, wanted in zip(found, (0.01002, 0.21404), strict=True)) <= _CURVE_TOLERANCE


def to_srgb(image: Image.Image, profile: bytes) -> Image.Image:
    """Convert an 8-bit picture from its profile to sRGB by littlecms; opacity does not change.

    Raises:
        RefusedError: if the profile cannot be read or is of another kind of colour.
    """
    from PIL import ImageCms

    opacity = image.getchannel("A") if image.mode in ("LA", "RGBA") else None
    colour = image.convert(image.mode.removesuffix("A")) if opacity else image
    if profile[16:20] == b"RGB " and colour.mode != "RGB":
        colour = colour.convert("RGB")
    try:
        source = ImageCms.ImageCmsProfile(io.BytesIO(profile))
        converted = ImageCms.profileToProfile(colour, source, ImageCms.createProfile("sRGB"), outputMode="RGB")
    except (ImageCms.PyCMSError, OSError, ValueError) as error:
        raise RefusedError(
            "must hold a colour profile that can be read and fits its colours, got another; save it as sRGB."
        ) from error
    assert converted is not None  # None stands for a picture that was changed in its place
    if opacity:
        converted.putalpha(opacity)
    return converted


def refuse_profile(profile: bytes) -> None:
    """Raise RefusedError for a 16-bit profile other than sRGB's: littlecms would reduce the picture to 8 bits."""
    if not is_srgb(profile):
        raise RefusedError("must be sRGB if it has 16 bits, got another colour profile; save it as sRGB.")


def from_gamma(pixels: NDArray[Any], gamma: float | None, chromaticity: tuple[float, ...] | None) -> NDArray[Any]:
    """Convert pixels of a PNG file from the gamma in its gAMA chunk to sRGB's; pixels of sRGB's gamma do not change.

    Raises:
        RefusedError: if the file's primaries, in its cHRM chunk, are not sRGB's.
    """
    if chromaticity and max(abs(a - b) for a, b in zip(chromaticity, _SRGB_CHROMATICITY, strict=False)) > 0.01:
        raise RefusedError("must have sRGB's primaries, got a PNG file with others in its cHRM chunk; save it as sRGB.")
    if not gamma or abs(gamma - _SRGB_GAMMA) < 0.005:
        return pixels
    most = np.iinfo(pixels.dtype).max
    table: NDArray[Any] = np.rint((np.arange(most + 1) / most) ** (_SRGB_GAMMA / gamma) * most).astype(pixels.dtype)
    brought: NDArray[Any] = table[pixels]
    return brought
