"""Corruptions do to a picture what they are called, and a task of them is a labelled data set like any other."""

import io

import numpy as np
import pytest
import torch
from PIL import Image

pytest.importorskip("kornia")

from handful.data.corruption import KINDS, SEVERITIES, corrupt, write_task
from handful.data.layouts.registry import open_dataset
from handful.errors import ImageError, InputError, OutputError, SettingError

RANDOM = ("gaussian_noise", "salt_and_pepper", "motion_blur")
CLEAN = ["test/good", "train/good"]


@pytest.fixture
def image(picture_factory):
    return torch.from_numpy(picture_factory(0).transpose(2, 0, 1) / 255).float()


@pytest.fixture
def source(tmp_path, picture_factory):
    """A labelled data set of one category, its test pictures JPEG."""
    folder = tmp_path / "source/disc"
    for seed, name in enumerate(("train/good/a.png", "train/good/b.png", "test/good/c.jpg", "test/good/d.jpg")):
        save(folder / name, picture_factory(seed, side=32))
    save(folder / "test/scratch/e.png", picture_factory(9, side=32, defect=True))
    return folder.parent


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


def load(path):
    return np.asarray(Image.open(path))


def files(folder):
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def plane(*colour, side=96):
    return torch.tensor(colour).view(3, 1, 1).expand(3, side, side).contiguous()


def spread(image):
    """The covariance of where a picture's light is, in pixels² (x, y)."""
    rows, columns = np.indices(image.shape[1:])
    light = image.mean(dim=0).numpy().astype(np.float64)
    return np.cov(np.stack([columns.ravel(), rows.ravel()]), aweights=light.ravel(), ddof=0)


def point(side):
    image = torch.zeros(3, side, side)
    image[:, side // 2, side // 2] = 1
    return image


@pytest.mark.parametrize("kind", KINDS)
def test_severity_5_changes_more_than_severity_1(image, kind):
    mild, strong = (corrupt(image, kind, severity=severity, generator_seed=0) for severity in (1, 5))
    for made in (mild, strong):
        assert made.shape == image.shape
        assert made.dtype == torch.float32
        assert 0 <= made.min() <= made.max() <= 1
    assert 0.002 < (mild - image).abs().mean() < 0.7 * (strong - image).abs().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_grey_picture_stays_grey(image, kind):
    made = corrupt(image[:1].expand(3, -1, -1), kind, severity=5, generator_seed=0)
    assert torch.equal(made, made[:1].expand(3, -1, -1))


@pytest.mark.parametrize("size", [(1, 1), (2, 7), (9, 3)])
@pytest.mark.parametrize("kind", KINDS)
def test_tiny_pictures_keep_their_size(kind, size):
    assert corrupt(torch.full((3, *size), 0.5), kind, severity=5, generator_seed=0).shape == (3, *size)


def test_noise_has_the_published_deviation_in_every_channel_by_itself():
    noise = corrupt(plane(0.4, 0.5, 0.6), "gaussian_noise", severity=1, generator_seed=0) - plane(0.4, 0.5, 0.6)
    # 96² values tell the deviation to 0.08 / √(2·96²), 0.0006; 0.4 lies five deviations from being clipped
    assert noise.flatten(1).std(dim=1).numpy() == pytest.approx(0.08, abs=0.0024)
    assert abs(torch.corrcoef(noise.flatten(1))[0, 1]) < 0.05


def test_salt_and_pepper_share_the_published_amount():
    made = corrupt(plane(0.4, 0.5, 0.6), "salt_and_pepper", severity=5, generator_seed=0)
    # of 3·96² values, so the share is known to 0.0021
    assert (made == 1).float().mean() == pytest.approx(0.135, abs=0.008)
    assert (made == 0).float().mean() == pytest.approx(0.135, abs=0.008)


@pytest.mark.parametrize("side", [112, 224])
def test_blur_widens_a_point_in_proportion_to_the_picture(side):
    covariance = spread(corrupt(point(side), "gaussian_blur", severity=4, generator_seed=0))
    sigma = 4 * side / 224
    # a Gaussian cut off at four deviations loses 0.1 % of its variance
    assert covariance == pytest.approx(sigma**2 * np.eye(2), rel=0.005, abs=1e-3)


@pytest.mark.parametrize("seed", range(5))
def test_motion_blur_draws_a_point_out_into_a_flat_line(seed):
    covariance = spread(corrupt(point(224), "motion_blur", severity=3, generator_seed=seed))
    across, along = np.linalg.eigvalsh(covariance)
    assert along == pytest.approx((17**2 - 1) / 12, rel=0.05)  # whole pixels stand for a slanted line
    assert across < 0.25
    assert covariance[0, 0] >= covariance[1, 1]  # at most 45 degrees from level


def test_motion_blur_keeps_an_even_picture():
    even = plane(0.2, 0.5, 0.8)
    assert torch.allclose(corrupt(even, "motion_blur", severity=5, generator_seed=0), even, atol=1e-5)  # float32 sums


def test_brightness_adds_to_the_brightest_channel_and_keeps_the_hue():
    made = corrupt(plane(0.2, 0.4, 0.1), "brightness", severity=3, generator_seed=0)
    assert torch.allclose(made, plane(0.35, 0.7, 0.175), atol=1e-5)  # float32 through HSV and back


def test_contrast_leaves_a_share_of_the_distance_from_each_channels_mean(image):
    made = corrupt(image, "contrast", severity=2, generator_seed=0)
    mean = image.mean(dim=(1, 2), keepdim=True)
    assert torch.allclose(made - mean, 0.3 * (image - mean), atol=1e-6)


@pytest.mark.parametrize("severity", [1, 3, 5])
def test_jpeg_is_nearer_to_pillows_than_to_the_picture(image, severity):
    made = corrupt(image, "jpeg", severity=severity, generator_seed=0)
    file = io.BytesIO()
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    Image.fromarray(pixels).save(file, "JPEG", quality=int(SEVERITIES["jpeg"][severity - 1]))
    theirs = torch.from_numpy(np.array(Image.open(file)).transpose(2, 0, 1) / 255)
    # its rounding is smooth, so it is not the same; on real pictures the errors' squares differ five times and more
    assert (made - theirs).square().mean() < 0.3 * (theirs - image).square().mean()


@pytest.mark.parametrize("kind", RANDOM)
def test_the_seed_alone_decides_what_is_random(image, kind):
    first = corrupt(image, kind, severity=3, generator_seed=1)
    torch.manual_seed(5)
    before = torch.get_rng_state()
    assert torch.equal(corrupt(image, kind, severity=3, generator_seed=1), first)
    assert torch.equal(torch.get_rng_state(), before)
    assert not torch.equal(corrupt(image, kind, severity=3, generator_seed=2), first)


@pytest.mark.parametrize(
    ("changes", "saying"),
    [
        ({"kind": "fog"}, "gaussian_noise, .* got fog"),
        ({"severity": 0}, "from 1 to 5, got 0"),
        ({"severity": 6}, "from 1 to 5, got 6"),
        ({"generator_seed": -1}, "got -1"),
    ],
)
def test_wrong_settings_are_refused(image, changes, saying):
    settings = {"kind": "jpeg", "severity": 1, "generator_seed": 0} | changes
    with pytest.raises(SettingError, match=saying):
        corrupt(image, **settings)


@pytest.mark.parametrize(
    "wrong", [torch.zeros(1, 4, 4), torch.zeros(3, 4, 0), torch.zeros(3, 4, 4).byte(), torch.full((3, 4, 4), 1.5)]
)
def test_what_is_no_picture_is_refused(wrong):
    with pytest.raises(InputError, match="A picture must"):
        corrupt(wrong, "jpeg", severity=1, generator_seed=0)


def test_a_task_holds_clean_pictures_and_the_same_corrupted(source, tmp_path):
    dataset = write_task(source, tmp_path / "task", kinds=["jpeg", "contrast"], severity=2, seed=0)
    (category,) = dataset.categories
    assert dataset == open_dataset(tmp_path / "task")
    assert category.name == "disc"
    assert files(tmp_path / "task/disc") == [
        *(f"test/{kind}/{name}.png" for kind in ("contrast", "good", "jpeg") for name in "cd"),
        "train/good/a.png",
        "train/good/b.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in (tmp_path / "task/disc").rglob("*.*"))
    for name, original in (("train/good/a", "train/good/a.png"), ("test/good/c", "test/good/c.jpg")):
        assert np.array_equal(load(tmp_path / f"task/disc/{name}.png"), load(source / "disc" / original))
    clean, flat = (load(tmp_path / f"task/disc/test/{kind}/c.png").astype(float) for kind in ("good", "contrast"))
    mean = clean.mean(axis=(0, 1))
    assert flat == pytest.approx(mean + 0.3 * (clean - mean), abs=0.5001)  # rounded to whole grey values


@pytest.mark.parametrize("kinds", [["gaussian_noise"], ["motion_blur", "gaussian_noise"]])
def test_neither_other_pictures_nor_other_kinds_change_a_corrupted_picture(source, tmp_path, kinds, picture_factory):
    write_task(source, tmp_path / "one", kinds=["gaussian_noise"], severity=3, seed=0)
    save(source / "disc/test/good/a_first.png", picture_factory(7, side=32))
    write_task(source, tmp_path / "two", kinds=kinds, severity=3, seed=0)
    write_task(source, tmp_path / "three", kinds=kinds, severity=3, seed=1)
    one, two, three = (load(tmp_path / task / "disc/test/gaussian_noise/d.png") for task in ("one", "two", "three"))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, three)


def test_every_picture_has_noise_of_its_own(source, tmp_path):
    for name in "cd":
        Image.new("RGB", (32, 32), (90, 120, 150)).save(source / f"disc/test/good/{name}.jpg")
    write_task(source, tmp_path / "task", kinds=["gaussian_noise"], severity=3, seed=0)
    c, d = (load(tmp_path / f"task/disc/test/gaussian_noise/{name}.png") for name in "cd")
    assert not np.array_equal(c, d)


def test_a_folder_of_pictures_is_split_in_two(good_folder, tmp_path):
    dataset = write_task(good_folder, tmp_path / "task", kinds=["jpeg"], severity=1, seed=0)
    assert [category.name for category in dataset.categories] == ["good"]
    assert files(tmp_path / "task/good") == [
        *(f"test/{kind}/{number}.png" for kind in ("good", "jpeg") for number in (1, 3)),
        *(f"train/good/{number}.png" for number in (0, 2)),
    ]


def test_class_folders_are_categories(tmp_path, picture_factory):
    for name in ("nuts/1.png", "nuts/2.png", "bolts/1.png", "bolts/2.bmp", "bolts/3.png"):
        save(tmp_path / "classes" / name, picture_factory(0, side=16))
    dataset = write_task(tmp_path / "classes", tmp_path / "task", kinds=["contrast"], severity=1, seed=0)
    counts = {category.name: (len(category.train), len(category.test)) for category in dataset.categories}
    assert counts == {"bolts": (2, 2), "nuts": (1, 2)}


def test_equal_names_in_two_formats_stay_two_pictures(tmp_path, picture_factory):
    for seed, name in enumerate(("a.bmp", "a.png", "A.tif", "b.png")):
        save(tmp_path / "mixed" / name, picture_factory(seed, side=16))
    (category,) = write_task(
        tmp_path / "mixed", tmp_path / "task", kinds=["jpeg"], severity=1, seed=0
    ).categories  # sorted A.tif a.bmp a.png b.png
    assert files(tmp_path / "task/mixed/train") == ["good/000_A.png", "good/001_a.png"]
    assert len(category.test) == 4


def test_sixteen_bits_are_scaled_to_eight(tmp_path):
    for number in range(2):
        save(tmp_path / f"deep/{number}.png", np.array([[0, 255, 32767, 65535]], np.uint16))
    write_task(tmp_path / "deep", tmp_path / "task", kinds=["contrast"], severity=1, seed=0)
    assert load(tmp_path / "task/deep/train/good/0.png")[0, :, 0].tolist() == [0, 1, 127, 255]


def test_a_folder_that_is_not_empty_is_left_alone(source, tmp_path):
    out = tmp_path / "task"
    out.mkdir()
    write_task(source, out, kinds=["jpeg"], severity=1, seed=0)
    before = files(tmp_path)
    with pytest.raises(OutputError, match=r"must be new, or an empty folder, got a folder that is not empty"):
        write_task(source, out, kinds=["jpeg"], severity=2, seed=0)
    assert files(tmp_path) == before


@pytest.mark.parametrize(
    ("kinds", "severity", "saying"), [([], 1, "got none"), (["jpeg", "fog"], 1, "got fog"), (["jpeg"], 7, "got 7")]
)
def test_wrong_settings_of_a_task_are_refused_before_anything_is_written(source, tmp_path, kinds, severity, saying):
    with pytest.raises(SettingError, match=saying):
        write_task(source, tmp_path / "task", kinds=kinds, severity=severity, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_nothing_is_left_behind_by_a_broken_picture(source, tmp_path):
    (source / "disc/test/good/d.jpg").write_bytes(b"no picture")
    with pytest.raises(ImageError, match=r"d\.jpg"):
        write_task(source, tmp_path / "task", kinds=["jpeg"], severity=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]


def test_a_folder_that_cannot_be_made_is_said(source, tmp_path):
    with pytest.raises(OutputError, match="must be writable, got: No such file"):
        write_task(source, tmp_path / "absent/task", kinds=["jpeg"], severity=1, seed=0)


def test_a_category_without_good_test_pictures_is_refused(source, tmp_path):
    for name in "cd":
        (source / f"disc/test/good/{name}.jpg").unlink()
    with pytest.raises(InputError, match="disc .* got none for testing"):
        write_task(source, tmp_path / "task", kinds=["jpeg"], severity=1, seed=0)


def test_a_source_that_holds_nothing_or_two_things_is_refused(tmp_path, good_folder, picture_factory):
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="got neither"):
        write_task(tmp_path / "empty", tmp_path / "task", kinds=["jpeg"], severity=1, seed=0)
    save(good_folder / "thumbnails/1.png", picture_factory(0, side=8))
    with pytest.raises(InputError, match="got both pictures and the folders thumbnails"):
        write_task(good_folder, tmp_path / "task", kinds=["jpeg"], severity=1, seed=0)
    with pytest.raises(InputError, match="must exist"):
        write_task(tmp_path / "absent", tmp_path / "task", kinds=["jpeg"], severity=1, seed=0)


def test_a_category_cannot_lead_out_of_the_folder(source, tmp_path):
    rows = ("train/good/a.png,good,train", "test/good/c.jpg,good,test")
    lines = ["path,label,split,category", *(f"disc/{row},../../x" for row in rows)]
    (source / "manifest.csv").write_text("\n".join(lines))
    with pytest.raises(InputError, match=r"must serve as a folder's, got '../../x'"):
        write_task(source / "manifest.csv", tmp_path / "task", kinds=["jpeg"], severity=1, seed=0)
    assert [path.name for path in tmp_path.iterdir()] == ["source"]
