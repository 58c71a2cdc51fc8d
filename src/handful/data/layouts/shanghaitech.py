"""ShanghaiTech Campus as single pictures: every fifth frame of its videos, a category for each camera.

training/frames/CAMERA_VIDEO and testing/frames/CAMERA_VIDEO hold the frames of a video, testing/test_frame_mask/
CAMERA_VIDEO.npy the labels of its frames, and testing/test_pixel_mask/CAMERA_VIDEO the masks as pictures named like the
frames (the mask arrays of the published data set are not read). Source: Liu et al., Future Frame Prediction for Anomaly
Detection, CVPR 2018. Cameras as categories and every fifth frame follow ResAD (Yao et al., NeurIPS 2024). Departure:
ResAD draws references from the good frames of testing; here references come from training, so that no reference is
tested on.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from handful.data.layouts.tree import Reading, assemble, by_stem, mask_of, pictures, read_all, subfolders
from handful.types import Dataset, Sample

STEP = 5  # frames


def detect(root: Path) -> bool:
    """Whether there is testing/frames."""
    return (root / "testing" / "frames").is_dir()


def read(root: Path) -> Dataset:
    """Read every camera with frames for training and testing; raises InputError without such a camera."""
    cameras = sorted({video.name.split("_")[0] for video in subfolders(root / "testing" / "frames")})
    return read_all("shanghaitech", root, cameras, lambda camera: _read_one(root, camera))


def _read_one(root: Path, camera: str) -> Reading:
    train = [frame for video in _videos(root / "training", camera) for frame in pictures(video)[::STEP]]
    samples, missing = [], []
    for video in _videos(root / "testing", camera):
        frames, masks = pictures(video), by_stem(root / "testing" / "test_pixel_mask" / video.name)
        try:
            labels = _labels(root / "testing" / "test_frame_mask" / f"{video.name}.npy", len(frames))
        except (OSError, ValueError) as error:
            missing.append(f"{camera}: testing/test_frame_mask/{video.name}.npy cannot be used, left out: {error}.")
            continue
        for frame, anomalous in list(zip(frames, labels, strict=True))[::STEP]:
            samples.append(
                Sample(str(frame), True, "anomaly", mask_of(frame, masks))
                if anomalous
                else Sample(str(frame), False, "good")
            )
    return assemble(camera, train, samples, root=root, missing=missing)


def _videos(half: Path, camera: str) -> list[Path]:
    return [video for video in subfolders(half / "frames") if video.name.split("_")[0] == camera]


def _labels(path: Path, frames: int) -> NDArray[np.bool_]:
    """Whether each frame is anomalous: (frames,); raises OSError or ValueError for a file that does not fit."""
    with path.open("rb") as file:
        labels: NDArray[np.bool_] = np.lib.format.read_array(file, allow_pickle=False).ravel() != 0
    if len(labels) != frames:
        raise ValueError(f"it has {len(labels)} labels for {frames} frames")
    return labels
