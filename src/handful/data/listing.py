"""The pictures of a folder, recognised by suffix or content, and the folder's other files."""

import errno
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from handful.data.formats import HEAD, SAVE_AS_JPEG, SUFFIXES, format_of, is_heic
from handful.errors import InputError

_NOT_ENTERED = "a folder inside the folder"
_HEIC = "HEIC or AVIF, which is not read: save it as JPEG"


@dataclass(frozen=True)
class LeftOut:
    """A file or folder inside a folder of pictures that is left out.

    Attributes:
        path: the path of the file or folder.
        reason: the reason in a few words.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Listed:
    """The contents of a folder.

    Attributes:
        pictures: sorted by path.
        left_out: all other files and folders, sorted by path; a folder that is not entered counts once.
    """

    pictures: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


class _Search:
    """The state of a search in a folder."""

    def __init__(self, *, recursive: bool) -> None:
        self.recursive = recursive
        self.pictures: list[Path] = []
        self.left_out: list[LeftOut] = []
        self.links: list[Path] = []
        self.visited: set[tuple[int, int]] = set()

    def enter(self, folder: Path) -> bool:
        """Note that a folder is searched, and return whether it is new, by its inode."""
        status = folder.stat()
        place = status.st_dev, status.st_ino
        new = place not in self.visited
        self.visited.add(place)
        return new

    def leave_out(self, path: Path, reason: str) -> None:
        self.left_out.append(LeftOut(str(path), reason))

    def walk(self, folder: Path) -> None:
        """Sort the entries of a folder, and of its subfolders if recursive, into pictures and others."""
        for path, is_directory, is_link in self.entries(folder):
            if path.name.startswith("."):
                self.leave_out(path, "a hidden folder" if is_directory else "hidden")
            elif not is_directory:
                self.sort(path)
            elif not self.recursive:
                self.leave_out(path, _NOT_ENTERED)
            elif is_link:
                self.links.append(path)
            elif self.enter(path):
                self.walk(path)

    def entries(self, folder: Path) -> list[tuple[Path, bool, bool]]:
        """The path of each entry, whether it is a folder, and whether it is a link; sorted."""
        try:
            with os.scandir(folder) as found:
                return sorted((folder / entry.name, _leads_to_folder(entry), entry.is_symlink()) for entry in found)
        except OSError as error:
            if error.errno != errno.ENAMETOOLONG:
                raise
            self.leave_out(folder, "a folder whose path is too long")
            return []

    def sort(self, path: Path) -> None:
        """Note a file as a picture or, with the reason, as left out."""
        named = path.suffix.lower() in SUFFIXES
        try:
            there = path.is_file()
            nowhere = not there and (path.is_symlink() or not path.exists())
            head = _head(path) if there and not named else b""
            if (named and (there or nowhere)) or format_of(head) is not None:
                self.pictures.append(path)
            elif is_heic(head):
                self.leave_out(path, _HEIC)
            else:
                self.leave_out(path, "a link that leads nowhere" if nowhere else "no picture" if there else "no file")
        except OSError as error:
            self.leave_out(path, f"not readable: {error.strerror}")


def list_pictures(folder: str | os.PathLike[str], *, recursive: bool) -> list[Path]:
    """The pictures of a folder, sorted by path; for arguments and errors see `find_pictures`."""
    return list(find_pictures(folder, recursive=recursive).pictures)


def find_pictures(folder: str | os.PathLike[str], *, recursive: bool) -> Listed:
    """The contents of a folder that must hold a picture, see `list_all`.

    Raises:
        InputError: if the folder does not exist, it or a subfolder cannot be read, or there is no picture.
    """
    listed = list_all(folder, recursive=recursive)
    if not listed.pictures:
        raise InputError(f"{Path(folder)} must hold pictures ({' '.join(SUFFIXES)}), got {_instead(listed.left_out)}.")
    return listed


def list_all(folder: str | os.PathLike[str], *, recursive: bool) -> Listed:
    """The pictures of a folder, and its other files.

    A picture is a file with a picture's suffix, or with the first bytes of a picture. Hidden files and folders are left
    out. A linked folder is searched once, after all folders that are no links; a broken link with a picture's suffix
    counts as a picture, so that reading the picture raises an error.

    Args:
        folder: the folder.
        recursive: whether to look into its subfolders too; otherwise subfolders are left out.

    Raises:
        InputError: if the folder does not exist, or it or a subfolder cannot be read.
    """
    root = Path(folder)
    if not is_folder(root):
        raise InputError(f"A folder of pictures must exist, got {root}; check the path.")
    search = _Search(recursive=recursive)
    try:
        search.enter(root)
        search.walk(root)
        while search.links:
            link = search.links.pop(0)
            if search.enter(link):
                search.walk(link)
            else:
                search.leave_out(link, "a folder that is linked to and looked at elsewhere")
    except OSError as error:
        raise InputError(
            f"The folder {error.filename} must be readable, got: {error.strerror}; check its permissions."
        ) from error
    return Listed(tuple(sorted(search.pictures)), tuple(sorted(search.left_out, key=lambda one: one.path)))


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to a folder, at a path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # for example a name that is too long; reading the path raises the error
        return False


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _head(path: Path) -> bytes:
    """The first bytes of a file, which tell its format."""
    with path.open("rb") as file:
        return file.read(HEAD)


def _instead(left_out: Sequence[LeftOut]) -> str:
    """The content of a folder without a picture, in words."""
    if folders := [Path(one.path).name for one in left_out if one.reason == _NOT_ENTERED]:
        return f"only the folders {', '.join(folders[:5])}; name one of them"
    if left_out:
        names = ", ".join(Path(one.path).name for one in left_out[:3])
        remedy = SAVE_AS_JPEG.replace("it", "them", 1) if left_out[0].reason == _HEIC else "check the path"
        return f"none, but {names}{', …' if len(left_out) > 3 else ''}; {remedy}"
    return "none; check the path"
