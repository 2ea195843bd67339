"""A trie of some images' identifiers, with the mapping from its leaves to the images.

Independent of catalogs, backbones and queries: built from tokens and integer keys, it returns leaves. It is never
changed in place, so that a running search keeps a consistent state.

    R identifiers   L tokens   U leaves   n new identifiers
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from genret.api import Backbone, Identifiers
from genret.decode.trie import Trie
from genret.kit.arrays import Ints
from genret.search.ranking import LeafImages
from genret.search.restrict import Allowed
from genret.search.tokenization import tokenize_identifiers


class ImageTrie(NamedTuple):
    """Leaves are distinct identifiers; each leads to at least one image, and an image may have several.

    T5's or LLaMA's tokens of four codes out of 1,024 take about 17 bytes per identifier.
    """

    trie: Trie
    """After changes it no longer holds the rows that it was built from: `leaf_images` has their images."""
    leaf_images: LeafImages

    @classmethod
    def build(cls, tokens: Tensor, images: NDArray[np.integer]) -> ImageTrie:
        """tokens (R, L) of any integer type, -1 after the end, and the image of each row (R,)."""
        trie = Trie.build(tokens)
        leaf_images = LeafImages.build(trie.leaf_of_row.cpu().numpy(), images, trie.num_leaves)
        return cls(trie, leaf_images)

    def rowless(self) -> ImageTrie:
        """The same in less memory."""
        return self._replace(trie=_rowless(self.trie))

    @property
    def nbytes(self) -> int:
        return self.trie.nbytes + sum(table.nbytes for table in self.leaf_images)

    def to(self, device: torch.device) -> ImageTrie:
        """Moves the trie to `device`; the image lookup stays on the CPU."""
        return self if self.trie.device == device else self._replace(trie=self.trie.to(device))

    # -------------------------------------------------------------------------------------------------- changing
    def without(self, removed: Ints) -> ImageTrie:
        """Without the images of these keys (ascending), in one pass, and without identifiers of no other image."""
        keep = ~Allowed(only=removed).among(self.leaf_images.images)
        if keep.all():
            return self
        left = self.leaf_images.any_of_leaf(keep)
        trie = self.trie if left.all() else _rowless(_by_leaf(self.trie).without(torch.from_numpy(~left)))
        return ImageTrie(trie, self.leaf_images.kept(keep))

    def extended(self, tokens: Tensor, images: Ints) -> ImageTrie:
        """With n more identifiers (n, L') and their images (n,), in the time of sorting these and copying the rest."""
        if not len(tokens):
            return self
        trie = _by_leaf(self.trie).extended(tokens)
        leaves = trie.leaf_of_row.cpu().numpy().astype(np.int64)
        moved, new = leaves[: self.trie.num_leaves], leaves[self.trie.num_leaves :]
        return ImageTrie(_rowless(trie), self.leaf_images.joined(moved, new, images, trie.num_leaves))


def index_trie(backbone: Backbone, identifiers: Identifiers, images: Ints, end_symbol: bool) -> ImageTrie:
    """identifiers: R rows whose owners index `images` (N,) → their trie, with the values of `images` at the leaves."""
    tokens = tokenize_identifiers(backbone, identifiers, end_symbol)
    indexed = ImageTrie.build(tokens, images[identifiers.owners.numpy()])
    return indexed.to(next(backbone.module.parameters()).device)


def _rowless(trie: Trie) -> Trie:
    return Trie(trie.levels, trie.leaf_of_row[:0].clone(), trie.max_children)


def _by_leaf(trie: Trie) -> Trie:
    """The leaf of each row that it was built from."""
    return Trie(trie.levels, torch.arange(trie.num_leaves, dtype=torch.int32, device=trie.device), trie.max_children)
