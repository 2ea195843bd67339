"""What the data sets share: paths, captions, and who belongs to which split. It reads no pictures."""

from __future__ import annotations

import hashlib
import os
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import model_validator

from genret.api import Config, Dataset, Record
from genret.errors import GenretError

SCALARS = (str, int, float, bool)
CARVED = "dev"
"""The name of a development split that is taken from the training images."""


class NamedSplits(Config):
    """Which of a data set's splits is for what."""

    train_split: str = "train"
    """The split that is trained on."""
    dev_split: str | None = None
    """The split for choices and early stopping; null: some of the training images, as `dev`."""
    test_split: str = "test"
    """The split that is searched."""

    @model_validator(mode="after")
    def _disjoint(self) -> Any:
        named = (self.train_split, self.dev_split or CARVED, self.test_split)
        if len(set(named)) < 3:
            raise ValueError(f"train_split, dev_split and test_split must differ, not {', '.join(named)}")
        return self


class SplitDataset(Dataset):
    """A data set whose options name its splits."""

    Config = NamedSplits
    config: NamedSplits

    def __init__(self, config: Any = None, **context: Any):
        super().__init__(config, **context)
        self.train_split = self.config.train_split
        self.dev_split = self.config.dev_split or CARVED
        self.test_split = self.config.test_split


def local_path(path: Path | str) -> Path:
    """`~` is the user's home; relative paths start at the current directory."""
    return Path(path).expanduser().absolute()


def local_folder(path: Path | str, option: str = "root") -> Path:
    folder = local_path(path)
    if not folder.is_dir():
        raise GenretError(f"there is no folder {folder}; set dataset.{option} to where the data lie")
    return folder


def below(name: str, source: Path | str, folder: Path | None = None) -> str:
    """The path `name` out of a file, relative to its folder; refused if it leads out of it.

    An absolute path is understood if it lies below `folder`.
    """
    path = PurePosixPath(name.replace("\\", "/"))
    if folder is not None and path.is_absolute():
        for start in (folder, folder.resolve()):
            if path.is_relative_to(start):
                path = path.relative_to(start)
    if path.is_absolute() or ".." in path.parts or not path.parts or "\0" in name:
        raise GenretError(f"{source} names the image {name!r}, which is no path below its images folder")
    return str(path)


def clean_caption(text: str) -> str:
    """One line, single blanks."""
    return " ".join(text.split())


def clean_captions(texts: Iterable[str]) -> tuple[str, ...]:
    """Without empty ones. Equal ones stay: each is a query of the published evaluations."""
    return tuple(filter(None, map(clean_caption, texts)))


def scalars(values: dict[str, Any]) -> dict[str, Any]:
    """The metadata that can be stored and filtered on: nested values and nulls are left out."""
    return {key: value for key, value in values.items() if isinstance(value, SCALARS)}


def hashed(image_id: str, seed: int) -> float:
    """A number in [0, 1) that depends on nothing but its arguments: adding images moves no other image."""
    digest = hashlib.sha256(f"{seed}:{image_id}".encode("utf-8", "surrogatepass")).digest()
    return int.from_bytes(digest[:7], "big") / 2**56


def check_present(folder: Path, names: Iterable[str], source: Path) -> dict[str, str]:
    """All files `names` below `folder` exist; one error names the count and the first that is missing.

    Returns the files of names that the disk spells otherwise: `é` in two ways, `.PNG` for `.png`.
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
    """What lies in a folder: one listing of it is far cheaper than a question for each of 100,000 files."""

    def __init__(self, folder: Path):
        self._folder = folder
        self._names: dict[PurePosixPath, frozenset[str]] = {}
        self._alike: dict[PurePosixPath, dict[str, list[str]]] = {}

    def find(self, name: str) -> str | None:
        """`name` as the disk spells it: itself, or the only file that differs in nothing but case and Unicode form."""
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


def carve(
    records: Iterable[Record], split: str, dev: bool, fraction: float, seed: int, where: Path | str
) -> Iterator[Record]:
    """Of the training images `records` those that become the development split, or (`dev` false) the others.

    An error, which names the `split` wanted, if there are images but none of these.
    """
    total = 0
    found = False
    for record in records:
        total += 1
        if (hashed(record.image_id, seed) < fraction) == dev:
            found = True
            yield record
    if total and not found:
        change = "raise dataset.dev_fraction or set dataset.dev_split" if dev else "lower dataset.dev_fraction"
        raise GenretError(
            f"the split '{split}' of {where} has no images: of {total:,} training images a share of {fraction:g} is "
            f"held out for development, which here is {'none' if dev else 'all'}; {change}"
        )


def nonempty(records: Iterator[Record], split: str, where: Path | str, hint: str = "") -> Iterator[Record]:
    """The same records; an error if there is none."""
    first = next(records, None)
    if first is None:
        raise GenretError(f"the split '{split}' of {where} has no images" + (f"; {hint}" if hint else ""))
    yield from chain([first], records)
