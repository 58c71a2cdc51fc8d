"""Pixels land whole in the model-input frame, whatever their depth, size and aspect."""

import numpy as np
import pytest
from PIL import Image

from handful.data.depths import bits_of
from handful.data.images import read_picture
from handful.data.preprocessing import Preprocessing
from handful.data.thumbnails import thumbnail

SMOOTH = np.linspace(0, 255, 40 * 50, dtype=np.uint8).reshape(40, 50)[:, :, None].repeat(3, axis=2)


def deep(values) -> np.ndarray:
    return np.asarray(values, np.uint16)


def test_frame_is_channels_height_width_in_0_to_1():
    frame = Preprocessing((64, 32))(read_picture(SMOOTH))
    assert frame.shape == (3, 64, 32)
    assert frame.dtype == np.float32 and frame.flags.c_contiguous
    assert frame.min() >= 0
    assert frame.max() <= 1


def test_picture_of_the_frames_size_keeps_its_values():
    pixels = np.random.default_rng(0).integers(0, 256, (32, 48, 3), dtype=np.uint8)
    frame = Preprocessing((32, 48))(read_picture(pixels))
    np.testing.assert_allclose(frame, pixels.transpose(2, 0, 1) / 255, rtol=1e-6)


def test_deep_picture_of_the_frames_size_keeps_its_values():
    pixels = np.random.default_rng(0).integers(0, 4096, (32, 48, 3)).astype(np.uint16)
    frame = Preprocessing((32, 48), bits=12)(read_picture(pixels))
    np.testing.assert_allclose(frame, pixels.transpose(2, 0, 1) / 4095, rtol=1e-6)


def test_nothing_is_cropped_away():
    pixels = np.zeros((300, 100, 3), np.uint8)
    pixels[:30, :10, 0] = pixels[-30:, -10:, 1] = 255  # marks in opposite corners
    frame = Preprocessing((60, 60))(read_picture(pixels))
    assert frame[0, :4, :4].min() > 0.9
    assert frame[1, -4:, -4:].min() > 0.9
    assert frame[0, 30:].max() == frame[1, :30].max() == 0


def test_shrinking_averages_instead_of_picking():
    stripes = np.zeros((640, 640, 3), np.uint8)
    stripes[:, ::2] = 255
    frame = Preprocessing((64, 64))(read_picture(stripes))
    assert abs(frame - 0.5).max() < 0.02  # all grey, but for the rounding to 8 bits and the borders


@pytest.mark.parametrize("size", [(40, 50), (64, 64), (20, 90)])
def test_deep_picture_comes_close_to_its_8_bit_twin(size):
    shallow = Preprocessing(size)(read_picture(SMOOTH))
    twin = Preprocessing(size, bits=16)(read_picture(SMOOTH.astype(np.uint16) * 257))
    # 8-bit pictures are rounded to 8 bits by each of the two passes of the resize.
    assert abs(shallow - twin).max() <= 1 / 255


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_12_bits_in_a_16_bit_file_use_the_whole_range(tmp_path, suffix):
    path = tmp_path / f"a{suffix}"
    Image.fromarray(np.linspace(0, 4095, 64 * 64).astype(np.uint16).reshape(64, 64)).save(path)
    picture = read_picture(path)
    frame = Preprocessing((64, 64), bits_of([picture]))(picture)
    assert frame.min() == 0
    assert frame.max() == 1
    dark = Preprocessing((64, 64))(picture)
    assert dark.max() == pytest.approx(4095 / 65535)


def test_pixel_beyond_the_references_depth_counts_as_white_and_no_more():
    scene = np.full((64, 64), 2000, np.uint16)
    scene[10, 10] = 60_000
    white = np.where(scene > 4095, 4095, scene).astype(np.uint16)
    frames = [Preprocessing((32, 32), bits=12, bright=0.5)(read_picture(pixels)) for pixels in (scene, white)]
    np.testing.assert_array_equal(*frames)


def test_8_bit_picture_is_scaled_by_255_whatever_the_references_depth():
    picture = read_picture(SMOOTH)
    np.testing.assert_array_equal(Preprocessing((32, 32), bits=12)(picture), Preprocessing((32, 32))(picture))


@pytest.mark.parametrize(
    ("highest", "bits"),
    [(0, 10), (1023, 10), (1024, 12), (4095, 12), (4096, 14), (16383, 14), (16384, 16), (65535, 16)],
)
def test_bits_are_the_fewest_that_hold_the_highest_pixel(highest, bits):
    assert bits_of([read_picture(deep([[0, highest]]))]) == bits


def test_bits_of_several_hold_all_of_them_and_pass_over_8_bits():
    pictures = [read_picture(source) for source in (SMOOTH, deep([[900]]), deep([[2000]]))]
    assert bits_of(pictures) == 12
    assert bits_of([read_picture(SMOOTH)]) == 8


# --- depth is what most pixels say


def scene(bits: int, *, seed: int = 0, share: float = 0.8, side: int = 100) -> np.ndarray:
    """A grey scene whose bright pixels reach a share of a depth, in 16-bit values."""
    grey = np.random.default_rng(seed).uniform(0.1, 1, (side, side))
    return np.rint(grey * share * (2**bits - 1)).astype(np.uint16)


def stamped(pixels, rows: int, value: int = 65535) -> np.ndarray:
    made = pixels.copy()
    made[0, :rows] = value
    return made


@pytest.mark.parametrize("bits", [10, 12, 14])
@pytest.mark.parametrize("count", [1, 8, 50])  # 50 of 10,000 pixels are the 0.5 % that do not count
def test_stamped_counter_leaves_the_depth_as_it_is(bits, count):
    pictures = [read_picture(scene(bits, seed=seed)) for seed in range(3)]
    marked = read_picture(stamped(scene(bits, seed=3), count))
    assert bits_of([*pictures, marked]) == bits_of([marked]) == bits


def test_hot_pixel_in_a_reference_changes_neither_frame_nor_thumbnail_by_more_than_itself():
    clean, hot = read_picture(scene(10)), read_picture(stamped(scene(10), 1))
    learnt = Preprocessing.learnt((100, 100), [hot])
    assert learnt.bits == 10
    assert learnt.bright == pytest.approx(Preprocessing.learnt((100, 100), [clean]).bright, rel=0.01)
    changed = (learnt(clean) != learnt(hot)).any(axis=0)
    assert changed.sum() == 1
    small = [thumbnail(picture, longest=100).astype(int) for picture in (clean, hot)]
    assert (abs(small[0] - small[1]).max(axis=2) > 1).sum() <= 1  # the brightest pixels that count moved by one place


def test_picture_of_another_camera_does_not_decide_for_the_references():
    pictures = [read_picture(scene(10, seed=seed)) for seed in range(3)] + [read_picture(scene(16, seed=3))]
    learnt = Preprocessing.learnt((64, 64), pictures)
    assert learnt.bits == 10
    means = [learnt(picture).mean() for picture in pictures]
    assert max(means) < 1.05 * min(means)  # the odd one is scaled by its own depth


@pytest.mark.parametrize("learnt_from", [8, 10, 12, 16])
@pytest.mark.parametrize("shown", [8, 10, 12, 16])
@pytest.mark.parametrize("share", [0.3, 0.8])  # a dark scene and a bright one
def test_picture_of_any_depth_looks_as_the_references_do_and_is_told(learnt_from, shown, share):
    def of_depth(bits, seed):
        pixels = scene(bits, seed=seed, share=share)
        return read_picture(pixels.astype(np.uint8) if bits == 8 else pixels, name="bolt")

    references = [of_depth(learnt_from, seed) for seed in range(4)]
    learnt, picture = Preprocessing.learnt((50, 50), references), of_depth(shown, 9)
    # 8 bits are rounded to 8 bits after each pass of the resize, and hold the scene more coarsely.
    assert learnt(picture).mean() == pytest.approx(learnt(references[0]).mean(), rel=0.03)
    note = learnt.note(picture)
    if shown == learnt_from:
        assert note is None
    else:
        assert f"bolt holds values of {shown} bits where the references have {learnt_from}" in note


@pytest.mark.parametrize("light", [0.45, 0.6, 1.2, 2.0])
@pytest.mark.parametrize("bits", [10, 12])
def test_darker_or_brighter_picture_of_the_same_camera_stays_so(bits, light):
    learnt = Preprocessing.learnt((50, 50), [read_picture(scene(bits, share=0.45))])
    picture = read_picture(scene(bits, seed=1, share=0.45 * light))
    assert learnt.depth_of(picture) == bits
    assert learnt.note(picture) is None


def test_picture_that_no_depth_makes_as_bright_stays_dark():
    learnt = Preprocessing.learnt((50, 50), [read_picture(scene(12))])
    assert learnt.depth_of(read_picture(scene(12, share=0.08))) == 12
    assert learnt(read_picture(np.zeros((50, 50), np.uint16))).max() == 0


def test_depth_that_a_file_states_goes_before_its_pixels():
    data = b"P5 64 64 1023\n" + scene(10, share=0.1, side=64).astype(">u2").tobytes()
    picture = read_picture(data)
    assert picture.bits == 10
    assert bits_of([picture]) == 10
    assert Preprocessing((32, 32), bits=16, bright=0.5).depth_of(picture) == 10


@pytest.mark.parametrize(
    ("shape", "expected"),
    [((400, 200), (256, 128)), ((200, 400), (128, 256)), ((50, 20), (50, 20)), ((5000, 1), (256, 1))],
)
def test_thumbnail_keeps_the_aspect_and_never_enlarges(shape, expected):
    small = thumbnail(read_picture(np.full((*shape, 3), 90, np.uint8)), longest=256)
    assert small.shape == (*expected, 3)
    assert small.dtype == np.uint8
    assert small.min() == small.max() == 90


def test_thumbnail_stretches_a_deep_picture_to_be_seen():
    small = thumbnail(read_picture(deep([[100, 200], [300, 300]])), longest=256)
    assert small[:, :, 0].tolist() == [[0, 127], [255, 255]]


def test_thumbnail_of_a_flat_deep_picture_is_black():
    assert thumbnail(read_picture(deep([[500, 500]])), longest=256).max() == 0


# --- the aspect is kept


@pytest.mark.parametrize("shape", [(40, 40), (64, 64), (300, 300), (300, 310)])
@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_picture_of_the_frames_shape_is_the_same_to_the_bit(shape, depth):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3)).astype(depth)
    kept, squeezed = (Preprocessing((64, 64), keeps_aspect=kept)(read_picture(pixels)) for kept in (True, False))
    np.testing.assert_array_equal(kept, squeezed)


@pytest.mark.parametrize("depth", [np.uint8, np.uint16])
def test_a_picture_of_another_shape_lies_undistorted_in_the_middle_mirrored_around(depth):
    y, x = np.mgrid[:60, :180]
    pixels = (200 * (np.hypot(x - 90, y - 30) < 25))[:, :, None].repeat(3, 2).astype(depth)
    preprocessing = Preprocessing((96, 96), bits=10, keeps_aspect=True)
    picture = read_picture(pixels)
    frame = preprocessing(picture)
    part = preprocessing.placement(picture.size)
    assert frame.shape == (3, 96, 96) and frame.dtype == np.float32 and frame.flags.c_contiguous
    assert (part.top, part.left, part.size) == (32, 0, (32, 96))
    disc = frame[0, 32:64] > frame.max() / 2
    assert abs(int(disc.any(0).sum()) - int(disc.any(1).sum())) <= 1  # as wide as high
    np.testing.assert_array_equal(frame[:, :32], frame[:, 32:64][:, ::-1])
    np.testing.assert_array_equal(frame[:, 64:], frame[:, 32:64][:, ::-1])


def test_a_note_says_which_pictures_are_of_another_shape():
    preprocessing = Preprocessing((96, 96), keeps_aspect=True)
    long, square = (read_picture(np.zeros((30, width, 3), np.uint8), name="a.png") for width in (90, 31))
    assert preprocessing.notes(square) == () == Preprocessing((96, 96)).notes(long)
    (note,) = preprocessing.notes(long)
    assert note.startswith("a.png has 90 x 30 pixels, another shape than the input's 96 x 96;")
    assert preprocessing.aspect(square) == 31 / 30 and preprocessing.aspect(long) == 1


def test_jpegs_are_decoded_for_the_side_that_the_frame_was_chosen_by():
    assert Preprocessing((480, 192), side=320).detail == 320
    assert Preprocessing((480, 192)).detail == 480


@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
@pytest.mark.parametrize("size", [(300, 200), (128, 96), (200, 200)])  # width, height: larger, as it is, another shape
def test_in_the_frame_of_tiles_a_picture_has_the_values_of_an_input_of_that_size(kind, size):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3)).astype(kind) * (
        1 if kind == np.uint8 else 257
    )
    picture = read_picture(pixels)
    tiled = Preprocessing((96, 96), keeps_aspect=True, fine=(96, 128))
    fine = tiled.in_detail(picture)
    assert fine.dtype == (np.uint8 if kind == np.uint8 else np.float32)
    whole = fine / np.float32(255) if kind == np.uint8 else fine
    assert np.array_equal(whole, Preprocessing((96, 128), keeps_aspect=True)(picture))
    cut = list(tiled.inputs(fine))
    assert len(cut) == len(tiled.tiles) == 2 and all(one.shape == (3, 96, 96) for one in cut)
    assert np.array_equal(cut[1], whole[:, :, 32:]) and cut[1].flags.c_contiguous


def test_without_tiles_there_is_no_frame_of_tiles():
    plain = Preprocessing((96, 96))
    assert plain.tiles is None
    with pytest.raises(ValueError, match="must have tiles"):
        plain.in_detail(read_picture(SMOOTH))
