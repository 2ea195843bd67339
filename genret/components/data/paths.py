"""Folders of data sets and the files that tables name in them."""

from __future__ import annotations

import os
import unicodedata
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from genret.errors import GenretError


def local_path(path: Path | str) -> Path:
    """`~` is the user's home; relative paths start at the current directory."""
    return Path(path).expanduser().absolute()


def local_folder(path: Path | str, option: str = "root") -> Path:
    folder = local_path(path)
    if not folder.is_dir():
        raise GenretError(f"there is no folder {folder}; set dataset.{option} to where the data lie")
    return folder


def below(name: str, source: Path | str, folder: Path | None = None) -> str:
    """Resolves the path `name` read from a file, relative to its folder; rejected if it leads outside.

    An absolute path is allowed if it lies below `folder`.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if folder is not None and path.is_absolute():
        for start in (folder, folder.resolve()):
            if path.is_relative_to(start):
                path = path.relative_to(start)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise GenretError(f"{source} names the image {name!r}, which is no path below its images folder")
    return str(path)


def check_present(folder: Path, names: Iterable[str], source: Path) -> dict[str, str]:
    """Checks that all files `names` below `folder` exist; one error gives the count and the first missing one.

    Returns the files of names that are spelled differently on disk: `é` in two ways, `.PNG` for `.png`.
    """
    files = _Files(folder)
    spelled: dict[str, str] = {}
    missing = 0
    first = total = None
    for total, name in enumerate(names, 1):  # noqa: B007 (used after the loop)
        if (there := files.find(name)) is None:
            first = first or folder / name
            missing += 1
        elif there != name:
            spelled[name] = there
    if missing:
        raise GenretError(
            f"{source} names {missing:,} of {total:,} images that do not exist, the first is {first}; "
            "complete the images folder or correct the file"
        )
    return spelled


class _Files:
    """The files of a folder: one listing is far cheaper than 100,000 single checks."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._names: dict[PurePosixPath, frozenset[str]] = {}
        self._alike: dict[PurePosixPath, dict[str, list[str]]] = {}

    def find(self, name: str) -> str | None:
        """`name` as spelled on disk: itself, or the only file that differs just in case or Unicode form."""
        path = PurePosixPath(name)
        if path.name in self._listing(path.parent):
            return name
        here = PurePosixPath()
        for part in path.parts:
            alike = [part] if part in self._listing(here) else self._folded(here).get(_folded(part), [])
            if len(alike) != 1:
                return None
            here /= alike[0]
        return str(here)

    def _listing(self, below: PurePosixPath) -> frozenset[str]:
        if below not in self._names:
            folder = self._folder / below
            self._names[below] = frozenset(os.listdir(folder) if folder.is_dir() else ())  # noqa: PTH208
        return self._names[below]

    def _folded(self, below: PurePosixPath) -> dict[str, list[str]]:
        if below not in self._alike:
            alike = self._alike[below] = {}
            for name in self._listing(below):
                alike.setdefault(_folded(name), []).append(name)
        return self._alike[below]


def _folded(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
