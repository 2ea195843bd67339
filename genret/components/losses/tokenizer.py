"""The terms of the tokenizer's objective, each a mean over the batch: the paper's (3.1, Eqns. 3–6), and two more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genret.api import Loss, LossConfig, TokenizerBatch

SAME_CAPTION = 1 - 1e-5
"""Cosine above which two caption vectors count as the same text, apart from rounding."""


class ReconLoss(Loss):
    """‖v_i − v̂_i‖² (Eqn. 3): the codes preserve the image vector."""

    stage = "tokenizer"

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        return (batch.image - batch.reconstruction).square().sum(-1).mean()


class CommitLoss(Loss):
    """Σ_d ‖z(v_i) − sg(ẑ^(d))‖² (Eqn. 4): the latent is close to the partial sum of every level.

    The paper writes v_i for z(v_i); the two are the same where the latent space is the feature space. The quantizer
    handles the codebook's part of this term: by moving averages, or by the gradient of the mirrored term.
    """

    stage = "tokenizer"

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        return (batch.latent[:, None] - batch.partial.detach()).square().sum(-1).sum(-1).mean()


class AlignLoss(Loss):
    """‖v̂_i − v_t‖² (Eqn. 5): the reconstruction is also close to a caption's vector."""

    stage = "tokenizer"
    needs_text = True

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        assert batch.text is not None, "needs_text promises a caption vector for each image"
        return (batch.reconstruction - batch.text).square().sum(-1).mean()


class ContrastiveAlignLoss(Loss):
    """InfoNCE between v̂_i and v_t, in both directions, as in CLIP (Radford et al., arXiv 2103.00020, Figure 3).

    Eqn. 5 pulls a reconstruction to its caption; this term also pushes it away from the captions of the batch's other
    images. Images with the same caption are not negatives of each other.
    """

    class Config(LossConfig):
        temperature: float = Field(0.07, gt=0)
        """Cosines are divided by this before the softmax; lower values emphasize hard negatives."""

    stage = "tokenizer"
    needs_text = True

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        assert batch.text is not None, "needs_text promises a caption vector for each image"
        image, text = F.normalize(batch.reconstruction, dim=-1), F.normalize(batch.text, dim=-1)
        same = (text @ text.T > SAME_CAPTION).fill_diagonal_(False)
        logits = (image @ text.T / self.config.temperature).masked_fill(same, -torch.inf)
        right = torch.arange(len(logits), device=logits.device)
        return (F.cross_entropy(logits, right) + F.cross_entropy(logits.T, right)) / 2


class DiversityLoss(Loss):
    """Σ_k p̄_k log p̄_k, averaged over the levels: lowest if a level's codes are used evenly.

    p̄ is the batch's mean of softmax_k(−‖r_m − e_k‖² / τ), the soft assignment. MAGVIT-v2 has this term (Yu et al.,
    arXiv 2310.05737, the second half of its entropy penalty), as has vector-quantize-pytorch (`codebook_diversity`).
    """

    class Config(LossConfig):
        weight: float = Field(0.1, ge=0)
        """Weight of this term; at 0 it is not computed."""
        temperature: float = Field(0.01, gt=0)
        """Temperature of the soft assignment; lower is closer to the codes chosen."""

    stage = "tokenizer"
    needs_assignments = True

    def __call__(self, batch: TokenizerBatch) -> Tensor:
        assert batch.assignments, "needs_assignments promises them"
        shares = [(level / self.config.temperature).softmax(-1).mean(0) for level in batch.assignments]
        # the clamp keeps the gradient finite at codes far from every residual
        return torch.stack([(share * share.clamp_min(1e-12).log()).sum() for share in shares]).mean()
