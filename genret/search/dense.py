"""Exact dense search, in bounded memory: for two towers, and for the quantization upper bound.

Q queries   N images   D width
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

QUERIES = 256
IMAGES = 16_384
"""Number of similarities in memory at a time: `QUERIES` x `IMAGES`."""
_NOTHING = torch.iinfo(torch.int64).min


class DenseHits(NamedTuple):
    rows: Tensor
    """(Q, k) int64 image rows, best first; the lower row wins ties; -1 if there are fewer than k images"""
    scores: Tensor
    """(Q, k) float32, -inf where there is no image"""


@torch.no_grad()
def dense_search(queries: Tensor, images: Tensor, k: int, rows: Tensor | None = None) -> DenseHits:
    """queries (Q, D), images (N, D) → the k most similar images of each query; `rows`, ascending: only among these."""
    found = [_search(part, images, k, rows) for part in queries.split(QUERIES)] if len(queries) else []
    if not found:
        return DenseHits(torch.empty(0, k, dtype=torch.int64), torch.empty(0, k))
    return DenseHits(torch.cat([hits.rows for hits in found]), torch.cat([hits.scores for hits in found]))


def _search(queries: Tensor, images: Tensor, k: int, chosen: Tensor | None) -> DenseHits:
    best = torch.full((len(queries), k), _NOTHING)
    for start in range(0, len(images if chosen is None else chosen), IMAGES):
        block = slice(start, start + IMAGES)
        rows = torch.arange(len(images))[block] if chosen is None else chosen[block]
        keys = _keys(queries @ (images[block] if chosen is None else images[rows]).T, rows)
        best = torch.cat([best, keys], dim=1).topk(k, dim=1).values
    there = best != _NOTHING
    bits = (best >> 32).int()
    scores = (bits ^ ((bits >> 31) & 0x7FFFFFFF)).view(torch.float32)
    rows = 0x7FFFFFFF - (best & 0xFFFFFFFF)
    return DenseHits(torch.where(there, rows, -1), torch.where(there, scores, -torch.inf))


def _keys(scores: Tensor, rows: Tensor) -> Tensor:
    """Score and row in one integer, because `topk` does not define the order of ties.

    A float's bits, with those of negative numbers flipped, sort as the float does; the lower row wins ties.
    """
    bits = (scores + 0.0).view(torch.int32)  # + 0.0: -0.0 is 0.0
    ordered = bits ^ ((bits >> 31) & 0x7FFFFFFF)
    return (ordered.long() << 32) | (0x7FFFFFFF - rows)


def dense_ranks(queries: Tensor, images: Tensor, relevant: NDArray[np.int64]) -> NDArray[np.int64]:
    """(Q,) the rank, from 1, of each query's relevant image; in ties, the lower row comes first."""
    right = torch.from_numpy(relevant)
    ranks = torch.ones(len(queries), dtype=torch.int64)
    for first in range(0, len(queries), QUERIES):
        part = slice(first, first + QUERIES)
        # every score by the same product: the same pair in another matrix shape may differ in its last bit
        blocks = [(start, queries[part] @ images[start : start + IMAGES].T) for start in range(0, len(images), IMAGES)]
        score = torch.cat([block for _, block in blocks], dim=1).gather(1, right[part, None])
        for start, block in blocks:
            rows = torch.arange(start, start + block.shape[1])
            ranks[part] += ((block > score) | ((block == score) & (rows < right[part, None]))).sum(1)
    return ranks.numpy()
