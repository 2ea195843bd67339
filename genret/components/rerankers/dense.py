"""Reranks candidates by the similarity of the two towers, which undoes the quantization of identifiers."""

from __future__ import annotations

import torch
from torch import Tensor

from genret.api import Candidates, Reranker


class DenseReranker(Reranker):
    """Similarity of query and image vectors."""

    def score(self, candidates: Candidates) -> Tensor:
        scores = torch.einsum(
            "bd,bcd->bc", candidates.query_features, candidates.features.to(candidates.query_features)
        )
        return scores.masked_fill(candidates.rows < 0, -torch.inf)
