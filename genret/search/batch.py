"""A batch of queries, and the resources of a retriever."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from genret.api import Backbone, Encoder, Identifier, Reranker
from genret.catalog.store import Catalog
from genret.recipe.schema import SearchOptions, TrainOptions
from genret.search.thumbnails import Thumbnails


class QueryBatch:
    """A batch of queries; their vectors are computed once, on first use."""

    def __init__(self, texts: Sequence[str], embed: Callable[[Sequence[str]], Tensor]):
        self.texts = texts
        self._embed = embed

    @classmethod
    def known(cls, texts: Sequence[str], vectors: Tensor) -> QueryBatch:
        """From queries whose vectors (B, D) are known."""
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


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What a retriever over a catalog uses: a run's parts, loaded, and its catalog."""

    catalog: Catalog
    thumbnails: Thumbnails
    encoder: Encoder
    identifier: Identifier | None
    backbone: Backbone | None
    reranker: Reranker | None
    search: SearchOptions
    train: TrainOptions
    device: torch.device
    folder: Path | None = None
    """Folder for caches, the run's directory; None: no caches"""
