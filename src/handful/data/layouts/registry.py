"""The readers of labelled data sets by name, and the choice of the reader for a folder."""

from pathlib import Path
from typing import Protocol

from handful.data.layouts import (
    brats,
    btad,
    folder,
    kolektor,
    loco,
    manifest,
    meta,
    mpdd,
    mvtec,
    mvtec3d,
    shanghaitech,
    tree,
    visa,
)
from handful.errors import InputError, SettingError
from handful.types import Dataset


class Layout(Protocol):
    """The reader of a layout: a module that recognises and reads the folders of the layout."""

    def detect(self, root: Path) -> bool:
        """Whether the folder has this layout, by names alone."""

    def read(self, root: Path) -> Dataset:
        """The usable categories in the folder, with sentences on missing files in `Dataset.missing`.

        Raises:
            InputError: if no category has a good training picture and a test picture, or a table cannot be used.
        """


LAYOUTS: dict[str, Layout] = {  # the first layout that detects a folder reads it: specific before general
    "mvtec": mvtec,
    "visa": visa,
    "btad": btad,
    "mpdd": mpdd,
    "loco": loco,
    "mvtec3d": mvtec3d,
    "kolektor": kolektor,
    "brats": brats,
    "shanghaitech": shanghaitech,
    "manifest": manifest,
    "tree": tree,
    "folder": folder,
    "meta": meta,
}


def open_dataset(root: Path, *, layout: str = "auto") -> Dataset:
    """Read a labelled data set.

    Args:
        root: the folder of the data set, or a manifest or meta.json.
        layout: a name in `LAYOUTS`, or auto for the first layout that detects the folder.

    Raises:
        SettingError: for an unknown layout.
        InputError: if the path does not exist, no layout detects the path, or the data set holds nothing usable.
    """
    if layout != "auto" and layout not in LAYOUTS:
        raise SettingError(f"`layout` must be auto or one of {', '.join(LAYOUTS)}, got {layout!r}.")
    if not root.exists():
        raise InputError(f"A data set must exist, got {root}; check the path.")
    name = layout if layout != "auto" else next((name for name in LAYOUTS if LAYOUTS[name].detect(root)), None)
    if name is None:
        raise InputError(
            f"{root} must hold a data set in one of the layouts {', '.join(LAYOUTS)}, got {_inside(root)}; lay it out "
            f"as CATEGORY/train/good, CATEGORY/test/good and CATEGORY/test/DEFECT, or write a manifest.csv."
        )
    return LAYOUTS[name].read(root)


def _inside(root: Path) -> str:
    """The contents of a path in words, with the first names in a folder."""
    if not root.is_dir():
        return "a file"
    names = sorted(path.name for path in root.iterdir() if not path.name.startswith("."))
    return f"only {', '.join(names[:5])}{', …' if len(names) > 5 else ''}" if names else "an empty folder"
