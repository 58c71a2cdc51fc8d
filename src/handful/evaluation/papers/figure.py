"""The figures of a run: query, truth and map side by side, a row for each category."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from handful import backbones
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.masks import read_regions
from handful.data.shots import draw
from handful.data.thumbnails import thumbnail
from handful.detector import Detector
from handful.evaluation.cells import counts_of, head_of, spoken
from handful.evaluation.papers import Variant
from handful.evaluation.papers.run import Prepared
from handful.files import replacing
from handful.methods import create
from handful.types import Category, Sample

ROWS = 6  # categories of a figure, at most
LONGEST = 288  # pixels of the longer side of a picture
COLUMNS = ("query", "truth", "map")


def write_figure(prepared: Prepared, backbone: Backbone) -> list[Path]:
    """Write figure-DATASET.png for each data set if a variant of the run wants a figure; keep existing figures.

    A row shows the first test picture of a category with a mask, and its map by an inspector with the most references
    and the lowest seed. Each map has its own range of colours.

    Returns:
        The paths of the figures.

    Raises:
        OutputError: if a figure cannot be written.
    """
    drawn = [(name, variant) for name, variant in prepared.job.variants.items() if variant.figure]
    written = []
    for name, variant in drawn:
        for dataset, one in prepared.benchmark.datasets.items():
            path = prepared.benchmark.out / f"figure-{dataset}.png"
            shown = [(category, sample) for category in one.categories if (sample := _marked(category))][:ROWS]
            if shown and not path.exists():
                figure = _figure(prepared, variant, prepared.methods[name], shown, backbone)
                with replacing(path) as file:
                    figure.savefig(file, format="png", dpi=100)
            written += [path] if shown else []
    return written


def _marked(category: Category) -> Sample | None:
    return next((sample for sample in category.test if sample.anomalous and sample.masks), None)


def _figure(
    prepared: Prepared, variant: Variant, method: str, shown: list[tuple[Category, Sample]], backbone: Backbone
) -> Figure:
    run, rate = prepared.job.run, prepared.benchmark.false_alarm_rate
    # `paper_compat` scales the image scores over the whole test set and does not change the maps.
    settings = {key: value for key, value in variant.method.items() if key not in ("name", "paper_compat")}
    figure = Figure(figsize=(2.6 * len(COLUMNS), 2.6 * len(shown) + 0.8), layout="constrained")
    figure.suptitle(f"{prepared.job.paper.name}: {variant.about}; {_label(prepared, backbone)}", fontsize=9, wrap=True)
    grid = figure.subplots(len(shown), len(COLUMNS), squeeze=False)
    for axes, (category, sample) in zip(grid, shown, strict=True):
        detector = Detector(
            create(variant.method["name"], settings),
            backbone=backbones.about(backbone, spoken(category)),
            squeeze=True,
            false_alarm_rate=rate,
            head=head_of(method) or None,
        )
        shots = counts_of(category, run.shots)[-1]
        detector.fit(draw(category.train, shots=shots, seed=min(run.seeds)))
        picture = read_picture(sample.path)
        small = thumbnail(picture, longest=LONGEST)
        regions = read_regions(sample, small.shape[:2], category.saturation)
        heatmap = detector(picture).heatmap
        assert heatmap is not None  # None only for pictures that cannot be read
        images = (small, np.any([region.mask for region in regions], axis=0), heatmap)
        for one, title, image in zip(axes, COLUMNS, images, strict=True):
            one.imshow(image, cmap=None if title == "query" else "gray" if title == "truth" else "inferno")
            one.set_title(f"{title}: {category.name}, {sample.kind}" if title == "query" else title, fontsize=8)
            one.axis("off")
    return figure


def _label(prepared: Prepared, backbone: Backbone) -> str:
    from handful.evaluation.run import backbone_label

    said = f"{backbone_label(backbone.spec)}, shots: {prepared.job.run.shots[-1]}, each map in its own range of colours"
    return said + (f"; not the paper's: {', '.join(prepared.marks)}" if prepared.marks else "")
