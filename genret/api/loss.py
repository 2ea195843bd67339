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
    """Factor of this term; 0 means that it is not computed at all."""


class Loss(Component, ABC):
    """One term of a training objective."""

    kind = "loss"
    Config: ClassVar[type[Config]] = LossConfig

    stage: ClassVar[Literal["tokenizer", "generator"]]
    needs_text: ClassVar[bool] = False
    needs_candidates: ClassVar[bool] = False
    """Whether `GeneratorBatch.candidate_scores` has to be there: a beam search with the current model."""
    needs_teacher: ClassVar[bool] = False
    """Whether `GeneratorBatch.teacher` has to be there."""
    needs_image_logits: ClassVar[bool] = False
    """Whether `GeneratorBatch.image_logits` has to be there; only with backbones that read features."""
    needs_captions: ClassVar[bool] = False
    """Whether `GeneratorBatch.caption_log_probs` has to be there; only with backbones that read features."""
    needs_assignments: ClassVar[bool] = False
    """Whether `TokenizerBatch.assignments` has to be there."""

    @abstractmethod
    def __call__(self, batch: Any) -> Tensor:
        """A `TokenizerBatch` or `GeneratorBatch` → scalar, not yet weighted."""
