"""meta.json, the list of pictures that FASL, AnomalyCLIP and others of their family read.

{"train": {CATEGORY: [PICTURE, …]}, "test": {…}}, a PICTURE being {"img_path", "mask_path", "cls_name", "specie_name",
"anomaly"} with paths from the file's folder, "" for no mask, and 0 or 1. As github.com/zqhang/AnomalyCLIP,
generate_dataset_json, and github.com/Follow-winds/FASL-fewshot-anomaly-detection, data, write it: for VisA in the order
of split_csv/1cls.csv and with empty specie_name. Their order of MVTec AD's types of defects is the file system's; here
it is sorted.
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
KIND_OF_VISA = "anomaly"  # what VisA's own table calls every defect


def detect(root: Path) -> bool:
    """Whether it is a .json file, or a folder that holds meta.json."""
    return root.suffix.lower() == ".json" if root.is_file() else (root / NAME).is_file()


def read(root: Path) -> Dataset:
    """Every category that the file names; pictures that are not there are left out and said.

    Raises:
        InputError: if the file is absent or not of this form, or no category has a good training picture and a test
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
    """One PICTURE of the file, in its category and label."""
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
    """Write a data set's meta.json, with paths from the folder that it is written to.

    Args:
        dataset: of any layout.
        path: of the file; the family looks for it as meta.json in the data set's folder.

    Raises:
        InputError: if a picture has more than one mask, or nobody said what it shows.
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
