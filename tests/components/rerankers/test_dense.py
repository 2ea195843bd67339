"""Dense reranking against plain dot products."""

from __future__ import annotations

import torch
from PIL import Image

from genret.api import Candidates
from genret.components.rerankers.dense import DenseReranker


def never(row: int) -> Image.Image:
    raise AssertionError("vectors are enough")


def test_scores_are_dot_products_and_gaps_stay_last() -> None:
    generator = torch.Generator().manual_seed(0)
    queries, features = torch.randn(3, 5, generator=generator), torch.randn(3, 4, 5, generator=generator)
    rows = torch.tensor([[7, 3, 9, -1], [1, 2, 3, 4], [5, -1, -1, -1]])
    scores = DenseReranker().score(Candidates(["a", "b", "c"], queries, rows, features, torch.zeros(3, 4), never))
    for b in range(3):
        for c in range(4):
            dot = sum(float(q) * float(f) for q, f in zip(queries[b], features[b, c], strict=True))
            expected = -torch.inf if rows[b, c] < 0 else dot
            torch.testing.assert_close(float(scores[b, c]), float(expected), rtol=1e-4, atol=1e-5)
