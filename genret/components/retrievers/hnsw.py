"""Approximate dense search by FAISS's HNSW graph (Malkov and Yashunin, arXiv 1603.09320), in memory.

Results have the form of the exact search. It pays off from about 100,000 images and for many queries: building the
graph, at the first search, takes longer than many exact searches. With one thread (GENRET_NUM_THREADS=1) the graph is
deterministic.

Q queries   N images   D width
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from genret.errors import GenretError
from genret.search.dense import DenseHits

LINKS = 32
"""Neighbours of each image in the graph (M); the lowest level has twice as many."""
EF_CONSTRUCTION = 200
"""Candidates examined when an image is inserted (efConstruction)."""
EF_SEARCH = 128
"""Candidates examined by a search (efSearch); at least 4 k."""


class HNSW:
    """A graph over unit vectors (N, D), searched by inner product."""

    def __init__(self, images: Tensor):
        faiss = _faiss()
        self._graph: Any = faiss.IndexHNSWFlat(images.shape[1], LINKS, faiss.METRIC_INNER_PRODUCT)
        self._graph.hnsw.efConstruction = EF_CONSTRUCTION
        self._parameters = faiss.SearchParametersHNSW
        self._graph.add(_rows(images))

    def search(self, queries: Tensor, k: int) -> DenseHits:
        """queries (Q, D) → k of the most similar images of each, as by `dense_search`, with a few misses."""
        k_there = max(1, min(k, self._graph.ntotal))
        if not len(queries) or not self._graph.ntotal:
            return DenseHits(torch.full((len(queries), k), -1), torch.full((len(queries), k), -torch.inf))
        options = self._parameters(efSearch=max(EF_SEARCH, 4 * k_there))
        scores, rows = self._graph.search(_rows(queries), k_there, params=options)
        scores[rows < 0] = -np.inf
        order = np.lexsort((rows, -scores), axis=1)  # ties go to the lower row, as in exact search
        rows, scores = np.take_along_axis(rows, order, axis=1), np.take_along_axis(scores, order, axis=1)
        missing = ((0, 0), (0, k - k_there))
        return DenseHits(
            torch.from_numpy(np.pad(rows, missing, constant_values=-1)),
            torch.from_numpy(np.pad(scores, missing, constant_values=-np.inf)),
        )


def _rows(vectors: Tensor) -> Any:
    return np.ascontiguousarray(vectors.float().numpy())


def _faiss() -> Any:
    try:
        import faiss
    except ImportError as error:
        raise GenretError(
            "retriever.index is hnsw, but the package faiss is not installed: pip install 'genret[faiss]', "
            "or --set retriever.index=exact"
        ) from error
    faiss.omp_set_num_threads(torch.get_num_threads())
    return faiss
