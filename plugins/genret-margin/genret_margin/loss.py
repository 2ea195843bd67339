"""The margin-based rank loss of LTRGR (Li et al., "Learning to Rank in Generative Retrieval", arXiv 2306.15222).

B queries   b candidates
"""

from typing import Literal

import torch
from pydantic import Field

import genret


class MarginLoss(genret.Loss):
    """max(0, s(negative) − s(positive) + margin): the positive identifier scores higher than negatives by a margin.

    Unlike `rank`, it ignores candidates that satisfy the margin. Scores are log-probability sums.
    """

    stage = "generator"
    needs_candidates = True

    class Config(genret.LossConfig):
        margin: float = Field(1.0, gt=0)
        """The margin, in log-probability."""
        negatives: Literal["hardest", "all"] = "hardest"
        """Whether to use only the hardest negative, or the mean over all."""

    def __call__(self, batch: genret.GeneratorBatch):
        scores = batch.candidate_scores.float()  # (B, b), -inf where there is none
        is_right = torch.zeros_like(scores, dtype=torch.bool).scatter(1, batch.positive[:, None], True)
        right = scores.gather(1, batch.positive[:, None])
        there = torch.isfinite(scores) & ~is_right
        # filled before the comparison: the gradient of inf - x is NaN
        negatives = torch.where(there, scores, right.detach() - 2 * self.config.margin)
        excess = (negatives - right + self.config.margin).clamp_min(0) * there
        if self.config.negatives == "hardest":
            return excess.max(1).values.mean()
        return (excess.sum(1) / there.sum(1).clamp_min(1)).mean()
