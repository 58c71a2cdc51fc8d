"""The files that `inspect --heatmaps` writes."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from handful.data.listing import is_folder

if TYPE_CHECKING:
    from handful.data.images import Picture
    from handful.report.result import Inspection

LONGEST_NAME, LONGEST_PATH = 200, 2000  # bytes of a heatmap's name and path before they are shortened


class HeatmapNames:
    """Writes heatmaps to FOLDER/…/NAME.heatmap.png; keeps the pictures' subfolders and uses no name twice."""

    def __init__(self, pictures: Sequence[Path], folder: Path) -> None:
        self.roots = [path for path in pictures if is_folder(path)]
        self.folder = folder
        self.used: set[Path] = set()
        self.swept: set[Path] = set()

    def write(self, picture: "Picture", inspection: "Inspection") -> None:
        """Write a picture with its heatmap laid over it."""
        from handful.files import sweep

        path = Path(picture.name)
        inside = next((path.relative_to(root) for root in self.roots if path.is_relative_to(root)), Path(path.name))
        if ".." in inside.parts:  # the heatmap would lie outside the folder
            inside = Path(path.name)
        inside = _shortened(inside)
        file, number = self.folder / f"{inside}.heatmap.png", 1
        while file in self.used:
            number += 1
            file = self.folder / f"{inside}.{number}.heatmap.png"
        self.used.add(file)
        if file.parent not in self.swept:  # once: the folder may hold a million heatmaps
            sweep(file.parent)
            self.swept.add(file.parent)
        inspection.save(file, picture)


def _shortened(path: Path) -> Path:
    """A path with a name short enough for a suffix, within the 255 bytes that file systems allow.

    A name above `LONGEST_NAME` bytes is cut and ends in a part of its digest. A path above `LONGEST_PATH` bytes loses
    its folders.
    """
    if len(os.fsencode(path)) > LONGEST_PATH:
        path = Path(path.name)
    name = os.fsencode(path.name)
    if len(name) <= LONGEST_NAME:
        return path
    return path.with_name(f"{name[:LONGEST_NAME].decode(errors='ignore')}-{hashlib.sha256(name).hexdigest()[:8]}")
