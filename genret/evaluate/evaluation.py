"""What an evaluation says, in one shape for programs, files and people. It measures nothing."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from genret.evaluate.answers import Measures
from genret.evaluate.ledger import LedgerRow
from genret.evaluate.metrics import Recalls
from genret.evaluate.queries import QuerySet
from genret.search.catalog import CatalogRetriever
from genret.search.ranking import Ints, Ranked


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
    """Why figures cannot exist (then they are null), or what they cannot say"""
    first_stage: Recalls | None = None
    """Of the search before the recipe's reranker; None where it has none"""
    measures: Measures | None = None
    """All measures of the search and of two-tower, by the image that each caption is of"""
    shared_captions: Measures | None = None
    """The same, where every image with the query for a caption answers it; None where no two share one"""
    guidance: float | None = None
    """Weight of the query's own vector in the beam search; None where the language model searches alone"""
    written_levels: int | None = None
    """How many symbols of an identifier the language model writes; None: all"""
    more: dict[str, dict[str, Any] | None] = field(default_factory=dict)
    """The figures of each evaluator, by its name"""

    def as_json(self) -> dict[str, Any]:
        plain = dict(vars(self))
        more = plain.pop("more")
        changed = {
            "by_num_beams": {str(b): figures for b, figures in self.by_num_beams.items()},
            "ledger": [row.as_json() for row in self.ledger],
        }
        return plain | changed | more


@dataclass(frozen=True, kw_only=True)
class Evaluated:
    """An evaluation, and what was searched and found for it. Images are rows of `asked`."""

    evaluation: Evaluation
    retriever: CatalogRetriever
    asked: QuerySet
    index: Any
    """The retriever's index of the split's images; None where nothing could be searched"""
    first: Ranked | None
    """(Q, C) of the first stage"""
    answer: Ranked | None
    """(Q, C) reranked, where the recipe says so"""
    ranks: dict[str, Ints]
    """(Q,) the right image's rank, by way of searching (`ranks.py`)"""
