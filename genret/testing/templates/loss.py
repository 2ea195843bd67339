"""ExampleLoss: a margin between the positive code and its hardest negative, at each position."""

from __future__ import annotations

import torch
from pydantic import Field

import genret


class ExampleLoss(genret.Loss):
    """At each position the positive code's logit exceeds every other by a margin (multi-class hinge)."""

    stage = "generator"  # or "tokenizer"

    class Config(genret.LossConfig):
        margin: float = Field(1.0, gt=0)
        """The margin, in logits."""

    def __call__(self, batch: genret.GeneratorBatch):
        assert batch.logits is not None
        total = batch.targets.new_zeros((), dtype=torch.float32)
        for position, columns in enumerate(batch.columns):
            target = batch.targets[:, position]  # (B,), -1 after the end of shorter identifiers
            logits = batch.logits[position].float()  # (B, C), of the tokens `columns` or of all
            place = target.clamp_min(0) if columns is None else torch.searchsorted(columns, target.clamp_min(0))
            right = logits.gather(1, place[:, None])
            hinge = (self.config.margin - right + logits).clamp_min(0).max(1).values - self.config.margin
            total = total + (hinge.clamp_min(0) * (target >= 0)).mean()
        return total
