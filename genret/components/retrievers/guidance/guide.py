"""Guidance: adds the squared distance to the query's own vector to the beam scores.

If code vectors add up to an image's vector (residual quantization) and image and text share a space, every identifier
is a point ẑ of that space. The search then maximizes log p(identifier | query) − γ/2 ‖z − ẑ‖²: the language model's
score of the query, and the distance of the point to the vector that a two-tower search would use. A prefix of several
identifiers scores its own log-probability plus the second term of the mean of their points; a prefix of one is judged
by that one's own point. Not in the paper, whose alignment (Eqn. 6) makes it possible.

Only the beams' children are looked up, so that the cost is the same in any catalog: inner products of z with the
codebooks are tabulated once for each query (Jégou, Douze and Schmid, Product quantization for nearest neighbor search,
2011) and added up along the beams.

    B queries   w beams   c candidates of a beam   U leaves   M levels with vectors
"""

from __future__ import annotations

import torch
from torch import Tensor

from genret.components.retrievers.guidance.means import BOOK, Means, Points
from genret.decode.leaf_sets import LeafSets
from genret.decode.trie import take

FEW = 4
"""In a restricted search, of at most so many allowed identifiers below a prefix each is looked up."""


class FlatGuide:
    """The guidance terms of one batch of queries in one trie; a `genret.decode.guide.Guide`."""

    def __init__(self, target: Tensor, points: Points, weight: float, allowed: LeafSets | None = None):
        """target (B, D): what the code vectors of an image that the query means would add up to. `allowed`: as given to
        `beam_search`; of a few allowed identifiers below a prefix the nearest counts, not the mean of all."""
        self._points, self._target, self._weight = points, target, weight
        self._allowed = None if allowed is None else allowed.to(target.device)
        self._half = 0.5 * target.square().sum(1)  # (B,)
        self._products = [None if own is None else target @ own.T for own in points.vectors]  # (B, C_d) each
        later = [own for own in self._products[points.alone :] if own is not None]
        self._later = torch.cat(later, dim=1) if later else None  # (B, all columns of `tail`)
        sizes = torch.tensor([0, *(own.shape[1] for own in later)], device=target.device)
        self._starts = sizes.cumsum(0)[:-1]

    def extended(self, sums: Tensor, columns: Tensor | None, depth: int, count: int) -> Tensor:
        """Inner products of z with the sum of the prefix's code vectors: (B, w) → (B, w, c)."""
        products, sums = self._products[depth], sums[..., None].expand(*sums.shape, count)
        if products is None:
            return sums
        return sums + (products[:, None] if columns is None else _take(products, columns))

    def of(self, sums: Tensor, nodes: Tensor, depth: int) -> Tensor:
        """(B, w, c) −γ/2 ‖z − ẑ‖² of the one identifier below each node, or of the mean of several; at most 0."""
        points, nodes = self._points, nodes.clamp_min(0)
        near = sums + self._of_first(nodes, depth)
        means = points.means[depth - 1] if depth < points.alone else None
        if means is not None:
            rows, several = means.several.rows(nodes)
            near = torch.where(several, sums + self._of_mean(means, rows.masked_fill(~several, 0)), near)
            if self._allowed is not None:
                near = self._with_few(near, nodes, depth, several, self._allowed)
        half = self._half.view(-1, *[1] * (near.ndim - 1))
        return ((near - half) * self._weight).clamp_max_(0.0)  # rounding can make a distance of 0 negative

    def of_leaves(self, leaves: Tensor) -> Tensor:
        """leaves (B, n) → (B, n) −γ/2 ‖z − ẑ‖² of each; arbitrary where a leaf is -1."""
        there = leaves.clamp_min(0)
        found = self._points.points_of(there.flatten()).view(*leaves.shape, -1)  # (B, n, D)
        return (found - self._target[:, None]).square().sum(-1).mul(-0.5 * self._weight)

    def _of_first(self, nodes: Tensor, depth: int) -> Tensor:
        """(B, w, c) z · (what the later codes of the first leaf below add) − ½ ‖its point‖²."""
        points, added = self._points, torch.zeros(nodes.shape, device=nodes.device)
        for d in range(depth, points.alone):  # down to where nodes are leaves
            level, products = points.trie.levels[d], self._products[d]
            nodes = take(level.offsets, nodes)
            if products is not None:
                added = added + _take(products, take(level.symbols, nodes).long())
        if points.tail is not None and self._later is not None:
            place = max(0, depth - points.alone)
            later = points.tail.index_select(0, nodes.flatten())[:, place:]
            places = later.view(*nodes.shape, -1).long() + self._starts[place:]
            added = added + _take(self._later, places).sum(-1)
        return added - take(points.half_squares, nodes)

    def _with_few(self, near: Tensor, nodes: Tensor, depth: int, several: Tensor, allowed: LeafSets) -> Tensor:
        """near (B, w, c), exact for nodes of several leaves of which 1 .. FEW are allowed."""
        trie = self._points.trie
        ends = torch.stack(trie.leaf_range(nodes, depth), dim=1)  # (B, 2, w, c)
        before = allowed.count_before(ends.flatten(1)).view(ends.shape)
        first, count = before[:, 0], before[:, 1] - before[:, 0]
        few = several & (count > 0) & (count <= FEW)
        query = few.nonzero()[:, 0]
        best = near.new_full((len(query),), -torch.inf)
        for place in range(FEW):
            leaves = allowed.at(query, first[few] + torch.minimum(count[few] - 1, count.new_tensor(place)))
            found = self._points.columns_of(leaves)
            own = -take(self._points.half_squares, leaves)
            for products, columns in zip(self._products, found, strict=True):
                if products is not None:
                    own = own + products[query, columns]
            best = torch.maximum(best, own)
        return near.masked_scatter(few, best)

    def _of_mean(self, means: Means, rows: Tensor) -> Tensor:
        """(B, w, c) z · (what the mean adds to the prefix) − ½ ‖the mean‖² of these rows."""
        products = self._target @ means.vectors.flatten(0, -2).T  # (B, n), or (B, STAGES · BOOK)
        if means.codes is None:
            added = _take(products, rows.long())
        else:
            stages = torch.arange(means.codes.shape[1], device=rows.device) * BOOK
            places = means.codes.index_select(0, rows.flatten()).view(*rows.shape, -1).long() + stages
            added = _take(products, places).sum(-1)
        return added - take(means.half_squares, rows)


def _take(table: Tensor, places: Tensor) -> Tensor:
    """table (B, n) at places (B, ...) → (B, ...)"""
    return table.gather(1, places.flatten(1)).view(places.shape)
