"""Every kind of picture comes to the same upright RGB pixels, and every bad one to a sentence."""

import os
import re
import struct
import warnings
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, features

from handful.data.images import SUFFIXES, digest, gather, list_pictures, read_picture
from handful.data.preprocessing import Preprocessing
from handful.errors import ImageError, InputError

RGB = np.random.default_rng(0).integers(0, 256, (6, 9, 3), dtype=np.uint8)
GREY = RGB[:, :, 0]
DEEP = np.random.default_rng(1).integers(0, 65536, (6, 9), dtype=np.uint16)


def saved_as(path: Path, image: Image.Image, **options) -> Path:
    image.save(path, **options)
    return path


def equal_channels(grey):
    return np.repeat(grey[:, :, None], 3, axis=2)


def assert_refused(source, saying: str) -> None:
    """One sentence, on one line, that names the picture and holds no Python."""
    with pytest.raises(ImageError, match=saying) as refused:
        read_picture(source, name="bolt")
    sentence = str(refused.value)
    name = str(source) if isinstance(source, Path) else "bolt"
    assert sentence.startswith(name)
    assert sentence.endswith(".")
    assert "\n" not in sentence
    assert not re.search(r"<_io|object at 0x|Traceback|\w+Error\b", sentence)


# --- one picture, many kinds


@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {}),
        (".bmp", {}),
        (".tif", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".tiff", {"compression": "tiff_adobe_deflate"}),
        (".webp", {"lossless": True}),
        (".PNG", {"format": "png"}),
    ],
)
def test_lossless_files_give_the_pixels_that_were_saved(tmp_path, suffix, options):
    picture = read_picture(saved_as(tmp_path / f"a{suffix}", Image.fromarray(RGB), **options))
    np.testing.assert_array_equal(picture.pixels, RGB)
    assert picture.size == (9, 6)
    assert picture.name == str(tmp_path / f"a{suffix}")


@pytest.mark.parametrize(
    "source",
    [
        Image.fromarray(RGB),
        RGB,
        np.asfortranarray(RGB),
        RGB[:, ::-1][:, ::-1],
        RGB / 255,
        (RGB / 255).astype(np.float32),
        (RGB / 255).astype(np.float16),
        (RGB / 255).astype(">f4"),
        torch.from_numpy(RGB).permute(2, 0, 1),
        torch.from_numpy(RGB / 255).permute(2, 0, 1).requires_grad_(),
        (torch.from_numpy(RGB).permute(2, 0, 1) / 255).half(),
        torch.from_numpy(RGB).permute(2, 0, 1).to_sparse(),
    ],
    ids=lambda source: f"{type(source).__name__}-{getattr(source, 'dtype', '')}",
)
def test_images_arrays_and_tensors_give_the_same_pixels(source):
    picture = read_picture(source, name="bolt")
    np.testing.assert_array_equal(picture.pixels, RGB)
    assert picture.pixels.dtype == np.uint8
    assert (picture.name, picture.size) == ("bolt", (9, 6))


def test_bfloat16_tensor_is_read():
    # bfloat16 keeps 8 bits of mantissa: a step of 1/256 near 1, so one level of 255.
    pixels = read_picture((torch.from_numpy(RGB).permute(2, 0, 1) / 255).bfloat16()).pixels
    assert abs(pixels.astype(int) - RGB).max() <= 1


def test_path_image_array_and_tensor_score_the_same(fitted, picture_factory, tmp_path):
    pixels = picture_factory(20)
    sources = [
        saved_as(tmp_path / "a.png", Image.fromarray(pixels)),
        Image.fromarray(pixels),
        pixels,
        torch.from_numpy(pixels).permute(2, 0, 1),
    ]
    assert len({inspection.raw_score for inspection in fitted.inspect(sources)}) == 1


def test_reading_changes_no_input():
    array, tensor = (RGB / 255).copy(), torch.from_numpy(RGB.copy()).permute(2, 0, 1)
    image = Image.fromarray(np.dstack([RGB, GREY]))
    for source in (array, tensor, image):
        read_picture(source)
    np.testing.assert_array_equal(array, RGB / 255)
    np.testing.assert_array_equal(tensor.permute(1, 2, 0), RGB)
    assert image.mode == "RGBA"


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
def test_grey_file_equals_its_colour_twin(tmp_path, suffix):
    grey = read_picture(saved_as(tmp_path / f"grey{suffix}", Image.fromarray(GREY)))
    colour = read_picture(saved_as(tmp_path / f"colour{suffix}", Image.fromarray(equal_channels(GREY))))
    np.testing.assert_array_equal(grey.pixels, colour.pixels)


@pytest.mark.parametrize(
    "source",
    [GREY, GREY[:, :, None], torch.from_numpy(GREY), torch.from_numpy(GREY)[None], Image.fromarray(GREY)],
    ids=["hw", "hw1", "tensor-hw", "tensor-1hw", "image"],
)
def test_grey_in_memory_becomes_three_equal_channels(source):
    np.testing.assert_array_equal(read_picture(source).pixels, equal_channels(GREY))


def test_opencv_colours_are_taken_as_they_come():
    assert not np.array_equal(read_picture(RGB[:, :, ::-1]).pixels, RGB)


# --- transparency, palettes, colour spaces


def over_black(colour, opacity):
    """What `opacity` (h, w) in 0..255 leaves of a colour (h, w, 3) on black."""
    return np.round(colour * (opacity[:, :, None] / 255))


def test_transparency_is_laid_over_black_whatever_it_comes_in(tmp_path):
    rgba = np.dstack([RGB, GREY])
    path = saved_as(tmp_path / "a.png", Image.fromarray(rgba))
    tensor = torch.from_numpy(rgba).permute(2, 0, 1)
    pixels = [read_picture(source).pixels for source in (path, Image.fromarray(rgba), rgba, tensor)]
    # Pillow and NumPy may round a half to different sides.
    assert abs(pixels[0] - over_black(RGB, GREY)).max() <= 1
    for other in pixels[1:]:
        np.testing.assert_array_equal(other, pixels[0])


def test_floating_point_transparency_is_laid_over_black():
    rgba = np.dstack([RGB, GREY])
    np.testing.assert_array_equal(read_picture(rgba / 255).pixels, read_picture(rgba).pixels)


def test_deep_transparency_is_laid_over_black():
    rgba = np.full((2, 2, 4), 40000, np.uint16)
    rgba[0, 0, 3] = 0
    rgba[0, 1, 3] = 65535
    pixels = read_picture(rgba).pixels
    assert pixels.dtype == np.uint16
    assert [pixels[0, 0, 0], pixels[0, 1, 0], pixels[1, 1, 0]] == [0, 40000, round(40000 * 40000 / 65535)]


def test_transparent_grey_is_laid_over_black(tmp_path):
    path = saved_as(tmp_path / "a.png", Image.fromarray(np.dstack([GREY, RGB[:, :, 1]])))
    with Image.open(path) as image:
        assert image.mode == "LA"
    expected = over_black(equal_channels(GREY), RGB[:, :, 1])
    assert abs(read_picture(path).pixels - expected).max() <= 1


def test_palette_and_its_transparent_colour(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([10, 20, 30, 200, 100, 50])
    image.putdata([0, 1])
    plain = read_picture(saved_as(tmp_path / "plain.png", image)).pixels
    see_through = read_picture(saved_as(tmp_path / "see-through.png", image, transparency=1)).pixels
    assert plain.tolist() == [[[10, 20, 30], [200, 100, 50]]]
    assert see_through.tolist() == [[[10, 20, 30], [0, 0, 0]]]


def test_transparent_colour_of_an_rgb_file_is_black(tmp_path):
    image = Image.fromarray(np.array([[[9, 8, 7], [200, 100, 50]]], np.uint8))
    path = saved_as(tmp_path / "a.png", image, transparency=(200, 100, 50))
    assert read_picture(path).pixels.tolist() == [[[9, 8, 7], [0, 0, 0]]]


def test_one_bit_is_black_and_white(tmp_path):
    image = Image.fromarray(np.array([[0, 255, 0]], np.uint8)).convert("1")
    for path in (saved_as(tmp_path / "a.png", image), saved_as(tmp_path / "a.tif", image, compression="group4")):
        assert read_picture(path).pixels[0, :, 0].tolist() == [0, 255, 0]


def test_cmyk_becomes_rgb(tmp_path):
    white, black, cyan = (0, 0, 0, 0), (0, 0, 0, 255), (255, 0, 0, 0)
    image = Image.new("CMYK", (3, 1))
    image.putdata([white, black, cyan])
    path = saved_as(tmp_path / "a.tif", image)
    assert read_picture(path).pixels.tolist() == [[[255] * 3, [0] * 3, [0, 255, 255]]]


def test_jpeg_of_inks_is_refused(tmp_path):
    # Some programs store inks inverted and others do not, and the file does not say so.
    assert_refused(saved_as(tmp_path / "a.jpg", Image.new("CMYK", (16, 16))), "must be grey or RGB, got a JPEG of inks")


@pytest.mark.parametrize("mode", ["YCbCr", "LAB", "HSV", "RGBX", "RGBa", "PA"])
def test_rarer_modes_are_read(mode):
    assert read_picture(Image.new(mode, (4, 3))).pixels.shape == (3, 4, 3)


# --- 16 bits


@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".png", {}), (".tif", {}), (".tif", {"compression": "tiff_adobe_deflate"})],
)
def test_deep_grey_file_keeps_its_depth(tmp_path, suffix, options):
    picture = read_picture(saved_as(tmp_path / f"a{suffix}", Image.fromarray(DEEP), **options))
    np.testing.assert_array_equal(picture.pixels, equal_channels(DEEP))
    assert picture.pixels.dtype == np.uint16


def test_big_endian_tiff_equals_its_little_endian_twin(tmp_path):
    big = saved_as(tmp_path / "big.tif", Image.fromarray(DEEP.astype(">u2")))
    assert big.read_bytes().startswith(b"MM")
    np.testing.assert_array_equal(read_picture(big).pixels, equal_channels(DEEP))
    with Image.open(big) as image:
        assert image.mode == "I;16B"
        np.testing.assert_array_equal(read_picture(image).pixels, equal_channels(DEEP))


@pytest.mark.parametrize(
    "source",
    [
        DEEP,
        DEEP.astype(">u2"),
        torch.from_numpy(DEEP),
        torch.from_numpy(DEEP)[None],
        Image.fromarray(DEEP),
        Image.fromarray(DEEP.astype(np.int32)),
    ],
    ids=["array", "big-endian", "tensor", "tensor-1hw", "I;16", "I"],
)
def test_deep_grey_in_memory_keeps_its_depth(source):
    pixels = read_picture(source).pixels
    np.testing.assert_array_equal(pixels, equal_channels(DEEP))
    assert pixels.dtype == np.uint16
    assert pixels.dtype.isnative


def test_deep_colour_keeps_its_depth():
    deep = np.random.default_rng(2).integers(0, 65536, (4, 5, 3), dtype=np.uint16)
    np.testing.assert_array_equal(read_picture(deep).pixels, deep)
    np.testing.assert_array_equal(read_picture(torch.from_numpy(deep).permute(2, 0, 1)).pixels, deep)


@pytest.mark.parametrize("value", [-1, 65536])
def test_values_beyond_16_bits_are_refused(value):
    assert_refused(Image.fromarray(np.full((2, 2), value, np.int32)), "at most 16 bits")


def test_floating_point_file_is_refused(tmp_path):
    assert_refused(saved_as(tmp_path / "a.tif", Image.fromarray(np.ones((2, 2), np.float32))), "floating point")


# --- EXIF

STORED = {  # how EXIF says that an upright picture lies in the file (EXIF 2.32, table 8, tag 0x0112)
    1: lambda upright: upright,
    2: np.fliplr,
    3: lambda upright: np.rot90(upright, 2),
    4: np.flipud,
    5: lambda upright: np.swapaxes(upright, 0, 1),
    6: lambda upright: np.rot90(upright, 1),
    7: lambda upright: np.rot90(np.swapaxes(upright, 0, 1), 2),
    8: lambda upright: np.rot90(upright, -1),
}


def with_orientation(path: Path, upright, orientation: int, **options) -> Path:
    """Save the picture so that a viewer that heeds EXIF shows `upright`."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = Image.fromarray(np.ascontiguousarray(STORED.get(orientation, STORED[1])(upright)))
    return saved_as(path, image, exif=exif, **options)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize(
    ("suffix", "options"),
    [(".png", {}), (".webp", {"lossless": True}), (".tif", {}), (".tif", {"compression": "tiff_lzw"})],
)
def test_every_orientation_gives_the_upright_picture(tmp_path, suffix, options, orientation):
    path = with_orientation(tmp_path / f"a{suffix}", RGB, orientation, **options)
    picture = read_picture(path)
    np.testing.assert_array_equal(picture.pixels, RGB)
    assert picture.size == (9, 6)
    with Image.open(path) as image:
        np.testing.assert_array_equal(read_picture(image).pixels, RGB)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_every_orientation_of_deep_grey_gives_the_upright_picture(tmp_path, suffix, orientation):
    picture = read_picture(with_orientation(tmp_path / f"a{suffix}", DEEP, orientation))
    np.testing.assert_array_equal(picture.pixels, equal_channels(DEEP))
    assert picture.size == (9, 6)


@pytest.mark.parametrize("detail", [None, 20])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_of_a_jpeg_gives_the_upright_picture_and_size(tmp_path, orientation, detail):
    quadrants = np.kron(np.array([[20, 90, 160], [50, 220, 120]], np.uint8), np.ones((64, 64), np.uint8))
    path = with_orientation(tmp_path / "a.jpg", quadrants, orientation, quality=95)
    picture = read_picture(path, detail=detail)
    assert picture.size == (192, 128)
    height, width = picture.pixels.shape[:2]
    assert (width, height) == ((192, 128) if detail is None else (96, 64))
    centres = picture.pixels[height // 4 :: height // 2, width // 6 :: width // 3, 0].astype(int)
    # Centres of flat 64-pixel squares: JPEG moves them by a level or two at quality 95.
    assert abs(centres - [[20, 90, 160], [50, 220, 120]]).max() <= 3


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_impossible_orientation_is_passed_over(tmp_path, orientation):
    np.testing.assert_array_equal(read_picture(with_orientation(tmp_path / "a.png", RGB, orientation)).pixels, RGB)


ENTRY = struct.Struct("<HHII")  # tag, type, count, value
BROKEN_EXIF = {
    "no header": b"Exif\0\0",
    "garbage": b"Exif\0\0garbage",
    "cut in the directory": b"Exif\0\0MM\0*\0\0\0\x08\xff\xff",
    "directory far outside": b"Exif\0\0II*\0\xff\xff\xff\xff",
    "orientation is text": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + ENTRY.pack(0x112, 2, 4, 0x636261) + b"\0" * 4,
    "value far outside": b"Exif\0\0II*\0\x08\0\0\0\x01\0" + ENTRY.pack(0x112, 2, 65535, 0xFFFFFF) + b"\0" * 4,
}


@pytest.mark.parametrize("exif", BROKEN_EXIF.values(), ids=BROKEN_EXIF.keys())
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp"])
def test_broken_exif_leaves_the_picture_as_it_is(tmp_path, suffix, exif):
    path = saved_as(tmp_path / f"a{suffix}", Image.new("RGB", (9, 6), (200, 100, 50)), exif=exif)
    picture = read_picture(path)
    assert picture.size == (9, 6)
    assert abs(picture.pixels.astype(int) - [200, 100, 50]).max() <= 4  # JPEG and WebP round colours


# --- JPEG decoded smaller


def test_large_jpeg_is_decoded_smaller_and_says_its_true_size(tmp_path, picture_factory):
    small = Image.fromarray(picture_factory(0, side=250)).crop((0, 20, 240, 200))
    path = saved_as(tmp_path / "a.jpg", small.resize((4000, 3000), Image.Resampling.BICUBIC), quality=90)
    full, draft = read_picture(path), read_picture(path, detail=320)
    assert full.pixels.shape == (3000, 4000, 3)
    assert draft.pixels.shape == (750, 1000, 3)
    assert draft.size == full.size == (4000, 3000)
    preprocessing = Preprocessing((320, 320))
    difference = abs(preprocessing(draft) - preprocessing(full))
    # libjpeg shrinks by dropping high frequencies, which the resize to 320 drops anyway. What is left is two
    # roundings to 8 bits and the different edges of the two filters: measured 0.2 levels of 255 on average, 2 at most.
    assert difference.mean() < 0.5 / 255
    assert difference.max() < 5 / 255


@pytest.mark.parametrize("size", [(640, 640), (4000, 60), (100, 100)])
def test_jpeg_is_never_decoded_below_twice_the_model_input(tmp_path, size):
    path = saved_as(tmp_path / "a.jpg", Image.new("RGB", size))
    height, width = read_picture(path, detail=320).pixels.shape[:2]
    assert (width, height) == size


# --- odd sizes and names


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1), (2, 3)])
def test_odd_sizes_reach_the_model_input(tmp_path, size):
    picture = read_picture(saved_as(tmp_path / "a.png", Image.new("RGB", size, (255, 51, 0))))
    assert picture.size == size
    frame = Preprocessing((64, 32))(picture)
    assert frame.shape == (3, 64, 32)
    assert frame.max((1, 2)) == pytest.approx([1.0, 0.2, 0.0]) == frame.min((1, 2))


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_odd_sizes_are_inspected(fitted, size):
    noise = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)
    (inspection,) = fitted.inspect(noise)
    assert inspection.verdict in ("DEFECT", "RETAKE")
    assert inspection.size == size
    for region in inspection.regions:
        left, top, width, height = region.box
        assert 0 <= left < left + width <= size[0]
        assert 0 <= top < top + height <= size[1]


@pytest.mark.parametrize(
    "name",
    [
        "two words.png",
        "größe.png",
        "部品.png",
        "🔩.png",
        "line\nbreak.png",
        "'quoted\".png",
        "-dash.png",
        b"caf\xe9.png",
    ],
)
def test_any_file_name_is_listed_and_read(tmp_path, name):
    path = tmp_path / os.fsdecode(name)
    saved_as(path, Image.fromarray(RGB), format="png")
    assert list_pictures(tmp_path, recursive=True) == [path]
    ((source, said),) = gather([path], recursive=True)
    assert said == str(path)
    np.testing.assert_array_equal(read_picture(source).pixels, RGB)


# --- folders


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_every_suffix_is_listed_in_either_case(tmp_path):
    expected = {touch(tmp_path / f"a{suffix}") for suffix in SUFFIXES}
    expected |= {touch(tmp_path / f"b{suffix.upper()}") for suffix in SUFFIXES} | {touch(tmp_path / "c.JpG")}
    for other in ("readme.txt", "part.handful", "png", "a.png.txt"):
        touch(tmp_path / other)
    assert set(list_pictures(tmp_path, recursive=False)) == expected


def test_pictures_are_sorted_by_path(tmp_path):
    for name in ("b.png", "a/z.png", "a.png", "10.png", "2.png", "c/a/1.png"):
        touch(tmp_path / name)
    names = [path.relative_to(tmp_path).as_posix() for path in list_pictures(tmp_path, recursive=True)]
    assert names == ["10.png", "2.png", "a/z.png", "a.png", "b.png", "c/a/1.png"]


def test_subfolders_only_where_asked_for(tmp_path):
    top, inner = touch(tmp_path / "a.png"), touch(tmp_path / "more" / "deeper" / "b.png")
    assert list_pictures(tmp_path, recursive=False) == [top]
    assert list_pictures(tmp_path, recursive=True) == [top, inner]


def test_hidden_files_and_folders_are_passed_over(tmp_path):
    root = tmp_path / ".hidden root"  # being hidden itself does not matter
    seen = touch(root / "a.png")
    for name in (".b.png", "._a.png", ".git/c.png", "more/.thumbnails/d.png"):
        touch(root / name)
    assert list_pictures(root, recursive=True) == [seen]


def test_folder_named_like_a_picture_is_a_folder(tmp_path):
    inner = touch(tmp_path / "folder.png" / "a.png")
    assert list_pictures(tmp_path, recursive=True) == [inner]
    with pytest.raises(InputError, match=r"only the folders folder\.png; name one of them"):
        list_pictures(tmp_path, recursive=False)


def test_looping_links_end(tmp_path):
    picture = touch(tmp_path / "a.png")
    (tmp_path / "around").symlink_to(tmp_path, target_is_directory=True)
    (tmp_path / "self.png").symlink_to(tmp_path / "self.png")
    assert list_pictures(tmp_path, recursive=True) == [picture, tmp_path / "self.png"]
    assert_refused(tmp_path / "self.png", "symbolic links")


def test_link_that_leads_nowhere_is_not_passed_over(tmp_path):
    (tmp_path / "gone.png").symlink_to(tmp_path / "elsewhere.png")
    assert list_pictures(tmp_path, recursive=True) == [tmp_path / "gone.png"]
    assert_refused(tmp_path / "gone.png", "No such file")


def test_linked_picture_and_linked_folder_are_read(tmp_path):
    picture = saved_as(tmp_path / "a.png", Image.fromarray(RGB))
    folder = tmp_path / "folder"
    folder.mkdir()
    (folder / "link.png").symlink_to(picture)
    (tmp_path / "link").symlink_to(folder, target_is_directory=True)
    assert list_pictures(tmp_path / "link", recursive=True) == [tmp_path / "link" / "link.png"]
    np.testing.assert_array_equal(read_picture(tmp_path / "link" / "link.png").pixels, RGB)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes in this system's folders")
def test_pipe_named_like_a_picture_does_not_block(tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    picture = touch(tmp_path / "a.png")
    assert list_pictures(tmp_path, recursive=True) == [picture]


def test_unreadable_subfolder_is_named(tmp_path, monkeypatch):
    touch(tmp_path / "a.png")
    touch(tmp_path / "locked" / "b.png")
    scandir = os.scandir

    def refuse(path):  # the tests may run as root, whom no permission stops
        if Path(path).name == "locked":
            raise PermissionError(13, "Permission denied", str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"The folder .*locked must be readable, got: Permission denied"):
        list_pictures(tmp_path, recursive=True)


@pytest.mark.parametrize("recursive", [False, True])
def test_folder_without_a_picture_is_refused(tmp_path, recursive):
    touch(tmp_path / "readme.txt")
    with pytest.raises(
        InputError, match=r"must hold pictures \(\.bmp .*\), got none, but readme\.txt; check the path\.$"
    ):
        list_pictures(tmp_path, recursive=recursive)


def test_subfolders_without_a_picture_are_not_recommended(tmp_path):
    touch(tmp_path / "more" / "readme.txt")
    with pytest.raises(InputError, match=r"got none, but readme\.txt; check the path\.$"):
        list_pictures(tmp_path, recursive=True)


@pytest.mark.parametrize("name", ["missing", "a.png"])
def test_folder_that_is_none_is_refused(tmp_path, name):
    touch(tmp_path / "a.png")
    with pytest.raises(InputError, match=r"must exist, got .*; check the path\.$"):
        list_pictures(tmp_path / name, recursive=True)


def test_gather_flattens_folders_and_names_pictures_in_memory(tmp_path):
    path, inner = touch(tmp_path / "a.png"), touch(tmp_path / "folder" / "b.png")
    found = gather([RGB, tmp_path / "folder", str(path), Image.fromarray(RGB)], recursive=False)
    assert [name for _, name in found] == ["picture 0", str(inner), str(path), "picture 3"]
    assert found[0][0] is RGB


@pytest.mark.parametrize("source", [RGB, Image.fromarray(RGB), torch.zeros(3, 4, 5)], ids=["array", "image", "tensor"])
def test_gather_takes_one_picture(source):
    assert gather(source, recursive=False) == [(source, "picture 0")]


@pytest.mark.parametrize(
    ("stack", "shapes"),
    [
        (np.zeros((2, 40, 50, 3), np.uint8), [(40, 50, 3)] * 2),
        (np.zeros((5, 40, 50), np.uint8), [(40, 50)] * 5),
        (np.zeros((40, 50, 4), np.uint8), [(40, 50, 4)]),
        (np.zeros((40, 50, 5), np.uint8), [(40, 50, 5)]),  # five channels, which are refused when they are read
        (torch.zeros(2, 3, 40, 50), [(3, 40, 50)] * 2),
        (torch.zeros(5, 40, 50), [(40, 50)] * 5),
        (torch.zeros(3, 40, 50), [(3, 40, 50)]),
    ],
    ids=lambda value: str(getattr(value, "shape", "")),
)
def test_a_stack_is_as_many_pictures_and_an_array_of_channels_one(stack, shapes):
    found = gather(stack, recursive=False)
    assert [tuple(source.shape) for source, _ in found] == shapes
    assert [name for _, name in found] == [f"picture {number}" for number in range(len(shapes))]


@pytest.mark.parametrize(
    "kind", [iter, tuple, lambda given: (one for one in given)], ids=["iter", "tuple", "generator"]
)
def test_gather_takes_any_iterable(kind, tmp_path):
    path = saved_as(tmp_path / "a.png", Image.fromarray(RGB))
    assert [name for _, name in gather(kind([RGB, path]), recursive=False)] == ["picture 0", str(path)]


@pytest.mark.parametrize("nothing", [[], ()])
def test_gather_refuses_no_picture(nothing):
    with pytest.raises(InputError, match=r"At least one picture is needed, got none"):
        gather(nothing, recursive=False)


def test_name_too_long_for_the_file_system_is_a_picture_that_cannot_be_read():
    ((source, _),) = gather("a" * 5000 + ".png", recursive=True)
    assert_refused(source, "File name too long")


# --- what cannot be read


def test_empty_file_is_refused(tmp_path):
    assert_refused(touch(tmp_path / "a.png"), "got an empty file; copy it again")


def test_text_named_png_is_refused(tmp_path):
    path = tmp_path / "a.png"
    path.write_text("not a picture\n")
    assert_refused(path, "no picture format that can be read")


def test_missing_file_and_folder_are_refused(tmp_path):
    assert_refused(tmp_path / "a.png", "No such file or directory; check the path")
    assert_refused(tmp_path, "Is a directory; check the path")


def test_null_character_in_a_path_is_refused():
    assert_refused(Path("a\0.png"), "null")


@pytest.mark.parametrize("share", [0.2, 0.6, 0.95])
@pytest.mark.parametrize(
    ("suffix", "options"),
    [
        (".png", {}),
        (".jpg", {}),
        (".jpg", {"progressive": True}),
        (".bmp", {}),
        (".tif", {}),
        (".tif", {"compression": "tiff_lzw"}),
        (".webp", {}),
        (".gif", {}),
    ],
)
def test_truncated_file_is_refused(tmp_path, picture_factory, suffix, options, share):
    path = saved_as(tmp_path / f"a{suffix}", Image.fromarray(picture_factory(0)), **options)
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    assert_refused(path, "must be a readable picture")


def test_truncated_image_in_memory_is_refused(tmp_path, picture_factory):
    path = saved_as(tmp_path / "a.png", Image.fromarray(picture_factory(0)))
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image:
        assert_refused(image, "truncated")


def png_header_of(width: int, height: int) -> bytes:
    """A PNG that claims a size and holds next to nothing."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 100)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + data


@pytest.mark.parametrize("side", [10_000, 60_000])
def test_decompression_bomb_is_refused(tmp_path, side):
    path = tmp_path / "a.png"
    path.write_bytes(png_header_of(side, side))
    assert_refused(path, f"must have at most 50 million pixels, got {side} x {side}; crop it")


def test_warnings_filter_is_left_as_it_was(tmp_path):
    path = saved_as(tmp_path / "a.png", Image.fromarray(RGB))
    before = warnings.filters[:]
    read_picture(path)
    assert_refused(touch(tmp_path / "empty.png"), "empty")
    assert warnings.filters == before


def test_postscript_named_png_never_reaches_ghostscript(tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 6\n%%EndComments\nshowpage\n")
    with Image.open(path) as image:
        assert image.format == "EPS"  # Pillow alone would take it
    assert_refused(path, "no picture format that can be read")


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((3, 40, 50), np.uint8),
        np.zeros((40, 50, 2), np.uint8),
        np.zeros((1, 40, 50, 3), np.uint8),
        np.zeros(7, np.uint8),
        np.zeros((0, 5, 3), np.uint8),
        torch.zeros(40, 50, 3),
        torch.zeros(1, 3, 40, 50),
    ],
    ids=lambda source: str(tuple(source.shape)),
)
def test_wrong_shape_is_refused_with_the_shape_that_came(source):
    layout = r"\(3, h, w\)" if isinstance(source, torch.Tensor) else r"\(h, w, 3\)"
    assert_refused(source, rf"must have the shape {layout}.*got {re.escape(str(tuple(source.shape)))}\.")


@pytest.mark.parametrize("dtype", [np.bool_, np.int8, np.int32, np.int64, np.uint32, np.complex64, np.object_])
def test_wrong_type_is_refused_with_the_type_that_came(dtype):
    assert_refused(np.zeros((4, 5), dtype), rf"must be uint8, uint16 or floating point, got {np.dtype(dtype)}\.")


@pytest.mark.parametrize(
    ("values", "came"),
    [([0, 255.0], "0 to 255"), ([-0.5, 1], "-0.5 to 1"), ([0, np.nan], "nan to nan"), ([0, np.inf], "0 to inf")],
)
def test_floating_point_beyond_0_to_1_is_refused_with_the_values_that_came(values, came):
    assert_refused(np.array([values]), rf"in \[0, 1\].*got {came}")


@pytest.mark.parametrize("source", [None, 3, {"a": 1}, object()], ids=["None", "int", "dict", "object"])
def test_what_is_no_picture_is_refused(source):
    with pytest.raises(ImageError, match=rf"must be a path.*got {type(source).__name__} for bolt\."):
        read_picture(source, name="bolt")


@pytest.mark.parametrize("mode", ["RGB", "I"])
def test_image_without_a_pixel_is_refused(mode):
    assert_refused(Image.new(mode, (0, 5)), "at least one pixel, got 0 x 5")


# --- digests


def test_digest_tells_pictures_apart_and_same_ones_not(tmp_path):
    path, copy = (saved_as(tmp_path / name, Image.fromarray(RGB)) for name in ("a.png", "b.png"))
    other = saved_as(tmp_path / "c.png", Image.fromarray(255 - RGB))
    digests = [digest(source, read_picture(source)) for source in (path, copy, other)]
    assert digests[0] == digests[1] != digests[2]
    assert digest(RGB, read_picture(RGB)) == digest(Image.fromarray(RGB), read_picture(Image.fromarray(RGB)))
    assert digest(RGB, read_picture(RGB)) != digest(255 - RGB, read_picture(255 - RGB))


def test_formats_that_the_tests_need_are_compiled_in():
    for feature in ("jpg", "zlib", "libtiff", "webp"):
        assert features.check(feature)
