"""Corruption tasks: clean pictures are normal, the same pictures corrupted are anomalous.

The idea: Liao et al., COFT-AD: COntrastive Fine-Tuning for Few-Shot Anomaly Detection, IEEE Transactions on Image
Processing 33, 2024, https://arxiv.org/abs/2402.18998, its controlled tasks. The corruptions and their five severities:
Hendrycks and Dietterich, Benchmarking Neural Network Robustness to Common Corruptions and Perturbations, ICLR 2019,
https://arxiv.org/abs/1903.12261, with the authors' numbers (GitHub hendrycks/robustness, commit 20caed9). Departures:

- Their pictures are 224 pixels wide. The lengths of both blurs grow with the shorter side; noise and JPEG's blocks stay
  as they are by pixel, so that a large picture that is inspected smaller shows less of them.
- Motion blur is a straight, even line (kornia's kernel). Theirs fades along half a Gaussian (ImageMagick); our lengths
  have the same standard deviation along the line as theirs at each severity.
- JPEG is kornia's codec, whose rounding is smooth; theirs is Pillow's. On six development pictures the two differ by 38
  to 53 dB PSNR, 5 to 16 dB less than Pillow's differs from the picture, and kornia's keeps up to 2 dB more of it.
- On a picture whose channels are equal, noise and JPEG are grey: colour alone would give them away.
"""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from handful.data.layouts import tree
from handful.data.layouts.registry import LAYOUTS, open_dataset
from handful.data.progress import Track, quietly
from handful.data.writing import (
    Planned,
    depth_of,
    new_folder,
    plan,
    read_eight_bits,
    seed_of,
    write_png,
)
from handful.errors import InputError, SettingError, needing
from handful.types import Dataset

with needing("Corrupting pictures", "corrupt"):
    import kornia

SEVERITIES: Mapping[str, tuple[float, ...]] = {
    "gaussian_noise": (0.08, 0.12, 0.18, 0.26, 0.38),  # standard deviation, the range of a pixel being 1
    "salt_and_pepper": (0.03, 0.06, 0.09, 0.17, 0.27),  # share of values, half of them white and half black
    "gaussian_blur": (1, 2, 3, 4, 6),  # standard deviation in pixels at `SIDE`
    "motion_blur": (7, 11, 17, 24, 30),  # length in pixels at `SIDE`
    "brightness": (0.1, 0.2, 0.3, 0.4, 0.5),  # added to HSV's value
    "contrast": (0.4, 0.3, 0.2, 0.1, 0.05),  # of the distance from each channel's mean, what is left
    "jpeg": (25, 18, 15, 10, 7),  # quality
}
KINDS = tuple(SEVERITIES)
SIDE = 224  # pixels of the shorter side that lengths are meant for
ANGLES = (-45.0, 45.0)  # degrees that motion blur is drawn from


def corrupt(image: Tensor, kind: str, *, severity: int, generator_seed: int) -> Tensor:
    """Corrupt one picture: (3, H, W) float32 in [0, 1] → the same.

    Equal arguments give equal pictures; torch's own generator is neither used nor moved.

    Args:
        image: any H and W.
        kind: one of `KINDS`.
        severity: 1 (mild) to 5.
        generator_seed: of the noise and of the motion's angle.

    Raises:
        SettingError: for an unknown kind, another severity, or a seed that does not fit 63 bits.
        InputError: if the picture is not (3, H, W) floating point in [0, 1].
    """
    _check([kind], severity)
    if not 0 <= generator_seed < 2**63:
        raise SettingError(f"`generator_seed` must be from 0 to 2**63 - 1, got {generator_seed}.")
    if image.ndim != 3 or len(image) != 3 or not image.is_floating_point() or 0 in image.shape:
        raise InputError(f"A picture must be (3, H, W) floating point, got {tuple(image.shape)} {image.dtype}.")
    if not (image.min() >= 0 and image.max() <= 1):  # NaN is neither
        raise InputError(f"A picture must lie in [0, 1], got {image.min():.4g} to {image.max():.4g}; scale it.")
    generator = torch.Generator().manual_seed(generator_seed)
    made = _CORRUPTIONS[kind](image, SEVERITIES[kind][severity - 1], generator)
    return made.clamp(0, 1)


def write_task(
    source: Path,
    out: Path,
    *,
    kinds: Sequence[str],
    severity: int,
    seed: int,
    layout: str = "auto",
    track: Track = quietly,
) -> Dataset:
    """Write a labelled data set of clean and corrupted pictures, and read it back.

    OUT/CATEGORY/train/good holds the good training pictures, test/good the good test pictures, and test/KIND these
    corrupted; defects of the source are left out. All are written as 8-bit PNG from the same 8-bit pixels, so that the
    file does not give a corruption away; 16-bit pictures are scaled by their depth. A whole picture is corrupted, so
    there are no masks.

    Args:
        source: a labelled data set; else a folder of class folders, each a category; else a folder of pictures, one
            category. Where nobody split the pictures, every second one by its name, starting with the first, is for
            training, and the others for testing.
        out: a folder that is not there yet, or empty.
        kinds: of `KINDS`.
        severity: 1 to 5.
        seed: with the picture's name and kind it decides all that is random; the order of the pictures does not.
        layout: of the source, see `open_dataset`.
        track: shows progress.

    Raises:
        SettingError: for no or an unknown kind, another severity or an unknown layout.
        InputError: if the source has no good pictures for one half, or a picture cannot be read.
        OutputError: if `out` is not empty or cannot be written; nothing is left behind then.
    """
    _check(kinds, severity)
    planned = _plan(source, layout)
    bits = depth_of(planned)
    with new_folder(out) as folder:
        for picture in track(planned, "corrupting"):
            pixels = read_eight_bits(picture.source, bits)
            category, name = folder / picture.category, f"{picture.name}.png"
            write_png(category / picture.split / "good" / name, pixels)
            if picture.split == "train":
                continue
            image = torch.from_numpy(pixels.transpose(2, 0, 1) / 255).float()
            for kind in kinds:
                own = seed_of(seed, picture.category, picture.name, kind)
                made = corrupt(image, kind, severity=severity, generator_seed=own)
                corrupted = (made * 255).round().byte().permute(1, 2, 0).numpy()
                write_png(category / "test" / kind / name, corrupted)
    return tree.read(out)


def _check(kinds: Sequence[str], severity: int) -> None:
    unknown = [kind for kind in kinds if kind not in SEVERITIES]
    if unknown or not kinds:
        raise SettingError(f"A corruption must be one of {', '.join(KINDS)}, got {unknown[0] if unknown else 'none'}.")
    if severity not in range(1, 6):
        raise SettingError(f"`severity` must be from 1 to 5, got {severity}.")


def _plan(source: Path, layout: str) -> list[Planned]:
    """Every good picture of the source, and which half it is for."""
    planned = []
    for name, (train, test) in _good_pictures(source, layout).items():
        if name in ("", ".", "..") or Path(name).name != name:  # a manifest may say anything
            raise InputError(f"A category's name must serve as a folder's, got {name!r} in {source}; rename it.")
        if not train or not test:
            lacks = "testing" if train else "training"
            raise InputError(
                f"The category {name} of {source} must hold good pictures for training and for testing, got none for "
                f"{lacks}; add some."
            )
        planned += plan(train, category=name, split="train") + plan(test, category=name, split="test")
    return planned


def _good_pictures(source: Path, layout: str) -> dict[str, tuple[list[Path], list[Path]]]:
    """By category, the good pictures for training and for testing."""
    if layout != "auto" or not source.is_dir() or any(reader.detect(source) for reader in LAYOUTS.values()):
        return {
            category.name: (
                [Path(path) for path in category.train],
                [Path(sample.path) for sample in category.test if sample.anomalous is False],
            )
            for category in open_dataset(source, layout=layout).categories
        }
    here = tree.pictures(source)
    classes = {folder.name: found for folder in tree.subfolders(source) if (found := tree.pictures(folder))}
    if bool(here) == bool(classes):
        came = f"both pictures and the folders {tree.some([*classes])}" if here else "neither"
        raise InputError(
            f"{source} must hold a labelled data set, else pictures, or folders of pictures, one for each class, "
            f"got {came}; name another folder."
        )
    unsplit = {tree.name_of(source): here} if here else classes
    return {name: (found[::2], found[1::2]) for name, found in unsplit.items()}


def _gaussian_noise(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    return image + deviation * torch.randn(_noise_shape(image), generator=generator)


def _salt_and_pepper(image: Tensor, share: float, generator: torch.Generator) -> Tensor:
    draws = torch.rand(_noise_shape(image), generator=generator)
    salted = torch.where(draws < share / 2, 1.0, image)
    return torch.where(draws >= 1 - share / 2, 0.0, salted)


def _gaussian_blur(image: Tensor, deviation: float, generator: torch.Generator) -> Tensor:
    sigma = deviation * min(image.shape[1:]) / SIDE
    width = 2 * max(1, round(4 * sigma)) + 1
    return kornia.filters.gaussian_blur2d(image[None], (width, width), (sigma, sigma), border_type="replicate")[0]


def _motion_blur(image: Tensor, length: float, generator: torch.Generator) -> Tensor:
    """Sum shifted pictures: kornia's own filter multiplies by the kernel's zeros too and takes many times as long."""
    height, width = image.shape[1:]
    reach = max(1, round((length * min(height, width) / SIDE - 1) / 2))
    low, high = ANGLES
    angle = low + (high - low) * float(torch.rand((), generator=generator))
    kernel = kornia.filters.get_motion_kernel2d(2 * reach + 1, angle, mode="bilinear")[0]
    padded = F.pad(image[None], [reach] * 4, mode="replicate")[0]
    blurred = torch.zeros_like(image)
    for row, column in kernel.nonzero().tolist():
        blurred.add_(padded[:, row : row + height, column : column + width], alpha=float(kernel[row, column]))
    return blurred


def _brightness(image: Tensor, added: float, generator: torch.Generator) -> Tensor:
    hue, saturation, value = kornia.color.rgb_to_hsv(image)
    return kornia.color.hsv_to_rgb(torch.stack([hue, saturation, (value + added).clamp(max=1)]))


def _contrast(image: Tensor, left: float, generator: torch.Generator) -> Tensor:
    mean = image.mean(dim=(1, 2), keepdim=True)
    return mean + left * (image - mean)


def _jpeg(image: Tensor, quality: float, generator: torch.Generator) -> Tensor:
    made = kornia.enhance.jpeg_codec_differentiable(image[None], torch.tensor([quality]))[0]
    return made.mean(dim=0, keepdim=True).expand(3, -1, -1) if _is_grey(image) else made


def _noise_shape(image: Tensor) -> tuple[int, ...]:
    """One channel of noise for all three on a grey picture, else one for each."""
    return (1 if _is_grey(image) else 3, *image.shape[1:])


def _is_grey(image: Tensor) -> bool:
    return bool((image == image[:1]).all())


_CORRUPTIONS: Mapping[str, Callable[[Tensor, float, torch.Generator], Tensor]] = {
    "gaussian_noise": _gaussian_noise,
    "salt_and_pepper": _salt_and_pepper,
    "gaussian_blur": _gaussian_blur,
    "motion_blur": _motion_blur,
    "brightness": _brightness,
    "contrast": _contrast,
    "jpeg": _jpeg,
}
