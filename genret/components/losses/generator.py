"""The terms of the generator's objective (paper 3.2, Eqns. 7–10)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genret.api import GeneratorBatch, Loss, LossConfig


class TokenLoss(Loss):
    """L_gen (Eqn. 7): cross-entropy of the identifier's tokens given the query, summed over its M positions."""

    class Config(LossConfig):
        label_smoothing: float = Field(0.0, ge=0, lt=1)
        """Label smoothing: share of the probability spread evenly over the codes of the level."""

    stage = "generator"

    def __call__(self, batch: GeneratorBatch) -> Tensor:
        assert batch.logits is not None, "only losses that compare candidates go without"
        return _cross_entropy(batch.logits, batch.targets, batch.columns, self.config.label_smoothing)


class MemorizeLoss(TokenLoss):
    """Cross-entropy of the identifier's tokens given the image's vector: GRACE's "learning to memorize" (Li et al.,
    arXiv 2402.10805), the first step of its training."""

    needs_image_logits = True

    def __call__(self, batch: GeneratorBatch) -> Tensor:
        assert batch.image_logits is not None, "needs_image_logits promises them"
        targets = batch.targets if batch.image_targets is None else batch.image_targets
        logits = zip(batch.image_logits.unbind(1), batch.columns, strict=True)
        own = [here if columns is None else here[:, columns] for here, columns in logits]
        return _cross_entropy(own, targets, batch.columns, self.config.label_smoothing)


class ReverseLoss(Loss):
    """−log p(query | image): trains the generator to caption images as well, for reverse re-ranking with `rerank:
    reverse` (TIGeR, Qu et al., arXiv 2406.05814)."""

    stage = "generator"
    needs_captions = True

    def __call__(self, batch: GeneratorBatch) -> Tensor:
        assert batch.caption_log_probs is not None, "needs_captions promises them"
        return -batch.caption_log_probs.float().mean()


class RankLoss(Loss):
    """L_dis (Eqn. 9): softmax cross-entropy of the positive identifier among beam-searched candidates.

    Scores are log-probability sums and the softmax is taken once; the authors' code takes it twice, which bounds the
    loss away from zero.
    """

    class Config(LossConfig):
        temperature: float = Field(1.0, gt=0)
        """Scores are divided by this before the softmax."""

    stage = "generator"
    needs_candidates = True

    def __call__(self, batch: GeneratorBatch) -> Tensor:
        assert batch.candidate_scores is not None and batch.positive is not None, "needs_candidates promises them"
        return F.cross_entropy(batch.candidate_scores.float() / self.config.temperature, batch.positive)


class DistillLoss(Loss):
    """Cross-entropy against a dense teacher, summed over the levels: Σ_m −Σ_k p_m(k) log q_m(k).

    The teacher is a soft assignment of the caption's own vector (`Identifier.code_probabilities`): if a caption fits
    several codes, the generator learns the probability of each, not only the code of its image. Not in the paper; the
    idea is knowledge distillation (Hinton et al., arXiv 1503.02531).
    """

    stage = "generator"
    needs_teacher = True

    def __call__(self, batch: GeneratorBatch) -> Tensor:
        assert batch.teacher, "needs_teacher promises it"
        assert batch.logits is not None, "only losses that compare candidates go without"
        total = batch.targets.new_zeros((), dtype=torch.float32)
        for position, soft in enumerate(batch.teacher):
            columns = batch.columns[position]
            log_probs = batch.logits[position].float().log_softmax(-1)
            places = soft.tokens if columns is None else torch.searchsorted(columns, soft.tokens)
            there = batch.targets[:, position] >= 0  # shorter identifiers have ended
            total = total - (there * (soft.probabilities * log_probs[:, places]).sum(-1)).mean()
        return total


def _cross_entropy(
    logits: Sequence[Tensor], targets: Tensor, columns: Sequence[Tensor | None], smoothing: float
) -> Tensor:
    """logits of `columns` per position, targets (B, L), -1 pads → the mean over examples of the sum over positions."""
    total = targets.new_zeros((), dtype=torch.float32)
    for position, (here, wanted) in enumerate(zip(logits, columns, strict=True)):
        target = targets[:, position]
        if wanted is not None:
            target = torch.where(target < 0, target, torch.searchsorted(wanted, target.clamp_min(0)))
        own = F.cross_entropy(here.float(), target, ignore_index=-1, reduction="sum", label_smoothing=smoothing)
        total = total + own
    return total / len(targets)
