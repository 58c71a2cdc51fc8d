"""The pictures that benchmarks/speed.py inspects."""

import argparse
import sys
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from handful.data.layouts.registry import open_dataset
from handful.inspector import Inspector
from handful.types import Category

SIDE = 900  # of the JPEGs
EACH = 3  # pictures of each verdict


def chosen(options: argparse.Namespace) -> Category:
    """The category: its data set's folder holds it."""
    folder, _, name = options.category.rpartition("/")
    found = {one.name: one for one in open_dataset(options.data / folder).categories}
    if name not in found:
        sys.exit(f"--category must be one of {', '.join(found)} in {options.data / folder}, got {name}.")
    return found[name]


def jpegs(category: Category, scratch: Path) -> list[Path]:
    """Test pictures as JPEGs of one size, the good ones first."""
    files = []
    for number, sample in enumerate(sorted(category.test, key=lambda one: bool(one.anomalous))):
        files.append(scratch / f"{number:04d}.jpg")
        Image.fromarray(decoded(sample.path)).resize((SIDE, SIDE)).save(files[-1], quality=90)
    return files


def judged(inspector: Inspector, paths: Sequence[Path]) -> dict[str, list[Path]]:
    """A few pictures of each verdict, the good ones in `paths` first; one that no picture has is left out."""

    def few(verdict: str, candidates: Sequence[Path]) -> list[Path]:
        return list(islice((path for path in candidates if inspector.inspect(path)[0].verdict == verdict), EACH))

    found = {"OK": few("OK", paths), "DEFECT": few("DEFECT", paths[::-1])}
    return {verdict: some for verdict, some in found.items() if some}


def copies(category: Category, scratch: Path, count: int) -> Path:
    """A folder of links to the test pictures, over and over."""
    scratch.mkdir()
    for number in range(count):
        original = Path(category.test[number % len(category.test)].path).absolute()
        Path(scratch, f"{number:05d}{original.suffix}").symlink_to(original)
    return scratch


def decoded(path: str | Path) -> Any:
    """Pillow alone: (h, w, 3) uint8."""
    with Image.open(path) as picture:
        return np.asarray(picture.convert("RGB"))
