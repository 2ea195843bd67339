"""A file of sentences that teach in place of captions, for a recipe's slot `texts`."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from pydantic import Field

from genret.api import Config, Dataset, Record
from genret.components.data.paths import local_path
from genret.components.data.text import MAX_TEXT_BYTES, captions_in, open_text
from genret.errors import BadImage, GenretError, UnknownName, one_line
from genret.kit.splits import clean_caption, clean_captions

PART = 1000
"""Sentences in a record."""


class TextSource(Dataset):
    """Sentences without images, as the captions of records in one split."""

    provides = "texts"
    train_split = dev_split = test_split = "sentences"

    @abstractmethod
    def sentences(self) -> Iterator[str]:
        """One-line texts, none empty, in a fixed order"""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where they come from, for people"""

    def records(self, split: str) -> Iterator[Record]:
        if split != self.train_split:
            raise UnknownName("split", split, [self.train_split])
        source, number = self.sentences(), 0
        while part := tuple(islice(source, PART)):
            yield Record(f"sentences-{number}", self.where, part)
            number += 1
        if not number:
            raise GenretError(f"{self.where} has no sentences")

    def read(self, record: Record) -> bytes:
        raise BadImage(f"{record.uri} holds sentences and no pictures; name it under `texts`, not under `dataset`")


class SentencesDataset(TextSource):
    class Config(Config):
        file: Path
        """A text file with a sentence a line, or `.jsonl` with an object a line, as a captioner writes it."""
        column: str = "caption"
        """The key of the sentence, or of a list of them, in `.jsonl`."""
        encoding: str | None = None
        """Encoding of the file, such as cp1252; null: UTF-8, or UTF-16 with a byte order mark."""
        limit: int = Field(100_000, ge=1)
        """Maximum number of sentences; the first ones are taken."""

    config: SentencesDataset.Config

    @property
    def where(self) -> str:
        return str(local_path(self.config.file))

    def sentences(self) -> Iterator[str]:
        yield from islice(self._all(), self.config.limit)

    def _all(self) -> Iterator[str]:
        file = local_path(self.config.file)
        try:
            with open_text(file, self.config.encoding) as stream:
                number = 0
                while line := stream.readline(MAX_TEXT_BYTES):
                    number += 1
                    if file.suffix.lower() == ".jsonl":
                        yield from self._parsed(line, f"texts.file: {file}:{number}")
                    elif text := clean_caption(line):
                        yield text
        except (OSError, UnicodeError, LookupError) as error:
            raise GenretError(f"texts.file: cannot read {file} ({one_line(error)})") from error

    def _parsed(self, line: str, where: str) -> tuple[str, ...]:
        if not line.strip():
            return ()
        try:
            found = captions_in(json.loads(line)[self.config.column])
        except (ValueError, KeyError, TypeError, RecursionError):
            found = None
        if found is None:
            raise GenretError(f'{where}: should be {{"{self.config.column}": a text or a list of texts}}')
        return clean_captions(found)
