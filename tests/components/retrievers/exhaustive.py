"""Guidance with nothing left out, the oracle of tests: each prefix is judged by the nearest identifier below it.

B queries   U leaves   M levels with vectors   D_code width of the code vectors
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from genret.api import Additive
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import Trie, take

CHUNK = 16_384
"""Number of leaves whose points are computed at a time."""


class AllPoints(NamedTuple):
    """The points of a trie's identifiers; computed once per trie."""

    codes: Tensor
    """(M, U) int32"""
    half_squares: Tensor
    """(U,) ½ ‖ẑ‖²"""

    @classmethod
    def of(cls, trie: Trie, books: Sequence[Tensor], level_tokens: Sequence[Tensor | None]) -> AllPoints:
        """books: per level (K, D_code), of which `level_tokens[d]` are the tokens, in the same order."""
        assert trie.depth >= len(books), "each level's codes have tokens"
        codes = torch.empty(len(books), trie.num_leaves, dtype=torch.int32, device=trie.device)
        half_squares = torch.empty(trie.num_leaves, device=trie.device)
        for leaves in torch.arange(trie.num_leaves, device=trie.device).split(CHUNK):
            written = trie.tokens_of(leaves)
            points = torch.zeros(len(leaves), books[0].shape[1], device=trie.device)
            for d, book in enumerate(books):
                tokens = level_tokens[d]
                assert tokens is not None and len(tokens) == len(book), f"level {d} has other tokens than codes"
                codes[d, leaves] = torch.searchsorted(tokens.to(written), written[:, d].contiguous(), out_int32=True)
                points += book[codes[d, leaves].long()]
            half_squares[leaves] = 0.5 * points.square().sum(1)
        return cls(codes, half_squares)


class ExhaustiveGuide:
    """The guidance terms of one batch of queries in one trie."""

    def __init__(self, sums: Additive, points: AllPoints, trie: Trie, weight: float, allowed: LeafSets | None = None):
        """`allowed`: as given to `beam_search`; all other leaves get -inf."""
        near = sums.target.square().sum(1).mul(-0.5) - points.half_squares[:, None]  # (U, B)
        for codes, book in zip(points.codes, sums.books, strict=True):
            near += (book @ sums.target.T).index_select(0, codes)
        near *= weight
        if allowed is not None:
            leaves = torch.arange(trie.num_leaves + 1, dtype=torch.int32, device=trie.device)
            counts = allowed.to(trie.device).count_before(leaves.expand(len(sums.target), -1))
            near.masked_fill_(counts.diff().T == 0, -torch.inf)
        self._best = [near.clamp_max_(0.0)]  # rounding can make a distance of 0 negative
        for d in reversed(range(1, trie.depth)):
            below, children = self._best[0], trie.levels[d].offsets.diff().long()
            alone = len(children) == len(below)  # each node has one child with the same index
            self._best.insert(0, below if alone else torch.segment_reduce(below, "max", lengths=children, unsafe=True))

    def extended(self, sums: Tensor, columns: Tensor | None, depth: int, count: int) -> Tensor:
        return sums[..., None].expand(*sums.shape, count)

    def of(self, sums: Tensor, nodes: Tensor, depth: int) -> Tensor:
        """nodes (B, ...) of `depth` (1 .. L) → (B, ...) −γ/2 ‖z − ẑ‖² of the nearest identifier below each, at most 0;
        -inf if none is allowed; arbitrary where a node is -1.
        """
        best = self._best[depth - 1]
        queries = torch.arange(len(nodes), device=nodes.device).view(-1, *[1] * (nodes.ndim - 1))
        return take(best.view(-1), nodes.clamp_min(0).long() * best.shape[1] + queries)
