"""A folder of images with captions in one table (CSV, TSV, JSONL) or in a text file beside each image."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import Field, model_validator

from genret.api import Record
from genret.errors import GenretError, UnknownName, did_you_mean
from genret.kit.images import is_image_name, read_bytes, walk_images
from genret.kit.splits import (
    NamedSplits,
    SplitDataset,
    below,
    check_present,
    clean_captions,
    hashed,
    local_folder,
    nonempty,
    scalars,
)

MAX_TEXT_BYTES = 2**20
"""A sidecar file or a table's line larger than this is no caption."""


class FolderDataset(SplitDataset):
    class Config(NamedSplits):
        root: Path
        """Folder with the images, searched with all folders below it."""
        captions: str | None = None
        """Table of captions (.csv, .tsv, .jsonl) below `root`; null: `a.txt` beside `a.png`, one caption a line."""
        images: str = "."
        """Folder below `root` that the table's image names start from."""
        image_column: str = "image"
        """Column with the image's path; an image may have several rows."""
        caption_column: str = "caption"
        """Column with a caption; in JSONL also a list of captions."""
        split_column: str = "split"
        """Column with the split, if the table has it; all further columns become metadata."""
        dev_split: str = "dev"
        """The split for choices and early stopping."""
        dev_fraction: float = Field(0.1, ge=0, lt=1)
        """Share of the images that become `dev_split`, without a split column."""
        test_fraction: float = Field(0.1, ge=0, lt=1)
        """Share of the images that become `test_split`, without a split column."""
        split_seed: int = 0
        """Which images these are (by a hash of the name); not the seed of the training."""

        @model_validator(mode="after")
        def _possible(self) -> Any:
            if self.dev_fraction + self.test_fraction >= 1:
                raise ValueError("dev_fraction and test_fraction together leave nothing to train on")
            return self

    config: FolderDataset.Config

    def records(self, split: str) -> Iterator[Record]:
        known = self._table.splits if self._table else ()
        if split not in (known or (self.train_split, self.dev_split, self.test_split)):
            hint = f"in the column '{self.config.split_column}' of {self._file}" if known else ""
            raise UnknownName("split", split, known or (self.train_split, self.dev_split, self.test_split), hint)
        everything = self._from_table(self._table) if self._table else self._from_sidecars()
        chosen = (record for where, record in everything if where == split)
        yield from nonempty(chosen, split, self._root, "add images or change dev_fraction, test_fraction or split_seed")

    def read(self, record: Record) -> bytes:
        return read_bytes(Path(record.uri))

    @cached_property
    def _root(self) -> Path:
        return local_folder(self.config.root)

    @property
    def _file(self) -> Path | None:
        return None if self.config.captions is None else self._root / self.config.captions

    @cached_property
    def _table(self) -> _Table | None:
        if self._file is None:
            return None
        table = _read_table(self._file, self.config)
        check_present(self._root / self.config.images, table.images, self._file)
        return table

    def _from_table(self, table: _Table) -> Iterator[tuple[str, Record]]:
        folder = self._root / self.config.images
        for name, image in table.images.items():
            record = Record(name, str(folder / name), tuple(image.captions), image.metadata)
            yield image.split or self._split_of(name), record

    def _from_sidecars(self) -> Iterator[tuple[str, Record]]:
        captioned = False
        for path in walk_images([self._root]):
            if not is_image_name(path.name):
                continue
            try:
                name = path.relative_to(self._root).as_posix().encode().decode()
            except UnicodeEncodeError as error:
                raise GenretError(f"the file name {str(path)!r} is no valid UTF-8; rename the file") from error
            captions = _sidecar(path.with_suffix(".txt"))
            captioned = captioned or bool(captions)
            yield self._split_of(name), Record(name, str(path), captions)
        if not captioned:
            raise GenretError(
                f"no image below {self._root} has captions in a .txt file beside it; "
                "write these or set dataset.captions to a table"
            )

    def _split_of(self, image_id: str) -> str:
        place = hashed(image_id, self.config.split_seed)
        if place < self.config.test_fraction:
            return self.test_split
        return self.dev_split if place < self.config.test_fraction + self.config.dev_fraction else self.train_split


class _Image:
    __slots__ = ("captions", "metadata", "split")

    def __init__(self, split: str | None, metadata: dict[str, Any]):
        self.split = split
        self.metadata = metadata
        self.captions: list[str] = []


class _Table(NamedTuple):
    images: dict[str, _Image]
    """By path, in the order of their first rows."""
    splits: frozenset[str]
    """Empty without a split column."""


def _sidecar(path: Path) -> tuple[str, ...]:
    try:
        if path.stat().st_size > MAX_TEXT_BYTES:
            raise GenretError(f"{path} is larger than {MAX_TEXT_BYTES:,} bytes and so no file of captions")
        return clean_captions(path.read_text("utf-8-sig").splitlines())
    except FileNotFoundError:
        return ()  # an image without captions can be searched, not trained on
    except OSError as error:
        raise GenretError(f"{path} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise GenretError(f"{path} is no UTF-8 text: {error}") from error


def _read_table(file: Path, config: FolderDataset.Config) -> _Table:
    images: dict[str, _Image] = {}
    splits: set[str] = set()
    for line, row in _rows(file):
        name = row.pop(config.image_column, None)
        captions = row.pop(config.caption_column, None)
        split = row.pop(config.split_column, None)
        captions = [captions] if isinstance(captions, str) else captions
        if not isinstance(name, str) or not name:
            has = f"'{config.image_column}'{did_you_mean(config.image_column, row)}"
            raise GenretError(f"{file} line {line}: no image in column {has}; set dataset.image_column")
        if not isinstance(captions, list) or not all(isinstance(caption, str) for caption in captions):
            has = f"'{config.caption_column}'{did_you_mean(config.caption_column, row)}"
            raise GenretError(f"{file} line {line}: no caption in column {has}; set dataset.caption_column")
        if split is not None and (not isinstance(split, str) or not split):
            raise GenretError(f"{file} line {line}: the split of {name} is {split!r}, not a name")
        name = below(name, f"{file} line {line}")
        image = images.setdefault(name, _Image(split, scalars(row)))
        if image.split != split:
            raise GenretError(f"{file} line {line}: {name} is in split {split!r} here and in {image.split!r} above")
        image.captions.extend(clean_captions(captions))
        splits.add(split or "")
    if not images:
        raise GenretError(f"{file} has no rows")
    if len(splits) > 1 and "" in splits:
        raise GenretError(f"{file}: some rows have a '{config.split_column}' and others not; give all rows one or none")
    return _Table(images, frozenset(splits - {""}))


def _rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Line numbers and rows of a CSV, TSV or JSONL file."""
    kind = file.suffix.lower()
    if kind not in (".csv", ".tsv", ".jsonl"):
        raise GenretError(f"{file} is no .csv, .tsv or .jsonl file")
    try:
        with file.open(encoding="utf-8-sig", newline="") as stream:
            if kind == ".jsonl":
                yield from _json_lines(file, stream)
            else:
                reader = csv.DictReader(stream, delimiter="\t" if kind == ".tsv" else ",", strict=True)
                for row in reader:
                    if None in row or None in row.values():
                        raise GenretError(f"{file} line {reader.line_num}: not as many columns as the first line")
                    yield reader.line_num, row
    except OSError as error:
        raise GenretError(f"the caption file {file} cannot be read: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise GenretError(f"{file} is no UTF-8 text: {error}") from error
    except csv.Error as error:
        raise GenretError(f"{file} line {reader.line_num}: {error}") from error


def _json_lines(file: Path, stream: Any) -> Iterator[tuple[int, dict[str, Any]]]:
    number = 0
    while text := stream.readline(MAX_TEXT_BYTES):
        number += 1
        if len(text) == MAX_TEXT_BYTES:
            raise GenretError(f"{file} line {number} is longer than {MAX_TEXT_BYTES:,} characters")
        if not text.strip():
            continue
        try:
            row = json.loads(text)
        except (ValueError, RecursionError) as error:
            raise GenretError(f"{file} line {number} is no JSON: {error}") from error
        if not isinstance(row, dict):
            raise GenretError(f"{file} line {number} is no JSON object")
        yield number, row
