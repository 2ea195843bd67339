"""A language model whose vocabulary holds the identifiers' symbols."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from genret.api.component import Component
from genret.api.identifier import Identifiers, Vokens

if TYPE_CHECKING:
    import torch
    from torch import Tensor


class Backbone(Component, ABC):
    """A language model whose vocabulary holds the identifiers' symbols.

    `decode/` and the rank loss use `prefill`, `step` and `score` and nothing else. Tokens are ids of the model's
    vocabulary. State is opaque: only the backbone looks inside.
    """

    kind = "backbone"

    reads_features: ClassVar[bool] = False
    """Whether `feature_logits` and `caption_log_probs` answer."""
    module: torch.nn.Module
    """The trainable model."""
    end_token: int
    vocab_size: int

    @abstractmethod
    def build(
        self, vokens: Vokens, code_vectors: Tensor | None, texts: Iterable[str], seed: int, feature_width: int = 0
    ) -> None:
        """Makes or loads the model and grows its vocabulary by the scheme's symbols.

        `texts`: the training captions, for backbones that train their tokenizer. `feature_width`: D where the model is
        to read image vectors as well, else 0; asked only of backbones that say `reads_features`.
        """

    @abstractmethod
    def tokens(self, identifiers: Identifiers) -> Tensor:
        """R identifiers → (R, L) int64 token ids, -1 after the end; no end symbol."""

    @abstractmethod
    def level_tokens(self, level: int) -> Tensor | None:
        """Token ids that may stand at `level`, sorted: its symbols, and the end symbol where an identifier may be over.
        None where identifiers are made of ordinary tokens, and after the last level."""

    @abstractmethod
    def logits(self, queries: Sequence[str], targets: Tensor) -> Tensor:
        """Teacher forcing, differentiable: targets (B, L), -1 pads → (B, L, V)."""

    @abstractmethod
    def prefill(self, queries: Sequence[str]) -> Any:
        """Reads B queries once and returns the state that `step` continues from."""

    @abstractmethod
    def step(self, state: Any, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None) -> Tensor:
        """One more token for every beam.

        symbols (B, b): the tokens written last, None at the first step (then b = 1); parents (B, b): the beam of the
        previous step that each continues; columns (C,): the tokens whose logits are wanted, None for all.
        Returns (B, b, C) and advances `state` in place.
        """

    @abstractmethod
    def score(self, queries: Sequence[str], sequences: Tensor, columns: Sequence[Tensor | None]) -> Tensor:
        """sequences (B, b, L), -1 pads → log-probabilities (B, b, L), differentiable, 0 at pads.

        Position l is normalized over the tokens `columns[l]` (None: the whole vocabulary); each query is encoded once.
        """

    def feature_logits(self, features: Tensor, targets: Tensor) -> Tensor:
        """`logits` with an image's vector (B, D) in the place of the query: GRACE's image → identifier task."""
        raise NotImplementedError("a backbone that reads features says how")

    def caption_log_probs(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """(B, D) image vectors and a caption each → (B,) log p(caption | image), differentiable (TIGeR's reverse)."""
        raise NotImplementedError("a backbone that reads features says how")

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes model and tokenizer in Hugging Face's `save_pretrained` layout."""

    @abstractmethod
    def load(self, folder: Path, vokens: Vokens) -> None:
        """Reads what `save` wrote."""
