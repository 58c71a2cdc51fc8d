"""ShanghaiTech's frames become pictures by camera, every fifth of them."""

import numpy as np
import pytest

from handful.data.layouts.shanghaitech import detect, read
from handful.errors import InputError
from handful.types import Sample


@pytest.fixture
def root(tmp_path):
    for video, frames in (("training/frames/01_001", 7), ("testing/frames/01_0014", 12), ("testing/frames/02_0001", 1)):
        (tmp_path / video).mkdir(parents=True)
        for number in range(frames):
            (tmp_path / video / f"{number:03}.jpg").touch()
    (tmp_path / "testing/test_frame_mask").mkdir()
    np.save(tmp_path / "testing/test_frame_mask/01_0014.npy", np.arange(12) >= 8)
    (tmp_path / "testing/test_pixel_mask/01_0014").mkdir(parents=True)
    (tmp_path / "testing/test_pixel_mask/01_0014/010.png").touch()
    return tmp_path


def test_every_fifth_frame_of_a_camera_is_read_with_its_label_and_mask(root):
    assert detect(root) and not detect(root / "testing")
    dataset = read(root)
    (category,) = dataset.categories
    assert (dataset.layout, category.name) == ("shanghaitech", "01")
    assert category.train == tuple(str(root / f"training/frames/01_001/{number}.jpg") for number in ("000", "005"))
    frames, masks = root / "testing/frames/01_0014", root / "testing/test_pixel_mask/01_0014"
    assert category.test == (
        Sample(str(frames / "000.jpg"), False, "good"),
        Sample(str(frames / "005.jpg"), False, "good"),
        Sample(str(frames / "010.jpg"), True, "anomaly", (str(masks / "010.png"),)),
    )
    assert len(dataset.missing) == 1 and "category 02 must hold good training pictures" in dataset.missing[0]


@pytest.mark.parametrize("damage", ["absent", "text", "short", "pickle"])
def test_a_video_without_usable_labels_is_left_out_and_named(root, damage):
    (root / "training/frames/02_001").mkdir()
    (root / "training/frames/02_001/000.jpg").touch()
    np.save(root / "testing/test_frame_mask/02_0001.npy", np.zeros(1))
    labels = root / "testing/test_frame_mask/01_0014.npy"
    labels.unlink()
    if damage == "text":
        labels.write_text("0 1")
    elif damage != "absent":
        np.save(labels, np.zeros(3) if damage == "short" else np.array([{}] * 12), allow_pickle=True)
    dataset = read(root)
    assert [category.name for category in dataset.categories] == ["02"]
    labels_of_01 = "01: testing/test_frame_mask/01_0014.npy cannot be used, left out"
    assert any(labels_of_01 in said or "category 01" in said for said in dataset.missing)


def test_other_videos_of_the_camera_are_still_read(root):
    (root / "testing/frames/01_0015").mkdir()
    (root / "testing/frames/01_0015/000.jpg").touch()
    np.save(root / "testing/test_frame_mask/01_0015.npy", np.zeros(3))
    dataset = read(root)
    assert len(dataset.categories[0].test) == 3
    assert dataset.missing[0] == (
        "01: testing/test_frame_mask/01_0015.npy cannot be used, left out: it has 3 labels for 1 frames."
    )


def test_a_folder_without_frames_is_refused(tmp_path):
    (tmp_path / "testing/frames").mkdir(parents=True)
    with pytest.raises(InputError, match="must hold a category"):
        read(tmp_path)
