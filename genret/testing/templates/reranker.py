"""ExampleReranker: the similarity of query and image, sharpened."""

from __future__ import annotations

import torch
from pydantic import Field

import genret


class ExampleReranker(genret.Reranker):
    """The similarity of the two towers' vectors, raised to a power, which lowers medium similarities."""

    class Config(genret.RerankerConfig):
        power: float = Field(2.0, gt=0)
        """1 orders by plain similarity."""

    def score(self, candidates: genret.Candidates):
        similarity = torch.einsum("bd,bcd->bc", candidates.query_features, candidates.features)
        scores = ((1 + similarity) / 2).clamp_min(0) ** self.config.power
        return scores.masked_fill(candidates.rows < 0, -torch.inf)
