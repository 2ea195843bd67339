"""The dense ranker as a teacher: the identifier scheme's soft assignment of a caption's vector.

Uses only the training captions' vectors, nothing of the test images. Why it helps: `losses/generator.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genret.api import Backbone, Identifier, Identifiers, SoftTarget
from genret.errors import UsageError


class Teacher:
    """Soft assignment of the training captions to codes."""

    def __init__(
        self, identifier: Identifier, backbone: Backbone, texts: Tensor, temperature: float, levels: int | None
    ):
        """texts (T, D): the captions' vectors. `levels`: how many first levels are taught; None: all."""
        self.identifier = identifier
        self.backbone = backbone
        self.text_features = texts
        self.temperature = temperature
        self.num_levels = len(identifier.vokens.sizes[:levels])
        blank = torch.zeros(1, self.num_levels, dtype=torch.int64)
        if not self.num_levels or identifier.code_probabilities(texts[:1], blank, temperature) is None:
            raise UsageError(
                "loss.distill and train.teacher_targets need an identifier that can code vectors softly, such as rq; "
                "set both to 0 for this one"
            )

    def write(self, captions: Tensor) -> Tensor:
        """(B,) captions → codes (B, M), sampled level by level with torch's global random state."""
        codes = torch.zeros(len(captions), self.num_levels, dtype=torch.int64)
        for level in range(codes.shape[1]):
            codes[:, level] = torch.multinomial(self._levels(captions, codes)[level].cpu(), 1)[:, 0]
        return codes

    def tokens(self, codes: Tensor) -> Tensor:
        """(B, M) → (B, M) tokens"""
        return self.backbone.tokens(Identifiers(torch.arange(len(codes)), codes=codes))

    def distributions(self, captions: Tensor, targets: Tensor) -> Sequence[SoftTarget]:
        """The teacher's distribution after each code of targets (B, L), for all their levels; -1 and end symbols are
        skipped."""
        tokens = [self.backbone.level_tokens(level) for level in range(min(self.num_levels, targets.shape[1]))]
        codes = torch.zeros(len(targets), self.num_levels, dtype=torch.int64, device=targets.device)
        for level, column in enumerate(tokens):
            assert column is not None
            codes[:, level] = targets[:, level] - column[0]
        levels = self._levels(captions, codes)[: len(tokens)]
        return [SoftTarget(column, level) for column, level in zip(tokens, levels, strict=True) if column is not None]

    def _levels(self, captions: Tensor, codes: Tensor) -> list[Tensor]:
        levels = self.identifier.code_probabilities(self.text_features[captions], codes, self.temperature)
        assert levels is not None
        return levels
