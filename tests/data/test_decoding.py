"""Files as cameras, copiers and attackers leave them: several pictures, previews, halves, bombs; bytes, open files."""

import gc
import io
import resource
import struct
import subprocess
import sys
import threading
import warnings
import zlib
from contextlib import suppress

import numpy as np
import pytest
from PIL import Image, ImageFile, WebPImagePlugin

from handful.data import decoding, pnm
from handful.data.images import digest, find, gather, read_picture
from handful.errors import ImageError, InputError

NOISE = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
LOSSLESS = {"PNG": {}, "BMP": {}, "TIFF": {}, "PPM": {}, "WEBP": {"lossless": True}}


def encoded(pixels, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind, **options)
    return buffer.getvalue()


def refused(source, saying: str, **options) -> str:
    with pytest.raises(ImageError, match=saying) as error:
        read_picture(source, name="bolt", **options)
    return str(error.value)


# --- bytes and open files


@pytest.mark.parametrize("kind", LOSSLESS)
def test_bytes_and_open_files_give_the_pixels_of_the_path(tmp_path, kind):
    data = encoded(NOISE, kind, **LOSSLESS[kind])
    path = tmp_path / "a"
    path.write_bytes(data)
    with path.open("rb") as file:
        sources = [data, bytearray(data), memoryview(data), io.BytesIO(data), file]
        read = [read_picture(source) for source in sources]
    for picture in (*read, read_picture(path)):
        np.testing.assert_array_equal(picture.pixels, NOISE)
    assert read[-1].name == str(path)
    digests = {digest(source, picture) for source, picture in zip(sources, read, strict=True)}
    assert digests == {digest(path, read_picture(path))}


def test_bytes_are_checked_as_files_are():
    data = encoded(NOISE, "PNG")
    refused(data[:2000], "half-copied")
    refused(b"no picture", "no picture format that can be read")
    refused(b"", "must be a picture, got an empty file")
    refused(io.BytesIO(), "empty file")
    refused(io.StringIO("text"), "gives bytes, got str; open it in binary mode")
    refused(data, "at most 0.01 million pixels, got 160 x 120", max_pixels=10_000)


def test_open_file_is_read_from_where_it_stands():
    file = io.BytesIO(b"12345" + encoded(NOISE, "PNG"))
    file.seek(5)
    np.testing.assert_array_equal(read_picture(file).pixels, NOISE)


def test_gather_names_bytes_and_open_files(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(encoded(NOISE, "PNG"))
    data = path.read_bytes()
    with path.open("rb") as file:
        assert [name for _, name in gather([data, file, io.BytesIO(data)], recursive=False)] == [
            "picture 0",
            str(path),
            "picture 2",
        ]
    assert gather(data, recursive=False) == [(data, "picture 0")]


def test_inspector_takes_bytes_and_open_files(fitted, picture_factory):
    data = encoded(picture_factory(20), "PNG")
    scores = {inspection.raw_score for inspection in fitted.inspect([data, io.BytesIO(data), picture_factory(20)])}
    assert len(scores) == 1


def test_image_that_pillow_would_reduce_to_8_bits_is_refused():
    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    head = struct.pack(">IIBBBBB", 2, 1, 16, 2, 0, 0, 0)
    body = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" + bytes(range(12)))) + chunk(b"IEND", b"")
    data = b"\x89PNG\r\n\x1a\n" + body
    refused(Image.open(io.BytesIO(data)), "16 bits of colour that Pillow reduces to 8; give the file's path")
    assert read_picture(data).pixels.tolist() == [[[0x0001, 0x0203, 0x0405], [0x0607, 0x0809, 0x0A0B]]]


# --- several pictures in a file


def pages(kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    first, second = (Image.fromarray(pixels) for pixels in (NOISE, 255 - NOISE))
    first.save(buffer, kind, save_all=True, append_images=[second], **options)
    return buffer.getvalue()


SEVERAL = {"TIFF": {}, "PNG": {}, "WEBP": {"lossless": True}}


@pytest.mark.parametrize("kind", [*SEVERAL, "GIF"])
def test_several_pictures_are_refused_unless_one_is_named(tmp_path, kind):
    path = tmp_path / "a.bin"
    path.write_bytes(pages(kind, **SEVERAL.get(kind, {})))
    refused(path.read_bytes(), "must hold one picture, got several; name one by its number, FILE#1, FILE#2")
    first, second = (read_picture(f"{path}#{number}") for number in (1, 2))
    if kind != "GIF":  # which keeps 256 colours
        np.testing.assert_array_equal(first.pixels, NOISE)
        np.testing.assert_array_equal(second.pixels, 255 - NOISE)
    assert first.name == f"{path}#1"
    assert digest(f"{path}#1", first) != digest(f"{path}#2", second)
    for number in (0, 3):
        with pytest.raises(ImageError, match=f"must hold a picture number {number}, got a file of 2"):
            read_picture(f"{path}#{number}")


def test_file_that_is_called_by_a_number_is_read_whole(tmp_path):
    path = tmp_path / "a.png#2"
    path.write_bytes(encoded(NOISE, "PNG"))
    np.testing.assert_array_equal(read_picture(path).pixels, NOISE)
    (tmp_path / "a.png").write_bytes(encoded(255 - NOISE, "PNG"))
    np.testing.assert_array_equal(read_picture(path).pixels, NOISE)
    with pytest.raises(ImageError, match="No such file"):
        read_picture(tmp_path / "b.png#1")


def test_smaller_copies_and_masks_are_no_pictures_of_their_own():
    tifffile = pytest.importorskip("tifffile")
    buffer = io.BytesIO()
    with tifffile.TiffWriter(buffer) as file:
        file.write(NOISE[::4, ::4], photometric="rgb", subfiletype=1)
        file.write(NOISE, photometric="rgb")
        file.write(NOISE[:, :, 0] > 9, photometric="minisblack", subfiletype=4)
    np.testing.assert_array_equal(read_picture(buffer.getvalue()).pixels, NOISE)


@pytest.mark.parametrize("kind", ["MPO", "twice", "PNM", "PNG"])
def test_pictures_behind_the_first_are_refused(kind):
    jpeg = encoded(NOISE, "JPEG")
    data = {"MPO": lambda: pages("MPO"), "twice": lambda: jpeg * 2}
    data |= {"PNM": lambda: encoded(NOISE, "PPM") * 2, "PNG": lambda: encoded(NOISE, "PNG") * 2}
    refused(data[kind](), "must hold one picture, got")


def test_preview_behind_a_jpeg_is_no_second_picture():
    jpeg = encoded(NOISE, "JPEG")
    both = read_picture(jpeg + encoded(NOISE[::4, ::4].copy(), "JPEG"))
    np.testing.assert_array_equal(both.pixels, read_picture(jpeg).pixels)


def test_stack_behind_one_page_is_refused():
    tifffile = pytest.importorskip("tifffile")
    for options in ({"imagej": True, "truncate": True}, {"truncate": True}):
        buffer = io.BytesIO()
        tifffile.imwrite(buffer, np.stack([NOISE[:, :, 0]] * 3), photometric="minisblack", **options)
        refused(buffer.getvalue(), "got a TIFF file with a stack of them")


def test_raw_camera_files_are_refused():
    tifffile = pytest.importorskip("tifffile")
    with_version, with_preview = io.BytesIO(), io.BytesIO()
    tifffile.imwrite(with_version, NOISE, photometric="rgb", extratags=[(50706, 1, 4, (1, 4, 0, 0), True)])
    with tifffile.TiffWriter(with_preview) as file:
        file.write(NOISE[::4, ::4], photometric="rgb", subfiletype=1, subifds=1)
        file.write(NOISE, photometric="rgb")
    refused(with_version.getvalue(), r"got a raw camera file \(DNG\)")
    refused(with_preview.getvalue(), "got a raw camera file")
    canon = b"II*\0\x10\0\0\0CR\x02\0" + bytes(100)
    refused(canon, r"got a raw camera file \(Canon's CR2\)")


# --- half-copied files

ENCODERS = {
    "JPEG": {"quality": 90},
    "progressive": {"quality": 90, "progressive": True},
    "PNG": {},
    "PNG, stored": {"compress_level": 0},
    "BMP": {},
    "GIF": {},
    "WEBP": {"quality": 80},
    "WEBP, lossless": {"lossless": True},
    "PPM": {},
    "TIFF": {},
    "TIFF, LZW": {"compression": "tiff_lzw"},
    "TIFF, PackBits": {"compression": "packbits"},
    "JPEG2000": {"quality_mode": "rates", "quality_layers": [10]},
}


def half_copied(kind: str, pixels) -> bytes:
    name = "JPEG" if kind == "progressive" else kind.partition(",")[0]
    return encoded(pixels, name, **ENCODERS[kind])


@pytest.mark.parametrize("share", [0.25, 0.5, 0.77, 0.91])
@pytest.mark.parametrize("kind", ENCODERS)
def test_half_copied_file_is_refused_also_where_its_length_was_reserved(picture_factory, kind, share):
    data = half_copied(kind, picture_factory(0, side=200))
    cut = int(share * len(data))
    read_picture(data)
    refused(data[:cut], "must be")
    refused(data[:cut] + bytes(len(data) - cut), "must be a readable picture")


def dark_pictures():
    """Pictures that truly end in black."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[:150, :200]
    disc = np.hypot(y - 75, x - 100) < 60
    turned = Image.new("RGB", (200, 150))
    turned.paste(
        Image.fromarray(random.integers(60, 200, (70, 100, 3), dtype=np.uint8)).rotate(5, expand=True), (30, 10)
    )
    one = np.zeros((150, 200, 3), np.uint8)
    one[0, 0] = 9
    yield from (np.zeros((150, 200, 3), np.uint8), np.full((150, 200, 3), 255, np.uint8), one, np.asarray(turned))
    yield random.poisson(0.3, (150, 200, 3)).astype(np.uint8)
    yield np.where(disc[:, :, None], random.integers(80, 200, (150, 200, 3)), 0).astype(np.uint8)
    yield np.where(y[:, :, None] < 70, random.integers(0, 256, (150, 200, 3)), 0).astype(np.uint8)


@pytest.mark.parametrize("kind", ENCODERS)
def test_black_pictures_are_no_half_copied_ones(kind):
    for pixels in dark_pictures():
        assert read_picture(half_copied(kind, pixels)).size == (200, 150)


# --- bombs

BOMBS = {  # files that claim 9000 x 9000 pixels
    "BMP": b"BM" + struct.pack("<IHHIIiiHHIIiiII", 54, 0, 0, 54, 40, 9000, 9000, 1, 24, 0, 0, 0, 0, 0, 0),
    "GIF": b"GIF89a" + struct.pack("<HHBBB", 9000, 9000, 0, 0, 0) + b",\0\0\0\0\1\0\1\0\0\2\0;",
    "PNM": b"P6 9000 9000 255\n",
    "TIFF": b"II*\0\x08\0\0\0\x02\0" + struct.pack("<HHIIHHII", 256, 4, 1, 9000, 257, 4, 1, 9000) + bytes(4),
    "JPEG 2000": b"\xff\x4f\xff\x51\0\x29\0\0" + struct.pack(">8IH3B", 9000, 9000, 0, 0, 9000, 9000, 0, 0, 1, 7, 1, 1),
    "WebP": b"RIFF\x16\0\0\0WEBPVP8X\x0a\0\0\0\0\0\0\0\x27\x23\0\x27\x23\0",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_size_is_told_from_the_header(kind):
    most = 25 if kind == "WebP" else 50
    refused(BOMBS[kind], f"must have at most {most} million pixels, got 9000 x 9000; crop it")


def test_limit_may_be_raised_and_is_not_pillows(monkeypatch):
    data = encoded(NOISE, "PNG")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 10)
    np.testing.assert_array_equal(read_picture(data).pixels, NOISE)
    refused(data, "at most", max_pixels=160 * 120 - 1)
    read_picture(data, max_pixels=160 * 120)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        *(("PNG", {}), ("BMP", {}), ("GIF", {}), ("PPM", {}), ("JPEG", {}), ("JPEG", {"progressive": True})),
        *(("TIFF", {"compression": name}) for name in (None, "tiff_lzw", "tiff_adobe_deflate", "jpeg")),
        *(("WEBP", {"lossless": lossless}) for lossless in (False, True)),
        *(("JPEG2000", {"no_jp2": codestream}) for codestream in (False, True)),
    ],
)
def test_file_of_any_format_beyond_the_limit_is_refused_undecoded(monkeypatch, kind, options):
    data, cost = encoded(NOISE, kind, **options), 2 if kind == "WEBP" else 1
    assert read_picture(data, max_pixels=cost * 160 * 120).size == (160, 120)

    def decoded(*_, **__):
        raise AssertionError("a pixel was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", decoded)
    monkeypatch.setattr(pnm, "decode", decoded)
    monkeypatch.setattr(WebPImagePlugin, "WebPImageFile", decoded)  # opening one allocates its canvas
    with pytest.raises(ImageError, match="a pixel was decoded"):
        read_picture(data, max_pixels=cost * 160 * 120)
    refused(data, "must have at most .* million pixels, got 160 x 120; crop it", max_pixels=cost * (160 * 120 - 1))


# --- memory


def palette(image: Image.Image) -> Image.Image:
    return image.convert("RGB").quantize(64)


@pytest.mark.parametrize(
    ("make", "options"),
    [
        *((lambda image, mode=mode: image.convert(mode), {}) for mode in ("1", "L", "LA", "RGB", "RGBA")),
        *((palette, options) for options in ({}, {"transparency": 5}, {"transparency": bytes(range(0, 256, 4))})),
    ],
)
def test_picture_that_is_converted_in_strips_is_the_same(monkeypatch, make, options):
    buffer = io.BytesIO()
    opacity = np.random.default_rng(1).integers(0, 256, (120, 160, 1), dtype=np.uint8)
    make(Image.fromarray(np.dstack([NOISE, opacity]))).save(buffer, "PNG", **options)
    whole = read_picture(buffer.getvalue()).pixels
    monkeypatch.setattr(decoding, "_STRIP", 7 * 160 + 1)
    np.testing.assert_array_equal(read_picture(buffer.getvalue()).pixels, whole)


def test_opacity_of_an_array_is_laid_over_black_in_strips(monkeypatch):
    deep = np.random.default_rng(1).integers(0, 65536, (50, 30, 4), dtype=np.uint16)
    whole = read_picture(deep).pixels
    monkeypatch.setattr(decoding, "_STRIP", 7 * 30 + 1)
    np.testing.assert_array_equal(read_picture(deep).pixels, whole)


# A fifth and more above the 8, 9, 16 and 20 that were measured; without strips it was 11, 23, 16 and 56.
@pytest.mark.skipif(sys.platform != "linux", reason="only Linux tells a process's own most memory")
@pytest.mark.parametrize(("channels", "deep", "most"), [(3, False, 10), (4, False, 10), (3, True, 20), (4, True, 28)])
def test_decoding_takes_few_bytes_for_each_pixel(tmp_path, channels, deep, most):
    imagecodecs = pytest.importorskip("imagecodecs")
    pixels = np.full((3000, 3000, channels), 40_000 if deep else 200, np.uint16 if deep else np.uint8)
    path = tmp_path / "a.png"
    path.write_bytes(imagecodecs.png_encode(pixels, level=1))
    program = (
        "import sys\nfrom handful.data.images import read_picture\nfrom PIL import PngImagePlugin\n"
        "said = lambda: dict(line.split(':') for line in open('/proc/self/status'))\n"
        "before = said()['VmRSS']\nread_picture(sys.argv[1])\n"
        "print(1024 * (int(said()['VmHWM'].split()[0]) - int(before.split()[0])))"
    )
    ran = subprocess.run([sys.executable, "-c", program, str(path)], check=True, capture_output=True, text=True)
    assert int(ran.stdout) / 9e6 < most


def test_webp_of_81_million_pixels_costs_neither_time_nor_memory(tmp_path):
    path = tmp_path / "a.webp"
    program = f"from PIL import Image; Image.new('RGB', (9000, 9000)).save({str(path)!r}, lossless=True)"
    subprocess.run([sys.executable, "-c", program], check=True)
    gc.collect()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(path.read_bytes(), "got 9000 x 9000")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 20_000  # kB; its canvas takes 324 MB


# --- the process stays as it is


def test_reading_in_threads_leaves_filters_and_limits_alone():
    files = [encoded(NOISE, kind, **LOSSLESS[kind]) for kind in LOSSLESS] + [b"no picture", BOMBS["PNM"]]
    before = warnings.filters[:], Image.MAX_IMAGE_PIXELS
    seen = []

    def read():
        for data in files * 5:
            with suppress(ImageError):
                read_picture(data)
            seen.append((warnings.filters[:], Image.MAX_IMAGE_PIXELS) == before)

    threads = [threading.Thread(target=read) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(seen) and len(seen) == 4 * 5 * len(files)


def test_no_warning_is_raised_over_broken_exif():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for kind in ("JPEG", "PNG", "WEBP"):
            read_picture(encoded(NOISE, kind, exif=b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"))


# --- what lies beside pictures


def test_find_counts_what_it_leaves_out(tmp_path):
    for name, data in (("a.png", encoded(NOISE, "PNG")), ("b", encoded(NOISE, "BMP")), ("notes.txt", b"BM and more")):
        (tmp_path / name).write_bytes(data)
    found = find(tmp_path, recursive=True)
    assert [name for _, name in found.sources] == [str(tmp_path / "a.png"), str(tmp_path / "b")]
    assert [(one.path, one.reason) for one in found.left_out] == [(str(tmp_path / "notes.txt"), "no picture")]


HEIC = b"\0\0\0\x24ftypheic\0\0\0\0mif1heic" + b"\0" * 100  # how a picture of an iPhone begins


def test_heic_is_refused_with_the_way_to_jpeg(tmp_path):
    refused(HEIC, r"got HEIC or AVIF; save it as JPEG \(an iPhone does so with .*Most Compatible\)\.$")
    refused(HEIC[4:], "no picture format that can be read")
    (tmp_path / "IMG_1.HEIC").write_bytes(HEIC)
    with pytest.raises(InputError, match=r"got none, but IMG_1\.HEIC; save them as JPEG \(an iPhone"):
        find(tmp_path, recursive=True)
    (tmp_path / "a.png").write_bytes(encoded(NOISE, "PNG"))
    (one,) = find(tmp_path, recursive=True).left_out
    assert one.reason == "HEIC or AVIF, which is not read: save it as JPEG"


def test_a_jpeg_2000_file_of_two_sizes_is_refused():
    file = io.BytesIO()
    Image.new("RGB", (48, 32)).save(file, "JPEG2000")
    data = bytearray(file.getvalue())
    place = data.index(b"ihdr") + 4
    assert struct.unpack_from(">2I", data, place) == (32, 48)
    read_picture(bytes(data))
    struct.pack_into(">I", data, place, 0x01000020)  # Pillow would make room for 805 million pixels
    with pytest.raises(ImageError, match=r"must say its size once, got 48 x 16777248 and 48 x 32 pixels"):
        read_picture(bytes(data))
