"""A folder of images with captions in one table or in a text file beside each image."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any

from pydantic import Field, field_validator, model_validator

from genret.api import Record
from genret.components.data.layouts import Format
from genret.components.data.paths import check_present, local_folder
from genret.components.data.tables import CAPTION, IMAGE, Columns, Table, read_table
from genret.components.data.text import SET_ENCODING, read_text
from genret.errors import GenretError, UnknownName
from genret.kit.images import read_bytes, unreadable
from genret.toolbox.splits import CARVED, NamedSplits, SplitDataset, carve, clean_captions, hashed, nonempty
from genret.toolbox.walk import walk_images

log = logging.getLogger(__name__)

DEV_NAMES = ("val", "validation", "valid")
"""Names of the development split in tables, besides `dev`."""


class FolderDataset(SplitDataset):
    class Config(NamedSplits):
        root: Path
        """Folder with the images; its subfolders are searched too."""
        captions: str | None = None
        """Table of captions (CSV, TSV, JSON, JSONL) below `root`; null: `a.txt` beside `a.png`, one caption a line."""
        format: Format = "auto"
        """How the table is written; auto: by suffix and content. `token`: the format of Flickr8k.token.txt."""
        delimiter: str | None = Field(None, min_length=1, max_length=1)
        """Delimiter of the table; null: comma, tab, semicolon or bar, detected from the first line."""
        encoding: str | None = None
        """Encoding of the table or text files, such as cp1252; null: UTF-8, or UTF-16 with a byte order mark."""
        images: str = "."
        """Folder below `root` that image names in the table are relative to."""
        image_column: str = IMAGE
        """Column with the image's path; an image may have several rows. Columns of published tables are known."""
        caption_column: str = CAPTION
        """Column with a caption, or with a list of captions."""
        split_column: str = "split"
        """Column with the split, if the table has it; all further columns become metadata."""
        dev_split: str | None = "dev"
        """The development split; `dev` also finds `val` or `validation`; if missing or null, a part of train."""
        dev_fraction: float = Field(0.1, ge=0, lt=1)
        """Share of the images (of those of train, with a split column) that become the development split."""
        test_fraction: float = Field(0.1, ge=0, lt=1)
        """Without a split column: share of the images that become `test_split`."""
        split_seed: int = 0
        """Seed of these splits (by a hash of the name); independent of the training seed."""

        @model_validator(mode="after")
        def _possible(self) -> Any:
            if self.dev_fraction + self.test_fraction >= 1:
                raise ValueError("dev_fraction and test_fraction together leave nothing to train on")
            return self

        @field_validator("delimiter")
        @classmethod
        def _separates(cls, value: str | None) -> str | None:
            if value is not None and value in '"\r\n':
                raise ValueError("quotes and line ends are no delimiters")
            return value

        @field_validator("encoding")
        @classmethod
        def _known(cls, value: str | None) -> str | None:
            try:
                "a".encode(value or "utf-8")
            except (LookupError, UnicodeError) as error:
                raise ValueError(f"Python knows no text encoding '{value}'; try cp1252, latin-1 or utf-16") from error
            return value

    config: FolderDataset.Config
    _told = False

    def records(self, split: str) -> Iterator[Record]:
        table = self._table
        if table is not None and table.splits:
            found = self._named(table, split)
        else:
            known = (self.train_split, self.dev_split, self.test_split)
            if split not in known:
                raise UnknownName("split", split, known)
            everything = self._from_table(table) if table else self._from_sidecars()
            found = (record for where, record in everything if where == split)
        yield from nonempty(found, split, self._root, "add images or change dev_fraction, test_fraction or split_seed")

    def read(self, record: Record) -> bytes:
        return read_bytes(Path(record.uri))

    @cached_property
    def _root(self) -> Path:
        return local_folder(self.config.root)

    @property
    def _file(self) -> Path | None:
        return None if self.config.captions is None else self._root / self.config.captions

    @cached_property
    def _table(self) -> Table | None:
        if self._file is None:
            return None
        config, folder = self.config, self._root / self.config.images
        columns = Columns(config.image_column, config.caption_column, config.split_column)
        table = read_table(self._file, columns, folder, config.format, config.delimiter, config.encoding)
        self._spelled = check_present(folder, table.images, self._file)
        return table

    @cached_property
    def _dev_source(self) -> str | None:
        """The table's development split; None: a part of the training images."""
        assert self._table is not None
        asked, splits = self.config.dev_split, self._table.splits
        if asked is None and CARVED in splits:
            raise GenretError(f"{self._file} has a split '{CARVED}' of its own; set dataset.dev_split to a split")
        if asked is None or asked in splits:
            return asked
        if asked != CARVED or not {self.train_split, self.test_split} <= splits:
            return asked  # reported as unknown
        free = [name for name in DEV_NAMES if name in splits and name not in (self.train_split, self.test_split)]
        chosen = f"'{free[0]}'" if free else f"a share of {self.config.dev_fraction:g} of '{self.train_split}'"
        log.warning("%s has no split '%s'; %s is taken for it", self._file, CARVED, chosen)
        return free[0] if free else None

    def _named(self, table: Table, split: str) -> Iterator[Record]:
        """The images of a split of the table, or a part of one."""
        config = self.config
        is_dev = split == self.dev_split
        carved = (is_dev or split == self.train_split) and self._dev_source is None
        source = self.train_split if carved else self._dev_source if is_dev else split
        if source not in table.splits:
            names = "set dataset.train_split, dev_split and test_split to those that play these parts"
            hint = f"in the column '{config.split_column}' of {self._file}; {names}"
            raise UnknownName("split", split, table.splits, hint)
        found = (record for where, record in self._from_table(table) if where == source)
        return carve(found, split, is_dev, config.dev_fraction, config.split_seed, self._root) if carved else found

    def _from_table(self, table: Table) -> Iterator[tuple[str, Record]]:
        folder = self._root / self.config.images
        for name, image in table.images.items():
            uri = str(folder / self._spelled.get(name, name))
            yield image.split or self._split_of(name), Record(name, uri, tuple(image.captions), image.metadata)

    def _from_sidecars(self) -> Iterator[tuple[str, Record]]:
        captioned = False
        passed: Counter[str] = Counter()
        for path in walk_images([self._root]):
            if path.is_dir():  # no permission to list it
                passed["folders that may not be listed"] += 1
                continue
            if advice := unreadable(path.name):
                passed[f"{path.suffix.lower()} files; {advice}"] += 1
                continue
            try:
                name = path.relative_to(self._root).as_posix().encode().decode()
            except UnicodeEncodeError as error:
                raise GenretError(f"the file name {str(path)!r} is no valid UTF-8; rename the file") from error
            captions = _sidecar(path.with_suffix(".txt"), self.config.encoding)
            captioned = captioned or bool(captions)
            yield self._split_of(name), Record(name, str(path), captions)
        self._tell(passed)
        if not captioned:
            raise GenretError(
                f"no image below {self._root} has captions in a .txt file beside it; "
                "write these or set dataset.captions to a table"
            )

    def _tell(self, passed: Counter[str]) -> None:
        """Reports skipped entries, once."""
        if not self._told:
            self._told = True
            for what, count in sorted(passed.items()):
                log.warning("%s: passed over %s %s", self._root, f"{count:,}", what)

    def _split_of(self, image_id: str) -> str:
        place = hashed(image_id, self.config.split_seed)
        if place < self.config.test_fraction:
            return self.test_split
        return self.dev_split if place < self.config.test_fraction + self.config.dev_fraction else self.train_split


def _sidecar(path: Path, encoding: str | None) -> tuple[str, ...]:
    try:
        return clean_captions(read_text(path, encoding, SET_ENCODING).splitlines())
    except FileNotFoundError:
        return ()  # can be searched, and used in training without captions
    except OSError as error:
        raise GenretError(f"{path} cannot be read: {error.strerror}") from error
