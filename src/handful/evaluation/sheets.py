"""A sheet of pictures for each method on a category: its clearest defects, most suspected good pictures and misses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import zip_longest
from pathlib import Path
from types import MappingProxyType

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from handful import backbones
from handful.backbones.base import Backbone
from handful.data.images import read_picture
from handful.data.masks import read_regions
from handful.data.shots import draw
from handful.data.thumbnails import thumbnail
from handful.detector import Detector
from handful.evaluation import results
from handful.evaluation.cells import Frames, head_of, spoken
from handful.evaluation.results import PictureScore, Row
from handful.files import replacing
from handful.methods import METHODS, Method, parse
from handful.report.overlay import overlay
from handful.types import Category, Sample

COLUMNS = 6
LONGEST = 288  # pixels of the longer side of a picture on the sheet


@dataclass(frozen=True)
class Record:
    """The scores of one test picture by all fits of a method.

    Attributes:
        path: the path of the picture.
        anomalous: whether the picture is anomalous by its label.
        ratio: the ratio of image score to threshold, the mean over the fits with the most references.
        rejected: the number of fits, of all fits, that reject the picture.
    """

    path: str
    anomalous: bool
    ratio: float
    rejected: int


def records(rows: Sequence[Row], scores: Sequence[Sequence[PictureScore]]) -> list[Record]:
    """The record of every test picture, from the rows of a method on a category.

    Args:
        rows: the rows; each has a threshold.
        scores: for each row the scores of the test pictures; the order of pictures is equal in all rows.
    """
    most = max(row.shots for row in rows)
    thresholds = np.array([row.threshold for row in rows])
    ratios = np.array([[score.raw_score for score in of_row] for of_row in scores]) / thresholds[:, None]
    means = ratios[[row.shots == most for row in rows]].mean(0)
    rejected = (ratios > 1).sum(0)
    return [
        Record(score.path, score.anomalous, float(mean), int(times))
        for score, mean, times in zip(scores[0], means, rejected, strict=True)
    ]


def choose(of_all: Sequence[Record]) -> dict[str, list[Record]]:
    """The three rows of a sheet: the clearest defects, the most suspected good pictures, the most missed defects."""
    defects = [record for record in of_all if record.anomalous]
    good = [record for record in of_all if not record.anomalous]
    return {
        "Defects found most clearly": sorted(defects, key=lambda r: -r.ratio)[:COLUMNS],
        "Good pictures that score highest": sorted(good, key=lambda r: -r.ratio)[:COLUMNS],
        "Defects missed most often": sorted(defects, key=lambda r: (r.rejected, r.ratio))[:COLUMNS],
    }


def write_sheets(
    rows: Sequence[Row],
    categories: Mapping[tuple[str, str], Category],
    backbone: Backbone,
    out: Path,
    *,
    false_alarm_rate: float,
    frames: Frames = "references",
    scorers: Mapping[str, Method] = MappingProxyType({}),
) -> Iterator[Path]:
    """Write sheets/DATASET/CATEGORY-METHOD.png for each method on each category; keep a sheet newer than its scores.

    The heatmaps come from the fit with the most references and the lowest seed, in the colour scale of reports.
    Outlines show the data set's masks. A method on a backbone that is trained for each cell has no sheet, because the
    backbone would have to be trained again; nor has a method that is neither in `handful.methods.METHODS` nor in
    `scorers`.

    Args:
        rows: the rows of results.csv.
        categories: the categories by names of data set and category; rows of other categories are passed over.
        backbone, false_alarm_rate, frames: the settings with which the rows were made, see `handful.evaluation.run`.
        out: the folder of the results.
        scorers: methods by their text in the table; other methods are parsed from their text.

    Yields:
        The path of each sheet, once the sheet is written or kept.

    Raises:
        OutputError: if a sheet cannot be written.
        WeightsError: if the file of a head that a sheet needs is missing.
    """
    groups: dict[tuple[str, str, str], list[Row]] = {}
    for row in rows:
        untrained = "@" not in row.method or head_of(row.method)
        known = row.method in scorers or re.split("[@:]", row.method)[0] in METHODS
        if row.threshold is not None and untrained and known and (row.dataset, row.category) in categories:
            groups.setdefault((row.dataset, row.category, row.method), []).append(row)
    for (dataset, name, method), of_method in sorted(groups.items()):
        path = out / "sheets" / dataset / f"{name}-{results.file_name(method)}.png"
        sources = [results.scores_path(out, row) for row in of_method]
        if not path.exists() or path.stat().st_mtime < max(source.stat().st_mtime for source in sources):
            of_all = records(of_method, [results.read_scores(source) for source in sources])
            shown = max(of_method, key=lambda row: (row.shots, -row.seed))
            category = categories[dataset, name]
            about = backbones.about(backbone, spoken(category))
            scorer = scorers[method] if method in scorers else parse(method.partition("@")[0])
            detector = _fitted(scorer, shown, category, about, false_alarm_rate, frames)
            figure = _figure(shown, choose(of_all), {s.path: s for s in category.test}, detector, len(of_method))
            with replacing(path, make_folder=True) as file:
                figure.savefig(file, format="png", dpi=100)
        yield path


def _fitted(
    scorer: Method, row: Row, category: Category, backbone: Backbone, false_alarm_rate: float, frames: Frames
) -> Detector:
    """A detector fitted with the references and settings of a row."""
    detector = Detector(
        scorer,
        backbone=backbone,
        size=max(backbone.spec.size) if frames == "references" else None,
        squeeze=frames == "squeezed",
        false_alarm_rate=false_alarm_rate,
        head=head_of(row.method) or None,
    )
    return detector.fit(draw(category.train, shots=row.shots, seed=row.seed))


def _figure(
    row: Row, chosen: Mapping[str, Sequence[Record]], samples: Mapping[str, Sample], detector: Detector, fits: int
) -> Figure:
    figure = Figure(figsize=(2.5 * COLUMNS, 3.1 * len(chosen) + 0.6), layout="constrained")
    method, _, head = row.method.partition("@")
    named = f"{method} by {Path(head).name}" if head else method
    figure.suptitle(f"{row.dataset} {row.category}, {named}, {row.backbone}, {row.shots} references, seed {row.seed}")
    bands = figure.subfigures(len(chosen), 1, squeeze=False)[:, 0]
    for band, (title, of_band) in zip(bands, chosen.items(), strict=True):
        band.suptitle(title, x=0.01, ha="left", fontsize=11)
        for axes, record in zip_longest(band.subplots(1, COLUMNS), of_band):
            axes.axis("off")
            if record is not None:
                _draw(axes, record, samples[record.path], detector, fits)
    return figure


def _draw(axes: Axes, record: Record, sample: Sample, detector: Detector, fits: int) -> None:
    """Draw a picture with its heatmap, the outlines of its masks, and its record as the title."""
    picture = read_picture(sample.path)
    inspection = detector(picture)
    shown = overlay(thumbnail(picture, longest=LONGEST), replace(inspection, regions=()))
    axes.imshow(shown)
    for region in read_regions(sample, shown.shape[:2]):
        axes.contour(region.mask, levels=[0.5], colors="cyan", linewidths=0.8)
    kind = "" if sample.kind == "good" else f"{sample.kind}/"
    found = f"{record.ratio:.2f} of the threshold, rejected by {record.rejected} of {fits}"
    axes.set_title(f"{kind}{Path(record.path).name}\n{found}", fontsize=8)
