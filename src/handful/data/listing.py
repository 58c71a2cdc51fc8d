"""The pictures of a folder, told by suffix or content, and what else the folder holds."""

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from handful.data.formats import HEAD, SUFFIXES, format_of
from handful.errors import InputError


@dataclass(frozen=True)
class LeftOut:
    """A file or folder inside a folder of pictures that is not looked at.

    Attributes:
        path: where it lies.
        reason: why, in a few words.
    """

    path: str
    reason: str


@dataclass(frozen=True)
class Listed:
    """What a folder holds.

    Attributes:
        pictures: sorted by path.
        left_out: everything else, sorted by path; a folder that is not entered counts once.
    """

    pictures: tuple[Path, ...]
    left_out: tuple[LeftOut, ...]


@dataclass
class _Search:
    """A folder's search under way."""

    recursive: bool
    pictures: list[Path] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)
    links: list[Path] = field(default_factory=list)
    subfolders: list[str] = field(default_factory=list)
    visited: set[tuple[int, int]] = field(default_factory=set)

    def enter(self, folder: Path) -> bool:
        """Whether a folder, told by its place on the disk, has not been searched before."""
        status = folder.stat()
        place = status.st_dev, status.st_ino
        new = place not in self.visited
        self.visited.add(place)
        return new

    def leave_out(self, path: Path, reason: str) -> None:
        """Note what is not looked at."""
        self.left_out.append(LeftOut(str(path), reason))


def list_pictures(folder: str | os.PathLike[str], *, recursive: bool) -> list[Path]:
    """The pictures of a folder, sorted by path, as `find_pictures` finds them.

    Raises:
        InputError: as there, or if there is no picture.
    """
    return list(find_pictures(folder, recursive=recursive).pictures)


def find_pictures(folder: str | os.PathLike[str], *, recursive: bool) -> Listed:
    """The pictures of a folder and all else that it holds.

    A picture is a file with a picture's suffix, or whose first bytes are a picture's. Hidden files and folders are left
    out. A linked folder is searched once, after all folders that lie there themselves; a link that leads nowhere counts
    as a picture where its suffix is one's, so that reading it tells.

    Args:
        folder: where to look.
        recursive: whether to look into its subfolders too; else these are left out.

    Raises:
        InputError: if the folder does not exist, it or a subfolder cannot be read, or there is no picture.
    """
    search = _searched(Path(folder), recursive=recursive)
    if not search.pictures:
        raise InputError(f"{Path(folder)} must hold pictures ({' '.join(SUFFIXES)}), got {_instead(search)}.")
    return _listed(search)


def list_all(folder: str | os.PathLike[str], *, recursive: bool) -> Listed:
    """As `find_pictures`, of a folder that may also hold no picture.

    Raises:
        InputError: if the folder does not exist, or it or a subfolder cannot be read.
    """
    return _listed(_searched(Path(folder), recursive=recursive))


def _listed(search: _Search) -> Listed:
    return Listed(tuple(sorted(search.pictures)), tuple(sorted(search.left_out, key=lambda one: one.path)))


def _searched(root: Path, *, recursive: bool) -> _Search:
    """Search a folder.

    Raises:
        InputError: if it does not exist, or it or a subfolder cannot be read.
    """
    if not is_folder(root):
        raise InputError(f"A folder of pictures must exist, got {root}; check the path.")
    search = _Search(recursive)
    try:
        search.enter(root)
        _search(root, search)
        while search.links:
            link = search.links.pop(0)
            if search.enter(link):
                _search(link, search)
            else:
                search.leave_out(link, "a folder that is linked to and looked at elsewhere")
    except OSError as error:
        raise InputError(
            f"The folder {error.filename} must be readable, got: {error.strerror}; check its permissions."
        ) from error
    return search


def is_folder(path: Path) -> bool:
    """Whether there is a folder, or a link to one, at a path."""
    try:
        return path.is_dir()
    except (OSError, ValueError):  # a name that is too long, say: reading it will tell
        return False


def _search(folder: Path, search: _Search) -> None:
    """Sort all that lies in a folder, and below it where that is wanted, into pictures and others."""
    for path, is_directory, is_link in _inside(folder, search):
        if path.name.startswith("."):
            search.leave_out(path, "a hidden folder" if is_directory else "hidden")
        elif not is_directory:
            _sort(path, search)
        elif not search.recursive:
            search.subfolders.append(path.name)
            search.leave_out(path, "a folder inside the folder")
        elif is_link:
            search.links.append(path)
        elif search.enter(path):
            _search(path, search)


def _inside(folder: Path, search: _Search) -> Iterator[tuple[Path, bool, bool]]:
    """Each entry's path, whether it is a folder, and whether it is a link; sorted."""
    try:
        with os.scandir(folder) as entries:
            found = sorted((folder / entry.name, _leads_to_folder(entry), entry.is_symlink()) for entry in entries)
    except OSError as error:
        if error.errno != errno.ENAMETOOLONG:
            raise
        search.leave_out(folder, "a folder whose path is too long")
        return
    yield from found


def _leads_to_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _sort(path: Path, search: _Search) -> None:
    """Whether a file is a picture, or why it is left out."""
    named = path.suffix.lower() in SUFFIXES
    try:
        there = path.is_file()
        nowhere = not there and (path.is_symlink() or not path.exists())
        if (named and (there or nowhere)) or (there and _holds_picture(path)):
            search.pictures.append(path)
        else:
            reason = "a link that leads nowhere" if nowhere else "no picture" if there else "no file"
            search.leave_out(path, reason)
    except OSError as error:
        search.leave_out(path, f"not readable: {error.strerror}")


def _holds_picture(path: Path) -> bool:
    """Whether a file's first bytes are a picture's."""
    with path.open("rb") as file:
        return format_of(file.read(HEAD)) is not None


def _instead(search: _Search) -> str:
    """What a folder without a picture holds, for people."""
    if search.subfolders and not search.recursive:
        return f"only the folders {', '.join(sorted(search.subfolders)[:5])}; name one of them"
    if search.left_out:
        names = ", ".join(Path(one.path).name for one in search.left_out[:3])
        return f"none, but {names}{', …' if len(search.left_out) > 3 else ''}; check the path"
    return "none; check the path"
