"""Dense retrieval with two towers over all image vectors: the baseline of every generative result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from genret import api
from genret.api import QueryBatch, SearchResult
from genret.catalog.store import Snapshot
from genret.components.retrievers import enlarged
from genret.components.retrievers.by_name import by_name
from genret.components.retrievers.hnsw import HNSW
from genret.kit.arrays import Ints
from genret.search.catalog import CatalogRetriever
from genret.search.confidence import LOOKED_AT
from genret.search.dense import DenseHits, dense_ranks, dense_search
from genret.search.ranking import Ranked
from genret.search.restrict import Allowed
from genret.search.trace import Enlarged

ROCCHIO_GAMMA = 0.15
"""Weight of rejected images: Rocchio's γ, as in Manning, Raghavan, Schütze, Introduction to Information Retrieval
(2008), 9.1.1, whose α is 1."""


class Vectors(NamedTuple):
    """The searchable images of one version of the catalog."""

    version: int
    keys: Ints
    """(N,) ascending"""
    features: Tensor
    """(N, D) unit rows"""
    graph: HNSW | None


class TwoTowerRetriever(CatalogRetriever):
    """Dense search: cosine similarity of text and image vectors, CLIP's paradigm."""

    class Config(api.Config):
        index: Literal["exact", "hnsw"] = "exact"
        """Nearest-neighbour search: exact, or by FAISS's HNSW graph (pip install 'genret[faiss]')."""

    _vectors: Vectors | None = None

    def build_index(self, snapshot: Snapshot, keys: Ints) -> Vectors:
        features = snapshot.features_of(keys)
        return Vectors(snapshot.version, keys, features, self.graph_of(features))

    def index_at(self, snapshot: Snapshot) -> Vectors:
        """Loads the vectors, and builds the graph if configured, at the first search; later reads only changes."""
        version, known = snapshot.version, self._vectors
        if known is None or known.version != version:
            # the width of the vectors is unknown in an empty catalog
            changes = snapshot.changes_since(known.version) if known is not None and len(known.keys) else None
            if known is None or changes is None:
                self._vectors = self.build_index(snapshot, snapshot.searchable_keys())
            else:
                kept = ~Allowed(only=changes.removed).among(known.keys)
                keys = np.concatenate([known.keys[kept], changes.images])
                order = np.argsort(keys)
                features = torch.cat([known.features[torch.from_numpy(kept)], snapshot.features_of(changes.images)])
                keys, features = keys[order], features[order]
                self._vectors = Vectors(version, keys, features, self.graph_of(features))
        assert self._vectors is not None
        return self._vectors

    def graph_of(self, features: Tensor) -> HNSW | None:
        return HNSW(features) if self.config.index == "hnsw" else None

    def nearest_of(self, features: Tensor) -> Callable[[Tensor, int], DenseHits]:
        """The recipe's search over these vectors: queries (Q, D), k → the nearest of each."""
        graph = self.graph_of(features)
        return lambda queries, k: nearest(queries, features, graph, k)

    @property
    def wants_vectors(self) -> bool:
        return True

    def amend(self, one: SearchResult, seen: Snapshot, allowed: Allowed, k: int, least: float | None) -> SearchResult:
        can_read = self.encoder.reads(one.query)
        return one if can_read else by_name(seen, one, allowed, k, least)

    def candidates(
        self,
        snapshot: Snapshot,
        index: Vectors,
        batch: QueryBatch,
        k: int,
        num_beams: int | None,
        allowed: Sequence[Allowed],
    ) -> Ranked:
        depth, vectors = max(self.depth(k), LOOKED_AT), batch.vectors
        shape = len(vectors), depth
        ranked = Ranked(np.full(shape, -1), np.full(shape, -np.inf, np.float32), np.full(shape, -1))
        for one in {id(one): one for one in allowed}.values():  # queries with equal restrictions together
            rows = np.flatnonzero([other is one for other in allowed])
            found = restricted(vectors[torch.from_numpy(rows)], index, depth, one)
            ranked.images[rows], ranked.scores[rows] = found.images, found.scores
        return ranked

    def exact_ranks(self, index: Vectors, query_features: Tensor, keys: Ints) -> Ints | None:
        if index.graph is not None:
            return None
        return dense_ranks(query_features, index.features, np.searchsorted(index.keys, keys))

    def enlarged(self, snapshot: Snapshot, num_images: int) -> Enlarged:
        return enlarged.vectors(self, snapshot, num_images)


def restricted(queries: Tensor, searched: Vectors, k: int, allowed: Allowed) -> Ranked:
    """queries (Q, D) unit rows → the k most similar of the images allowed to all of them.

    Scores are cosines minus γ times the mean cosine to the rejected images: q · x − γ mean(r · x).
    """
    _, keys, features, graph = searched
    if len(rejected := features[torch.from_numpy(_rows_of(keys, allowed.unlike))]):
        queries = queries - ROCCHIO_GAMMA * rejected.mean(0)
    if allowed.only is not None:  # the graph cannot be restricted to a few images, so the search is exact
        rows = torch.from_numpy(np.flatnonzero(allowed.among(keys)))
        found = dense_search(queries, features, k, rows)
        return Ranked(_keys_of(keys, found.rows), found.scores.numpy(), np.full(found.rows.shape, -1))
    found = nearest(queries, features, graph, k + len(allowed.without))  # enough even if all excluded images are found
    images = _keys_of(keys, found.rows)
    keep = allowed.among(images)
    order = np.argsort(~keep, axis=1, kind="stable")[:, :k]
    images = np.take_along_axis(np.where(keep, images, -1), order, axis=1)
    scores = np.take_along_axis(np.where(keep, found.scores.numpy(), -np.inf), order, axis=1)
    return Ranked(images, scores.astype(np.float32), np.full_like(images, -1))


def _keys_of(keys: Ints, rows: Tensor) -> Ints:
    """Rows → the images' keys; -1 stays -1."""
    found: Ints = np.append(keys, -1)[rows.numpy()]
    return found


def _rows_of(keys: Ints, chosen: Ints) -> Ints:
    """The rows of the keys that exist."""
    return np.flatnonzero(Allowed(only=chosen).among(keys)) if len(chosen) else chosen


def nearest(queries: Tensor, features: Tensor, graph: HNSW | None, k: int) -> DenseHits:
    """The k images of each query: by the graph if there is one, otherwise exactly."""
    return dense_search(queries, features, k) if graph is None else graph.search(queries, k)
