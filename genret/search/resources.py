"""The resources of a retriever over a catalog."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from genret.api import Backbone, Encoder, Identifier, Reranker
from genret.catalog.store import Catalog
from genret.recipe.schema import SearchOptions, TrainOptions
from genret.search.thumbnails import Thumbnails


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
