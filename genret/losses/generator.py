"""The terms of the generator's objective (paper 3.2, Eqns. 7–10)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from pydantic import Field
from torch import Tensor

from genret.interfaces import GeneratorBatch, Loss, LossConfig


class TokenLoss(Loss):
    """L_gen (Eqn. 7): cross-entropy of the identifier's tokens given the query, summed over its M positions."""

    class Config(LossConfig):
        label_smoothing: float = Field(0.0, ge=0, lt=1)
        """Share of the probability spread evenly over the symbols of the level."""

    stage = "generator"

    def __call__(self, batch: GeneratorBatch) -> Tensor:
        total = batch.logits.new_zeros((), dtype=torch.float32)
        for position, columns in enumerate(batch.columns):
            target = batch.targets[:, position]
            logits = batch.logits[:, position].float()
            if columns is not None:
                logits = logits[:, columns]
                target = torch.where(target < 0, target, torch.searchsorted(columns, target.clamp_min(0)))
            total = total + F.cross_entropy(
                logits, target, ignore_index=-1, reduction="sum", label_smoothing=self.config.label_smoothing
            )
        return total / len(batch.targets)


class RankLoss(Loss):
    """L_dis (Eqn. 9): softmax cross-entropy of the right identifier among the beam-searched ones.

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

    The teacher is the caption's own vector, coded with hesitation (`Identifier.code_probabilities`): where words fit
    several codes the generator learns all of them, each with its share, instead of the one that its picture happened to
    get. Not in the paper; the idea is that of knowledge distillation (Hinton et al., arXiv 1503.02531).
    """

    stage = "generator"
    needs_teacher = True

    def __call__(self, batch: GeneratorBatch) -> Tensor:
        assert batch.teacher, "needs_teacher promises it"
        total = batch.logits.new_zeros((), dtype=torch.float32)
        for position, soft in enumerate(batch.teacher):
            columns = batch.columns[position]
            logits = batch.logits[:, position].float()
            log_probs = (logits if columns is None else logits[:, columns]).log_softmax(-1)
            places = soft.tokens if columns is None else torch.searchsorted(columns, soft.tokens)
            total = total - (soft.probabilities * log_probs[:, places]).sum(-1).mean()
        return total
