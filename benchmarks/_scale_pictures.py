"""Pictures, manifests and inspectors of benchmarks/scale.py and benchmarks/scale_simulation.py, in a scratch folder."""

import json
import os
import shutil
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import torch
from pyarrow import parquet

from handful.data.layouts.registry import open_dataset
from handful.data.shots import draw
from handful.detector import Detector
from handful.files import replacing
from handful.saved import archive

SMALL = {"backbone": "test_efficientnet", "weights": "random", "size": 64}  # an inspector that is quick to load
FEW = 16  # small files that the stub's manifests name again and again
KILOBYTE = 1_000
BATCH = 1_000_000  # rows of a manifest that are made at once


def picture_paths(data: Path, category: str) -> tuple[list[str], list[str]]:
    """The references and the test pictures of a category, DIR/DATASET/CATEGORY."""
    dataset, _, name = category.rpartition("/")
    found = next(one for one in open_dataset(data / dataset).categories if one.name == name)
    return list(draw(found.train, shots=4, seed=0)), [sample.path for sample in found.test]


def repeated(pictures: Sequence[str], folder: Path, count: int) -> Path:
    """A folder of the pictures under other names, again and again: hard links, or copies on another disk."""
    folder.mkdir(parents=True)
    for number in range(count):
        original = Path(pictures[number % len(pictures)])
        target = folder / f"{number:06d}{original.suffix}"
        first = folder / f"{number % len(pictures):06d}{original.suffix}"
        if number < len(pictures):
            shutil.copyfile(original, target)  # hard links to a data set that belongs to another user may be forbidden
        else:
            os.link(first, target)
    return folder


def small_files(folder: Path) -> list[str]:
    """A few files of a kilobyte, which the stub reads and does not decode."""
    folder.mkdir(parents=True, exist_ok=True)
    files = [folder / f"{number:02d}.jpg" for number in range(FEW)]
    for number, file in enumerate(files):
        file.write_bytes(np.random.default_rng(number).bytes(KILOBYTE))
    return [str(file) for file in files]


def manifest(path: Path, files: Sequence[str], rows: int, *, products: Sequence[str] = ("part",)) -> Path:
    """A manifest of so many rows: the files again and again, each time as another version, the products in turn."""
    names, owners = pa.array(files), pa.array(products)
    schema = pa.schema({"path": pa.string(), "bytes": pa.int64(), "version": pa.string(), "product": pa.string()})
    with replacing(path) as file, parquet.ParquetWriter(file, schema, compression="zstd") as writer:
        for start in range(0, rows, BATCH):
            numbers = np.arange(start, min(start + BATCH, rows))
            columns = {
                "path": names.take(numbers % len(files)),
                "bytes": pa.nulls(len(numbers), pa.int64()),
                "version": pa.array(numbers).cast(pa.string()),
                "product": owners.take(numbers % len(products)),
            }
            writer.write_table(pa.table(columns, schema=schema))
    return path


def small_inspector(pictures: Sequence[str], path: Path) -> Path:
    """A real inspector of 64 pixels on random weights; a file that is there stays."""
    if path.exists():
        return path
    torch.manual_seed(0)
    path.parent.mkdir(parents=True, exist_ok=True)
    Detector(engine="openvino", device="cpu", **SMALL).fit(list(pictures[:2])).save(path)  # type: ignore[arg-type]
    return path


def inspector(references: Sequence[str], path: Path, size: int) -> Path:
    """The default inspector."""
    Detector(size=size, engine="openvino").fit(list(references)).save(path)
    return path


def named_products(source: Path, folder: Path, count: int) -> list[str]:
    """Save an inspector for each of many products, each with a threshold of its own; the products' names."""
    described, calibration, entries = archive.read(source)
    names = [f"product{number:03d}" for number in range(count)]
    folder.mkdir(parents=True, exist_ok=True)
    for number, name in enumerate(names):
        own = json.loads(json.dumps(calibration))
        own["threshold"] *= 1 + number / 1e6
        archive.write(folder / f"{name}.handful", described, own, entries)
    return names
