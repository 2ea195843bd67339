"""Extends a language model's vocabulary by vokens: token ids, initialization of new rows, scores of sequences.

The model's own tokens keep their ids; the vokens follow them, in the order of `Vokens`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor, nn

from genret.api import Identifiers, Vokens
from genret.components.backbones.tokenizers import cut_texts
from genret.errors import UsageError


class Vocabulary(NamedTuple):
    tokenizer: Any
    vokens: Vokens
    first: int
    """Token id of voken 0: the size of the model's own vocabulary."""

    @property
    def end_token(self) -> int:
        return int(self.tokenizer.eos_token_id)

    def tokens(self, identifiers: Identifiers) -> Tensor:
        """See `Backbone.tokens`."""
        if identifiers.codes is not None:
            offsets = torch.tensor([self.vokens.offset(level) for level in range(identifiers.codes.shape[1])])
            ids = identifiers.codes + offsets.to(identifiers.codes) + self.first
            return ids.masked_fill(identifiers.codes < 0, -1)
        assert identifiers.texts is not None
        return cut_texts(self.tokenizer, identifiers.texts)

    def level_tokens(self, level: int, device: torch.device) -> Tensor | None:
        """See `Backbone.level_tokens`."""
        if level >= len(self.vokens.sizes):
            return None
        first = self.first + self.vokens.offset(level)
        symbols = torch.arange(first, first + self.vokens.sizes[level], device=device)
        if self.vokens.variable and level > 0:
            return torch.cat([symbols, symbols.new_tensor([self.end_token])]).sort().values
        return symbols

    def copy_code_vectors(self, model: Any, code_vectors: Tensor) -> None:
        """Copies the code vectors (S, D) into the new rows of embedding and head (paper 3.2), scaled to the norm of the
        old rows; through a fixed rotation where the widths differ."""
        assert len(code_vectors) == self.vokens.num_symbols
        # each level separately: vectors of deeper levels are shorter and would start near zero
        sizes = (self.vokens.num_symbols,) if self.vokens.shared else self.vokens.sizes
        with torch.no_grad():
            for table in tables(model):
                rows = code_vectors.to(table)
                if rows.shape[1] != table.shape[1]:
                    rows = rows @ _projection(rows.shape[1], table.shape[1]).to(table)
                scaled = [part / _size(part) for part in rows.split(sizes)]
                table[self.first :] = torch.cat(scaled) * _size(table[: self.first])


def tables(model: Any) -> list[Tensor]:
    """The weights (V, W) of a transformers model's embedding and output head: one if they are tied, else two."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return [embedding, head] if untied(model) else [embedding]


def untied(model: Any) -> bool:
    """Whether the head has weights of its own (T5 v1.1, flan-T5, mT5, LLaMA)."""
    embedding, head = model.get_input_embeddings().weight, model.get_output_embeddings().weight
    return bool(embedding.data_ptr() != head.data_ptr())


def untie(model: Any, weights: Tensor) -> None:
    """Gives the head its own weights (V, W)."""
    model.get_output_embeddings().weight = nn.Parameter(weights.clone().to(model.get_input_embeddings().weight))


def grow(model: Any, count: int) -> None:
    """Adds `count` rows to embedding and head, random and scaled like the old rows; they stay tied or untied."""
    before, was_untied = tables(model), untied(model)
    sizes = [_size(table).item() for table in before]
    head = before[-1].detach().clone()
    first = model.get_input_embeddings().num_embeddings
    model.resize_token_embeddings(first + count, mean_resizing=False)
    if was_untied:  # transformers 5 ties T5 unless told otherwise
        untie(model, torch.cat([head, head.new_empty(count, head.shape[1])]))
    with torch.no_grad():
        for table, size in zip(tables(model), sizes, strict=True):
            table[first:] = torch.randn(count, table.shape[1]) * size


def wants_copy(option: bool | Literal["auto"], code_vectors: Tensor | None) -> bool:
    """Resolves `copy_code_vectors`; `UsageError` if it is true and there are no code vectors."""
    if option is True and code_vectors is None:
        raise UsageError(
            "backbone.copy_code_vectors is true, but this identifier has no code vectors; set it to auto or false"
        )
    return code_vectors is not None and option is not False


def sequence_log_probs(
    hidden: Tensor,
    sequences: Tensor,
    columns: Sequence[Tensor | None],
    head: Callable[[Tensor, Tensor | None], Tensor],
) -> Tensor:
    """hidden (B, b, L, W) before each token of sequences (B, b, L), -1 pads → `Backbone.score`.

    `head(hidden, columns)` gives the logits of some tokens (None: all).
    """
    scores = []
    for position, wanted in enumerate(columns):
        target = sequences[:, :, position]
        index = target.clamp_min(0) if wanted is None else torch.searchsorted(wanted, target.clamp_min(0))
        log_probs = head(hidden[:, :, position], wanted).float().log_softmax(dim=-1)
        index = index.clamp_max(log_probs.shape[-1] - 1)
        scores.append(log_probs.gather(2, index[..., None])[..., 0].masked_fill(target < 0, 0.0))
    return torch.stack(scores, dim=-1)


def _size(rows: Tensor) -> Tensor:
    return rows.square().mean().sqrt().clamp_min(1e-8)


def _projection(rows: int, columns: int) -> Tensor:
    """A fixed random map that keeps angles: orthonormal rows (or columns)."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    basis = torch.linalg.qr(square).Q
    return basis if rows >= columns else basis.T
