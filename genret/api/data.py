"""Captioned images in named splits."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from typing import Any, ClassVar, Literal, NamedTuple

from genret.api.component import Component
from genret.api.described import described


@described
class Record(NamedTuple):
    """One image of a dataset, without its pixels."""

    image_id: str
    """Unique within the dataset and stable between runs."""
    uri: str
    """Location of the image, as shown to people: a path, or `archive.tar:member`."""
    captions: tuple[str, ...] = ()
    """Texts that describe it, none empty"""
    metadata: Mapping[str, Any] = {}
    """JSON scalars, e.g. `{"emoji": "🐶"}`; `search --where` filters on them."""


class Dataset(Component, ABC):
    """Captioned images in named splits, streamed: a dataset never holds its images in memory."""

    kind = "dataset"

    provides: ClassVar[Literal["captioned images", "images", "texts"]] = "captioned images"
    """`images`: none has a caption, and one split has all roles. `texts`: sentences of a recipe's slot `texts`, as the
    captions of records whose image cannot be read."""
    train_split: str = "train"
    dev_split: str = "dev"
    """The split for model selection and early stopping; these use no other."""
    test_split: str = "test"
    """The images that a trained run searches; used only for reporting."""
    concepts: Literal["seen-concepts", "unseen-concepts"] | None = None
    """Set where images of different splits legitimately share captions; results then carry it."""

    @abstractmethod
    def records(self, split: str) -> Iterator[Record]:
        """Yields the images of `split` in a fixed order; `UnknownName` for an unknown split."""

    @abstractmethod
    def read(self, record: Record) -> bytes:
        """The encoded image (PNG, JPEG, WebP ...); `BadImage` if it cannot be read."""
