"""The benchmark's table: results.csv, which has a row for each cell, and a file of scores by picture for each cell."""

import csv
import io
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path

from handful.errors import InputError
from handful.files import replacing

RESULTS = "results.csv"


@dataclass(frozen=True)
class Row:
    """The outcome of a cell; rates, areas and F1 are in percent, and None if there is nothing to measure.

    Attributes:
        dataset, category: the data set and the category whose test pictures were scored.
        method: the text of the method, see `handful.evaluation.cells.Cell`.
        protocol: "target-only" or "auxiliary-trained", followed by " transductive" if the scores depend on the whole
            test set, as in a paper's code.
        backbone: the label of the backbone, see `handful.evaluation.run.backbone_label`.
        weights_sha256: the digest of the backbone's weights.
        size: the size of the model's input: "N" for about N² pixels at the references' aspect (without references N x N
            pixels, to which every picture is squeezed); "HEIGHTxWIDTH" if every picture is squeezed to this size, and
            "HEIGHTxWIDTH padded" if pictures of another shape keep their aspect.
        shots, seed: the number of references, and the seed of their draw.
        references: the file names of the references, in the order of the draw, joined by `|`.
        image_auroc, image_ap, image_f1_oracle: metrics of the image scores of the test pictures; F1 is at the best
            threshold on the test labels.
        pixel_auroc, pixel_ap, pixel_f1_oracle: metrics of the pixels of good test pictures and of pictures with a mask.
        aupro: the area under the per-region overlap (PRO) up to a false-positive rate of 0.3; under the saturated
            overlap (sPRO) if the data set sets saturation areas.
        threshold: the shipped threshold, from the references alone; None without references or for transductive scores.
        false_alarm_rate, miss_rate: the shares of good test pictures above the shipped threshold, and of anomalous test
            pictures not above it.
        fit_s: the seconds from the references' files to a fitted method with a threshold.
        ms_per_image: the median milliseconds from a test picture's file to its scores and map.
        peak_rss_mb: the highest resident memory of the process during the cell, in megabytes; see
            `handful.evaluation.peak_memory`.
        error: the reason for a missing result, else empty.
    """

    dataset: str
    category: str
    method: str
    protocol: str
    backbone: str
    weights_sha256: str
    size: str
    shots: int
    seed: int
    references: str = ""
    image_auroc: float | None = None
    image_ap: float | None = None
    image_f1_oracle: float | None = None
    pixel_auroc: float | None = None
    pixel_ap: float | None = None
    pixel_f1_oracle: float | None = None
    aupro: float | None = None
    threshold: float | None = None
    false_alarm_rate: float | None = None
    miss_rate: float | None = None
    fit_s: float | None = None
    ms_per_image: float | None = None
    peak_rss_mb: float | None = None
    error: str = ""

    @property
    def key(self) -> tuple[str, str, str, int, int]:
        """The identity of the cell in one results.csv."""
        return self.dataset, self.category, self.method, self.shots, self.seed


COLUMNS = tuple(field.name for field in fields(Row))
_FORMATS = {"threshold": ".6g", "fit_s": ".3f", "peak_rss_mb": ".0f"}  # the others: two decimals


@dataclass(frozen=True)
class PictureScore:
    """One test picture's raw image score in one cell."""

    path: str
    anomalous: bool
    kind: str
    raw_score: float


def read(path: Path) -> list[Row]:
    """The rows of a results.csv; an empty list if there is no such file.

    Raises:
        InputError: if the file has other columns or a value of another type.
    """
    if not path.exists():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        if tuple(reader.fieldnames or ()) != COLUMNS:
            raise InputError(f"{path} must have the columns {', '.join(COLUMNS)}, got others; choose another folder.")
        try:
            return [_row(line) for line in reader]
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} must hold results as written, got: {error}; choose another folder.") from error


def write(path: Path, rows: Sequence[Row]) -> None:
    """Write the whole results.csv, sorted by cell.

    Raises:
        OutputError: if the file cannot be written; an existing file then stays unchanged.
    """
    in_order = sorted(rows, key=lambda row: row.key)
    _write(path, COLUMNS, [[_text(name, value) for name, value in asdict(row).items()] for row in in_order])


def scores_path(out: Path, row: Row) -> Path:
    """The path of the file of a cell's scores by picture."""
    return out / "scores" / row.dataset / row.category / f"{file_name(row.method)}-{row.shots}-{row.seed}.csv"


def file_name(method: str) -> str:
    """A method's text, changed so that it can be a part of a file's name on any system."""
    return re.sub(r"[^\w.=,-]", "_", method)


def write_scores(path: Path, scores: Sequence[PictureScore]) -> None:
    """Write a cell's scores by picture as CSV; makes a missing folder.

    Raises:
        OutputError: if the file cannot be written.
    """
    lines = [[score.path, str(int(score.anomalous)), score.kind, repr(score.raw_score)] for score in scores]
    _write(path, [field.name for field in fields(PictureScore)], lines)


def read_scores(path: Path) -> list[PictureScore]:
    """Read a file that `write_scores` has written."""
    with path.open(newline="", encoding="utf-8") as file:
        return [
            PictureScore(line["path"], line["anomalous"] == "1", line["kind"], float(line["raw_score"]))
            for line in csv.DictReader(file)
        ]


def _write(path: Path, columns: Sequence[str], lines: Sequence[Sequence[str]]) -> None:
    table = io.StringIO()
    csv.writer(table).writerows([columns, *lines])
    with replacing(path, make_folder=True) as file:
        file.write(table.getvalue().encode())


def _text(name: str, value: str | float | None) -> str:
    if value is None:
        return ""
    return format(value, _FORMATS.get(name, ".2f")) if isinstance(value, float) else str(value)


def _row(line: dict[str, str]) -> Row:
    kinds = {field.name: field.type for field in fields(Row)}
    values = {
        name: text if kinds[name] is str else int(text) if kinds[name] is int else float(text) if text else None
        for name, text in line.items()
    }
    return Row(**values)  # type: ignore[arg-type]  # by the kinds just read
