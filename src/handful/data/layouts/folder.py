"""A plain folder: good pictures in good, ok or normal, defects in other folders, masks in an optional folder.

The folders of defects, DEFECT/NAME, may have any names, such as bad, ng, defect or the types of the defects. Masks lie
in mask, masks or ground_truth, as MASKS/DEFECT/NAME or MASKS/NAME, with or without _mask. The case of good, ok, normal
and of the masks' folder does not matter. Sorted by path, the first, third and further odd good pictures are for
training, the others for testing.
"""

from pathlib import Path

from handful.data.layouts.tree import Reading, assemble, by_stem, mask_of, name_of, pictures, read_all, subfolders
from handful.errors import InputError
from handful.types import Dataset, Sample

GOOD = ("good", "normal", "ok")
MASKS = ("ground_truth", "mask", "masks")


def detect(root: Path) -> bool:
    """Whether there are a folder of good pictures and a folder of defects, and neither train nor test."""
    names = {folder.name.lower() for folder in subfolders(root)}
    return bool(names & {*GOOD}) and bool(names - {*GOOD, *MASKS}) and not names & {"train", "test"}


def read(root: Path) -> Dataset:
    """Read the only category, named like the folder; raises InputError for fewer than two good pictures."""
    return read_all("folder", root, [root], _read_one)


def _read_one(root: Path) -> Reading:
    inside = subfolders(root)
    masks = [folder for folder in inside if folder.name.lower() in MASKS]
    flat = {stem: path for place in masks for stem, path in by_stem(place).items()}
    good, samples, missing = [], [], []
    for folder in inside:
        found = pictures(folder)
        if folder.name.lower() in GOOD:
            good += found
        elif folder not in masks:
            own = {stem: path for place in masks for stem, path in by_stem(place / folder.name).items()}
            samples += [Sample(str(p), True, folder.name, mask_of(p, own) or mask_of(p, flat)) for p in found]
        if not found and folder not in masks:
            missing.append(f"{name_of(root)}: {folder.name} holds no pictures.")
    if len(good) < 2:
        raise InputError(
            f"{root} must hold at least two good pictures, one to learn from and one to test on, got {len(good)}; "
            f"add some."
        )
    good.sort(key=str)
    samples += [Sample(str(path), False, "good") for path in good[1::2]]
    return assemble(name_of(root), good[::2], samples, root=root, missing=missing)
