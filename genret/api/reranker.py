"""New scores for the images that a search has found."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, ClassVar, NamedTuple

from pydantic import Field

from genret.api.component import Component, Config
from genret.api.described import described

if TYPE_CHECKING:
    import torch
    from PIL import Image
    from torch import Tensor


@described
class Candidates(NamedTuple):
    """What a reranker may look at: C candidate images for each of B queries."""

    queries: Sequence[str]
    """B texts"""
    query_features: Tensor
    """(B, D) unit rows"""
    rows: Tensor
    """(B, C) catalog keys, -1 where there is no candidate"""
    features: Tensor
    """(B, C, D) the candidates' image vectors"""
    scores: Tensor
    """(B, C) what the first stage thought"""
    read: Callable[[int], Image.Image]
    """Opens the picture of a catalog key (its stored thumbnail)."""
    caption_log_probs: Callable[[Tensor, Sequence[str]], Tensor] | None = None
    """The run's own `Backbone.caption_log_probs`, where its generator learnt to read features."""


class RerankerConfig(Config):
    candidates: int = Field(100, ge=1)
    """Images of the first stage that are scored anew, its best ones; `-k` beyond it widens it to k. A generative run
    has no more of them than its beams lead to."""
    weight: float = Field(1.0, ge=0, le=1)
    """Share of the new score, the rest is the first stage's; both are then standardized over a query's candidates. At 1
    the new score stands alone."""


class Reranker(Component, ABC):
    """Scores the candidates of another retriever anew."""

    kind = "reranker"
    Config: ClassVar[type[Config]] = RerankerConfig

    def to(self, device: torch.device) -> None:
        """Moves what there is to move."""

    def load(self) -> None:
        """Loads weights now instead of with the first query, whose time is reported."""

    @abstractmethod
    def score(self, candidates: Candidates) -> Tensor:
        """(B, C), higher is better; -inf for a candidate that cannot be judged, which then comes last."""
