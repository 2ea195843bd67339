"""New rows in a T5's vocabulary: embedding and head grow together, and stay tied or untied as they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn


def untied(model: Any) -> bool:
    """Whether the head has weights of its own (T5 v1.1, flan-T5)."""
    return bool(model.lm_head.weight.data_ptr() != model.shared.weight.data_ptr())


def untie(model: Any, head: Tensor) -> None:
    """Gives the head these weights of its own."""
    model.lm_head.weight = nn.Parameter(head.clone().to(model.shared.weight))


def grow(model: Any, count: int) -> None:
    """Adds `count` rows to the embedding and to the head, and keeps an untied head untied."""
    was_untied, head = untied(model), model.lm_head.weight.detach().clone()
    before = model.shared.num_embeddings
    model.resize_token_embeddings(before + count, mean_resizing=False)
    if was_untied:
        fresh = torch.randn(count, head.shape[1]) * head.square().mean().sqrt()
        untie(model, torch.cat([head, fresh.to(head)]))


def copy_code_vectors(model: Any, first: int, vectors: Tensor, sizes: Sequence[int]) -> None:
    """Copies vectors (S, D_code) into the rows from `first` on, scaled to the old rows' size so that neither drowns the
    other; `sizes`: how many belong together."""
    assert first + len(vectors) == model.shared.num_embeddings
    with torch.no_grad():
        for table in {id(t): t for t in (model.shared.weight, model.lm_head.weight)}.values():
            old, width = table[:first], table.shape[1]
            rows = vectors.to(table)
            if rows.shape[1] != width:
                rows = rows @ _projection(rows.shape[1], width).to(table)
            # each level by itself: deeper codes are shorter, and would start as near-zero rows
            scaled = [part / part.square().mean().sqrt().clamp_min(1e-8) for part in rows.split(list(sizes))]
            table[first:] = torch.cat(scaled) * old.square().mean().sqrt()


def _projection(rows: int, columns: int) -> Tensor:
    """A fixed random map that keeps angles: orthonormal rows (or columns)."""
    generator = torch.Generator().manual_seed(0)
    square = torch.randn(max(rows, columns), min(rows, columns), generator=generator)
    basis = torch.linalg.qr(square).Q
    return basis if rows >= columns else basis.T
