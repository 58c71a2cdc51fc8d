"""A manifest, a user's own list of pictures: a CSV file with a header, or a JSON object in each line.

The columns are path, label (0, good, ok, normal or 1, bad, ng, defect, anomalous), split (train or test), and
optionally mask (several masks are joined by |), kind (the defect's type) and category (by default the file's name
without suffix). Relative paths start at the manifest's folder.
"""

import csv
import io
import json
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from handful.data.layouts.tree import Reading, assemble, not_there, read_all, some
from handful.errors import InputError
from handful.types import Dataset, Sample

NAMES = ("manifest.csv", "manifest.jsonl")  # searched in a folder, in this order
COLUMNS = ("path", "label", "split")
LABELS = {  # label → whether the picture is anomalous
    **dict.fromkeys(("0", "good", "ok", "normal"), False),
    **dict.fromkeys(("1", "bad", "ng", "defect", "anomalous"), True),
}
SPLITS = {"train": True, "test": False}
Row = tuple[int, dict[str, str]]  # number of the line, from 1; cells by column


@dataclass
class _Group:
    """The pictures of a category by the manifest's rows."""

    train: list[str] = field(default_factory=list)
    test: list[Sample] = field(default_factory=list)
    absent: list[str] = field(default_factory=list)
    absent_masks: list[str] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def detect(root: Path) -> bool:
    """Whether the path is a .csv or .jsonl file, or a folder that holds manifest.csv or manifest.jsonl."""
    return _file(root) is not None


def read(root: Path) -> Dataset:
    """Every category that the manifest names; absent pictures are left out and named in `Dataset.missing`.

    Raises:
        InputError: if the manifest is absent or damaged, a cell is wrong, a picture is listed twice, or no category has
            a good training picture and a test picture.
    """
    path = _file(root)
    if path is None:
        raise InputError(f"A manifest must be a .csv or .jsonl file or a folder with {' or '.join(NAMES)}, got {root}.")
    groups: dict[str, _Group] = defaultdict(_Group)
    lines: dict[Path, int] = {}
    for line, row in read_table(path, COLUMNS) if path.suffix.lower() == ".csv" else _read_json(path):
        if not row["path"]:
            raise cell_error(path, line, "path", "a picture's path", "")
        picture = path.parent / row["path"]
        if picture in lines:
            raise cell_error(path, line, "path", f"another picture than line {lines[picture]}", row["path"])
        lines[picture] = line
        _add(groups[row.get("category") or path.stem], path, line, row)

    def read_one(name: str) -> Reading:
        group = groups[name]
        missing = not_there(name, path.name, "pictures", group.absent)
        missing += not_there(name, path.name, "masks", group.absent_masks)
        if group.refused:
            missing.append(
                f"{name}: {path.name} labels training pictures as anomalous (column label), left out "
                f"({len(group.refused)}): {some(group.refused)}."
            )
        return assemble(name, group.train, group.test, root=path.parent, missing=missing)

    return read_all("manifest", root, sorted(groups), read_one)


def _file(root: Path) -> Path | None:
    """The manifest at a path, or in the folder at the path; None for none."""
    if root.is_file():
        return root if root.suffix.lower() in (".csv", ".jsonl") else None
    return next((root / name for name in NAMES if (root / name).is_file()), None)


def _add(group: _Group, path: Path, line: int, row: dict[str, str]) -> None:
    """Add the picture of a row to the group of its category."""
    anomalous, train = _known(path, line, row, "label", LABELS), _known(path, line, row, "split", SPLITS)
    picture = path.parent / row["path"]
    if not picture.is_file():
        group.absent.append(row["path"])
    elif train and anomalous:
        group.refused.append(f"line {line}")
    elif train:
        group.train.append(str(picture))
    elif not anomalous:
        group.test.append(Sample(str(picture), False, "good"))
    else:
        masks = [name for name in row.get("mask", "").split("|") if name]
        group.absent_masks += [name for name in masks if not (path.parent / name).is_file()]
        there = tuple(str(path.parent / name) for name in masks if (path.parent / name).is_file())
        group.test.append(Sample(str(picture), True, row.get("kind") or "defect", there))


def _known(path: Path, line: int, row: dict[str, str], column: str, known: dict[str, bool]) -> bool:
    if row[column].lower() not in known:
        raise cell_error(path, line, column, f"one of {', '.join(known)}", row[column])
    return known[row[column].lower()]


def read_table(path: Path, columns: tuple[str, ...]) -> list[Row]:
    """The rows of a CSV file with a header, cells stripped of blanks.

    Raises:
        InputError: if the file cannot be read or lacks a column, or a row has more cells than the header.
    """
    reader = csv.DictReader(io.StringIO(_text(path), newline=""), restval="", strict=True)
    rows = []
    try:
        lacks = next((column for column in columns if column not in (reader.fieldnames or ())), None)
        if lacks:
            raise InputError(f"{path} must have the columns {', '.join(columns)} in line 1, got no {lacks}; add it.")
        for row in reader:
            if None in row:
                raise InputError(f"Line {reader.line_num} of {path} must have no more cells than line 1, got more.")
            rows.append((reader.line_num, {column: cell.strip() for column, cell in row.items()}))
    except csv.Error as error:
        raise InputError(f"Line {reader.line_num} of {path} must be CSV, got: {error}; correct it.") from error
    return rows


def _read_json(path: Path) -> list[Row]:
    """The rows of a file of JSON lines; numbers count as text, null as empty text.

    Raises:
        InputError: if the file cannot be read, a line is no JSON object, or a cell is no text.
    """
    rows = []
    for number, text in enumerate(_text(path).split("\n"), 1):
        if not text.strip():
            continue
        try:
            entry = json.loads(text)
        except ValueError as error:
            raise InputError(f"Line {number} of {path} must be a JSON object, got: {error}; correct it.") from error
        if not isinstance(entry, dict):
            raise InputError(f"Line {number} of {path} must be a JSON object, got {type(entry).__name__}; correct it.")
        for column in COLUMNS:
            entry.setdefault(column, None)
        for column, value in entry.items():
            if column in (*COLUMNS, "mask", "kind", "category") and not isinstance(value, (str, int, type(None))):
                raise cell_error(path, number, column, "text", str(value))
        rows.append((number, {column: "" if cell is None else str(cell).strip() for column, cell in entry.items()}))
    return rows


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        said = error.strerror if isinstance(error, OSError) else error
        raise InputError(f"{path} must be readable text in UTF-8, got: {said}; check it.") from error


def cell_error(path: Path, line: int, column: str, expected: str, came: str) -> InputError:
    """An InputError with a sentence on the expected and the actual content of a cell."""
    return InputError(f"Line {line} of {path} must have {expected} in column {column}, got {came!r}; correct it.")
