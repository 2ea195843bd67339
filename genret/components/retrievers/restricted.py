"""Which leaves of an image trie a restricted search may reach.

U leaves
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from genret.kit.arrays import Ints
from genret.search.image_trie import ImageTrie
from genret.search.ranking import Ranked
from genret.search.restrict import Allowed


def leaves_for_each(index: ImageTrie, allowed: Sequence[Allowed]) -> list[NDArray[np.bool_]] | None:
    """The leaves (U,) that each query may reach, the same object for equal restrictions; None: no restrictions."""
    distinct = {id(one): one for one in allowed}
    if all(one.everything for one in distinct.values()):
        return None
    leaves = {name: leaves_for(index, one) for name, one in distinct.items()}
    return [leaves[id(one)] for one in allowed]


def leaves_for(index: ImageTrie, allowed: Allowed) -> NDArray[np.bool_]:
    """(U,) the leaves that lead to an allowed image, without those that share a prefix with a rejected image."""
    leaves = index.leaf_images.any_of_leaf(allowed.among(index.leaf_images.images))
    if len(allowed.unlike):
        rejected = np.flatnonzero(Allowed(only=allowed.unlike).among(index.leaf_images.images))
        for low, high in alike(index, index.leaf_images.leaves_at(rejected), allowed.unlike_symbols):
            leaves[low:high] = False
    return leaves


def alike(index: ImageTrie, leaves: Ints, num_symbols: int) -> list[tuple[int, int]]:
    """The ranges of leaves that share their first `num_symbols` tokens, or all if fewer, with one of these."""
    depth = min(num_symbols, index.trie.depth)
    nodes = index.trie.prefixes_of(torch.from_numpy(leaves).to(index.trie.device), depth).unique()
    low, high = index.trie.leaf_range(nodes, depth)
    return list(zip(low.tolist(), high.tolist(), strict=True))


def num_images(index: ImageTrie, allowed: Allowed, leaves: NDArray[np.bool_] | None) -> int:
    """Number of allowed images that the given leaves (U,), or all, lead to."""
    starts, images = index.leaf_images
    reached = allowed.among(images)
    if leaves is not None:
        reached &= np.repeat(leaves, np.diff(starts))
    return len(np.unique(images[reached]))


def fewer_than(ranked: Ranked, counts: Ints) -> Ints:
    """The queries that have found fewer images than `counts` (B,)."""
    return np.flatnonzero((ranked.images >= 0).sum(axis=1) < counts)


def only_allowed(ranked: Ranked, allowed: Sequence[Allowed]) -> Ranked:
    """Drops images that are not allowed but share an identifier with an allowed one."""
    keep = np.stack([one.among(row) for one, row in zip(allowed, ranked.images, strict=True)])
    order = np.argsort(~keep, axis=1, kind="stable")
    images = np.where(keep, ranked.images, -1)
    scores = np.where(keep, ranked.scores, -np.inf).astype(np.float32)
    return Ranked(*(np.take_along_axis(table, order, axis=1) for table in (images, scores, ranked.leaves)))
