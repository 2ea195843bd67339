"""Two towers and a search over all image vectors: the baseline beside every generative result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
from torch import Tensor

from genret.retrievers.catalog import CatalogRetriever
from genret.retrievers.dense import DenseHits, dense_search
from genret.retrievers.hnsw import HNSW
from genret.retrievers.ranking import Ints, Ranked


class Vectors(NamedTuple):
    """The searchable images of one version of the catalog."""

    version: int
    keys: Ints
    """(N,) ascending"""
    features: Tensor
    """(N, D) unit rows"""
    graph: HNSW | None


class TwoTowerRetriever(CatalogRetriever):
    """CLIP's paradigm: cosine similarity of text and image vectors."""

    _vectors: Vectors | None = None

    @property
    def vectors(self) -> Vectors:
        """Read, and made into a graph where the recipe asks for one, when first needed and when the catalog changed."""
        version = self.catalog.version
        if self._vectors is None or self._vectors.version != version:
            keys = self.catalog.searchable_keys()
            features = self.catalog.features_of(keys)
            self._vectors = Vectors(version, keys, features, graph_of(features, self.options.index))
        return self._vectors

    def prepare(self, query: str) -> None:
        super().prepare(query)
        self.text_vectors([query])
        _ = self.vectors

    def candidates(self, queries: Sequence[str], k: int, num_beams: int | None, allowed: Ints | None) -> Ranked:
        _, keys, features, graph = self.vectors
        if allowed is not None:  # a graph of all images cannot be searched for a few of them: exactly, then
            chosen = np.isin(keys, allowed)
            keys, features, graph = keys[chosen], features[chosen], None
        found = nearest(self.text_vectors(queries), features, graph, self.depth(k))
        rows = found.rows.numpy()
        images = np.where(rows < 0, -1, np.append(keys, -1)[rows])
        return Ranked(images, found.scores.numpy(), np.full_like(images, -1))

    def identifiers(self, features: Tensor, image_ids: Sequence[str]) -> list[list[bytes]]:
        return [[] for _ in image_ids]

    def names(self, keys: Ints, leaves: Ints) -> list[list[str] | None]:
        return [None] * len(keys)


def graph_of(features: Tensor, index: Literal["exact", "hnsw"]) -> HNSW | None:
    """The graph that `search.index` asks for."""
    return HNSW(features) if index == "hnsw" else None


def nearest(queries: Tensor, features: Tensor, graph: HNSW | None, k: int) -> DenseHits:
    """The k images of each query: by the graph where there is one, else exactly."""
    return dense_search(queries, features, k) if graph is None else graph.search(queries, k)
