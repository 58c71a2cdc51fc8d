"""The training of a head on labelled data sets of other products, with validation on held-out classes."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from handful.errors import InputError, needing

with needing("handful.training.head.HeadTrainer", "train"):
    import torch
    import torch.nn.functional as F
    from torch import Tensor

    from handful import metrics

from handful.backbones.base import Backbone
from handful.backbones.crops import with_crops
from handful.data import images
from handful.data.depths import bits_of
from handful.data.masks import read_regions
from handful.data.preprocessing import Preprocessing
from handful.data.progress import Track, quietly
from handful.data.shots import draw
from handful.fitting.calibration import join
from handful.methods import METHODS, HeadTraining
from handful.ops.defects import RECIPES, make_defect
from handful.ops.foreground import foreground
from handful.training import head_file
from handful.training.backbone import Pace, Progress
from handful.training.checkpoint import on_cpu, read_checkpoint, write_checkpoint
from handful.training.products import REFERENCES, made_product
from handful.types import AuxiliaryClass, Category, Dataset, Sample

HELD_OUT = 0.2  # share of the classes held out for validation, at least one class
MOST_REFERENCES = 100  # good pictures of a class from which references are drawn, bounded by memory
MOST_VALIDATED = 30  # good pictures, and as many anomalous pictures, of a class in a validation
CHECKS = 10  # the number of validations in a training


class _Shown(NamedTuple):
    """A labelled picture in the model-input frame: image (3, H, W) and mask (H, W)."""

    image: Tensor
    mask: Tensor
    anomalous: bool


class HeadTrainer:
    """Trains a head on labelled data sets, and keeps the head of the best validation on held-out classes.

        training = HeadTrainer(create_head_training("resad", {}), {"visa": open_dataset(path)}, backbone)
        for progress in training.run():
            print(progress.loss)
        training.save("head.safetensors")

    The classes are the categories of the data sets, and the made products that the training asks for. A place of a
    level is anomalous if any of its pixels is. A class without masks is learnt from good pictures alone,
    with a copy of each that has a synthetic defect. Augmented pictures, if the training needs them, are made from a
    class's test pictures and synthetic defects. The held-out classes are drawn from the categories with good and
    anomalous test pictures; no other class and no other data set influences which head is kept.

    Args:
        training: the training and its settings.
        datasets: labelled data sets by name.
        backbone: computes the features, once; the backbone is not trained.
        seed: the seed of all random draws.
        checkpoint: a file that is saved after every validation and on an interruption; an existing checkpoint is
            continued.
        track: shows the progress of the features.

    Attributes:
        validation: the mean image AUROC on the held-out classes, in percent, by the number of updates made.

    Raises:
        InputError: unless there are two categories, of which one can be held out; ImageError for an unreadable picture.
    """

    def __init__(
        self,
        training: HeadTraining,
        datasets: Mapping[str, Dataset],
        backbone: Backbone,
        *,
        seed: int = 0,
        checkpoint: Path | None = None,
        track: Track = quietly,
    ) -> None:
        self.training, self.backbone, self.checkpoint, self.seed = training, backbone, checkpoint, seed
        categories = {
            f"{name}/{category.name}": category
            for name, dataset in sorted(datasets.items())
            for category in dataset.categories
        }
        self._categories = list(categories)
        self.held_out = _held_out(categories, seed=seed)
        self._pictures: set[str] = set()
        self._classes: list[AuxiliaryClass] = []
        self._validated: list[AuxiliaryClass] = []
        for name in track(list(categories), description="features"):
            held_out = name in self.held_out
            classes = self._validated if held_out else self._classes
            classes.append(self._read(name, categories[name], validated=held_out))
        for number in track(range(training.products), description="made products"):
            self._classes.append(self._made(number))
        self.validation: dict[str, float] = {}
        training.start(self._classes, seed=seed, device=backbone.device)
        self._best = self._state()
        self._identity: dict[str, Any] = {
            "training": training.name,
            "settings": training.settings,
            "backbone": head_file.identity(backbone.spec),
            "pictures": sorted(self._pictures),
            "seed": seed,
        }

    def run(self) -> Iterator[Progress]:
        """Make the remaining updates, and yield the progress after each.

        Raises:
            InputError: if the checkpoint belongs to another training or is damaged.
            SettingError: if the loss does not stay finite.
            OutputError: if the checkpoint cannot be written.
        """
        updates = self.training.updates
        number = self._resume()
        pace = Pace(number, updates)
        try:
            while number < updates:
                progress = pace.after(number + 1, self.training.update(number, self._classes))
                number += 1
                if number % max(1, updates // CHECKS) == 0 or number == updates:
                    self._validate(number)
                    self._save_checkpoint(number)
                yield progress
        except (KeyboardInterrupt, GeneratorExit):
            self._save_checkpoint(number)
            raise

    def save(self, path: Path) -> None:
        """Write the head of the best validation, and remove the checkpoint.

        Raises:
            OutputError: if the file cannot be written.
        """
        head = self.training.make_head(self._classes[0].references.depths, seed=self.seed)
        head.load_state_dict(self._best)
        record = head_file.Record(
            method=self.training.name,
            settings=self.training.settings,
            depths=head.depths,
            backbone=head_file.identity(self.backbone.spec),
            classes=tuple(sorted(self._categories)),
            held_out=tuple(self.held_out),
            validation=self.validation,
            pictures=tuple(sorted(self._pictures)),
            seed=self.seed,
        )
        head_file.write(path, head, record)
        if self.checkpoint is not None:
            self.checkpoint.unlink(missing_ok=True)

    def _read(self, name: str, category: Category, *, validated: bool) -> AuxiliaryClass:
        """The features and masks of a category."""
        good = draw(category.train, shots=min(MOST_REFERENCES, len(category.train)), seed=self.seed)
        pictures = {path: images.read_picture(path, detail=max(self.backbone.spec.size)) for path in good}
        preprocessing = Preprocessing(self.backbone.spec.size, bits_of(list(pictures.values())))
        inputs = [torch.from_numpy(preprocessing(pictures[path])) for path in good]
        self._pictures |= {images.digest(path, pictures[path]) for path in good}
        samples = [s for s in category.test if not s.anomalous or validated or s.masks]
        shown = [self._shown(s, category, preprocessing) for s in (_some(samples) if validated else samples)]
        if not validated and not any(one.anomalous for one in shown):
            shown += [self._synthetic(image, row) for row, image in enumerate(inputs)]
        return self._class(name, inputs, shown, validated=validated)

    def _made(self, number: int) -> AuxiliaryClass:
        """The features and masks of a made product."""
        height, width = self.backbone.spec.size
        pictures = [_as_shown(pixels, mask) for pixels, mask in made_product(number, (height, width))]
        inputs = [one.image for one in pictures[:REFERENCES]]
        return self._class(f"made product {number}", inputs, pictures[REFERENCES:], validated=False)

    def _class(
        self, name: str, inputs: Sequence[Tensor], shown: Sequence[_Shown], *, validated: bool
    ) -> AuxiliaryClass:
        """The features and masks of a class with the given references (3, H, W) and labelled pictures."""
        shown, labelled = list(shown), len(shown)
        backbone = with_crops(self.backbone, METHODS[self.training.name]().crops_wanted) if validated else self.backbone
        references = join([backbone(image[None]) for image in inputs])
        if not validated:
            shown += self._augmented(shown)
        queries = join([backbone(one.image[None]) for one in shown])
        masks, anomalous = torch.stack([one.mask for one in shown]), torch.tensor([one.anomalous for one in shown])
        own = torch.full((len(shown),), -1)
        if not validated:
            queries = join([queries, references])
            masks = torch.cat([masks, masks.new_zeros(len(inputs), *masks.shape[1:])])
            anomalous = torch.cat([anomalous, anomalous.new_zeros(len(inputs))])
            own = torch.cat([own, torch.arange(len(inputs))])
        rows, pooled = torch.arange(len(own)), masks[:, None].float()
        return AuxiliaryClass(
            name=name,
            references=references,
            queries=queries,
            anomalous=anomalous,
            masks=tuple(F.adaptive_max_pool2d(pooled, level.shape[1:3])[:, 0] > 0 for level in queries.levels),
            own=own,
            pixels=masks,
            augmented=(rows >= labelled) & (rows < len(shown)),
        )

    def _shown(self, sample: Sample, category: Category, preprocessing: Preprocessing) -> _Shown:
        """A labelled picture in the model-input frame; its digest is noted."""
        picture = images.read_picture(sample.path, detail=max(preprocessing.size))
        self._pictures.add(images.digest(sample.path, picture))
        regions = read_regions(sample, preprocessing.size, category.saturation)
        mask = np.any([region.mask for region in regions], axis=0) if regions else np.zeros(preprocessing.size, bool)
        image = torch.from_numpy(preprocessing(picture))
        return _Shown(image, torch.from_numpy(mask), bool(sample.anomalous))

    def _synthetic(self, image: Tensor, row: int) -> _Shown:
        """A good picture (3, H, W) with a synthetic defect."""
        pixels: NDArray[np.uint8] = (image * 255).round().byte().permute(1, 2, 0).numpy()
        generator = np.random.default_rng([self.seed, row])
        recipe = RECIPES[int(generator.integers(len(RECIPES)))]
        return _as_shown(*make_defect(pixels, foreground(pixels), recipe=recipe, generator=generator))

    def _augmented(self, shown: Sequence[_Shown]) -> list[_Shown]:
        """The augmented pictures that the training needs, made from labelled pictures."""
        pictures, masks = [one.image for one in shown], [one.mask for one in shown]
        generators = [np.random.default_rng([self.seed, number]) for number in range(self.training.augmented_wanted)]
        made = [self.training.augment(pictures, masks, generator=generator) for generator in generators]
        return [_Shown(image, mask, bool(mask.any())) for image, mask in made]

    def _validate(self, number: int) -> None:
        """Note the mean image AUROC on the held-out classes, and keep the head if no earlier head has a higher AUROC.

        Of equal heads the last is kept: held-out classes on which all heads are perfect tell nothing, and a longer
        training serves other products better (benchmarks/papers/decisive.md).
        """
        value = float(np.mean([100 * self._auroc(one) for one in self._validated]))
        if not self.validation or value >= max(self.validation.values()):
            self._best = self._state()
        self.validation[str(number)] = value

    def _auroc(self, one: AuxiliaryClass) -> float:
        rows = draw(range(len(one.references)), shots=min(4, len(one.references)), seed=self.seed)
        method = METHODS[self.training.name]().take_head(self.training.head_)
        method.fit(one.references[rows])
        scores = [float(method.score(one.queries[[row]]).image[0]) for row in range(len(one.queries))]
        return metrics.image_auroc(one.anomalous.numpy(), scores)

    def _state(self) -> dict[str, Tensor]:
        return on_cpu(self.training.head_.state_dict())

    def _save_checkpoint(self, number: int) -> None:
        if self.checkpoint is None:
            return
        learnt = self.training.head_.state_dict() | {f"best.{name}": tensor for name, tensor in self._best.items()}
        facts = {"validation": self.validation}
        write_checkpoint(self.checkpoint, self._identity, number, learnt, self.training.optimiser_, facts)

    def _resume(self) -> int:
        """Restore an existing checkpoint, and return the number of updates made."""
        if self.checkpoint is None or not self.checkpoint.exists():
            return 0
        found = read_checkpoint(self.checkpoint, self._identity)
        found.restore(self.training.head_, self.training.optimiser_)
        self._best = {name.removeprefix("best."): t for name, t in found.learnt.items() if name.startswith("best.")}
        self.validation = found.facts["validation"]
        return found.number


def _as_shown(pixels: NDArray[np.uint8], mask: NDArray[np.bool_]) -> _Shown:
    """A picture (H, W, 3) in the model-input frame and its mask (H, W), True where anomalous, as tensors."""
    return _Shown(torch.from_numpy(pixels).permute(2, 0, 1).float() / 255, torch.from_numpy(mask), bool(mask.any()))


def _held_out(categories: Mapping[str, Category], *, seed: int) -> list[str]:
    """The held-out classes, drawn from classes with good and anomalous test pictures; at least one class is left."""
    able = sorted(
        name
        for name, category in categories.items()
        if {bool(sample.anomalous) for sample in category.test} == {False, True}
    )
    if len(categories) < 2 or not able:
        raise InputError(
            f"A head needs two classes, of which one has good and anomalous test pictures to choose it by, got "
            f"{len(categories)} and {len(able)}; add a data set."
        )
    count = max(1, round(HELD_OUT * len(categories)))
    return sorted(draw(able, shots=min(count, len(able), len(categories) - 1), seed=seed))


def _some(samples: Sequence[Any]) -> list[Any]:
    """At most `MOST_VALIDATED` good and as many anomalous samples, taken evenly from the list."""
    chosen = []
    for anomalous in (False, True):
        those = [sample for sample in samples if bool(sample.anomalous) == anomalous]
        chosen += those[:: max(1, -(-len(those) // MOST_VALIDATED))]
    return chosen
