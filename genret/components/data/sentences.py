"""A file of sentences that teach in place of captions, for a recipe's slot `texts`."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path

from pydantic import Field

from genret.api import Config, Dataset, Record
from genret.components.data.paths import local_path
from genret.components.data.text import MAX_TEXT_BYTES, captions_in, open_text
from genret.errors import BadImage, GenretError, UnknownName, one_line
from genret.toolbox.splits import clean_caption, clean_captions, hashed

PART = 1000
"""Number of sentences in a record, and at most of those that are held out."""
HELD_OUT = 0.1
"""Share of the sentences that is held out, chosen by their words."""


def batched(texts: Iterator[str], size: int) -> Iterator[tuple[str, ...]]:
    while part := tuple(islice(texts, size)):
        yield part


class TextSource(Dataset):
    """Sentences without images, as the captions of records in one split."""

    provides = "texts"
    test_split = dev_split = "held-out"

    @abstractmethod
    def sentences(self) -> Iterator[str]:
        """One-line texts, none empty, in a fixed order"""

    @property
    @abstractmethod
    def where(self) -> str:
        """Where they come from, for people"""

    def records(self, split: str) -> Iterator[Record]:
        if split not in (self.train_split, self.dev_split):
            raise UnknownName("split", split, [self.train_split, self.dev_split])
        held = split == self.dev_split
        source = (text for text in self.sentences() if (hashed(text, 0) < HELD_OUT) == held)
        found = (Record(f"{split}-{place}", self.where, part) for place, part in enumerate(batched(source, PART)))
        if held:
            yield from islice(found, 1)
            return
        first = next(found, None)
        if first is None and (few := tuple(islice(self.sentences(), PART))):  # so few that all are held out
            first = Record(f"{split}-0", self.where, few)
        if first is None:
            raise GenretError(f"{self.where} has no sentences")
        yield from chain([first], found)

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
