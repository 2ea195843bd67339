"""Terms of the training objectives."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from genret.api.component import Component, Config

if TYPE_CHECKING:
    from torch import Tensor


class LossConfig(Config):
    weight: float = Field(1.0, ge=0)
    """Factor of this term; at 0 it is not computed."""


class Loss(Component, ABC):
    """One term of a training objective."""

    kind = "loss"
    Config: ClassVar[type[Config]] = LossConfig

    stage: ClassVar[Literal["tokenizer", "generator"]]
    needs_text: ClassVar[bool] = False
    needs_candidates: ClassVar[bool] = False
    """Whether it needs `GeneratorBatch.candidate_scores`: a beam search with the current model."""
    needs_teacher: ClassVar[bool] = False
    """Whether it needs `GeneratorBatch.teacher`."""
    needs_image_logits: ClassVar[bool] = False
    """Whether it needs `GeneratorBatch.image_logits`; only with backbones that read features."""
    needs_captions: ClassVar[bool] = False
    """Whether it needs `GeneratorBatch.caption_log_probs`; only with backbones that read features."""
    needs_assignments: ClassVar[bool] = False
    """Whether it needs `TokenizerBatch.assignments`."""

    @abstractmethod
    def __call__(self, batch: Any) -> Tensor:
        """A `TokenizerBatch` or `GeneratorBatch` → scalar, not yet weighted."""
