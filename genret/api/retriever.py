"""Anything that finds images by text queries."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from base64 import b64encode
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from genret.api.component import Component
from genret.api.context import FitContext
from genret.api.data import Record
from genret.api.described import described
from genret.api.identifier import Corpus
from genret.errors import UsageError

if TYPE_CHECKING:
    import PIL.Image
    from torch import Tensor

SearchScore = Literal["level", "vocab", "trie"]
"""Over what log-probabilities are normalized: the level's vokens, the whole vocabulary, or the trie's children."""


@described
class Hit(NamedTuple):
    """One image that a search has found."""

    rank: int
    """From 1"""
    image_id: str
    """As `Record.image_id`; of indexed files their path"""
    uri: str
    """Where the image lives, as shown to people"""
    score: float
    """Higher is better; of which kind says the retriever"""
    identifier: list[str] | None = None
    """The symbols by which it was reached; None for retrievers without identifiers"""
    metadata: Mapping[str, Any] = {}
    """JSON scalars by name"""
    thumbnail_file: str | None = None
    """The run's small copy of the image, a JPEG or WebP file; None for retrievers that keep none"""

    @property
    def thumbnail(self) -> PIL.Image.Image | None:
        """The small copy, RGB; None if there is none."""
        from PIL import Image

        return Image.open(file).convert("RGB") if (file := Path(self.thumbnail_file or "")).is_file() else None

    def _repr_html_(self) -> str:
        """The image with rank, name and score, for notebooks."""
        file = Path(self.thumbnail_file or "")
        kind = "webp" if file.suffix == ".webp" else "jpeg"
        data = b64encode(file.read_bytes()).decode() if file.is_file() else ""
        about = f"{self.rank}. {escape(self.image_id.rpartition('/')[2])} ({self.score:.2f})"
        style = "display:inline-block;width:180px;margin:4px;vertical-align:top;overflow-wrap:anywhere"
        return f'<figure style="{style}"><img src="data:image/{kind};base64,{data}" alt="">{about}</figure>'

    @property
    def missing(self) -> bool:
        """Whether it was indexed from a file that is gone. Bytes of its name that are no UTF-8 are shown as `\\xff`."""
        named = re.sub(rb"\\x([89a-f][\da-f])", lambda byte: bytes.fromhex(byte[1].decode()), self.uri.encode())
        is_file = self.image_id == self.uri and os.path.isabs(self.uri)  # noqa: PTH117
        return is_file and not any(os.path.lexists(one) for one in (self.uri, named))


@described
class Restriction(NamedTuple):
    """Which images a query may find. All given conditions apply; images are named by their ids."""

    where: str = ""
    """A filter over the images' metadata; the language is in `catalog/filter.py`."""
    only: Sequence[str] | None = None
    """Only these; None: all."""
    without: Sequence[str] = ()
    """Not these."""
    unlike: Sequence[str] = ()
    """Exclude these and similar images: negative feedback on what a search has found. A generative retriever excludes
    every identifier that shares its first `unlike_symbols` codes with one of theirs. A dense retriever moves the query
    away from them by Rocchio's formula and excludes only these images."""
    unlike_symbols: int = 2
    """Length of the common prefix that makes identifiers similar; 1 excludes most."""


@described
class SearchResult(NamedTuple):
    """The answer to one query."""

    query: str
    """What was asked"""
    hits: list[Hit]
    """Best first"""
    num_beams: int | None
    """How wide the search was; None for retrievers without beams"""
    elapsed_ms: float
    """Its share of the batch's time, without loading"""
    confidence: float | None = None
    """Probability, calibrated on the development split, that the catalog holds images of the kind asked for; 0 where
    the query could not be read, None if the run has not been calibrated."""
    note: str = ""
    """What is to be known of this answer, such as a query that the model cannot read; else empty"""

    def _repr_html_(self) -> str:
        """A grid of the images, for notebooks."""
        return f"<p>{escape(self.query)}</p>" + "".join(hit._repr_html_() for hit in self.hits)


@described
class Skipped(NamedTuple):
    """What was left out, and why."""

    path: str
    """A path or id, as it was given"""
    reason: str
    """One sentence for people"""


@described
class IndexReport(NamedTuple):
    """The result of a catalog change, in images."""

    added: int
    """Images that were not there before"""
    removed: int
    """Images that are gone"""
    skipped: list[Skipped]
    """What was left alone, and why"""
    updated: int = 0
    """Known ids whose image has changed"""
    moved: int = 0
    """Known images under a new id, because their old file is gone; they keep their identifiers"""
    unchanged: int = 0
    """There already"""
    missing: int = 0
    """Known images below the folders whose file is gone; they stay until they are removed"""

    def plus(self, other: IndexReport) -> IndexReport:
        """Both together."""
        return IndexReport(*(one + two for one, two in zip(tuple[Any, ...](self), other, strict=True)))


class QueryBatch:
    """A batch of queries; their vectors are computed when they are first needed, once."""

    def __init__(self, texts: Sequence[str], embed: Callable[[Sequence[str]], Tensor]):
        self.texts = texts
        self._embed = embed

    @classmethod
    def known(cls, texts: Sequence[str], vectors: Tensor) -> QueryBatch:
        """Of queries whose vectors (B, D) are there already."""
        batch = cls(texts, lambda _: vectors)
        batch.vectors = vectors
        return batch

    @cached_property
    def vectors(self) -> Tensor:
        """(B, D) unit rows on the CPU"""
        return self._embed(self.texts)

    def vectors_of(self, rows: Any) -> Tensor:
        """rows (n,) → (n, D); those alone are computed if nobody has needed all before."""
        return self.vectors[rows] if "vectors" in vars(self) else self._embed([self.texts[row] for row in rows])

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> QueryBatch:
        """Queries `start` to `stop` - 1 of a batch whose vectors are known."""
        return QueryBatch.known(self.texts[start:stop], self.vectors[start:stop])


class Retriever(Component, ABC):
    """Anything that finds images by text queries. Evaluation, serving and the command line use only this interface.

    The class attributes declare what else it can do; callers check these, never the type. Most plugins derive from
    `genret.CatalogRetriever`, which stores the images, and implement only the ranking.
    """

    kind = "retriever"

    needs: ClassVar[tuple[str, ...]] = ()
    """Recipe keys that it uses besides `dataset` and `encoder`: of `identifier`, `backbone`, `loss`."""
    has_beams: ClassVar[bool] = False
    """Whether a search has a beam width, `search.num_beams`, that limits how many images are found."""
    has_trace: ClassVar[bool] = False
    """Whether it can report where the positive of a query was lost, for the ledger."""
    has_explanation: ClassVar[bool] = False
    """Whether `explain` tells how a search went."""
    learns: ClassVar[bool] = False
    """Whether `fit` learns something that `save` and `load` keep: then training has a stage for it."""

    def fit(self, train: Corpus, context: FitContext) -> None:
        """Learns from the training images and, as far as the protocol allows, their captions, in the shared space."""

    def save(self, folder: Path) -> None:
        """Writes what `fit` learned (safetensors, JSON)."""

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""

    @abstractmethod
    def index(self, images: Iterable[tuple[Record, Callable[[], bytes]]]) -> IndexReport:
        """Adds images without retraining; the next search includes them. Each has a function that reads its bytes.
        An image that cannot be read or decoded is skipped and reported."""

    @abstractmethod
    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        """Removes images; unknown ids are reported as skipped."""

    @abstractmethod
    def search(
        self,
        queries: Sequence[str],
        k: int = 10,
        *,
        num_beams: int | None = None,
        restrict: Restriction | Sequence[Restriction] = Restriction(),
        min_confidence: float | None = None,
    ) -> list[SearchResult]:
        """The k best images of each query, best first; fewer where the catalog has fewer.

        `num_beams`: overrides the recipe's; dense retrievers have none. `restrict`: which images may be found, one for
        all queries or one per query. It is exact: the result equals that of a catalog of these images alone.
        Raises `UsageError` for an id that no searchable image has. `min_confidence`: a query below it finds nothing;
        `UsageError` if the run has not been calibrated.
        """

    def explain(self, query: str, image_id: str | None = None, *, num_beams: int | None = None, k: int = 10) -> Any:
        """The same search, level by level, and where `image_id` was lost: an `Explanation`, of the module
        `genret.components.retrievers.explanation`. `UsageError` for an unknown id, and without `has_explanation`."""
        raise UsageError(f"the retriever '{type(self).__name__}' does not search level by level; nothing to explain")
