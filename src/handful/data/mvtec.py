"""One category in the MVTec AD layout: train/good, test/good, test/DEFECT, ground_truth/DEFECT/NAME_mask.png."""

from pathlib import Path

from handful.data.images import list_pictures
from handful.errors import InputError
from handful.types import Sample


def read_category(root: Path) -> tuple[list[Path], list[Sample]]:
    """The good training pictures and the labelled test pictures, each sorted by path.

    Raises:
        InputError: if a folder of the layout is missing or empty.
    """
    if not (root / "test").is_dir():
        raise InputError(f"{root} must hold train/good and test, got no test folder; name one category's folder.")
    folders = sorted(path for path in (root / "test").iterdir() if path.is_dir() and not path.name.startswith("."))
    if not folders:
        raise InputError(f"{root / 'test'} must hold a folder good and one for each kind of defect, got none.")
    samples: list[Sample] = []
    for folder in folders:
        for path in list_pictures(folder, recursive=False):
            mask = root / "ground_truth" / folder.name / f"{path.stem}_mask.png"
            samples.append(Sample(str(path), folder.name != "good", folder.name, str(mask) if mask.is_file() else None))
    return list_pictures(root / "train" / "good", recursive=False), samples
