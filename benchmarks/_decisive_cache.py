"""The features that both codes of `decisive` learn from and are tested on: computed once, one file for each class."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from _tables import evenly
from handful import backbones
from handful.data import images
from handful.data.depths import bits_of
from handful.data.layouts.registry import open_dataset
from handful.data.masks import read_regions
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.fitting.calibration import join
from handful.methods.fasl import ScoreLearning
from handful.ops.defects import RECIPES, make_defect
from handful.ops.foreground import foreground
from handful.training.products import REFERENCES, made_product
from handful.types import AuxiliaryClass, Category, Features, Sample

SIZE = 224  # pixels of a side, as ResAD's code has it
MOST = 30  # good and as many defective test pictures of a class
MOST_REFERENCES = 20  # good training pictures of a class
SYNTHETIC = 20  # good pictures with a synthetic defect of a class without masks
POOL = 40  # augmented pictures of a class, for FASL alone


@dataclass(frozen=True)
class Cached:
    """The features of one class.

    Attributes:
        name: data set and category.
        references: good training pictures.
        queries: test pictures, then ones with a synthetic defect, then augmented ones, then the references again.
        anomalous: (N,) bool, of each query.
        pixels: (N, H, W) bool, its anomalous pixels.
        known: (N,) bool, whether its anomalous pixels are known.
        tests: how many of the queries, from the first on, are test pictures.
        augmented: (N,) bool.
    """

    name: str
    references: Features
    queries: Features
    anomalous: Tensor
    pixels: Tensor
    known: Tensor
    tests: int
    augmented: Tensor

    def auxiliary(self, *, augmented: bool) -> AuxiliaryClass:
        """The class as a training takes it, with its augmented pictures or without."""
        rows = torch.nonzero(self.known & (~self.augmented | augmented))[:, 0]
        pixels, own = self.pixels[rows], rows - (len(self.anomalous) - len(self.references))
        queries = self.queries[rows.tolist()]
        pooled = pixels[:, None].float()
        return AuxiliaryClass(
            name=self.name,
            references=self.references,
            queries=queries,
            anomalous=self.anomalous[rows],
            masks=tuple(F.adaptive_max_pool2d(pooled, level.shape[1:3])[:, 0] > 0 for level in queries.levels),
            own=own.clamp_min(-1),
            pixels=pixels,
            augmented=self.augmented[rows],
        )


def names(data: Path) -> list[str]:
    """Every class of the data sets in a folder."""
    folders = sorted(path for path in data.iterdir() if path.is_dir())
    return [f"{folder.name}/{category.name}" for folder in folders for category in open_dataset(folder).categories]


def cached(cache: Path, name: str, data: Path | None = None) -> Cached:
    """The features of a class, from its file; from the pictures in `data` first where there is no file yet."""
    file = cache / f"{name.replace('/', '-')}.safetensors"
    if not file.exists():
        assert data is not None, f"no features of {name}"
        cache.mkdir(parents=True, exist_ok=True)
        folder, _, category = name.partition("/")
        if folder == "synthetic":
            found = _made(name, int(category))
        else:
            found = _computed(name, next(one for one in open_dataset(data / folder).categories if one.name == category))
        _write(file, found)
    with safe_open(file, "pt") as opened:
        tensors = {key: opened.get_tensor(key) for key in opened.keys()}  # noqa: SIM118
        facts = json.loads(opened.metadata()["facts"])
    levels = range(facts["levels"])
    size = (SIZE, SIZE)
    return Cached(
        name=name,
        references=Features(tuple(tensors[f"references.{level}"] for level in levels), size),
        queries=Features(tuple(tensors[f"queries.{level}"] for level in levels), size),
        anomalous=tensors["anomalous"],
        pixels=tensors["pixels"],
        known=tensors["known"],
        tests=facts["tests"],
        augmented=tensors["augmented"],
    )


def _write(file: Path, found: Cached) -> None:
    levels = range(len(found.references.levels))
    tensors = {f"references.{level}": found.references.levels[level].contiguous() for level in levels}
    tensors |= {f"queries.{level}": found.queries.levels[level].contiguous() for level in levels}
    tensors |= {key: getattr(found, key) for key in ("anomalous", "pixels", "known", "augmented")}
    save_file(tensors, file, {"facts": json.dumps({"levels": len(levels), "tests": found.tests})})


def _computed(name: str, category: Category) -> Cached:
    backbone = backbones.create(size=SIZE)
    good = draw(category.train, shots=min(MOST_REFERENCES, len(category.train)), seed=0)
    pictures = [images.read_picture(path, detail=SIZE) for path in good]
    preprocessing = Preprocessing(backbone.spec.size, bits_of(pictures))
    inputs = [torch.from_numpy(preprocessing(picture)) for picture in pictures]
    shown = [_shown(sample, category, preprocessing) for sample in _some(category.test)]
    tests = len(shown)
    if not any(anomalous and known for _, _, anomalous, known in shown):
        shown += [_synthetic(image, row) for row, image in enumerate(inputs[:SYNTHETIC])]
    usable = [(image, mask) for image, mask, _, known in shown if known]
    labelled, made = len(shown), ScoreLearning(pool=POOL)
    for number in range(POOL):
        generator = np.random.default_rng([0, number])
        image, mask = made.augment([one for one, _ in usable], [one for _, one in usable], generator=generator)
        shown.append((image, mask, bool(mask.any()), True))
    references = join([backbone(image[None]) for image in inputs])
    queries = join([*(backbone(image[None]) for image, *_ in shown), references])
    masks = torch.stack([mask for _, mask, *_ in shown])
    rows = torch.arange(len(shown) + len(good))
    return Cached(
        name=name,
        references=references,
        queries=queries,
        anomalous=torch.tensor([anomalous for *_, anomalous, _ in shown] + [False] * len(good)),
        pixels=torch.cat([masks, masks.new_zeros(len(good), SIZE, SIZE)]),
        known=torch.tensor([known for *_, known in shown] + [True] * len(good)),
        tests=tests,
        augmented=(rows >= labelled) & (rows < len(shown)),
    )


def _made(name: str, number: int) -> Cached:
    """A product made by a script: good pictures as references, as many good and some defective ones as queries."""
    backbone = backbones.create(size=SIZE)
    images_, masks = zip(*made_product(number, (SIZE, SIZE)), strict=True)
    inputs = [torch.from_numpy(image).permute(2, 0, 1).float() / 255 for image in images_]
    shown = [(image, torch.from_numpy(mask)) for image, mask in zip(inputs, masks, strict=True)][REFERENCES:]
    made, labelled = ScoreLearning(pool=POOL), len(shown)
    for row in range(POOL):
        generator = np.random.default_rng([0, row])
        shown.append(
            made.augment([i for i, _ in shown[:labelled]], [m for _, m in shown[:labelled]], generator=generator)
        )
    references = join([backbone(image[None]) for image in inputs[:REFERENCES]])
    queries = join([*(backbone(image[None]) for image, _ in shown), references])
    pixels = torch.cat(
        [torch.stack([mask for _, mask in shown]), torch.zeros(REFERENCES, SIZE, SIZE, dtype=torch.bool)]
    )
    rows = torch.arange(len(pixels))
    return Cached(
        name=name,
        references=references,
        queries=queries,
        anomalous=pixels.flatten(1).any(1),
        pixels=pixels,
        known=torch.ones(len(pixels), dtype=torch.bool),
        tests=labelled,
        augmented=(rows >= labelled) & (rows < len(shown)),
    )


def _some(samples: Sequence[Sample]) -> list[Sample]:
    """At most `MOST` good and as many defective ones."""
    return [
        sample
        for anomalous in (False, True)
        for sample in evenly([one for one in samples if bool(one.anomalous) == anomalous], MOST)
    ]


def _shown(sample: Sample, category: Category, preprocessing: Preprocessing) -> tuple[Tensor, Tensor, bool, bool]:
    """Image (3, H, W), mask (H, W), whether it is anomalous and whether its mask is known."""
    picture = images.read_picture(sample.path, detail=SIZE)
    regions = read_regions(sample, (SIZE, SIZE), category.saturation)
    mask = np.any([region.mask for region in regions], axis=0) if regions else np.zeros((SIZE, SIZE), bool)
    known = not sample.anomalous or bool(regions)
    return torch.from_numpy(preprocessing(picture)), torch.from_numpy(mask), bool(sample.anomalous), known


def _synthetic(image: Tensor, row: int) -> tuple[Tensor, Tensor, bool, bool]:
    """A good picture (3, H, W) with a synthetic defect."""
    pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
    generator = np.random.default_rng([0, row])
    recipe = RECIPES[int(generator.integers(len(RECIPES)))]
    made, mask = make_defect(pixels, foreground(pixels), recipe=recipe, generator=generator)
    return torch.from_numpy(made).permute(2, 0, 1).float() / 255, torch.from_numpy(mask), True, True
