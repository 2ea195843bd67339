"""Guidance: beams are drawn to where the query's own vector lies.

Where codes add up to an image's vector (residual quantization) and image and text share a space, a prefix is a point of
that space. The search then maximises log p(prefix | query) − γ/2 ‖z − ẑ_prefix‖²: what the language model makes of the
words, and how far what is written so far is from the vector that a two-tower search would use. The second term depends
on the prefix alone and is never above 0, so all beams of a depth stay comparable. Not in the paper, whose alignment
(Eqn. 6) makes it possible.

Does not know tries, models or what the codes mean.

    B queries   w beams   K codes of a level   D_code width of the code vectors
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from genret.interfaces import Additive


class Guide:
    """Of one batch of queries. It follows the beams: `gains` is asked once for each level, in order."""

    def __init__(self, sums: Additive, level_tokens: Sequence[Tensor | None], weight: float):
        """`level_tokens[d]`: the K tokens of level d in the order of its codes."""
        assert len(level_tokens) >= len(sums.books), "each level's codes have tokens"
        self.target, self.books, self.weight = sums.target, sums.books, weight
        self._tokens = level_tokens
        self._left = self.target[:, None]  # (B, w, D_code) what the codes so far have left over
        self._level = 0

    def start(self) -> Tensor:
        """(B, 1) the score of the empty prefix."""
        return -0.5 * self.weight * self.target.square().sum(-1, keepdim=True)

    def gains(self, symbols: Tensor | None, parents: Tensor | None) -> Tensor | None:
        """What each code of the next level adds to the score, (B, w, K); None once all levels are written.

        symbols (B, w) and parents (B, w) as `Backbone.step` is given them.
        """
        if self._level == len(self.books):
            return None
        if symbols is not None:
            assert parents is not None
            left = self._left.gather(1, parents[..., None].expand(-1, -1, self._left.shape[2]))
            self._left = left - self._vectors(self._level - 1, symbols)
        book = self.books[self._level]
        self._level += 1
        return self.weight * (self._left @ book.T - 0.5 * book.square().sum(-1))

    def totals(self, tokens: Tensor) -> Tensor:
        """Whole identifiers (B, A, L), -1 pads → (B, A): what guidance makes of each in the end."""
        left = self.target[:, None].expand(-1, tokens.shape[1], -1)
        for level in range(len(self.books)):
            left = left - self._vectors(level, tokens[:, :, level])
        return -0.5 * self.weight * left.square().sum(-1)

    def _vectors(self, level: int, symbols: Tensor) -> Tensor:
        """Tokens of `level`, any shape → (..., D_code); some vector for what is no such token."""
        tokens, book = self._tokens[level], self.books[level]
        assert tokens is not None and len(tokens) == len(book), f"level {level} has other tokens than codes"
        codes = torch.searchsorted(tokens.to(symbols), symbols.contiguous()).clamp_max(len(book) - 1)
        return book[codes]
