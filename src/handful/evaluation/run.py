"""Run cells: a category's pictures pass the backbone once, and every cell's method scores their features."""

import statistics
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import groupby
from pathlib import Path
from typing import Any

from torch import Tensor

from handful import backbones, metrics
from handful.backbones.base import Backbone, BackboneSpec
from handful.data.depths import bits_of
from handful.data.images import Picture
from handful.data.preprocessing import Preprocessing
from handful.data.shots import draw
from handful.errors import HandfulError, InputError
from handful.evaluation import results
from handful.evaluation.cells import Cell, Frames, spoken
from handful.evaluation.features import CategoryFeatures, LabelledPicture
from handful.evaluation.peak_memory import peak_mb, reset_peak
from handful.evaluation.results import PictureScore, Row
from handful.fitting.calibration import fit_and_calibrate, view_count
from handful.methods import Method, parse_tuning
from handful.ops.frames import Placement, shared_aspect
from handful.training import head_file
from handful.training.backbone import BackboneTrainer
from handful.types import Category, Features

FEATURE_BYTES = 2_000_000_000  # bytes of test pictures' features held at a time; larger categories are scored in parts

Outcome = tuple[Row, list[PictureScore]]


def run(
    cells: Sequence[Cell],
    backbone: Backbone,
    out: Path,
    *,
    false_alarm_rate: float,
    weights: str = "auto",
    frames: Frames = "references",
) -> Iterator[Row]:
    """Run cells, writing results.csv and the scores by picture after each cell; a cell that fails becomes a row too.

    Args:
        cells: the cells of a plan, in which the cells of a category follow each other.
        backbone, weights: see `handful.evaluation.benchmark.Benchmark`.
        out: the folder of the results.
        false_alarm_rate: the share of good parts that the shipped threshold may reject.
        frames: the frames of the model's inputs, see `Frames`.

    Yields:
        Each row, once its cell is finished.

    Raises:
        OutputError: if the results cannot be written.
    """
    path = out / results.RESULTS
    rows = {row.key: row for row in results.read(path)}
    for _, group in groupby(cells, key=lambda cell: (cell.dataset, cell.category.name)):
        for row, scores in _outcomes(list(group), backbone, weights, false_alarm_rate, frames):
            if scores:
                results.write_scores(results.scores_path(out, row), scores)
            rows[row.key] = row
            results.write(path, list(rows.values()))
            yield row


def backbone_label(spec: BackboneSpec) -> str:
    """The backbone's name, followed by the origin of its weights unless the name implies them."""
    if spec.weights.startswith("random"):
        return f"{spec.name} (random weights)"
    return f"{spec.name} (weights {spec.weights})" if spec.weights.startswith("file ") else spec.name


def _outcomes(
    cells: Sequence[Cell], backbone: Backbone, weights: str, false_alarm_rate: float, frames: Frames
) -> Iterator[Outcome]:
    """The outcome of every cell of one category: first on the untrained backbone, then on each trained backbone."""
    backbone = backbones.about(backbone, spoken(cells[0].category))
    as_it_is = [cell for cell in cells if not cell.tuning]
    if as_it_is:
        yield from _Category(backbone, backbone.spec, false_alarm_rate, frames).run(as_it_is)
    groups: dict[tuple[str, int, int], list[Cell]] = {}
    for cell in cells:
        if cell.tuning:
            groups.setdefault((cell.tuning, cell.shots, cell.seed), []).append(cell)
    for group in groups.values():
        begin = time.perf_counter()
        try:
            trained = _trained(group[0], backbone, weights)
        except Exception as error:
            yield from ((_failed(_row(cell, backbone.spec, frames), error), []) for cell in group)
            continue
        seconds = time.perf_counter() - begin
        for row, scores in _Category(trained, backbone.spec, false_alarm_rate, frames).run(group):
            yield row if row.fit_s is None else replace(row, fit_s=row.fit_s + seconds), scores


def _trained(cell: Cell, backbone: Backbone, weights: str) -> Backbone:
    """The backbone trained on a cell's references."""
    spec = backbone.spec
    device: backbones.Device = "cuda" if backbone.device == "cuda" else "cpu"
    references, tuning = draw(cell.category.train, shots=cell.shots, seed=cell.seed), parse_tuning(cell.tuning)
    training = BackboneTrainer(tuning, references, backbone=spec.name, weights=weights, seed=cell.seed, device=device)
    for _ in training.run():
        pass
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch, "trained.safetensors")
        training.save(file)
        return backbones.create(
            spec.name,
            levels=spec.levels,
            size=spec.size,
            weights=str(file),
            engine=spec.engine,
            precision=spec.precision,
            device=device,
        )


class _Category:
    """The runs of all cells of a category, with shared features."""

    def __init__(self, backbone: Backbone, named: BackboneSpec, false_alarm_rate: float, frames: Frames) -> None:
        self.features, self.named, self.false_alarm_rate = CategoryFeatures(backbone), named, false_alarm_rate
        self.frames: Frames = frames
        self._heads: dict[str, head_file.TrainedHead] = {}

    def run(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        """The row and the scores by picture of every cell."""
        running: dict[Preprocessing, list[_Running]] = {}
        for cell in cells:
            row = _row(cell, self.named, self.frames)
            try:
                references = draw(cell.category.train, shots=cell.shots, seed=cell.seed) if cell.shots else []
                preprocessing = self._preprocessing([self.features.picture(path)[0] for path in references], cell.head)
                head = self._head(cell)
                self.features.held_bytes(preprocessing.size, cell.scorer.crops_wanted)
            except Exception as error:
                yield _failed(row, error), []
                continue
            row = replace(row, references="|".join(Path(path).name for path in references))
            one = _Running(self, cell.scorer, row, references, preprocessing, head)
            running.setdefault(preprocessing, []).append(one)
        for preprocessing, group in running.items():  # nearly always one
            yield from self._score(group, cells[0].category, preprocessing)

    def _preprocessing(self, references: Sequence[Picture], head: str) -> Preprocessing:
        """The preprocessing that `Detector.fit` would choose; squeezed for cells without references or with a head."""
        spec, bits = self.features.backbone.spec, bits_of(list(references))
        if self.frames == "squeezed" or head or not references:
            return Preprocessing(spec.size, bits)
        if self.frames == "exact":
            return Preprocessing(spec.size, bits, keeps_aspect=True)
        side, aspect = max(spec.size), shared_aspect([picture.aspect for picture in references])
        frame = backbones.frame_of(spec.name, side, aspect or 1.0)
        return Preprocessing(frame, bits, keeps_aspect=aspect is not None, side=side)

    def _head(self, cell: Cell) -> head_file.TrainedHead | None:
        """The head of a cell, if its training has not seen this category.

        Raises:
            WeightsError: if the file of the head cannot be read.
            SettingError: if the head was trained on another backbone.
            InputError: if a category of this name belongs to the head's training or its validation.
        """
        if not cell.head:
            return None
        if cell.head not in self._heads:
            self._heads[cell.head] = head_file.read(Path(cell.head))
        head = self._heads[cell.head]
        head.check(self.features.backbone.spec)
        head.module.to(self.features.backbone.device)
        head.check_unseen(cell.category.name)
        return head

    def _score(
        self, running: "Sequence[_Running]", category: Category, preprocessing: Preprocessing
    ) -> Iterator[Outcome]:
        wanted = {cell.method.crops_wanted for cell in running}
        held = sum(self.features.held_bytes(preprocessing.size, crops) for crops in wanted)
        at_a_time = max(1, FEATURE_BYTES // held)
        for start in range(0, len(category.test), at_a_time):
            part = category.test[start : start + at_a_time]
            try:
                seen = [self.features.see(sample, category, preprocessing, wanted) for sample in part]
            except Exception as error:
                yield from ((_failed(cell.row, error), []) for cell in running)
                return
            going_on = []
            for cell in running:
                try:
                    cell.advance(seen)
                    if start + at_a_time >= len(category.test):
                        yield cell.finish()
                    going_on.append(cell)
                except Exception as error:
                    yield _failed(cell.row, error), []
            running = going_on


def _row(cell: Cell, spec: BackboneSpec, frames: Frames) -> Row:
    """The row of a cell, still without results; `spec` describes the backbone before a training on the references."""
    method, (height, width) = cell.scorer, spec.size
    sizes = {"references": f"{max(spec.size)}", "exact": f"{height}x{width} padded", "squeezed": f"{height}x{width}"}
    return Row(
        dataset=cell.dataset,
        category=cell.category.name,
        method=cell.method,
        protocol=method.protocol + (" transductive" if method.transductive else ""),
        backbone=backbone_label(spec),
        weights_sha256=spec.weights_sha256,
        size=sizes["squeezed" if cell.head else frames],
        shots=cell.shots,
        seed=cell.seed,
    )


class _Running:
    """The run of a cell: fits the cell's method, then scores the test pictures part by part."""

    def __init__(
        self,
        category: _Category,
        scorer: Method,
        row: Row,
        references: Sequence[str],
        preprocessing: Preprocessing,
        head: head_file.TrainedHead | None,
    ) -> None:
        self.category, self.row, self.references, self.preprocessing = category, row, references, preprocessing
        self.method = scorer.unfitted().take_head(None if head is None else head.module)
        self.head = head
        self.counts = metrics.PixelCounts()
        self.marked = False  # whether any defect scored so far has a mask
        self.scores: list[PictureScore] = []
        # Filled by transductive methods alone: the parts of each picture's scores, its placement and its truth.
        self.parts: list[tuple[tuple[Tensor, ...], Placement, metrics.PixelTruth | None]] = []
        self.seconds: list[float] = []
        self.threshold: float | None = None
        self.fit_seconds = 0.0
        self.peak_mb: float | None = None

    def advance(self, seen: Sequence[LabelledPicture]) -> None:
        """Score the next pictures; fit the method before the first pictures."""
        reset_peak()
        if not self.scores:
            self._fit()
        digests = {self.category.features.picture(path)[1]: path for path in self.references}
        for picture in seen:
            if self.head is not None:
                self.head.check_new(picture.digest, picture.sample.path)
            if picture.digest in digests:
                raise InputError(
                    f"References must not be among the test pictures, got {digests[picture.digest]} and "
                    f"{picture.sample.path}, which are equal; take one of them out."
                )
            self._score(picture)
        self.peak_mb = max(filter(None, (self.peak_mb, peak_mb())), default=None)

    def finish(self) -> Outcome:
        """The row with all results, and the scores by picture."""
        truth = [score.anomalous for score in self.scores]
        image = [score.raw_score for score in self.scores]
        names = [score.path for score in self.scores]
        decided = self._rates()
        if self.method.transductive:
            image, decided = self._over_test_set(), {}  # scores over the test set do not share the threshold's scale
        measured: dict[str, Any] = {
            "image_auroc": 100 * metrics.image_auroc(truth, image, names=names),
            "image_ap": 100 * metrics.image_ap(truth, image, names=names),
            "image_f1_oracle": 100 * metrics.image_f1_max(truth, image, names=names),
            **self._pixel_metrics(),
            **decided,
            "fit_s": self.fit_seconds,
            "ms_per_image": 1000 * statistics.median(self.seconds),
            "peak_rss_mb": self.peak_mb,
        }
        return replace(self.row, **measured), self.scores

    def _fit(self) -> None:
        shared = self.category.features
        if not self.references:
            self.method.fit(shared.blank(self.preprocessing)[[]])
            return
        count, wanted = view_count(len(self.references)), self.method.views_wanted
        views, augmented, seconds = [], [], 0.0
        for path in self.references:
            mild, mild_seconds = shared.views(path, self.preprocessing, count, self.method.crops_wanted)
            random, random_seconds = shared.views(path, self.preprocessing, wanted, None, random=True)
            views.append(mild)
            augmented.append(random)
            seconds += shared.picture(path)[2] + mild_seconds + random_seconds
        turned, turned_seconds = shared.turned(self.method.turn_wanted, self.references, self.preprocessing)
        defects: list[tuple[int, Features]] = []
        if self.method.weighs_defects and len(self.references) > 1 and not turned:
            defects, defects_seconds = shared.defects(self.references, self.preprocessing)
            seconds += defects_seconds
        begin = time.perf_counter()
        calibration = fit_and_calibrate(
            self.method, views, augmented, turned, defects=defects, false_alarm_rate=self.category.false_alarm_rate
        )
        self.fit_seconds = time.perf_counter() - begin + seconds + turned_seconds
        self.threshold = calibration.threshold

    def _score(self, picture: LabelledPicture) -> None:
        begin = time.perf_counter()
        crops = self.method.crops_wanted
        scores = self.method.score(picture.features[crops])
        image, values = float(scores.image[0]), picture.placement.cut(scores.maps[0].cpu().numpy())
        self.seconds.append(picture.seconds[crops] + time.perf_counter() - begin)
        sample = picture.sample
        self.scores.append(PictureScore(sample.path, bool(sample.anomalous), sample.kind, image))
        self.marked |= picture.truth is not None and bool(sample.anomalous)
        if self.method.transductive:
            self.parts.append((scores.parts, picture.placement, picture.truth))
        elif picture.truth is not None:
            self.counts.add(values, picture.truth, name=sample.path)

    def _over_test_set(self) -> list[float]:
        """The image scores of a transductive method over the whole test set; also counts the pixels of the maps."""
        image = []
        whole = self.method.over_test_set([parts for parts, _, _ in self.parts])
        for scores, (_, part, truth), picture in zip(whole, self.parts, self.scores, strict=True):
            image.append(float(scores.image[0]))
            if truth is not None:
                self.counts.add(part.cut(scores.maps[0].cpu().numpy()), truth, name=picture.path)
        return image

    def _pixel_metrics(self) -> dict[str, float]:
        if not self.marked:
            return {}
        return {
            "pixel_auroc": 100 * self.counts.auroc(),
            "pixel_ap": 100 * self.counts.average_precision(),
            "pixel_f1_oracle": 100 * self.counts.f1_max(),
            "aupro": 100 * self.counts.aupro(),
        }

    def _rates(self) -> dict[str, float]:
        """The shipped threshold, and its false alarms and misses among the test pictures; empty without a threshold."""
        if self.threshold is None:
            return {}
        shares = []
        for anomalous in (False, True):
            rejected = [score.raw_score > self.threshold for score in self.scores if score.anomalous == anomalous]
            shares.append(100 * sum(rejected) / max(1, len(rejected)))
        return {"threshold": self.threshold, "false_alarm_rate": shares[0], "miss_rate": 100 - shares[1]}


def _failed(row: Row, error: Exception) -> Row:
    said = str(error) if isinstance(error, HandfulError) else f"{type(error).__name__}: {error}"
    return replace(row, error=" ".join(said.split()))
