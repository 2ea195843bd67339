"""New scores for the candidates of a search."""

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
    """The input of a reranker: C candidate images for each of B queries."""

    queries: Sequence[str]
    """B texts"""
    query_features: Tensor
    """(B, D) unit rows"""
    rows: Tensor
    """(B, C) catalog keys, -1 where there is no candidate"""
    features: Tensor
    """(B, C, D) the candidates' image vectors"""
    scores: Tensor
    """(B, C) scores of the first stage"""
    read: Callable[[int], Image.Image]
    """Opens the image of a catalog key (its stored thumbnail)."""
    caption_log_probs: Callable[[Tensor, Sequence[str]], Tensor] | None = None
    """The run's own `Backbone.caption_log_probs`, if its generator was trained to read features."""


class RerankerConfig(Config):
    candidates: int = Field(100, ge=1)
    """Number of the first stage's best images that are rescored; a larger `-k` raises it to k. A generative run has at
    most as many as its beams lead to."""
    weight: float = Field(1.0, ge=0, le=1)
    """Weight of the new score; the rest is the first stage's. Both are then standardized over a query's candidates. At
    1 only the new score counts."""


class Reranker(Component, ABC):
    """Rescores the candidates of another retriever."""

    kind = "reranker"
    Config: ClassVar[type[Config]] = RerankerConfig

    def to(self, device: torch.device) -> None:
        """Moves its model, if any, to the device."""

    def load(self) -> None:
        """Loads weights now, not during the first query, whose time is reported."""

    @abstractmethod
    def score(self, candidates: Candidates) -> Tensor:
        """(B, C), higher is better; -inf for a candidate that cannot be scored, which then ranks last."""
