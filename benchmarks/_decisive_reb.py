"""REB's adaptation for `decisive`: our training, and what a trained trunk of either code is worth."""

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch
from numpy.typing import NDArray
from torch import Tensor

from _decisive_cache import MOST_REFERENCES, SIZE, Cached, cached
from _decisive_cells import SHOTS, Loss, Run, judge
from handful import backbones
from handful.backbones.base import Backbone
from handful.data import images
from handful.data.depths import bits_of
from handful.data.layouts.registry import open_dataset
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.fitting.calibration import join
from handful.methods import METHODS, create_tuning
from handful.ops.defects import seven_variants
from handful.ops.foreground import foreground
from handful.training.backbone import BackboneTrainer
from handful.types import Category

SIDE = 128  # of the pictures in training
UPDATES = 100
SETTINGS: dict[str, dict[str, Any]] = {
    "all layers": {"frozen_stride": 0},  # as the authors train
    "default": {},
}
CATEGORIES = ["deeppcb/group77000", "magnetic_tile/tile", "piped/fvn01_tl"]


@dataclass(frozen=True)
class Adapted:
    """A training's worth: percent of variants told apart, of either code's defects, and image AUROC by plain kNN."""

    method: str
    code: str
    form: str
    row: str
    seed: int
    target: str
    seen: str
    accuracy_ours: float
    accuracy_theirs: float | None
    image_auroc_before: float
    image_auroc_after: float
    aupro_before: float | None
    aupro_after: float | None


def category_of(data: Path, name: str) -> Category:
    """A class by data set and category."""
    folder, _, category = name.partition("/")
    return next(one for one in open_dataset(data / folder).categories if one.name == category)


def good(data: Path, name: str, seed: int) -> tuple[list[str], list[str]]:
    """The references of a seed, as the cached ones are drawn, and other good pictures of the class."""
    paths = draw(category_of(data, name).train, shots=MOST_REFERENCES, seed=0)
    rows = draw(range(len(paths)), shots=SHOTS, seed=seed)
    return [paths[row] for row in rows], [path for row, path in enumerate(paths) if row not in rows]


def at_side(paths: Sequence[str]) -> list[NDArray[np.uint8]]:
    """The pictures as trainings take them: each (128, 128, 3)."""
    pictures = [images.read_picture(path, detail=SIDE) for path in paths]
    prepare = Preprocessing((SIDE, SIDE), bits_of(pictures))
    return [(prepare(picture) * 255).round().astype(np.uint8).transpose(1, 2, 0) for picture in pictures]


def variants(paths: Sequence[str], *, seed: int) -> Tensor:
    """Seven variants of each picture, by our recipes: (n, 7, 3, 128, 128) uint8."""
    pictures = at_side(paths)
    regions = [foreground(picture) for picture in pictures]
    generator = np.random.default_rng(seed)
    made = [seven_variants(pictures, regions, row=row, generator=generator)[0] for row in range(len(pictures))]
    return torch.from_numpy(np.stack(made)).permute(0, 1, 4, 2, 3)


def accuracy(classify: Callable[[Tensor], Tensor], made: Tensor) -> float:
    """Percent of variants (n, 7, 3, H, W) whose highest logit is their class's."""
    with torch.no_grad():
        found = torch.stack([classify(seven.float() / 255).argmax(1) for seven in made])
    return 100 * float((found == torch.arange(7)).double().mean())


def worth(data: Path, target: Cached, seed: int, weights: str) -> dict[str, float | None]:
    """Plain kNN on a backbone of some weights, on the same pictures as the cached class has."""
    backbone = backbones.create(size=SIZE, weights=weights)
    category = category_of(data, target.name)
    paths = draw(category.train, shots=MOST_REFERENCES, seed=0)
    seen = replace(target, references=_features(backbone, paths), queries=_tests(backbone, category))
    return judge(METHODS["reb"](alpha=0.0), seen, seed=seed)  # type: ignore[call-arg]


def _tests(backbone: Backbone, category: Category) -> Any:
    from _decisive_cache import _some

    return _features(backbone, [sample.path for sample in _some(category.test)])


def _features(backbone: Backbone, paths: Sequence[str]) -> Any:
    pictures = [images.read_picture(path, detail=SIZE) for path in paths]
    prepare = Preprocessing((SIZE, SIZE), bits_of(pictures))
    return join([backbone(torch.from_numpy(prepare(picture))[None]) for picture in pictures])


def adapted(
    run: Run,
    data: Path,
    cache: Path,
    name: str,
    weights: Path,
    classify: Callable[[Tensor], Tensor],
) -> Adapted:
    """What a trained trunk and head are worth on a class."""
    references, others = good(data, name, run.seed)
    theirs = cache / f"variants-{name.replace('/', '-')}-{run.seed}.safetensors"
    target = cached(cache, name, data)
    before, after = worth(data, target, run.seed, "auto"), worth(data, target, run.seed, str(weights))
    return Adapted(
        **asdict(run),
        target=name,
        seen=f"{len(references)} references, {len(others)} others",
        accuracy_ours=accuracy(classify, variants(others, seed=1000 + run.seed)),
        accuracy_theirs=(
            accuracy(classify, safetensors.torch.load_file(theirs)["variants"]) if theirs.exists() else None
        ),
        image_auroc_before=before["image_auroc"] or 0,
        image_auroc_after=after["image_auroc"] or 0,
        aupro_before=before["aupro"],
        aupro_after=after["aupro"],
    )


def adapt(run: Run, data: Path, cache: Path, name: str) -> tuple[Adapted, list[Loss]]:
    """Train with our code, and say what the trunk is worth."""
    references, _ = good(data, name, run.seed)
    tuning = create_tuning("reb", {"updates": UPDATES, "size": SIDE} | SETTINGS[run.form])
    trainer = BackboneTrainer(tuning, references, seed=run.seed)
    losses = [progress.loss for progress in trainer.run()]
    (cache / "heads").mkdir(exist_ok=True)
    weights = cache / "heads" / f"{run.stem}-{name.replace('/', '-')}.safetensors"
    trainer.save(weights)
    learnt = tuning.learnt_.eval()
    found = adapted(run, data, cache, name, weights, lambda one: learnt["head"](learnt["trunk"](one)))
    return found, tens(run, name, losses)


def tens(run: Run, name: str, losses: Sequence[float]) -> list[Loss]:
    """The means of ten updates; the class stands as the part."""
    return [
        Loss(**asdict(run), part=name, update=end, loss=float(np.mean(losses[end - 10 : end])))
        for end in range(10, len(losses) + 1, 10)
    ]
