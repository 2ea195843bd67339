"""Whatever finds images by words."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, NamedTuple

from genret.api.component import Component
from genret.api.context import FitContext
from genret.api.data import Record
from genret.api.identifier import Corpus

if TYPE_CHECKING:
    from torch import Tensor

SearchScore = Literal["level", "vocab", "trie"]
"""Over what log-probabilities are normalized: the symbols of the level, the whole vocabulary, the trie's children."""


class Hit(NamedTuple):
    rank: int
    image_id: str
    uri: str
    score: float
    identifier: list[str] | None = None
    metadata: Mapping[str, Any] = {}


class Restriction(NamedTuple):
    """Which images a query may find. What is given holds together; images go by their ids."""

    where: str = ""
    """A filter over the images' metadata; the language is in `catalog/filter.py`."""
    only: Sequence[str] | None = None
    """No others than these; None: all."""
    without: Sequence[str] = ()
    """Not these."""
    unlike: Sequence[str] = ()
    """Not these, and nothing like them: negative feedback on what a search has found. A generative retriever bans
    every identifier that shares its first `unlike_symbols` symbols with one of theirs; a dense one moves the query away
    from them by Rocchio's formula and bans nothing else."""
    unlike_symbols: int = 2
    """How long a beginning identifiers must have in common to be alike; 1 bans most."""


class SearchResult(NamedTuple):
    query: str
    hits: list[Hit]
    num_beams: int | None
    elapsed_ms: float
    confidence: float | None = None
    """Calibrated probability that something like what was asked is there; None where a run has not been calibrated."""


class Skipped(NamedTuple):
    path: str
    reason: str


class IndexReport(NamedTuple):
    """What a change of the catalog came to, in images."""

    added: int
    removed: int
    skipped: list[Skipped]
    updated: int = 0
    """Known ids whose image is another one now"""
    moved: int = 0
    """Known images under a new id, because their old file is gone; they keep their identifiers"""
    unchanged: int = 0
    """There already"""

    def plus(self, other: IndexReport) -> IndexReport:
        """Both together."""
        both: list[Any] = [one + two for one, two in zip(tuple[Any, ...](self), other, strict=True)]
        return IndexReport(*both)


class QueryBatch:
    """A batch of queries; their vectors are computed when they are first needed, once."""

    def __init__(self, texts: Sequence[str], embed: Callable[[Sequence[str]], Tensor]):
        self.texts = texts
        self._embed = embed

    @classmethod
    def known(cls, texts: Sequence[str], vectors: Tensor) -> QueryBatch:
        """Of queries whose vectors (B, D) are there already."""
        return cls(texts, lambda _: vectors)

    @cached_property
    def vectors(self) -> Tensor:
        """(B, D) unit rows on the CPU"""
        return self._embed(self.texts)

    def __len__(self) -> int:
        return len(self.texts)

    def rows(self, start: int, stop: int) -> QueryBatch:
        """Queries `start` to `stop` - 1 of a batch whose vectors are known."""
        return QueryBatch.known(self.texts[start:stop], self.vectors[start:stop])


class Retriever(Component, ABC):
    """Whatever finds images by words. Evaluation, serving and the command line know nothing else.

    What it can tell besides is declared by the class; whoever asks looks there and never at its type. Most plugins
    derive from `genret.CatalogRetriever`, which keeps the images, and say how these are ranked.
    """

    kind = "retriever"

    needs: ClassVar[tuple[str, ...]] = ()
    """Keys of a recipe that it uses besides `dataset` and `encoder`: of `identifier`, `backbone`, `loss`."""
    has_beams: ClassVar[bool] = False
    """Whether a search has a width, `search.num_beams`, beyond which nothing is found."""
    has_trace: ClassVar[bool] = False
    """Whether it can say where the right image of a query was lost, for the ledger."""
    learns: ClassVar[bool] = False
    """Whether `fit` learns something that `save` and `load` keep: then training has a stage for it."""

    def fit(self, train: Corpus, context: FitContext) -> None:
        """Learns from the training images and their captions, as far as the protocol allows, in the shared space."""

    def save(self, folder: Path) -> None:
        """Writes what `fit` learned (safetensors, JSON)."""

    def load(self, folder: Path) -> None:
        """Reads what `save` wrote."""

    @abstractmethod
    def index(self, images: Iterable[tuple[Record, Callable[[], bytes]]]) -> IndexReport:
        """Adds images without retraining; the next search sees them. Each comes with a function that reads its bytes;
        one that cannot be read or decoded is skipped and reported."""

    @abstractmethod
    def remove(self, image_ids: Sequence[str]) -> IndexReport:
        """Forgets images; unknown ids are reported as skipped."""

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

        `num_beams`: instead of the recipe's; dense retrievers have none. `restrict`: which images may be found, by all
        queries or by each its own. It is exact: the answer is that of a catalog of these images alone. `UsageError` for
        an id that no searchable image has. `min_confidence`: a query that is less sure finds nothing; `UsageError`
        where a run has not been calibrated.
        """
