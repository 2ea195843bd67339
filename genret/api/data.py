"""Captioned images in named splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, Literal, NamedTuple

from genret.api.component import Component
from genret.api.described import described


@described
class Record(NamedTuple):
    """One image of a data set, without its pixels."""

    image_id: str
    """Unique within the data set and stable between runs."""
    uri: str
    """Where the picture lives, as shown to people: a path, or `archive.tar:member`."""
    captions: tuple[str, ...] = ()
    """Texts that describe it, none empty"""
    metadata: Mapping[str, Any] = {}
    """JSON scalars, e.g. `{"emoji": "🐶"}`; `search --where` filters on them."""


class Dataset(Component, ABC):
    """Captioned images in named splits, streamed: a data set never holds its pictures in memory."""

    kind = "dataset"

    train_split: str = "train"
    dev_split: str = "dev"
    """Choices and early stopping look at this split and no other."""
    test_split: str = "test"
    """The images that a trained run searches; only reported on."""
    concepts: Literal["seen-concepts", "unseen-concepts"] | None = None
    """Set where images of several splits share wordings by nature; results then carry it."""

    @abstractmethod
    def records(self, split: str) -> Iterator[Record]:
        """Yields the images of `split` in an order that never changes; `UnknownName` for an unknown split."""

    @abstractmethod
    def read(self, record: Record) -> bytes:
        """The encoded picture (PNG, JPEG, WebP ...); `BadImage` if it cannot be read."""
