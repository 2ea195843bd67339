"""Folders of images without captions: the images that are searched are those that training knows.

Which sentences teach is the recipe's `texts`.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cached_property
from pathlib import Path

from genret.api import Config, Dataset, Record
from genret.components.data.paths import local_path
from genret.errors import BadImage, GenretError, UnknownName
from genret.kit.images import read_bytes
from genret.toolbox.facts import record_of
from genret.toolbox.walk import printable, walk_images

SPLIT = "photos"


class PhotosDataset(Dataset):
    """One split for everything: its images are named, searched, and known to training (transductive)."""

    class Config(Config):
        root: Path
        """Folder of the images; its subfolders are searched too. Captions are neither needed nor read."""
        also: tuple[Path, ...] = ()
        """Further folders."""

    config: PhotosDataset.Config
    provides = "images"
    train_split = dev_split = test_split = SPLIT

    def records(self, split: str) -> Iterator[Record]:
        if split != SPLIT:
            raise UnknownName("split", split, [SPLIT])
        found = False
        for path in walk_images(self._folders):
            if path.is_dir():  # no permission to list it: reading it as an image says so
                yield Record(printable(path), printable(path))
                continue
            try:
                yield record_of(path)
            except BadImage:  # gone since the folder was listed
                continue
            found = True
        if not found:
            raise GenretError(
                f"there is no picture below {', '.join(map(str, self._folders))}; set dataset.root to a folder of some"
            )

    def read(self, record: Record) -> bytes:
        return read_bytes(self._odd.get(record.uri) or Path(record.uri))

    @cached_property
    def _folders(self) -> list[Path]:
        folders = [local_path(folder) for folder in (self.config.root, *self.config.also)]
        if absent := [folder for folder in folders if not folder.is_dir()]:
            raise GenretError(f"there is no folder {absent[0]}; set dataset.root to where your pictures are")
        return folders

    @cached_property
    def _odd(self) -> dict[str, Path]:
        """Files whose names are no valid UTF-8, by how they are shown."""
        return {shown: path for path in walk_images(self._folders) if (shown := printable(path)) != str(path)}
