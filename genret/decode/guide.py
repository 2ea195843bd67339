"""What counts for a prefix besides log-probabilities, such as the distance to the query's own vector.

B queries   w beams   c candidates of a beam
"""

from __future__ import annotations

from typing import Protocol

from torch import Tensor


class Guide(Protocol):
    """Made for one batch of queries and one trie. A beam search holds its `sums`, so a guide is never changed."""

    def extended(self, sums: Tensor, columns: Tensor | None, depth: int, count: int) -> Tensor:
        """What the guide carries along a prefix. sums (B, w) of the beams, 0 at the root → (B, w, c) of their `count`
        = c candidates: `columns` (B, w, c) of the trie's level `depth`, None for all columns in order."""
        ...

    def of(self, sums: Tensor, nodes: Tensor, depth: int) -> Tensor:
        """(B, w, c) added to the log-probabilities of `nodes` (B, w, c) of `depth` (1 .. L), at most 0; arbitrary where
        a node is -1. `sums`: their own."""
        ...
