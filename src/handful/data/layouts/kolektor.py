"""KolektorSDD2: train and test with pictures NNNNN.png and masks NNNNN_GT.png beside them.

Source: Božič et al., Mixed supervision for surface-defect detection, Computers in Industry 129, 2021. A picture shows a
defect if its mask has a pixel that is not black. References are drawn from the good pictures of train; the defects of
train are not used.
"""

from pathlib import Path

from handful.data.images import read_picture
from handful.data.layouts.tree import Reading, assemble, differences, pictures, read_all, relative, some
from handful.errors import ImageError
from handful.types import Dataset, Sample

CATEGORY = "kolektorsdd2"
OFFICIAL = (2085, 894, 110)
SUFFIX = "_GT"


def detect(root: Path) -> bool:
    """Whether there are train and test, and masks beside the pictures of test."""
    return (root / "train").is_dir() and any((root / "test").glob(f"[!.]*{SUFFIX}.*"))


def read(root: Path) -> Dataset:
    """Read the only category, without pictures that lack a readable mask; raises InputError if nothing is usable."""
    return read_all("kolektor", root, [root], _read_one)


def _read_one(root: Path) -> Reading:
    (train, unknown), (test, more) = _labelled(root / "train"), _labelled(root / "test")
    bare = [relative(path, root) for path in unknown + more]
    good = [sample.path for sample in train if not sample.anomalous]
    category, missing = assemble(CATEGORY, good, test, root=root)
    if bare:
        missing.insert(0, f"{CATEGORY}: pictures without a readable mask are left out ({len(bare)}): {some(bare)}.")
    return category, [*differences(category, OFFICIAL), *missing]


def _labelled(folder: Path) -> tuple[list[Sample], list[str]]:
    """The pictures labelled by their masks, and the paths of pictures without a readable mask."""
    found = {path.stem: str(path) for path in pictures(folder)}
    samples, unknown = [], []
    for stem, path in found.items():
        if stem.endswith(SUFFIX):
            continue
        mask = found.get(stem + SUFFIX)
        try:
            anomalous = mask is not None and bool(read_picture(mask).pixels.any())
        except ImageError:
            mask = None
        if mask is None:
            unknown.append(path)
        else:
            samples.append(Sample(path, True, "defect", (mask,)) if anomalous else Sample(path, False, "good"))
    return samples, unknown
