"""Exact dense search, in bounded memory: two towers, and the ceiling that quantized vectors allow.

Q queries   N images   D width
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

CELLS = 1 << 24
"""Similarities held at a time."""


class DenseHits(NamedTuple):
    rows: Tensor
    """(Q, k) best first; of equals, the lower row"""
    scores: Tensor
    """(Q, k)"""


def dense_search(queries: Tensor, images: Tensor, k: int) -> DenseHits:
    """queries (Q, D), images (N, D) → the k most similar images of each query (fewer, if there are fewer)."""
    found = []
    for part in queries.split(max(1, CELLS // max(1, len(images)))):
        scores, rows = (part @ images.T).sort(dim=1, descending=True, stable=True)
        found.append(DenseHits(rows[:, :k], scores[:, :k]))
    if not found:
        return DenseHits(torch.empty(0, 0, dtype=torch.int64), torch.empty(0, 0))
    return DenseHits(torch.cat([hits.rows for hits in found]), torch.cat([hits.scores for hits in found]))


def dense_ranks(queries: Tensor, images: Tensor, relevant: NDArray[np.int64]) -> NDArray[np.int64]:
    """(Q,) the rank, from 1, of each query's relevant image; of equals, the lower row comes first."""
    ranks = []
    rows = torch.arange(len(images))
    size = max(1, CELLS // max(1, len(images)))
    for start in range(0, len(queries), size):
        right = torch.from_numpy(relevant[start : start + size])[:, None]
        scores = queries[start : start + size] @ images.T
        score = scores.gather(1, right)
        before = (scores > score) | ((scores == score) & (rows < right))
        ranks.append(before.sum(1) + 1)
    return torch.cat(ranks).numpy()
