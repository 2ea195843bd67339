"""Hierarchical k-means: a tree of clusters within clusters.

N points   D width   T nodes, the root first   C children at most   H depth: edges from the root to the deepest leaf
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from genret.components.quantize.kmeans import BLOCK, kmeans, nearest


class Tree(NamedTuple):
    """Nodes are numbered level by level, so that a node's children are consecutive and come after it."""

    centroids: Tensor
    """(T, D)"""
    first: Tensor
    """(T,) int64, each node's first child; undefined for leaves"""
    fan: Tensor
    """(T,) int64, the number of children of each node; 0 for leaves"""
    depth: int
    """H"""

    def child(self, nodes: Tensor, codes: Tensor) -> Tensor:
        """nodes (n,), codes (n,) → (n,) the children with these codes, or -1; a leaf is its own child 0."""
        inner = self.fan[nodes] > 0
        there = (nodes >= 0) & (codes >= 0) & (codes < self.fan[nodes].clamp_min(1))
        return torch.where(there, torch.where(inner, self.first[nodes] + codes, nodes), -1)

    def distances(self, x: Tensor, nodes: Tensor) -> Tensor:
        """x (n, D), nodes (n,) → (n, C) ‖x − c‖² to each child's centroid, inf for missing children. A leaf is its own
        only child, at distance 0."""
        place = torch.arange(max(1, int(self.fan.max())))
        rows = max(1, BLOCK // (len(place) * x.shape[1]))
        parts = []
        for points, parents in zip(x.split(rows), nodes.split(rows), strict=True):
            there = place < self.fan[parents, None]
            children = (self.first[parents, None] + place).masked_fill(~there, 0)
            found = (points[:, None] - self.centroids[children]).square().sum(-1).masked_fill(~there, torch.inf)
            parts.append(torch.where((self.fan[parents, None] == 0) & (place == 0), 0.0, found))
        return torch.cat(parts) if parts else x.new_zeros(0, len(place))

    def leaf(self, paths: Tensor) -> Tensor:
        """paths (n, H) → (n,) the leaves that they lead to, -1 for invalid paths."""
        nodes = torch.zeros(len(paths), dtype=torch.int64)
        for codes in paths.unbind(1):
            nodes = self.child(nodes, codes)
        return nodes

    def descend(self, x: Tensor) -> Tensor:
        """x (n, D) → paths (n, H): the nearest centroid at every node; padded with 0 below a leaf."""
        nodes, paths = torch.zeros(len(x), dtype=torch.int64), []
        for _ in range(self.depth):
            paths.append(self.distances(x, nodes).argmin(1))
            nodes = self.child(nodes, paths[-1])
        return torch.stack(paths, 1) if paths else torch.zeros(len(x), 0, dtype=torch.int64)

    def paths(self) -> tuple[Tensor, Tensor]:
        """All leaves (U,) and the path to each (U, H), in the order of the paths."""
        nodes, paths = torch.zeros(1, dtype=torch.int64), torch.zeros(1, 0, dtype=torch.int64)
        for _ in range(self.depth):
            ways = self.fan[nodes].clamp_min(1)
            rows = torch.repeat_interleave(torch.arange(len(nodes)), ways)
            codes = torch.arange(len(rows)) - (ways.cumsum(0) - ways)[rows]
            nodes, paths = self.child(nodes[rows], codes), torch.cat([paths[rows], codes[:, None]], 1)
        return nodes, paths


class Grown(NamedTuple):
    tree: Tree
    leaves: Tensor
    """(N,) the leaf of each point"""


@torch.no_grad()
def grow(x: Tensor, branching: int, leaf_size: int, iters: int, generator: torch.Generator) -> Grown:
    """x (N, D) → a tree whose leaves hold at most `leaf_size` points each, unless the points are indistinguishable.

    A node with more points is split by k-means into `branching` clusters, level after level, without recursion; empty
    clusters are dropped. If a split leaves all points together (they are equal, or nearly), the node is a leaf.
    """
    assert len(x) and branching >= 2 and leaf_size >= 1
    x = x.float()
    centroids, first, fan = [x.mean(0)], [0], [0]
    leaves = torch.zeros(len(x), dtype=torch.int64)
    open_nodes, depth = [(0, torch.arange(len(x)))], 0
    while open_nodes:
        split = []
        for node, members in open_nodes:
            if len(members) <= leaf_size:
                continue
            points = x[members]
            books = kmeans(points, min(branching, len(members)), iters, generator)
            used, codes = nearest(points, books).unique(return_inverse=True)
            if len(used) == 1:
                continue
            first[node], fan[node] = len(centroids), len(used)
            for code, cluster in enumerate(used.tolist()):
                inside = members[codes == code]
                leaves[inside] = len(centroids)
                split.append((len(centroids), inside))
                centroids.append(books[cluster])
                first.append(0)
                fan.append(0)
        open_nodes = split
        depth += bool(split)
    return Grown(Tree(torch.stack(centroids), torch.tensor(first), torch.tensor(fan), depth), leaves)
