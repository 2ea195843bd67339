"""The figures of an evaluation, in one form for programs, files and people. Measures nothing itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from genret.evaluate.answers import Measures
from genret.evaluate.ledger import LedgerRow
from genret.evaluate.metrics import Recalls
from genret.evaluate.queries import QuerySet
from genret.kit.arrays import Ints
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ranked


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """Everything that was measured on one split; recalls in percent."""

    protocol: str
    concepts: str | None
    split: str
    num_queries: int
    num_images: int
    num_beams: int | None
    """None for retrievers without beams"""
    recall: Recalls
    identifier_recall: Recalls | None = None
    by_num_beams: dict[int, Recalls] = field(default_factory=dict)
    two_tower: Recalls
    """Of the dense search with the same features"""
    ceiling: Recalls | None = None
    """Of the dense search by reconstructed features: the quantization upper bound"""
    reranked: Recalls | None = None
    """Of the beams' images in dense order"""
    ledger: list[LedgerRow] = field(default_factory=list)
    identifier: dict[str, Any] | None = None
    remark: str | None = None
    """Why figures are undefined (then they are null), or what limits their meaning"""
    first_stage: Recalls | None = None
    """Of the search before the recipe's reranker; None without a reranker"""
    measures: Measures | None = None
    """All measures of the search and of two-tower, where only each caption's own image is relevant"""
    shared_captions: Measures | None = None
    """The same, where every image with the same caption is relevant; None if no two images share one"""
    guidance: float | None = None
    """Weight of the query's own vector in the beam search; None if the language model searches alone"""
    self_guidance: float | None = None
    """Weight of the vector that the language model reads the query as, likewise"""
    drowned_out: dict[str, Any] | None = None
    """All `Scores` of the same search by the query's own vector alone, and its `first_stage`; None without guidance"""
    written_levels: int | None = None
    """How many codes of an identifier the language model writes; None: all"""
    more: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """The figures of each evaluator, by its name"""

    def as_json(self) -> dict[str, Any]:
        plain = dict(vars(self))
        more = plain.pop("more")
        if self.drowned_out is None:
            plain.pop("drowned_out")
        changed = {
            "by_num_beams": {str(b): figures for b, figures in self.by_num_beams.items()},
            "ledger": [row.as_json() for row in self.ledger],
        }
        return plain | changed | more


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An evaluation, with the index and the results of its search. Images are rows of `asked`."""

    evaluation: Evaluation
    retriever: CatalogRetriever
    asked: QuerySet
    index: Any
    """The retriever's index of the split's images; None if nothing can be searched"""
    first: Ranked | None
    """(Q, C) of the first stage"""
    answer: Ranked | None
    """(Q, C) reranked, if the recipe has a reranker"""
    ranks: dict[str, Ints]
    """(Q,) the positive's rank, by way of searching (`ranks.py`)"""
