"""JPEG, JPEG 2000, WebP, PNM and GIF files by imagecodecs, by OpenCV, by hand, and by Pillow for want of others."""

from collections.abc import Iterator

import cv2
import imagecodecs
import numpy as np
from PIL import Image

from _decode.cell import (
    HEIGHT,
    LOSSY,
    PROFILED,
    PROFILES,
    WIDTH,
    Cell,
    as_rgb,
    as_stored,
    exif_of,
    ink_to_rgb,
    over_black,
    packed_rows,
    pillow_file,
    random_values,
    slopes,
    to_srgb,
)


def jpeg_cells() -> Iterator[Cell]:
    for channels in (1, 3):
        values = slopes(channels)
        mode = "grey" if channels == 1 else "RGB"
        for sampling in ("444", "420", "422"):
            data = bytes(
                imagecodecs.jpeg8_encode(values.squeeze(), level=95, subsampling=sampling if channels == 3 else None)
            )
            yield Cell("JPEG", f"{mode} {sampling}", data, as_rgb(values), LOSSY)
        written = cv2.imencode(".jpg", values[:, :, ::-1], [cv2.IMWRITE_JPEG_PROGRESSIVE, 1])[1].tobytes()
        yield Cell("JPEG", f"{mode}, progressive, by OpenCV", written, as_rgb(values), LOSSY)
        deep = slopes(channels).astype(np.uint16) * 16
        data = bytes(imagecodecs.jpeg8_encode(deep.squeeze(), level=95, bitspersample=12))
        yield Cell("JPEG", f"{mode} 12", data, as_rgb(deep), 16 * LOSSY)
        exact = random_values(channels, 8)
        data = bytes(imagecodecs.jpeg8_encode(exact.squeeze(), lossless=True))
        yield Cell("JPEG", f"{mode}, lossless", data, as_rgb(exact))
    data = bytes(imagecodecs.jpeg8_encode(slopes(3), level=95, outcolorspace="rgb"))
    yield Cell("JPEG", "RGB stored as RGB", data, slopes(3), LOSSY)
    inks = slopes(4)
    data = pillow_file(Image.fromarray(inks, "CMYK"), "JPEG", quality=95, subsampling=0)
    yield Cell("JPEG", "CMYK, inverted as Adobe's, by Pillow", data, ink_to_rgb(inks), LOSSY)
    for orientation in range(1, 9):
        image = Image.fromarray(as_stored(slopes(3), orientation))
        data = pillow_file(image, "JPEG", quality=95, subsampling=0, exif=b"Exif\0\0" + exif_of(orientation))
        yield Cell("JPEG", f"RGB, orientation {orientation}", data, slopes(3), LOSSY)
    for name, profile in PROFILES.items():
        data = pillow_file(Image.fromarray(slopes(3)), "JPEG", quality=95, subsampling=0, icc_profile=profile)
        decoded = imagecodecs.jpeg8_decode(data)
        yield Cell("JPEG", f"RGB, {name}", data, to_srgb(decoded, profile), 2 * PROFILED)  # two decoders round too


def jpeg2000_cells() -> Iterator[Cell]:
    for codec in ("jp2", "j2k"):
        for bits in (1, 4, 8, 10, 12, 16):
            for mode, channels in (("grey", 1), ("RGB", 3), ("RGBA", 4)):
                values = random_values(channels, bits)
                data = bytes(
                    imagecodecs.jpeg2k_encode(values.squeeze(), level=0, codecformat=codec, bitspersample=bits)
                )
                if channels == 4 and bits <= 8:
                    shown = over_black(as_rgb(values[:, :, :3], bits), as_rgb(values[:, :, 3:], bits)[:, :, :1])
                else:
                    shown = as_rgb(values[:, :, :3], bits)
                yield Cell("JPEG 2000", f"{mode} {bits}, {codec}", data, shown, 1 if channels == 4 else 0)
        data = bytes(imagecodecs.jpeg2k_encode(slopes(3), level=40, reversible=False, codecformat=codec))
        yield Cell("JPEG 2000", f"RGB 8, lossy, {codec}", data, slopes(3), LOSSY)
    for bits in (8, 16):
        large = np.tile(random_values(3, bits), (4, 4, 1))  # its encoder takes no small ones
        written = cv2.imencode(".jp2", large[:, :, ::-1], [cv2.IMWRITE_JPEG2000_COMPRESSION_X1000, 1000])[1]
        yield Cell("JPEG 2000", f"RGB {bits}, by OpenCV", written.tobytes(), large)


def webp_cells() -> Iterator[Cell]:
    rgb, rgba = random_values(3, 8), random_values(4, 8)
    yield Cell("WebP", "RGB, lossless", bytes(imagecodecs.webp_encode(rgb, lossless=True)), rgb)
    seen = over_black(rgba[:, :, :3], rgba[:, :, 3:])
    yield Cell("WebP", "RGBA, lossless", bytes(imagecodecs.webp_encode(rgba, lossless=True)), seen, 1)
    yield Cell("WebP", "RGB, lossy", bytes(imagecodecs.webp_encode(slopes(3), level=95)), slopes(3), LOSSY)
    soft = slopes(4)
    shown = over_black(soft[:, :, :3], soft[:, :, 3:])
    yield Cell("WebP", "RGBA, lossy", bytes(imagecodecs.webp_encode(soft, level=95)), shown, LOSSY)
    yield Cell("WebP", "RGB, lossless, by OpenCV", cv2.imencode(".webp", rgb[:, :, ::-1], [64, 101])[1].tobytes(), rgb)
    for orientation in range(1, 9):
        data = pillow_file(
            Image.fromarray(as_stored(rgb, orientation)), "WEBP", lossless=True, exif=exif_of(orientation)
        )
        yield Cell("WebP", f"RGB, orientation {orientation}", data, rgb)
    for name, profile in PROFILES.items():
        data = pillow_file(Image.fromarray(rgb), "WEBP", lossless=True, icc_profile=profile)
        yield Cell("WebP", f"RGB, {name}", data, to_srgb(rgb, profile), PROFILED)


def pnm_cells() -> Iterator[Cell]:
    bits = random_values(1, 1)
    shown = as_rgb(1 - bits, 1)
    text = "\n".join(" ".join(map(str, row)) for row in bits[:, :, 0].tolist())
    yield Cell("PNM", "bilevel as text", f"P1\n# a comment\n{WIDTH} {HEIGHT}\n{text}\n".encode(), shown)
    yield Cell("PNM", "bilevel as bytes", f"P4\n{WIDTH} {HEIGHT}\n".encode() + b"".join(packed_rows(bits, 1)), shown)
    for white in (1, 15, 100, 255, 1000, 1023, 4095, 65535):
        for mode, kind, channels in (("grey", 2, 1), ("RGB", 3, 3)):
            values = np.random.default_rng(0).integers(0, white + 1, (HEIGHT, WIDTH, channels))
            most = 255 if white < 256 else white if white in (1023, 4095, 65535) else 65535
            shown = as_rgb(np.rint(values * (most / white)).astype(np.uint8 if most == 255 else np.uint16))
            numbers = "\n".join(" ".join(map(str, row)) for row in values.reshape(HEIGHT, -1).tolist())
            data = f"P{kind}\n{WIDTH} {HEIGHT}\n{white}\n{numbers}\n".encode()
            yield Cell("PNM", f"{mode} to {white}, text", data, shown)
            head = f"P{kind + 3} {WIDTH} {HEIGHT}\n# a comment\n{white}\n".encode()
            data = head + values.astype("u1" if white < 256 else ">u2").tobytes()
            yield Cell("PNM", f"{mode} to {white}, bytes", data, shown)
    for depth in (8, 16):
        rgb = random_values(3, depth)
        yield Cell("PNM", f"RGB {depth}, by OpenCV", cv2.imencode(".ppm", rgb[:, :, ::-1])[1].tobytes(), rgb)


def gif_cells() -> Iterator[Cell]:
    grey = random_values(1, 8)
    yield Cell("GIF", "grey 8, by imagecodecs", bytes(imagecodecs.gif_encode(grey[:, :, 0])), as_rgb(grey))
    for bits in (1, 2, 4, 8):
        index, palette = random_values(1, bits), random_values(3, 8, seed=1).reshape(-1, 3)[: 2**bits]
        image = Image.fromarray(index[:, :, 0], "P")
        image.putpalette(palette.ravel().tolist())
        for interlaced in (0, 1):
            data = pillow_file(image, "GIF", interlace=interlaced, optimize=False)
            yield Cell("GIF", f"palette {bits}, interlaced {interlaced}", data, palette[index[:, :, 0]])
        data = pillow_file(image, "GIF", transparency=1, optimize=False)
        yield Cell(
            "GIF", f"palette+alpha {bits}", data, np.where(index == 1, 0, palette[index[:, :, 0]]).astype(np.uint8)
        )
