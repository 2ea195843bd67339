"""A decoder that knows what its codes stand for: its logits begin as a residual quantizer's own soft choice.

The frozen reader's states become a vector u in the space of the code vectors, of learned length (where its length is
free, distillation is slow to find its direction). After the codes k₁ … k_{m-1}, code k of level m gets

    s_m · [(u − Σ_{j<m} e_{k_j}) · e_k − ½ ‖e_k‖²] + g_m · (the language model's logit)

which is, but for a term that all codes share, −s_m/2 ‖u − Σ e − e_k‖²: the closer the code brings the sum to u, the
higher. The gates g start at 0. What distillation teaches otherwise code by code is then one vector, and it holds for
deep levels and rare prefixes as well. Not in the paper. Unlike guidance it needs no vector of the query's from outside.

    B queries   S word pieces   W width of their states   D width of the code vectors   V tokens   M levels
"""

from __future__ import annotations

from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor, nn

SCALE = 20.0
"""Initial s_m for vectors of unit length: the inverse of a usual temperature."""


class CodeHead(nn.Module):
    """Reads a query's vector and turns what is left of it into logits."""

    vectors: Tensor
    """(V, D) of each token, 0 for those that are no codes"""

    def __init__(self, width: int, vectors: Tensor, num_levels: int, hidden: int, dropout: float):
        super().__init__()
        self.register_buffer("vectors", vectors.detach().float().clone())
        self.norm = nn.LayerNorm(width)
        self.linear = nn.Linear(width, vectors.shape[1])
        layers = [nn.Linear(width, hidden), nn.GELU(), nn.Dropout(dropout), nn.Linear(hidden, vectors.shape[1])]
        self.mlp = nn.Sequential(*layers)
        self.log_length = nn.Parameter(torch.zeros(()))
        self.log_scale = nn.Parameter(torch.zeros(num_levels))
        self.gate = nn.Parameter(torch.zeros(num_levels))

    @classmethod
    def of(cls, width: int, first: int, code_vectors: Tensor, sizes: tuple[int, ...], hidden: int, drop: float) -> Self:
        """code_vectors (S, D) of the tokens from `first` on, `sizes` of them at each level."""
        vectors = torch.cat([code_vectors.new_zeros(first, code_vectors.shape[1]), code_vectors])
        head = cls(width, vectors, len(sizes) + 1, hidden, drop)  # one level more: an end or extra symbol
        levels = [code_vectors] if len(code_vectors) < sum(sizes) else code_vectors.split(sizes)  # shared: one book
        energy = sum(float(level.square().sum(1).mean()) for level in levels)
        nn.init.constant_(head.log_scale, float(torch.tensor(SCALE / max(energy, 1e-8)).log()))
        return head

    @classmethod
    def load(cls, tensors: dict[str, Tensor], facts: dict[str, Any]) -> Self:
        head = cls(len(tensors["norm.weight"]), tensors["vectors"], len(tensors["gate"]), int(facts["hidden"]), 0.0)
        head.load_state_dict(tensors)
        return head

    def read(self, states: Tensor, mask: Tensor) -> Tensor:
        """states (B, S, W), mask (B, S) → u (B, D)"""
        with torch.autocast(states.device.type, enabled=False):
            real = mask[..., None].float()
            pooled = self.norm((states.float() * real).sum(1) / real.sum(1).clamp_min(1))
            return F.normalize(self.linear(pooled) + self.mlp(pooled), dim=-1) * self.log_length.exp()

    def left(self, read: Tensor, tokens: Tensor) -> Tensor:
        """What is left of u (B, D) before each token of (B, b, L), -1 pads → (B, b, L, D)"""
        written = F.pad(self.vectors[tokens[..., :-1].clamp_min(0)].cumsum(-2), (0, 0, 1, 0))
        return read[:, None, None] - written

    def joined(self, hidden: Tensor, left: Tensor, first: int = 0) -> Tensor:
        """hidden (B, b, T, W) of the decoder and left (B, b, T, D), at levels from `first` on → what `logits` reads."""
        level = torch.arange(first, first + hidden.shape[2], device=hidden.device).clamp_max(len(self.gate) - 1)
        gate, scale = self.gate[level, None], self.log_scale[level, None].exp()
        return torch.cat([gate * hidden.float(), scale * left, scale.expand(*left.shape[:-1], 1)], dim=-1)

    def logits(self, joined: Tensor, columns: Tensor | None) -> Tensor:
        """The codes' share (..., C) in the logits of `columns`; joined (..., D + 1), without the decoder's part."""
        with torch.autocast(joined.device.type, enabled=False):
            vectors = self.vectors if columns is None else self.vectors[columns]
            return joined.float() @ torch.cat([vectors, -0.5 * vectors.square().sum(1, keepdim=True)], dim=1).T
