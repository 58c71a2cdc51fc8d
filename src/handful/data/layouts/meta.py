"""meta.json, the list of pictures in the format of FASL, AnomalyCLIP and related code.

The format is {"train": {CATEGORY: [PICTURE, …]}, "test": {…}}, where a PICTURE is {"img_path", "mask_path", "cls_name",
"specie_name", "anomaly"}, with paths relative to the file's folder, "" for no mask, and an anomaly of 0 or 1. Source:
github.com/zqhang/AnomalyCLIP, generate_dataset_json, and github.com/Follow-winds/FASL-fewshot-anomaly-detection, data.
VisA is in the order of split_csv/1cls.csv, with an empty specie_name. Departure: MVTec AD's types of defects are
sorted, where the sources have the order of the file system.
"""

import json
import os
from pathlib import Path
from typing import Any

from handful.data.layouts.tree import Reading, assemble, not_there, read_all, relative, some
from handful.data.layouts.visa import published_order
from handful.errors import InputError
from handful.files import replacing
from handful.types import Category, Dataset, Sample

NAME = "meta.json"
KIND_OF_VISA = "anomaly"  # the type of every defect in VisA's own table


def detect(root: Path) -> bool:
    """Whether the path is a .json file, or a folder that holds meta.json."""
    return root.suffix.lower() == ".json" if root.is_file() else (root / NAME).is_file()


def read(root: Path) -> Dataset:
    """Every category that the file names; absent pictures are left out and named in `Dataset.missing`.

    Raises:
        InputError: if the file is absent or of another form, or no category has a good training picture and a test
            picture.
    """
    path = root if root.is_file() else root / NAME
    try:
        content = json.loads(path.read_text(encoding="utf-8-sig"))
        splits: dict[str, dict[str, list[Any]]] = {split: dict(content[split]) for split in ("train", "test")}
        if not all(isinstance(entries, list) for split in splits.values() for entries in split.values()):
            raise ValueError("a category that is no list")
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InputError(
            f"{path} must be a readable meta.json with train and test, got {type(error).__name__}: {error}; make it "
            f"anew."
        ) from error
    names = sorted({*splits["train"], *splits["test"]})
    return read_all("meta", root, names, lambda name: _read_one(path, name, splits))


def _read_one(path: Path, name: str, splits: dict[str, dict[str, list[Any]]]) -> Reading:
    train, test = ([_sample(path, name, entry) for entry in splits[split].get(name, ())] for split in splits)
    absent = {sample.path for sample in train + test if not Path(sample.path).is_file()}
    missing = not_there(name, path.name, "pictures", [relative(at, path.parent) for at in sorted(absent)])
    refused = [relative(sample.path, path.parent) for sample in train if sample.anomalous]
    if refused:
        missing.append(f"{name}: {path.name} has defects in train, left out ({len(refused)}): {some(refused)}.")
    good = [sample.path for sample in train if not sample.anomalous and sample.path not in absent]
    return assemble(name, good, [s for s in test if s.path not in absent], root=path.parent, missing=missing)


def _sample(path: Path, name: str, entry: Any) -> Sample:
    """The labelled sample of a PICTURE in the file."""
    try:
        picture, mask, kind, anomaly = (entry[key] for key in ("img_path", "mask_path", "specie_name", "anomaly"))
        if not all(isinstance(text, str) for text in (picture, mask, kind)) or anomaly not in (0, 1):
            raise ValueError
    except (TypeError, KeyError, ValueError) as error:
        raise InputError(
            f"Every picture of {name} in {path} must have img_path, mask_path, specie_name and anomaly (0 or 1), got "
            f"{entry!r}; make the file anew."
        ) from error
    at, masked = (os.path.normpath(path.parent / name) for name in (picture, mask))
    if not anomaly:
        return Sample(at, False, "good")
    return Sample(at, True, kind or KIND_OF_VISA, (masked,) if mask and Path(masked).is_file() else ())


def write(dataset: Dataset, path: Path) -> None:
    """Write a data set's meta.json, with paths relative to the file's folder.

    Args:
        dataset: a data set of any layout.
        path: the path of the file; the code that reads the format expects meta.json in the data set's folder.

    Raises:
        InputError: if a picture has more than one mask or no label.
        OutputError: if the file cannot be written.
    """
    order = published_order(Path(dataset.root)) if dataset.layout == "visa" else {}
    content: dict[str, dict[str, list[dict[str, Any]]]] = {"train": {}, "test": {}}
    for category in dataset.categories:
        train = [Sample(picture, False, "good") for picture in category.train]
        for split, samples in (("train", train), ("test", category.test)):
            ordered = sorted(samples, key=lambda sample: (order.get(sample.path, 0), sample.path))
            content[split][category.name] = [_entry(sample, category, path, blank=bool(order)) for sample in ordered]
    with replacing(path) as file:
        file.write((json.dumps(content, indent=4) + "\n").encode("utf-8"))


def _entry(sample: Sample, category: Category, path: Path, *, blank: bool) -> dict[str, Any]:
    if len(sample.masks) > 1 or sample.anomalous is None:
        came = "no label" if sample.anomalous is None else f"{len(sample.masks)} masks"
        raise InputError(
            f"A picture in meta.json must have a label and at most one mask, got {came} for {sample.path}; "
            f"use a manifest for this data set."
        )
    return {
        "img_path": _to(path.parent, sample.path),
        "mask_path": _to(path.parent, sample.masks[0]) if sample.masks else "",
        "cls_name": category.name,
        "specie_name": "" if blank else sample.kind,
        "anomaly": int(sample.anomalous),
    }


def _to(folder: Path, name: str) -> str:
    return Path(os.path.relpath(name, folder)).as_posix()
