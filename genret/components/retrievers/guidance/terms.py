"""What identifiers are compared with: the query's own vector, the one that the language model reads it as, or both.

Each term has a target and vectors of codes that should add up to it. Side by side they are one: a term of weight γ′
beside one of weight γ has its numbers multiplied by √(γ′ / γ), so that γ times the squared distance of all counts each
by its own weight. With `search.length_weight` β the vectors of codes are multiplied by √β and the targets divided by
it: −½ ‖z / √β − √β ẑ‖² orders images as z · ẑ − β/2 ‖ẑ‖² does.

    B queries   M levels   K codes   S code vectors   D width of a term   W widths of all
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from threading import Lock
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
from torch import Tensor

from genret.api import QueryBatch
from genret.components.retrievers.guidance.guide import FlatGuide
from genret.components.retrievers.guidance.means import Points
from genret.components.retrievers.guidance.points_cache import points_of
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie

if TYPE_CHECKING:
    from genret.components.retrievers.generative import GenerativeRetriever


class Term(NamedTuple):
    """A weight γ and what −γ/2 ‖target − sum‖² compares."""

    weight: float
    target: Tensor
    """(B, D) what the code vectors of the image that the query means would add up to"""
    books: Callable[[], Sequence[Tensor]]
    """Per level (K, D), without the extra symbols of collisions"""


class Guidance:
    """The guidance of a retriever's searches, with the tables of the last trie searched."""

    def __init__(self, retriever: GenerativeRetriever):
        self._retriever = retriever
        self._points: Points | None = None
        self._adding = Lock()

    def begin(self, batch: QueryBatch, trie: Trie, allowed: LeafSets | None = None) -> tuple[Any, FlatGuide | None]:
        """The state of `prefill`, None if it was not needed, and what is added to beam scores in `trie`, None if
        nothing is."""
        retriever, device, state = self._retriever, self._retriever.device, None
        drowned_out = retriever.written_levels == 0
        if retriever.options.self_guidance and not drowned_out and batch.texts:
            state = retriever.backbone.prefill(batch.texts)
        terms = list(_terms(retriever, batch, state))
        if not terms:
            return state, None
        with self._adding:
            known = self._points
            if known is None or known.trie is not trie:
                books = [book.to(device) for book in _books(terms, retriever.options.length_weight)]
                tokens = [retriever.backbone.level_tokens(level) for level in range(len(books))]
                known = self._points = points_of(retriever.cache_folder, trie, books, tokens, known)
        target = _target(terms, retriever.options.length_weight, device)
        return state, FlatGuide(target, known, terms[0].weight, allowed)


def _terms(retriever: GenerativeRetriever, batch: QueryBatch, state: Any) -> Iterator[Term]:
    options = retriever.options
    sums = retriever.identifier.additive(batch.vectors) if options.guidance else None
    if sums is not None:
        yield Term(options.guidance, sums.target, lambda: sums.books)
    if state is not None:
        own = retriever.backbone.query_vectors(state)
        yield Term(options.self_guidance, own, lambda: written_vectors(retriever))


def written_vectors(retriever: GenerativeRetriever) -> list[Tensor]:
    """The scheme's code vectors by level, 0 for those that the language model does not write."""
    identifier, vokens = retriever.identifier, retriever.identifier.vokens
    vectors = identifier.code_vectors()
    assert vectors is not None, "its codes add up"
    learned = len(vokens.sizes) if vokens.learned is None else vokens.learned
    rows = [vectors[vokens.offset(m) :][:size] for m, size in enumerate(vokens.sizes[:learned])]
    count = learned if retriever.written_levels is None else retriever.written_levels
    return [own if m < count else torch.zeros_like(own) for m, own in enumerate(rows)]


def _target(terms: Sequence[Term], length_weight: float, device: torch.device) -> Tensor:
    """(B, W)"""
    scales = [_scale(term, terms) * length_weight**-0.5 for term in terms]
    return torch.cat([scale * term.target.to(device) for scale, term in zip(scales, terms, strict=True)], dim=1)


def _books(terms: Sequence[Term], length_weight: float) -> list[Tensor]:
    """Per level (K, W)"""
    scales = [_scale(term, terms) * length_weight**0.5 for term in terms]
    levels = zip(*(term.books() for term in terms), strict=True)
    return [torch.cat([s * own.cpu() for s, own in zip(scales, level, strict=True)], dim=1) for level in levels]


def _scale(term: Term, terms: Sequence[Term]) -> float:
    return (term.weight / terms[0].weight) ** 0.5
