"""The base class of all components, and the options that several kinds share.

Nothing here imports torch, so that `genret --help` stays fast.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field


class Config(BaseModel):
    """Options of a component: frozen, typed, no unknown keys. The docstring under an option describes it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)


class Component:
    """Something that a recipe selects by name. `Config` holds its options, `kind` is its registry.

    Creating one is cheap: weights are loaded and files are opened on first use.
    """

    kind: ClassVar[str]
    Config: ClassVar[type[Config]] = Config

    def __init__(self, config: Any = None, *, resolve_weights: Callable[[str], str] = str):
        self.config: Any = config if config is not None else self.Config()
        self.resolve_weights = resolve_weights
        """Maps the name of weights that a plugin provides to a local folder; other names are returned unchanged."""


class LoopOptions(Config):
    """How a part is trained by gradient descent. Heads, tokenizer and generator share these options."""

    epochs: int = Field(10, ge=0)
    """Passes over the training examples; 0 leaves the part as it was initialized."""
    batch_size: int = Field(128, ge=1)
    """Examples per step."""
    lr: float = Field(1e-3, gt=0)
    """Peak learning rate (AdamW)."""
    weight_decay: float = Field(0.01, ge=0)
    """Decoupled weight decay of matrices; vectors and norms are exempt."""
    warmup_fraction: float = Field(0.05, ge=0, lt=1)
    """Share of all steps in which the rate rises linearly from 0."""
    schedule: Literal["cosine", "linear", "constant"] = "cosine"
    """How the rate falls after the warm-up."""
    clip_norm: float = Field(1.0, ge=0)
    """Gradients are scaled down to this norm; 0 does not clip."""
    evaluate_every: int = Field(1, ge=1)
    """Epochs between two validations on the development split."""
    patience: int = Field(0, ge=0)
    """Validations without improvement after which training ends; 0: never early. The best weights are always kept."""
    bf16: bool | Literal["auto"] = "auto"
    """Mixed precision; auto: where the processor multiplies bfloat16 natively."""
