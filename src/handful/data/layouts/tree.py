"""Categories in the MVTec AD layout under any names: train/good, test/good, test/DEFECT, ground_truth/DEFECT/NAME_mask.

A mask may also have the name NAME, and pictures and masks may have any picture's suffix. The root holds categories or
is a category. This module also holds the functions that all readers share: folders, pictures, masks, and sentences on
missing files.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TypeVar

from handful.data.listing import is_folder, list_all
from handful.errors import InputError
from handful.types import Category, Dataset, Sample

Item = TypeVar("Item")
Reading = tuple[Category, list[str]]  # a category, and sentences on missing files
Counts = tuple[int, int, int]  # pictures of the official set: good for training, good for testing, defects
MasksOf = Callable[[Path], tuple[str, ...]]  # picture → its masks


def detect(root: Path) -> bool:
    """Whether the folder is a category in this layout, or holds such a category."""
    return is_category(root) or any(is_category(folder) for folder in subfolders(root))


def read(root: Path) -> Dataset:
    """Read every category in the folder, or the folder as a category; raises InputError if no category is usable."""
    inside = [root] if is_category(root) else [folder for folder in subfolders(root) if is_category(folder)]
    return read_all("tree", root, inside, read_category)


def ground_truth(root: Path, kind: str) -> MasksOf:
    """The masks of the pictures of a type of defect: ground_truth/DEFECT/NAME_mask, else ground_truth/DEFECT/NAME."""
    return partial(mask_of, masks=by_stem(root / "ground_truth" / kind))


def read_category(
    root: Path, *, good: str = "good", inner: str = ".", find_masks: Callable[[Path, str], MasksOf] = ground_truth
) -> Reading:
    """A category, and sentences on missing files.

    Args:
        root: the category's folder.
        good: the name of the folders of good pictures.
        inner: the folder inside train/good and test/DEFECT that holds the pictures.
        find_masks: (category's folder, type of defect) → the function from a picture to its masks.

    Raises:
        InputError: if the category has no good training picture or no test picture, or a folder cannot be read.
    """
    name, samples, missing = name_of(root), [], []
    for folder in subfolders(root / "test"):
        found = pictures(folder / inner)
        if folder.name == good:
            samples += [Sample(str(path), False, "good") for path in found]
        else:
            masks_of = find_masks(root, folder.name)
            samples += [Sample(str(path), True, folder.name, masks_of(path)) for path in found]
        if not found:
            missing.append(f"{name}: test/{folder.name} holds no pictures.")
    if not (root / "test" / good).is_dir():
        missing.append(f"{name}: the folder test/{good} is absent.")
    return assemble(name, pictures(root / "train" / good / inner), samples, root=root, missing=missing)


def is_category(folder: Path, *, good: str = "good") -> bool:
    """Whether the folder has the training and test folders of this layout."""
    return (folder / "train" / good).is_dir() and (folder / "test").is_dir()


def holds_official(root: Path, defects: Mapping[str, str]) -> bool:
    """Whether a subfolder has an official category's name, this layout, and only that category's types of defects.

    Names like tile and screw occur in several data sets; the types of defects tell the data sets apart. `defects` holds
    the types by category, separated by blanks.
    """
    return any(
        is_category(folder)
        and {kind.name for kind in subfolders(folder / "test")} <= {"good", *defects[folder.name].split()}
        for folder in subfolders(root)
        if folder.name in defects
    )


def read_all(
    layout: str, root: Path, inside: Iterable[Item], read_one: Callable[[Item], Reading], *, missing: Sequence[str] = ()
) -> Dataset:
    """Read categories; an unusable category is left out with a sentence.

    Args:
        layout: the name of the layout.
        root: the data set's folder.
        inside: the categories' folders or names, sorted.
        read_one: reads a category, or raises InputError.
        missing: earlier sentences on missing files.

    Raises:
        InputError: if no category can be used.
    """
    categories, said, failures = [], list(missing), []
    for item in inside:
        try:
            category, sentences = read_one(item)
        except InputError as error:
            said.append(str(error))
            failures.append(error)
        else:
            categories.append(category)
            said += sentences
    if not categories and failures:
        raise failures[0]
    if not categories:
        raise InputError(
            f"{root} must hold a category with good training pictures and test pictures, got none; check the path."
        )
    return Dataset(layout, str(root), tuple(categories), tuple(said))


def read_official(
    layout: str, root: Path, official: Mapping[str, Counts], read_one: Callable[[Path], Reading] = read_category
) -> Dataset:
    """Read the official categories of a data set, with sentences on absent and foreign categories and other counts.

    Args:
        layout, root, read_one: see `read_all`.
        official: the numbers of pictures by category.

    Raises:
        InputError: if no category has a good training picture and a test picture.
    """

    def read_and_count(folder: Path) -> Reading:
        category, missing = read_one(folder)
        return category, [*differences(category, official[category.name]), *missing]

    there = {folder.name: folder for folder in subfolders(root)}
    absent = [f"{name}: the category is absent." for name in sorted(official) if name not in there]
    foreign = [
        f"{name}: no category of this data set, left out."
        for name, folder in there.items()
        if name not in official and (folder / "train").is_dir()
    ]
    inside = [folder for name, folder in there.items() if name in official]
    return read_all(layout, root, inside, read_and_count, missing=absent + foreign)


def differences(category: Category, official: Counts) -> list[str]:
    """Sentences on numbers of pictures that differ from the official numbers."""
    defects = sum(bool(sample.anomalous) for sample in category.test)
    came = (len(category.train), len(category.test) - defects, defects)
    what = ("training pictures", "good test pictures", "defect test pictures")
    return [
        f"{category.name}: {count} of {expected} {which}."
        if count < expected
        else f"{category.name}: {count} {which}, {count - expected} more than the official {expected}."
        for count, expected, which in zip(came, official, what, strict=True)
        if count != expected
    ]


def assemble(
    name: str, train: Iterable[Path | str], samples: Iterable[Sample], *, root: Path, missing: Iterable[str] = ()
) -> Reading:
    """Assemble a category of sorted pictures, with sentences on missing masks.

    Args:
        name: the category's name.
        train: good pictures.
        samples: test pictures.
        root: the folder to which paths in sentences are relative.
        missing: earlier sentences on missing files.

    Raises:
        InputError: if there is no good training picture or no test picture, or a training picture is a test picture.
    """
    test = tuple(sorted(samples, key=lambda sample: sample.path))
    category = Category(name, tuple(sorted(map(str, train))), test)
    if not category.train or not test:
        lacks = "test pictures" if category.train else "good training pictures"
        raise InputError(
            f"The category {name} must hold good training pictures and test pictures, got no {lacks} in {root}; "
            f"add some."
        )
    both = sorted({*category.train} & {sample.path for sample in test})
    if both:
        raise InputError(f"The category {name} must not test on training pictures, got {some(both)}; split them anew.")
    defects = [sample for sample in test if sample.anomalous]
    bare = [relative(sample.path, root) for sample in defects if not sample.masks]
    said = list(missing)
    if bare and len(bare) == len(defects):
        said.append(f"{name}: there are no masks: image-level metrics only.")
    elif bare:
        said.append(f"{name}: no mask for {len(bare)} of {len(defects)} defect pictures: {some(bare)}.")
    return category, said


def not_there(name: str, source: str, what: str, paths: Sequence[str]) -> list[str]:
    """A sentence on listed pictures or masks (`what`) that are absent; an empty list if none is absent."""
    return [f"{name}: {source} lists {what} that are not there ({len(paths)}): {some(paths)}."] if paths else []


def subfolders(root: Path) -> list[Path]:
    """The subfolders of a folder without hidden folders, sorted; empty for a file; InputError if unreadable."""
    try:
        inside = list(root.iterdir()) if root.is_dir() else []
    except OSError as error:
        raise InputError(
            f"The folder {root} must be readable, got: {error.strerror}; check its permissions."
        ) from error
    return sorted(path for path in inside if not path.name.startswith(".") and path.is_dir())


def pictures(folder: Path) -> list[Path]:
    """The pictures in a folder, sorted; empty for an absent folder; raises InputError for an unreadable folder."""
    return list(list_all(folder, recursive=False).pictures) if is_folder(folder) else []


def by_stem(folder: Path) -> dict[str, str]:
    """The pictures in a folder by their names without suffix."""
    return {path.stem: str(path) for path in pictures(folder)}


def mask_of(picture: Path, masks: Mapping[str, str]) -> tuple[str, ...]:
    """The mask NAME_mask, else NAME, of the picture NAME among masks by stem; empty without such a mask."""
    names = (f"{picture.stem}_mask", picture.stem)
    return next(((masks[name],) for name in names if name in masks), ())


def name_of(root: Path) -> str:
    """The name of a folder, also of a path `.` or `..`."""
    return root.name if root.name not in ("", "..") else root.resolve().name


def relative(path: str, root: Path) -> str:
    """A path for sentences: relative to `root` if it lies inside, else unchanged."""
    return Path(path).relative_to(root).as_posix() if Path(path).is_relative_to(root) else path


def some(names: Sequence[str]) -> str:
    """The first three names in words, with an ellipsis for more."""
    return ", ".join(names[:3]) + (", …" if len(names) > 3 else "")
