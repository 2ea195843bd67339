"""What an evaluation says, in one shape for programs, files and people. It measures nothing."""

from __future__ import annotations

from typing import Any, NamedTuple

from genret.evaluate.answers import Measures
from genret.evaluate.ledger import LedgerRow
from genret.evaluate.metrics import Recalls
from genret.evaluate.tables import evaluation_tables


class Evaluation(NamedTuple):
    """Everything that was measured on one split; recalls in percent."""

    protocol: str
    concepts: str | None
    split: str
    num_queries: int
    num_images: int
    num_beams: int | None
    recall: Recalls
    identifier_recall: Recalls | None
    by_num_beams: dict[int, Recalls]
    two_tower: Recalls
    ceiling: Recalls | None
    reranked: Recalls | None
    ledger: list[LedgerRow]
    identifier: dict[str, Any] | None
    remark: str | None = None
    """Why figures cannot exist (then they are null), or what they cannot say"""
    first_stage: Recalls | None = None
    """Of the search before the recipe's reranker; None where it has none"""
    measures: Measures | None = None
    """All measures of the search and of two-tower, by the image that each caption is of"""
    shared_captions: Measures | None = None
    """The same, where every image with the query for a caption answers it; None where no two share one"""
    confidence: dict[str, Any] | None = None
    """How well the search's confidence tells answerable queries; None where it was not calibrated"""
    leakage: dict[str, Any] | None = None
    """What training and development know of this split; None where that was not looked at"""
    guidance: float | None = None
    """Weight of the query's own vector in the beam search; None where the language model searches alone"""
    written_levels: int | None = None
    """How many symbols of an identifier the language model writes; None: all"""

    def as_json(self) -> dict[str, Any]:
        return self._asdict() | {
            "by_num_beams": {str(b): figures for b, figures in self.by_num_beams.items()},
            "ledger": [row.as_json() for row in self.ledger],
        }

    def tables(self) -> list[Any]:
        """Rich tables for people."""
        return evaluation_tables(self)
