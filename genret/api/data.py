"""Captioned images in named splits, and what people ask for."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from genret.api.component import Component
from genret.api.described import described
from genret.errors import UsageError

if TYPE_CHECKING:
    from PIL.Image import Image

_NEGATIVE = re.compile(r'(?<=\s)-(?:"([^"]+)"|([^\W\d][^\s"]*))')
"""A hyphen, and a word or words in quotes, after white space: neither "t-shirt" nor "-5 degrees" nor a first word."""


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


@dataclass(frozen=True, kw_only=True)
class Query:
    """One query of `Run.search`. It needs a text, a picture or an image to be like; the rest may be added to each.

    A text alone is answered by the run's retriever. With a picture, or an image to be like, the images are ranked by
    their stored vectors: by cosine to the sum of the unit vectors of all that was given.
    """

    text: str = ""
    """What the image shows, in words"""
    image: str | Path | bytes | Image | None = None
    """A picture to be similar to: its file, its bytes, or the opened picture"""
    without: Sequence[str] = ()
    """Words for what it must not show: images that are similar to one of them lose score"""
    like: Sequence[str] = ()
    """Ids of images to be similar to; they are not found themselves"""
    unlike: Sequence[str] = ()
    """Ids of images to be unlike, as `Restriction.unlike`"""

    def __post_init__(self) -> None:
        for field in ("without", "like", "unlike"):
            if isinstance(value := getattr(self, field), str):
                object.__setattr__(self, field, (value,))
        if not (self.text.strip() or self.has_picture):
            said = 'say what the picture shows, e.g. "two dogs in the snow"'
            if self.without or self.unlike:
                said = f"it says only what not to find; {said}"
            raise UsageError(f"the query is empty; {said}")

    @property
    def has_picture(self) -> bool:
        """Whether it asks for more than words."""
        return self.image is not None or bool(self.like)

    @classmethod
    def parsed(cls, text: str) -> Query:
        r"""A query as people type it: `a dog -beach -"palm tree"`. `\-beach` is taken as it stands."""
        without = ["".join(found) for found in _NEGATIVE.findall(text)]
        words = re.sub(r"(?<=\s)\\-", "-", _NEGATIVE.sub("", text)) if without or "\\-" in text else text
        return cls(text=" ".join(words.split()) if without else words, without=tuple(without))

    def __str__(self) -> str:
        """The text, or what else it asks for."""
        if self.text.strip():
            return self.text
        picture = Path(self.image).name if isinstance(self.image, str | Path) else "a picture"
        return f"like {', '.join([*([] if self.image is None else [picture]), *self.like])}"
