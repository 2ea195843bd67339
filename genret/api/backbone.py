"""A language model whose vocabulary contains the vokens of the identifiers."""

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
    """A language model whose vocabulary contains the vokens of the identifiers.

    `decode/` and the rank loss use only `prefill`, `step` and `score`. Tokens are ids of the model's vocabulary.
    The state is opaque: only the backbone reads it.
    """

    kind = "backbone"

    reads_features: ClassVar[bool] = False
    """Whether `feature_logits` and `caption_log_probs` are implemented."""
    has_query_vectors: ClassVar[bool] = False
    """Whether `query_vectors` is implemented."""
    is_concurrent: ClassVar[bool] = False
    """Whether `prefill` and `step` may run in several threads at once, each with a state of its own."""
    module: torch.nn.Module
    """The trainable model."""
    end_token: int
    vocab_size: int

    @abstractmethod
    def build(
        self, vokens: Vokens, code_vectors: Tensor | None, texts: Iterable[str], seed: int, feature_width: int = 0
    ) -> None:
        """Creates or loads the model and extends its vocabulary by the vokens of the scheme.

        `texts`: the training captions, for backbones that train their tokenizer. `feature_width`: D if the model must
        also read image vectors, else 0. It is above 0 only for backbones with `reads_features`.
        """

    @abstractmethod
    def tokens(self, identifiers: Identifiers) -> Tensor:
        """R identifiers → (R, L) int64 token ids, -1 after the end; no end symbol."""

    @abstractmethod
    def level_tokens(self, level: int) -> Tensor | None:
        """Sorted token ids that are valid at `level`: its vokens, and the end symbol if an identifier may end there.
        None if identifiers consist of ordinary tokens, and after the last level."""

    @abstractmethod
    def logits(self, queries: Sequence[str], targets: Tensor) -> Tensor:
        """Teacher forcing, differentiable: targets (B, L), -1 pads → (B, L, V)."""

    def level_logits(self, queries: Sequence[str], targets: Tensor, columns: Sequence[Tensor | None]) -> list[Tensor]:
        """`logits` of the tokens `columns[l]` alone at position l (None: all), (B, C_l) each.

        A model that computes only these trains faster; the default picks them.
        """
        logits = self.logits(queries, targets).unbind(1)
        return [here if own is None else here[:, own] for here, own in zip(logits, columns, strict=True)]

    def reads(self, query: str) -> bool:
        """Whether the model knows any word or part of the query; one that it cannot read finds arbitrary images."""
        return True

    @abstractmethod
    def prefill(self, queries: Sequence[str]) -> Any:
        """Encodes B queries once and returns the state that `step` continues from."""

    def query_vectors(self, state: Any) -> Tensor:
        """The state of `prefill`, before any step → (B, D_code) what the model reads each query as: what the vectors of
        the codes that it will write should add up to (`Identifier.code_vectors`). For self-guidance."""
        raise NotImplementedError("a backbone with has_query_vectors must implement this")

    @abstractmethod
    def step(self, state: Any, symbols: Tensor | None, parents: Tensor | None, columns: Tensor | None) -> Tensor:
        """Appends one token to every beam.

        symbols (B, b): the tokens written last, None at the first step (then b = 1). parents (B, b): the beam of the
        previous step that each beam continues. columns (C,): the tokens whose logits are returned, None for all.
        Returns (B, b, C) and advances `state` in place.
        """

    @abstractmethod
    def score(self, queries: Sequence[str], sequences: Tensor, columns: Sequence[Tensor | None]) -> Tensor:
        """sequences (B, b, L), -1 pads → log-probabilities (B, b, L), differentiable, 0 at pads.

        Position l is normalized over the tokens `columns[l]` (None: the whole vocabulary). Each query is encoded once.
        """

    def feature_logits(self, features: Tensor, targets: Tensor) -> Tensor:
        """`logits` with an image's vector (B, D) in place of the query: GRACE's image → identifier task."""
        raise NotImplementedError("a backbone with reads_features must implement this")

    def caption_log_probs(self, features: Tensor, captions: Sequence[str]) -> Tensor:
        """(B, D) image vectors and a caption each → (B,) log p(caption | image), differentiable (TIGeR's reverse)."""
        raise NotImplementedError("a backbone with reads_features must implement this")

    @abstractmethod
    def save(self, folder: Path) -> None:
        """Writes model and tokenizer in Hugging Face's `save_pretrained` layout."""

    @abstractmethod
    def load(self, folder: Path, vokens: Vokens) -> None:
        """Reads what `save` wrote."""
